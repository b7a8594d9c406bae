//! Whom we accept: a chain to one of our roots, then a name of our cluster.
//!
//! The chain is verified by rustls and webpki; only what they have passed is parsed for its name.
//! Nothing here looks at host names or addresses.

use std::{fmt, path::Path, sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
    client::{
        ResolvesClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::WebPkiSupportedAlgorithms,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};

use super::{
    Expect, Shared, State,
    identity::{
        Audience, CertificateSummary, Identity, LoadError, PeerName, chain_from_pem, only_uri, read,
    },
    refusal::{Refusal, Rejection, Verdict},
    revoked::{self, AuthorityKey},
    role::{Client, ClientName, ClientRoles},
};
use crate::protocol::{id::ClusterId, revocation::Revocations, sketch::SketchKey};

/// The certificate authorities a node trusts: one, or several while they rotate.
///
/// The dates of a root are not looked at (webpki takes a trust anchor as it is): to end the trust
/// in one, take it out of the file.
#[derive(Clone)]
pub struct Roots {
    store: Arc<RootCertStore>,
    summaries: Vec<CertificateSummary>,
    keys: Arc<[AuthorityKey]>,
}

impl Roots {
    /// Loads all certificates of a PEM file.
    ///
    /// # Errors
    /// [`LoadError`], naming the file, if there is none, or one that may not sign others.
    pub fn from_pem_file(path: &Path) -> Result<Self, LoadError> {
        read(path, Audience::Anyone)
            .and_then(|pem| Self::from_pem(&pem))
            .map_err(|e| e.in_file(path))
    }

    /// Reads all certificates of a PEM text.
    ///
    /// # Errors
    /// [`LoadError`] if there is none, or one that may not sign others.
    pub fn from_pem(pem: &[u8]) -> Result<Self, LoadError> {
        let mut store = RootCertStore::empty();
        let (mut summaries, mut keys) = (Vec::new(), Vec::new());
        for certificate in chain_from_pem(pem)? {
            let summary = CertificateSummary::from_certificate(&certificate)?;
            if !summary.is_authority {
                return Err(LoadError::NotAnAuthority { subject: summary.subject });
            }
            keys.extend(AuthorityKey::of(&certificate));
            store.add(certificate).map_err(LoadError::Unsupported)?;
            summaries.push(summary);
        }
        Ok(Self { store: Arc::new(store), summaries, keys: keys.into() })
    }

    /// What the roots' certificates say.
    #[must_use]
    pub fn certificates(&self) -> &[CertificateSummary] {
        &self.summaries
    }

    /// The keys that revocations may be signed with.
    pub(super) fn keys(&self) -> &[AuthorityKey] {
        &self.keys
    }

    /// What the sketches of a cluster of this name are hashed with: equal on all its nodes, and hard to
    /// come by for others, since handshakes are encrypted and show no root.
    ///
    /// While authorities rotate the older one counts, so that nodes that trust both agree with those
    /// that do not know the new one yet; they disagree with those that trust the new one alone, until
    /// the old one is gone everywhere. Of a renewed certificate with the same key nothing changes.
    pub(super) fn sketch_key(&self, cluster: &ClusterId) -> SketchKey {
        let keys = self.store.roots.iter().map(|root| root.subject_public_key_info.as_ref());
        let oldest = self.summaries.iter().map(|root| root.not_before).zip(keys).min();
        let secret = oldest.map_or(&[][..], |(_, key)| key);
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let mut context = hmac::Context::with_key(&key);
        context.update(SKETCH_LABEL);
        context.update(cluster.as_str().as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&context.sign().as_ref()[..16]);
        SketchKey(bytes)
    }

    /// Whether peers with these roots would accept this identity at `now`.
    ///
    /// Worth a warning at start: a node that its own roots refuse was mostly given the wrong files.
    ///
    /// # Errors
    /// The [`Refusal`] that such a peer would report.
    pub fn check(&self, identity: &Identity, now: SystemTime) -> Result<(), Refusal> {
        let chains = Chains::new(self.clone()).map_err(|e| Refusal::of_tls(&e))?;
        let now = UnixTime::since_unix_epoch(
            now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
        );
        let (leaf, rest) = identity
            .chain()
            .split_first()
            .ok_or_else(|| Refusal::of_tls(&rustls::Error::NoCertificatesPresented))?;
        chains
            .verify_acceptor(leaf, rest, now)
            .and_then(|()| chains.verify_dialer(leaf, rest, now))
            .map_err(|e| Refusal::of_tls(&e))
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.summaries.iter().map(|root| &root.subject)).finish()
    }
}

