//! The counterpart of [`role`](super::role): the certificate of a client, and the nodes that it accepts.
//!
//! A client is not part of the cluster: nodes do not accept it as a node, and it accepts only nodes.

use std::{fmt, path::Path, sync::Arc, time::SystemTime};

use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::WebPkiSupportedAlgorithms,
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::{CertifiedKey, SingleCertAndKey},
};

use super::{
    certificate::{CertificateSummary, date, only_uri},
    files::{Audience, LoadError, read},
    kind::{Holder, check_kinds, check_order},
    name::{PeerName, SCHEME},
    naming::Naming,
    pem::{chain_from_pem, key_from_pem},
    provider::{ADMIN_ALPN, TLS13_SUITES, provider},
    refusal::{Refusal, Rejection, Verdict, on_wire},
    role::ClientName,
    roots::{Chains, Roots},
    verifier::no_tls12,
};
use crate::{
    clock::Clock,
    protocol::id::{ClusterId, NodeId},
};

/// The certificate chain of a client, with its private key. Only nodes know whether it has a role.
#[derive(Clone)]
pub struct ClientIdentity {
    uri: Option<String>,
    summary: CertificateSummary,
    certified: Arc<CertifiedKey>,
}

impl ClientIdentity {
    /// Loads a certificate chain (the leaf first) and its private key from two PEM files.
    ///
    /// # Errors
    /// As [`Identity::from_pem_files`](super::Identity::from_pem_files), except for the name.
    pub fn from_pem_files(
        certificate: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, LoadError> {
        let (certificate, key) = (certificate.as_ref(), key.as_ref());
        let chain =
            read(certificate, Audience::Anyone).map_err(|error| error.in_file(certificate))?;
        let key_pem = read(key, Audience::OwnerOnly).map_err(|error| error.in_file(key))?;
        let key_der = key_from_pem(&key_pem).map_err(|error| error.in_file(key))?;
        chain_from_pem(&chain).and_then(|chain| Self::new(chain, key_der, Clock::wall())).map_err(
            |error| match error {
                LoadError::Key => error.in_file(key),
                error => error.in_file(certificate),
            },
        )
    }

    /// Reads a certificate chain (the leaf first) and its private key from PEM text.
    ///
    /// # Errors
    /// As [`ClientIdentity::from_pem_files`], without the files.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, LoadError> {
        Self::from_pem_at(certificate, key, Clock::wall())
    }

    /// As [`ClientIdentity::from_pem`] on a host whose clock shows `now`.
    ///
    /// # Errors
    /// As [`ClientIdentity::from_pem`].
    #[doc(hidden)]
    pub fn from_pem_at(certificate: &[u8], key: &[u8], now: SystemTime) -> Result<Self, LoadError> {
        Self::new(chain_from_pem(certificate)?, key_from_pem(key)?, now)
    }

    /// The content of its leaf certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateSummary {
        &self.summary
    }

    fn new(
        chain: Vec<CertificateDer<'static>>,
        key: rustls::pki_types::PrivateKeyDer<'static>,
        now: SystemTime,
    ) -> Result<Self, LoadError> {
        let leaf = chain.first().ok_or(LoadError::NoCertificate)?;
        check_order(&chain)?;
        let summary = CertificateSummary::from_certificate(leaf)?;
        if now > summary.not_after {
            return Err(LoadError::Expired { not_after: date(summary.not_after) });
        }
        check_kinds(&chain, Holder::Other)?;
        let uri = only_uri(leaf).ok();
        let certified =
            CertifiedKey::from_der(chain, key, &provider()).map_err(LoadError::from_rustls)?;
        Ok(Self { uri, summary, certified: Arc::new(certified) })
    }

    /// Its chain, the leaf first.
    pub(super) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// The name of the client, if it has a name of our form.
    #[must_use]
    pub fn name(&self) -> Option<ClientName> {
        ClientName::from_uri(self.uri.as_deref()?).ok()
    }

    /// The trust domain of its URI.
    fn cluster(&self) -> Option<ClusterId> {
        let path = self.uri.as_deref()?.strip_prefix(SCHEME)?;
        ClusterId::new(path.split('/').next()?).ok()
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientIdentity")
            .field("uri", &self.uri)
            .field("fingerprint", &self.summary.fingerprint)
            .finish_non_exhaustive()
    }
}

