//! The accepted kinds of keys and signatures in certificates.
//!
//! A node's key needs more than TLS does: the node signs its news with it as well. A certificate that
//! every peer would refuse, or that could not sign news, is refused when it is loaded.

use rustls::pki_types::CertificateDer;
use x509_parser::{
    certificate::X509Certificate, public_key::PublicKey, x509::SubjectPublicKeyInfo,
};

use super::{certificate::parse, files::LoadError, name::shown};

/// The holder of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// A node: it signs its news.
    Node,
    /// A client or an authority, which uses it for handshakes and certificates.
    Other,
}

/// Refuses a certificate with a key or signature that no peer accepts.
fn check(certificate: &X509Certificate<'_>, holder: Holder) -> Result<(), LoadError> {
    check_key(certificate, holder)?;
    // A root's signature of itself is not checked.
    let itself = certificate.subject().as_raw() == certificate.issuer().as_raw();
    let signature = certificate.signature_algorithm.algorithm.to_id_string();
    match WEAK.iter().find(|(oid, _)| *oid == signature).filter(|_| !itself) {
        Some((_, hash)) => Err(LoadError::WeakSignature { subject: subject(certificate), hash }),
        None => Ok(()),
    }
}

/// Refuses a certificate with a key that no peer accepts. For a root only the key counts.
pub(super) fn check_key(
    certificate: &X509Certificate<'_>,
    holder: Holder,
) -> Result<(), LoadError> {
    let (allowed, kind) = key(certificate.public_key());
    if allowed || (holder == Holder::Other && kind == P521) {
        return Ok(());
    }
    Err(LoadError::KeyKind { subject: subject(certificate), kind })
}

/// Refuses a chain whose first certificate is not a leaf.
pub(super) fn check_order(chain: &[CertificateDer<'_>]) -> Result<(), LoadError> {
    let Some(Ok(first)) = chain.first().map(parse) else { return Ok(()) };
    if !first.is_ca() {
        return Ok(());
    }
    let parsed = || chain.iter().map(parse);
    let subject = |one: &X509Certificate<'_>| shown(&one.subject().to_string());
    let leaf = parsed().position(|one| one.is_ok_and(|one| !one.is_ca()));
    Err(match leaf.and_then(|place| Some((place, parsed().nth(place)?.ok()?))) {
        Some((place, leaf)) => LoadError::LeafNotFirst {
            first: subject(&first),
            leaf: subject(&leaf),
            place: place + 1,
        },
        None => LoadError::LeafIsAuthority { subject: subject(&first) },
    })
}

/// Refuses a chain with keys or signatures that no peer accepts. `holder`: of the leaf.
pub(super) fn check_kinds(chain: &[CertificateDer<'_>], holder: Holder) -> Result<(), LoadError> {
    for (place, certificate) in chain.iter().enumerate() {
        let holder = if place == 0 { holder } else { Holder::Other };
        check(&parse(certificate)?, holder)?;
    }
    Ok(())
}

fn subject(certificate: &X509Certificate<'_>) -> String {
    shown(&certificate.subject().to_string())
}

/// Whether a node may have such a key, and its kind.
fn key(key: &SubjectPublicKeyInfo<'_>) -> (bool, String) {
    let curve = || key.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
    match key.algorithm.algorithm.to_id_string().as_str() {
        "1.3.101.112" => (true, "Ed25519".to_owned()),
        "1.3.101.113" => (false, "Ed448".to_owned()),
        "1.2.840.113549.1.1.1" => match key.parsed() {
            Ok(PublicKey::RSA(rsa)) => {
                let bits = rsa.key_size();
                ((2_048..=8_192).contains(&bits), format!("RSA of {bits} bits"))
            }
            _ => (false, "RSA that is damaged".to_owned()),
        },
        "1.2.840.113549.1.1.10" => (false, "RSA for PSS alone".to_owned()),
        "1.2.840.10040.4.1" => (false, "DSA".to_owned()),
        "1.2.840.10045.2.1" => match curve().map(|oid| oid.to_id_string()).as_deref() {
            Some("1.2.840.10045.3.1.7") => (true, "ECDSA P-256".to_owned()),
            Some("1.3.132.0.34") => (true, "ECDSA P-384".to_owned()),
            Some("1.3.132.0.35") => (false, P521.to_owned()),
            _ => (false, "ECDSA on another curve".to_owned()),
        },
        _ => (false, "of another kind".to_owned()),
    }
}

const P521: &str = "ECDSA P-521";
/// Algorithms of signatures whose hash is broken.
const WEAK: [(&str, &str); 5] = [
    ("1.2.840.113549.1.1.4", "MD5"),
    ("1.2.840.113549.1.1.5", "SHA-1"),
    ("1.3.14.3.2.29", "SHA-1"),
    ("1.2.840.10045.4.1", "SHA-1"),
    ("1.2.840.10040.4.3", "SHA-1"),
];
