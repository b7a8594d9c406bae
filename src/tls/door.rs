//! TLS of the issuer's listener, for joining with a token and for renewals.
//!
//! The listener shows a certificate together with its authority, so that a machine that knows only
//! the hash of the authority's public key can verify it. The dialer's certificate is requested, not
//! required; a certificate that is shown must be a member's.

use std::sync::{Arc, OnceLock};

use aws_lc_rs::digest;
use rustls::{
    DigitallySignedStruct, DistinguishedName as TlsName, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::WebPkiSupportedAlgorithms,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        NoServerSessionStorage, ParsedCertificate, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{
    config::Tls,
    identity::Identity,
    provider::{TLS13_SUITES, provider},
    refusal::{Refusal, Rejection, Verdict, on_wire},
    state::Expect,
    verifier::{Verifier, no_tls12},
};

/// SHA-256 of an authority's SubjectPublicKeyInfo, like kubeadm's discovery hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pin(pub(crate) [u8; 32]);

impl Pin {
    /// The pin of a certificate; `None` if it is not a certificate.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let hash = digest::digest(&digest::SHA256, parsed.public_key().raw);
        Some(Self(hash.as_ref().try_into().ok()?))
    }
}

#[doc(hidden)]
impl Tls {
    /// For a listener: shows `shown`, requests a member's certificate, and accepts dialers without one.
    pub(crate) fn door(
        &self,
        shown: Arc<dyn ResolvesServerCert>,
        alpn: &[u8],
        verdict: Verdict,
    ) -> rustls::ServerConfig {
        let verifier = Verifier::new(self.shared.clone(), Expect::AnyNode, verdict);
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect(TLS13_SUITES)
            .with_client_cert_verifier(Arc::new(Optional(verifier)))
            .with_cert_resolver(shown);
        config.alpn_protocols = vec![alpn.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        config
    }

    /// For a member that dials an issuer.
    pub(crate) fn member(&self, alpn: &[u8], verdict: Verdict) -> rustls::ClientConfig {
        let mut config = self.rustls_client(Expect::AnyNode, verdict);
        config.alpn_protocols = vec![alpn.to_vec()];
        config
    }
}

impl Identity {
    /// The present certificate and key, for a resolver.
    pub(crate) fn shown(&self) -> Arc<rustls::sign::CertifiedKey> {
        Arc::clone(self.certified())
    }
}

/// For a dialer without a certificate that knows the pin of the issuer's authority.
pub(crate) fn strangers(verifier: Arc<Pinned>, alpn: &[u8]) -> rustls::ClientConfig {
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect(TLS13_SUITES)
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    config
}

/// Accepts a certificate signed by the authority with this public key.
#[derive(Debug)]
pub(crate) struct Pinned {
    pin: Pin,
    algorithms: WebPkiSupportedAlgorithms,
    refused: OnceLock<Unpinned>,
}

/// Why an issuer's certificate was refused.
#[derive(Clone, Debug)]
pub(crate) enum Unpinned {
    /// The pinned authority did not sign it.
    Foreign,
    /// Something else is wrong with it, usually its dates.
    Unusable(Refusal),
}

impl Pinned {
    pub(crate) fn new(pin: Pin) -> Self {
        let algorithms = provider().signature_verification_algorithms;
        Self { pin, algorithms, refused: OnceLock::new() }
    }

    /// Why the certificate was refused; `None` if it was accepted, or none has arrived.
    pub(crate) fn refused(&self) -> Option<&Unpinned> {
        self.refused.get()
    }

    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let authority = rest.iter().find(|shown| Pin::of(shown) == Some(self.pin)).ok_or({
            rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)
        })?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let leaf = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(&leaf, &roots, &[], now, self.algorithms.all)
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _host: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(leaf, rest, now).map_err(|error| {
            let refusal = Refusal::of_tls(&error);
            let foreign = [Rejection::UnknownAuthority, Rejection::BadSignature];
            let _ = self.refused.set(if foreign.contains(&refusal.reason) {
                Unpinned::Foreign
            } else {
                Unpinned::Unusable(refusal)
            });
            on_wire(error)
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
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A verifier of members that also accepts dialers without a certificate.
#[derive(Debug)]
struct Optional(Verifier);

impl ClientCertVerifier for Optional {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[TlsName] {
        ClientCertVerifier::root_hint_subjects(&self.0)
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.0.verify_client_cert(leaf, rest, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ClientCertVerifier::verify_tls12_signature(&self.0, message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ClientCertVerifier::verify_tls13_signature(&self.0, message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ClientCertVerifier::supported_verify_schemes(&self.0)
    }
}
