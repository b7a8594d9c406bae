//! TLS in the form that quinn needs.

use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};

use crate::tls::{
    Admitted, ClientIdentity, Expect, Host, LoadError, Roots, Tls, Verdict, rustls_visit,
};

#[doc(hidden)]
impl Tls {
    /// For dialing one peer: `quinn::ClientConfig::new(crypto)`, and the finding of our verifier.
    #[must_use]
    pub fn dial(&self, expect: Expect) -> (Arc<QuicClientConfig>, Verdict) {
        let verdict = Verdict::default();
        let config = self.rustls_client(expect, verdict.clone());
        (Arc::new(QuicClientConfig::try_from(config).expect(INITIAL_SUITE)), verdict)
    }

    /// For accepting one peer, and the finding of our verifier.
    ///
    /// The endpoint gets one (`quinn::ServerConfig::with_crypto(crypto)`) that serves all. For
    /// exact refusals give each `Incoming` its own: a clone of that configuration with another
    /// `crypto`, passed to `accept_with`. Making one takes less than a microsecond.
    #[must_use]
    pub fn accept(&self) -> (Arc<QuicServerConfig>, Verdict) {
        let verdict = Verdict::default();
        let config = self.rustls_server(verdict.clone());
        (Arc::new(QuicServerConfig::try_from(config).expect(INITIAL_SUITE)), verdict)
    }

    /// As [`Tls::dial`], for calls between services.
    pub(super) fn dial_services(&self, expect: Expect) -> (Arc<QuicClientConfig>, Verdict) {
        let verdict = Verdict::default();
        let config = self.rustls_caller(expect, verdict.clone());
        (Arc::new(QuicClientConfig::try_from(config).expect(INITIAL_SUITE)), verdict)
    }

    /// As [`Tls::accept`], for clients and for calls between services as well: the protocol in the handshake says
    /// what the peer wants to be, and its certificate what it may be. The caller compares the two after the
    /// handshake: see [`protocol`](super::peer::protocol), [`peer_name`](super::peer::peer_name) and
    /// [`Tls::client`].
    #[must_use]
    pub(super) fn accept_for(&self, admitted: Admitted) -> (Arc<QuicServerConfig>, Verdict) {
        let verdict = Verdict::default();
        let config = self.rustls_server_for(admitted, verdict.clone());
        (Arc::new(QuicServerConfig::try_from(config).expect(INITIAL_SUITE)), verdict)
    }
}

/// A client's TLS: for dialing one node, over [`ADMIN_ALPN`](crate::tls::ADMIN_ALPN).
///
/// # Errors
/// [`LoadError::Unsupported`] if rustls cannot use the roots.
pub fn visit(
    client: &ClientIdentity,
    roots: Roots,
    host: Host,
) -> Result<(Arc<QuicClientConfig>, Verdict), LoadError> {
    let verdict = Verdict::default();
    let config = rustls_visit(client, roots, host, verdict.clone())?;
    Ok((Arc::new(QuicClientConfig::try_from(config).expect(INITIAL_SUITE)), verdict))
}

pub(crate) const INITIAL_SUITE: &str =
    "aws-lc-rs has AES-128-GCM, which protects QUIC's first packets";