/// What the key is for, so that no other key can be the same.
const SKETCH_LABEL: &[u8] = b"gossipmonger 1 sketch key of cluster ";

/// Verifies chains to our roots, by rustls' own two verifiers.
#[derive(Debug)]
pub(super) struct Chains {
    roots: Roots,
    roots_id: [u8; 32],
    dialers: Arc<dyn ClientCertVerifier>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Chains {
    pub(super) fn new(roots: Roots) -> Result<Self, rustls::Error> {
        let provider = super::provider();
        let algorithms = provider.signature_verification_algorithms;
        let dialers = WebPkiClientVerifier::builder_with_provider(roots.store.clone(), provider)
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?;
        let mut hasher = blake3::Hasher::new();
        for root in &roots.store.roots {
            for part in [&root.subject, &root.subject_public_key_info] {
                hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
            }
            let constraints = root.name_constraints.as_ref().map_or(&[][..], |der| der.as_ref());
            hasher.update(&(constraints.len() as u64).to_le_bytes()).update(constraints);
        }
        let roots_id = *hasher.finalize().as_bytes();
        Ok(Self { roots, roots_id, dialers, algorithms })
    }

    /// Another one for other roots.
    pub(super) const fn roots_id(&self) -> &[u8; 32] {
        &self.roots_id
    }

    pub(super) const fn roots(&self) -> &Roots {
        &self.roots
    }

    pub(super) fn verify_acceptor(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(leaf)?,
            &self.roots.store,
            rest,
            now,
            self.algorithms.all,
        )
    }

    pub(super) fn verify_dialer(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        self.dialers.verify_client_cert(leaf, rest, now).map(drop)
    }
}

/// Verifies the peer of one handshake, with the roots as they are at that moment.
#[derive(Debug)]
pub(super) struct Verifier {
    shared: Shared,
    expect: Expect,
    /// Clients are accepted as well.
    clients: Option<Arc<ArcSwap<ClientRoles>>>,
    verdict: Verdict,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(super) fn new(shared: Shared, expect: Expect, verdict: Verdict) -> Self {
        let algorithms = super::provider().signature_verification_algorithms;
        Self { shared, expect, clients: None, verdict, algorithms }
    }

    /// Accepts clients as well, with the roles that these are at the moment of the handshake.
    pub(super) fn or_clients(self, roles: Arc<ArcSwap<ClientRoles>>) -> Self {
        Self { clients: Some(roles), ..self }
    }

    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        chain: impl FnOnce(&State) -> Result<(), rustls::Error>,
    ) -> Result<(), rustls::Error> {
        let state = self.shared.load();
        if let Err(error) = chain(&state) {
            self.verdict.refuse(Refusal::of_tls(&error));
            return Err(error);
        }
        let revoked = state.revoked.load();
        let named = check_name(leaf, &state.identity, &self.expect, &revoked).or_else(|refusal| {
            let Some(roles) = &self.clients else { return Err(refusal) };
            match Client::identify(leaf, &state.identity, &roles.load(), &revoked) {
                Ok(_) => Ok(()),
                // Who is neither is told what is wrong with it as a node.
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
                let detail = format!("it does not hold the certificate's private key: {error}");
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
    /// None: a member has one certificate, so hints only tell strangers what our roots are called.
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

/// Shows the identity as it is at the moment of each handshake.
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