/// The nodes that a client accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// Any node of the cluster in the client's own URI; any node at all if the URI names no cluster.
    AnyNode,
    /// This node of that cluster.
    Node(NodeId),
    /// The holder of a certificate whose one URI is exactly this.
    Uri(String),
}

/// A client's TLS: for dialing one node, over [`ADMIN_ALPN`].
///
/// # Errors
/// [`LoadError::Unsupported`] if rustls cannot use the roots.
pub fn rustls_visit(
    client: &ClientIdentity,
    roots: Roots,
    host: Host,
    verdict: Verdict,
) -> Result<rustls::ClientConfig, LoadError> {
    let chains = Arc::new(Chains::new(roots).map_err(LoadError::Unsupported)?);
    let nodes = (client.cluster(), Naming::default());
    Ok(visitor(client, HostVerifier::new(chains, nodes, host, verdict), ADMIN_ALPN))
}

/// A client's TLS: for dialing a node that the verifier accepts, over this protocol.
pub(super) fn visitor(
    client: &ClientIdentity,
    verifier: HostVerifier,
    protocol: &[u8],
) -> rustls::ClientConfig {
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect(TLS13_SUITES)
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::clone(
            &client.certified,
        ))));
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    config
}

/// Verifies the node that a client dials.
#[derive(Debug)]
pub(super) struct HostVerifier {
    chains: Arc<Chains>,
    cluster: Option<ClusterId>,
    naming: Naming,
    host: Host,
    verdict: Verdict,
    algorithms: WebPkiSupportedAlgorithms,
}

impl HostVerifier {
    /// Accepts `host`, which is a node of this cluster, whose names have this form.
    pub(super) fn new(
        chains: Arc<Chains>,
        (cluster, naming): (Option<ClusterId>, Naming),
        host: Host,
        verdict: Verdict,
    ) -> Self {
        let algorithms = provider().signature_verification_algorithms;
        Self { chains, cluster, naming, host, verdict, algorithms }
    }

    fn check(&self, leaf: &CertificateDer<'_>) -> Result<(), Refusal> {
        let refused = |reason, detail| Err(Refusal::by_us(reason, detail));
        let no_name =
            |error: super::NameError| Refusal::by_us(Rejection::NoName, error.to_string());
        if let Host::Uri(wanted) = &self.host {
            let uri = only_uri(leaf).map_err(no_name)?;
            if uri != *wanted {
                return refused(Rejection::WrongName, format!("it is {uri}, expected {wanted}"));
            }
            return Ok(());
        }
        let name = PeerName::named(leaf, &self.naming).map_err(no_name)?;
        if let Some(cluster) = &self.cluster
            && name.cluster != *cluster
        {
            let detail = format!("it is {name}, our cluster is {cluster}");
            return refused(Rejection::WrongCluster, detail);
        }
        match &self.host {
            Host::Node(wanted) if name.node != *wanted => {
                refused(Rejection::WrongName, format!("it is {name}, expected {wanted}"))
            }
            _ => Ok(()),
        }
    }
}

impl ServerCertVerifier for HostVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _host: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.chains.verify_acceptor(leaf, rest, now).map_err(|error| {
            self.verdict.refuse(Refusal::of_tls(&error));
            on_wire(error)
        })?;
        self.check(leaf).map_err(|refusal| {
            let error = refusal.to_tls();
            self.verdict.refuse(refusal);
            error
        })?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
            .inspect_err(|error| self.verdict.refuse(Refusal::of_tls(error)))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
