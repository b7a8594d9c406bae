//! The TLS of a client that calls services: its certificate and the nodes that it accepts, replaceable while it runs.

use std::{fmt, sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use rustls::pki_types::CertificateDer;

use super::{
    certificate::CertificateSummary,
    files::LoadError,
    name::{NameError, PeerName},
    naming::Naming,
    provider::SERVICES_ALPN,
    refusal::Verdict,
    roots::{Chains, Roots},
    visit::{ClientIdentity, Host, HostVerifier, visitor},
};
use crate::{
    clock::Clock,
    protocol::id::{ClusterId, NodeId},
};

/// The TLS of a client that calls services. Clones share one state: a reload through any of them affects all.
#[derive(Clone)]
pub(crate) struct CallerTls {
    state: Arc<ArcSwap<CallerState>>,
    cluster: ClusterId,
    naming: Naming,
}

/// The certificate and the roots at one moment.
#[derive(Debug)]
pub(crate) struct CallerState {
    identity: ClientIdentity,
    chains: Arc<Chains>,
}

impl CallerTls {
    /// `naming`: the form of the names of the nodes of this cluster.
    ///
    /// # Errors
    /// [`LoadError::Unsupported`] if rustls cannot use the roots.
    pub(crate) fn new(
        identity: ClientIdentity,
        roots: Roots,
        cluster: ClusterId,
        naming: Naming,
    ) -> Result<Self, LoadError> {
        let state = Arc::new(ArcSwap::from_pointee(CallerState::new(identity, roots)?));
        Ok(Self { state, cluster, naming })
    }

    /// Makes all handshakes from now on use another certificate and other roots. Open connections stay open. After an
    /// error everything is as before.
    ///
    /// # Errors
    /// [`LoadError::Unsupported`] if rustls cannot use the roots.
    pub(crate) fn reload(&self, identity: ClientIdentity, roots: Roots) -> Result<(), LoadError> {
        self.state.store(Arc::new(CallerState::new(identity, roots)?));
        Ok(())
    }

    /// The state of now.
    pub(crate) fn state(&self) -> Arc<CallerState> {
        self.state.load_full()
    }

    /// For dialing one node of the cluster: this one, or any. `verdict` receives our verifier's finding.
    pub(crate) fn rustls_caller(
        &self,
        state: &CallerState,
        expected: Option<&NodeId>,
        verdict: Verdict,
    ) -> rustls::ClientConfig {
        let host = expected.map_or(Host::AnyNode, |node| Host::Node(node.clone()));
        let (cluster, naming) = (Some(self.cluster.clone()), self.naming.clone());
        let chains = Arc::clone(&state.chains);
        let verifier = HostVerifier::new(chains, (cluster, naming), host, verdict);
        visitor(&state.identity, verifier, SERVICES_ALPN)
    }

    /// The name that the leaf of a chain (the leaf first) proves.
    ///
    /// # Errors
    /// [`NameError`] if there is none, or it names no node.
    pub(crate) fn name_of(&self, chain: &[CertificateDer<'_>]) -> Result<PeerName, NameError> {
        PeerName::named(chain.first().ok_or(NameError::NoCertificate)?, &self.naming)
    }

    /// Whether a certificate itself contains the datacenter of its node.
    pub(crate) const fn tells_datacenter(&self) -> bool {
        self.naming.tells_datacenter()
    }
}

impl CallerState {
    fn new(identity: ClientIdentity, roots: Roots) -> Result<Self, LoadError> {
        let chains = Arc::new(Chains::new(roots).map_err(LoadError::Unsupported)?);
        Ok(Self { identity, chains })
    }

    /// The chain of this client, the leaf first.
    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        self.identity.chain()
    }

    /// When a chain (the leaf first) ends by the roots.
    ///
    /// # Errors
    /// [`NameError`] if there is none, or it cannot be read.
    pub(crate) fn end(&self, chain: &[CertificateDer<'_>]) -> Result<SystemTime, NameError> {
        let leaf = chain.first().ok_or(NameError::NoCertificate)?;
        let summary = CertificateSummary::from_certificate(leaf)?;
        let end = self.chains.end(chain, Clock::wall());
        Ok(end.map_or(summary.not_after, |end| end.at))
    }
}

impl fmt::Debug for CallerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self.state.load(), f)
    }
}
