//! Which revocations count, and which certificates they cover.
//!
//! A statement counts if one of the present roots has signed it: with Ed25519, or for another kind
//! of key with any algorithm that its certificate could be verified with. Intermediate authorities
//! do not count.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{
    certificate::{CertificateSummary, date},
    provider::provider,
    refusal::{Refusal, Rejection},
};
use crate::protocol::{
    id::{ClusterId, NodeId},
    revocation::{self, IssuerId, Revocation, RevocationError, Revocations},
};

/// The public key of an authority.
#[derive(Clone, Debug)]
pub(crate) struct AuthorityKey {
    id: IssuerId,
    /// The content of its `AlgorithmIdentifier`.
    algorithm: Vec<u8>,
    key: Vec<u8>,
}

impl AuthorityKey {
    /// The key of a certificate; `None` if it cannot verify signatures.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let spki = parsed.public_key().raw;
        let (contents, _) = der(SEQUENCE, spki)?;
        let (algorithm, rest) = der(SEQUENCE, contents)?;
        let (bits, _) = der(BIT_STRING, rest)?;
        let [0, key @ ..] = bits else { return None };
        Some(Self { id: issuer_id(spki), algorithm: algorithm.to_vec(), key: key.to_vec() })
    }

    fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let all = provider().signature_verification_algorithms.all;
        let mut fitting =
            all.iter().filter(|one| one.public_key_alg_id().as_ref() == self.algorithm);
        fitting.any(|one| one.verify_signature(&self.key, message, signature).is_ok())
    }
}

/// Checks that one of these authorities has signed the statement for this cluster.
pub(crate) fn verify(
    keys: &[AuthorityKey],
    cluster: &ClusterId,
    statement: &Revocation,
) -> Result<(), RevocationError> {
    let (message, issuer) = (statement.message(cluster), statement.issuer);
    let mut keys = keys.iter().filter(|key| key.id == issuer).peekable();
    if keys.peek().is_none() {
        return Err(RevocationError::UnknownIssuer(issuer));
    }
    match keys.any(|key| key.has_signed(&message, &statement.signature)) {
        true => Ok(()),
        false => Err(RevocationError::Forged(issuer)),
    }
}

/// The name of the authority with this public key, a `SubjectPublicKeyInfo`.
pub(crate) fn issuer_id(spki: &[u8]) -> IssuerId {
    let mut id = [0; 32];
    id.copy_from_slice(digest::digest(&digest::SHA256, spki).as_ref());
    IssuerId(id)
}

/// Refuses the revoked certificate of a node with a proved name.
pub(super) fn check(
    node: &NodeId,
    leaf: &CertificateDer<'_>,
    revoked: &Revocations,
) -> Result<(), Refusal> {
    let Some(cutoff) = revoked.cutoff(node) else { return Ok(()) };
    let certificate = CertificateSummary::from_certificate(leaf)
        .map_err(|error| Refusal::by_us(Rejection::Other, error.to_string()))?;
    if !revoked.revokes(node, seconds(certificate.not_before)) {
        return Ok(());
    }
    let since = date(certificate.not_before);
    let detail = format!(
        "it is valid from {since}; those of its name that are valid from {} or earlier are revoked",
        revocation::date(cutoff)
    );
    Err(Refusal::by_us(Rejection::Revoked, detail))
}

pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The content of one DER value, and the bytes after it.
fn der(tag: u8, input: &[u8]) -> Option<(&[u8], &[u8])> {
    let [first, length, rest @ ..] = input else { return None };
    let (len, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => {
            let (len, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*len)), rest)
        }
        _ => return None,
    };
    (*first == tag).then(|| rest.split_at_checked(len)).flatten()
}

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{
        clock::Clock,
        pki::{Authority, AuthorityOptions, KeyKind},
        protocol::{
            id::{Datacenter, Generation},
            revocation::Authorities,
            seal::Notary,
        },
        tls::{Identity, Roots, Tls},
    };

    #[test]
    fn refuses_statements_of_foreign_authorities_and_of_nodes() {
        let (ours, foreign) =
            (authority("demo", KeyKind::Ed25519), authority("demo", KeyKind::P256));
        let tls = tls(&ours, "a");
        let theirs = foreign.revoke(node("b"), Clock::wall()).unwrap();
        assert_eq!(tls.verify(&theirs), Err(RevocationError::UnknownIssuer(theirs.issuer)));
        let true_one = ours.revoke(node("b"), Clock::wall()).unwrap();
        let forged = Revocation { issuer: true_one.issuer, ..theirs };
        assert_eq!(tls.verify(&forged), Err(RevocationError::Forged(forged.issuer)));
        let mut renamed = true_one.clone();
        renamed.node = node("c");
        assert_eq!(tls.verify(&renamed), Err(RevocationError::Forged(renamed.issuer)));
        tls.verify(&true_one).unwrap();
    }

    #[test]
    fn refuses_a_statement_for_another_cluster() {
        let ours = authority("demo", KeyKind::Ed25519);
        let statement = ours.revoke(node("b"), Clock::wall()).unwrap();
        let key = AuthorityKey::of(&certificate(&ours)).unwrap();
        let message = |name| statement.message(&ClusterId::new(name).unwrap());
        assert!(key.has_signed(&message("demo"), &statement.signature));
        assert!(!key.has_signed(&message("other"), &statement.signature));
    }

    #[test]
    fn takes_statements_of_every_root_while_authorities_rotate() {
        let (old, new) = (authority("demo", KeyKind::P256), authority("demo", KeyKind::Ed25519));
        let issued = issued(&new, "a");
        let identity = Identity::from_pem(issued.0.as_bytes(), issued.1.as_bytes()).unwrap();
        let pem = [old.certificate_pem(), new.certificate_pem()].concat();
        let tls = Tls::new(identity, Roots::from_pem(pem.as_bytes()).unwrap()).unwrap();
        for authority in [&old, &new] {
            tls.verify(&authority.revoke(node("b"), Clock::wall()).unwrap()).unwrap();
        }
    }

    /// Made by openssl: an RSA root of 2048 bits, and `openssl dgst -sha256 -sign` of "message".
    #[test]
    fn verifies_what_an_rsa_key_has_signed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).display().to_string();
        std::fs::write(at("message"), "message").unwrap();
        let openssl = |arguments: &[&str]| {
            let out = std::process::Command::new("openssl").args(arguments).output();
            out.is_ok_and(|out| out.status.success())
        };
        let (key, pem, signature) = (at("key"), at("pem"), at("signature"));
        let made = openssl(&[
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", &key, "-out", &pem,
            "-subj", "/CN=rsa", "-days", "1",
        ]);
        if !made {
            // A machine without openssl; the lab and CI have it.
            return;
        }
        assert!(openssl(&["dgst", "-sha256", "-sign", &key, "-out", &signature, &at("message")]));
        let pem = std::fs::read(pem).unwrap();
        let root = crate::tls::pem::chain_from_pem(&pem).unwrap().swap_remove(0);
        let signature = std::fs::read(signature).unwrap();
        let key = AuthorityKey::of(&root).unwrap();
        assert!(key.has_signed(b"message", &signature));
        assert!(!key.has_signed(b"massage", &signature));
    }

    #[test]
    fn refuses_only_certificates_from_before_the_cutoff() {
        let ours = authority("demo", KeyKind::Ed25519);
        let tls = tls(&ours, "a");
        let before = issued(&ours, "b").2;
        let statement = ours.revoke(node("b"), Clock::wall()).unwrap();
        tls.revoke(Arc::new(Revocations::restored([statement])));
        let (b, c) = (node("b"), node("c"));
        assert!(tls.is_revoked(&b, &before));
        assert!(!tls.is_revoked(&b, &issued(&ours, "b").2), "issued after the revocation");
        assert!(!tls.is_revoked(&c, &issued(&ours, "c").2));
        let (pem, key, _) = issued(&ours, "a");
        let identity = Identity::from_pem(pem.as_bytes(), key.as_bytes()).unwrap();
        tls.reload(identity, Roots::from_pem(ours.certificate_pem().as_bytes()).unwrap()).unwrap();
        assert!(tls.is_revoked(&b, &before), "a reload forgets nothing");
    }

    /// A revoked node may claim that its generation began later, and a relay may pass that on: the
    /// certificate vouches for its signatures in any case.
    #[test]
    fn a_revoked_certificate_vouches_for_no_life_whenever_it_began() {
        let ours = authority("demo", KeyKind::Ed25519);
        let (a, b) = (tls(&ours, "a"), tls(&ours, "b"));
        let later = Generation(u64::MAX / 2);
        let (_, credential) = b.begin(&node("b"), later).unwrap();
        a.vet(&node("b"), later, &credential).unwrap();
        let statement = ours.revoke(node("b"), Clock::wall()).unwrap();
        a.revoke(Arc::new(Revocations::restored([statement])));
        let refused = a.vet(&node("b"), later, &credential).unwrap_err();
        assert!(refused.contains("are revoked"), "{refused}");
        let (_, anew) = tls(&ours, "b").begin(&node("b"), later).unwrap();
        a.vet(&node("b"), later, &anew).unwrap();
    }

    fn authority(cluster: &str, key: KeyKind) -> Authority {
        let options = AuthorityOptions { key, ..AuthorityOptions::default() };
        Authority::create(ClusterId::new(cluster).unwrap(), &options).unwrap()
    }

    fn certificate(authority: &Authority) -> CertificateDer<'static> {
        let pem = authority.certificate_pem().as_bytes();
        crate::tls::pem::chain_from_pem(pem).unwrap().swap_remove(0)
    }

    fn issued(authority: &Authority, name: &str) -> (String, String, CertificateSummary) {
        let (datacenter, day) = (Datacenter::new("eu").unwrap(), Duration::from_secs(86_400));
        let issued = authority.issue(node(name), datacenter, day).unwrap();
        (issued.certificate_pem, issued.key_pem.to_string(), issued.certificate)
    }

    fn tls(authority: &Authority, name: &str) -> Tls {
        let (pem, key, _) = issued(authority, name);
        let identity = Identity::from_pem(pem.as_bytes(), key.as_bytes()).unwrap();
        Tls::new(identity, Roots::from_pem(authority.certificate_pem().as_bytes()).unwrap())
            .unwrap()
    }

    fn node(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }
}
