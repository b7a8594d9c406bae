//! Which peers we accept: a chain to one of our roots, then a name of our cluster.
//!
//! The chain is verified by rustls and webpki; only a verified one is parsed for its name. Host
//! names and addresses play no part.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::{
    DigitallySignedStruct, DistinguishedName, SignatureScheme,
    client::{
        ResolvesClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::WebPkiSupportedAlgorithms,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ClientHello, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};

use super::{
    certificate::only_uri,
    client::Client,
    identity::Identity,
    name::PeerName,
    provider::provider,
    refusal::{Refusal, Rejection, Verdict, on_wire},
    revoked,
    role::{ClientName, ClientRoles},
    state::{Expect, Shared, State},
};
use crate::protocol::revocation::Revocations;

/// Verifies the peer of one handshake, with the roots as they are at that moment.
#[derive(Debug)]
pub(super) struct Verifier {
    shared: Shared,
    expect: Expect,
    /// Clients are accepted as well.
    clients: Option<Arc<ArcSwap<ClientRoles>>>,
    /// A peer may show no certificate.
    optional: bool,
    verdict: Verdict,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(super) fn new(shared: Shared, expect: Expect, verdict: Verdict) -> Self {
        let algorithms = provider().signature_verification_algorithms;
        Self { shared, expect, clients: None, optional: false, verdict, algorithms }
    }

    /// Accepts clients as well, with their roles at the moment of the handshake.
    pub(super) fn or_clients(self, roles: Arc<ArcSwap<ClientRoles>>) -> Self {
        Self { clients: Some(roles), ..self }
    }

    /// Accepts peers that show no certificate.
    pub(super) fn or_nobody(self) -> Self {
        Self { optional: true, ..self }
    }

    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        chain: impl FnOnce(&State) -> Result<(), rustls::Error>,
    ) -> Result<(), rustls::Error> {
        let state = self.shared.load();
        if let Err(error) = chain(&state) {
            self.verdict.refuse(Refusal::of_tls(&error));
            return Err(on_wire(error));
        }
        let revoked = state.revoked.load();
        let named = check_name(leaf, &state.identity, &self.expect, &revoked).or_else(|refusal| {
            let Some(roles) = &self.clients else { return Err(refusal) };
            match Client::identify(leaf, &state.identity, &roles.load(), &revoked) {
                Ok(_) => Ok(()),
                // A peer that is neither is refused with its fault as a node.
                Err(other) if other.reason == Rejection::NoRole => Err(refusal),
                Err(other) => Err(other),
            }
        });
        named.map_err(|refusal| {
            let error = refusal.to_tls();
            self.verdict.refuse(refusal);
            error
        })
    }

    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
            .inspect_err(|error| {
                let detail = "it does not hold the certificate's private key".to_owned();
                self.verdict.refuse(Refusal::by_us(Rejection::of_tls(error), detail));
            })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _host: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge(leaf, |state| state.chains.verify_acceptor(leaf, rest, now))?;
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
        self.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        !self.optional
    }

    /// Empty: a member has one certificate, so hints would only tell strangers the names of our roots.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.judge(leaf, |state| state.chains.verify_dialer(leaf, rest, now))?;
        Ok(ClientCertVerified::assertion())
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
        self.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Shows the present identity in each handshake.
#[derive(Debug)]
pub(super) struct Shown(pub(super) Shared);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().identity.certified().clone())
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(
        &self,
        _root_hints: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().identity.certified().clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

pub(super) fn check_name(
    leaf: &CertificateDer<'_>,
    ours: &Identity,
    expect: &Expect,
    revoked: &Revocations,
) -> Result<(), Refusal> {
    let cluster = &ours.name().cluster;
    let name = PeerName::named(leaf, ours.naming()).map_err(|e| {
        match only_uri(leaf).ok().filter(|uri| ClientName::from_uri(uri).is_ok()) {
            Some(uri) => Refusal::by_us(Rejection::ClientCertificate, format!("it is {uri}")),
            None => Refusal::by_us(Rejection::NoName, e.to_string()),
        }
    })?;
    if name.cluster != *cluster {
        let detail = format!("it is {name}, our cluster is {cluster}");
        return Err(Refusal::by_us(Rejection::WrongCluster, detail));
    }
    match expect {
        Expect::Node(node) if name.node != *node => {
            let detail = format!("it is {name}, we dialed {node}");
            Err(Refusal::by_us(Rejection::WrongName, detail))
        }
        _ => revoked::check(&name.node, leaf, revoked),
    }
}

/// Not reachable: both configurations offer TLS 1.3 only.
pub(super) fn no_tls12() -> rustls::Error {
    rustls::Error::PeerIncompatible(rustls::PeerIncompatible::Tls13RequiredForQuic)
}
