//! A node's TLS and revocations: which statements it accepts, and which certificates it refuses.

use std::sync::Arc;

use super::{
    certificate::CertificateSummary,
    config::Tls,
    revoked::{seconds, verify},
};
use crate::protocol::{
    id::NodeId,
    revocation::{Authorities, Revocation, RevocationError, Revocations},
};

#[doc(hidden)]
impl Tls {
    /// Refuses the certificates that these cover in all handshakes from now on. Open connections stay
    /// open: see [`Tls::is_revoked`].
    pub fn revoke(&self, revocations: Arc<Revocations>) {
        self.shared.load().revoked.store(revocations);
    }

    /// Whether a certificate of this node was revoked.
    #[must_use]
    pub fn is_revoked(&self, node: &NodeId, certificate: &CertificateSummary) -> bool {
        self.shared.load().revoked.load().revokes(node, seconds(certificate.not_before))
    }
}

#[doc(hidden)]
impl Authorities for Tls {
    fn verify(&self, statement: &Revocation) -> Result<(), RevocationError> {
        let state = self.shared.load();
        verify(state.chains.roots().keys(), &state.identity.name().cluster, statement)
    }

    fn valid_from(&self) -> Option<u64> {
        Some(seconds(self.shared.load().identity.certificate().not_before))
    }

    fn enforce(&self, revocations: &Arc<Revocations>) {
        self.revoke(Arc::clone(revocations));
    }
}
