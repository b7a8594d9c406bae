//! The content of a leaf certificate, and the keys created for it.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use aws_lc_rs::{
    rand::{SecureRandom, SystemRandom},
    signature::Ed25519KeyPair,
};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SanType, SerialNumber,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use time::OffsetDateTime;

use super::error::{AuthorityError, made};
use crate::{
    clock::Clock,
    tls::{certificate::date, name::PeerName, role::ClientName},
};

/// The kind of key to create.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyKind {
    /// Small, fast, with signatures of constant length.
    #[default]
    Ed25519,
    /// For tools without support for Ed25519.
    P256,
}

/// The permitted use of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Usage {
    /// Accepting connections.
    Server,
    /// Dialing.
    Client,
}

/// The content of a leaf certificate. [`LeafOptions::new`] suits a node; the fields are public for
/// extra names, and for tests that need a wrong certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafOptions {
    /// The URI names: for a node exactly its [`PeerName`].
    pub uris: Vec<String>,
    /// DNS names, for other users of the certificate; gossipmonger does not read them.
    pub dns_names: Vec<String>,
    /// IP addresses, likewise.
    pub ip_addresses: Vec<IpAddr>,
    /// The extended key usage; empty leaves the extension out, which permits everything.
    pub usages: Vec<Usage>,
    /// The start of its validity.
    pub not_before: SystemTime,
    /// The end of its validity, or the authority's end if that is earlier.
    pub not_after: SystemTime,
    /// The kind of key to create for it.
    pub key: KeyKind,
}

impl LeafOptions {
    /// A node's certificate: from one hour ago until `validity` from now.
    #[must_use]
    pub fn new(name: &PeerName, validity: Duration) -> Self {
        let now = Clock::wall();
        Self {
            uris: vec![name.to_uri()],
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            usages: vec![Usage::Server, Usage::Client],
            not_before: now - BACKDATE,
            not_after: now.checked_add(validity).unwrap_or(now + AUTHORITY_VALIDITY),
            key: KeyKind::default(),
        }
    }

    /// A client's certificate, valid only for dialing.
    #[must_use]
    pub fn client(name: &ClientName, validity: Duration) -> Self {
        let now = Clock::wall();
        Self {
            uris: vec![name.to_uri()],
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            usages: vec![Usage::Client],
            not_before: now - BACKDATE,
            not_after: now.checked_add(validity).unwrap_or(now + AUTHORITY_VALIDITY),
            key: KeyKind::default(),
        }
    }
}

pub(super) fn leaf(
    options: &LeafOptions,
    not_after: SystemTime,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    let subject =
        options.uris.first().map_or("no name", |uri| uri.rsplit('/').next().unwrap_or(uri));
    params.distinguished_name = common_name(subject);
    params.subject_alt_names = alternative_names(options)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = options.usages.iter().map(|usage| purpose(*usage)).collect();
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(random_serial()?);
    params.not_before = calendar(options.not_before)?;
    params.not_after = calendar(not_after)?;
    Ok(params)
}

fn alternative_names(options: &LeafOptions) -> Result<Vec<SanType>, AuthorityError> {
    let mut names = Vec::new();
    for name in &options.uris {
        names.push(uri(name)?);
    }
    for name in &options.dns_names {
        names.push(SanType::DnsName(name.as_str().try_into().map_err(made)?));
    }
    names.extend(options.ip_addresses.iter().map(|address| SanType::IpAddress(*address)));
    Ok(names)
}

pub(super) fn uri(uri: &str) -> Result<SanType, AuthorityError> {
    Ok(SanType::URI(uri.try_into().map_err(made)?))
}

fn purpose(usage: Usage) -> ExtendedKeyUsagePurpose {
    match usage {
        Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
        Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
    }
}

/// The subject is only for display. X.520 bounds a common name to 64 characters.
pub(super) fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    subject
}

pub(super) fn generate(kind: KeyKind) -> Result<KeyPair, AuthorityError> {
    match kind {
        KeyKind::Ed25519 => generate_ed25519(),
        KeyKind::P256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(made),
    }
}

/// In PKCS#8 version 1: OpenSSL 3.0 cannot read version 2, which rcgen would write.
fn generate_ed25519() -> Result<KeyPair, AuthorityError> {
    let der = Ed25519KeyPair::generate()
        .and_then(|key| key.to_pkcs8v1())
        .map_err(|_| AuthorityError::Make(NO_RANDOMNESS.to_owned()))?;
    let der = PrivatePkcs8KeyDer::from(der.as_ref());
    KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519).map_err(made)
}

/// 20 bytes are the maximum of RFC 5280 section 4.1.2.2; the number must be positive, and the bit
/// below the sign keeps its length constant. 158 bits are random.
pub(super) fn random_serial() -> Result<SerialNumber, AuthorityError> {
    let mut serial = [0; 20];
    SystemRandom::new()
        .fill(&mut serial)
        .map_err(|_| AuthorityError::Make(NO_RANDOMNESS.to_owned()))?;
    serial[0] = serial[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&serial))
}

/// A certificate can contain years from 1950 to 9999, RFC 5280 section 4.1.2.5.
pub(super) fn calendar(time: SystemTime) -> Result<OffsetDateTime, AuthorityError> {
    let out_of_range = || AuthorityError::Make(format!("{} is out of range", date(time)));
    let since = time.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| out_of_range())?;
    let seconds = i64::try_from(since.as_secs()).map_err(|_| out_of_range())?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| out_of_range())
}

const NO_RANDOMNESS: &str = "the system gives no randomness";

/// How far before now a certificate begins: the clocks of hosts may differ by this much.
pub(crate) const BACKDATE: Duration = Duration::from_secs(60 * 60);

/// The validity of an authority: ten years, like kubeadm's.
pub const AUTHORITY_VALIDITY: Duration = DAY.saturating_mul(3650);

/// The validity of a certificate renewed by hand: a year, like kubeadm's and Consul's. A shorter
/// one makes it more likely that a forgotten renewal takes the cluster down.
pub const LEAF_VALIDITY: Duration = DAY.saturating_mul(365);

/// The validity of a certificate renewed by a machine: so short that a stolen one soon becomes useless.
pub const LEAF_VALIDITY_AUTOMATED: Duration = DAY.saturating_mul(3);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
