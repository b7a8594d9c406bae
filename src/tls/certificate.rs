//! The content of a certificate. Whether to trust it is decided in the verifier, not here.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::pki_types::CertificateDer;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    prelude::{ASN1Time, FromDer},
};

use super::{
    name::{NameError, PeerName, SCHEME, shown},
    naming::Naming,
    role::ClientName,
};
use crate::{foreign::Foreign, protocol::id::ClusterId};

/// The content of a certificate, for display and for timers. None of it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateSummary {
    /// The node it names, or why it names no node (a certificate authority names none).
    pub name: Result<PeerName, NameError>,
    /// The subject's distinguished name.
    pub subject: String,
    /// The issuer's distinguished name.
    pub issuer: String,
    /// The serial number in hexadecimal.
    pub serial: String,
    /// Not valid before this.
    pub not_before: SystemTime,
    /// Not valid after this. TLS checks it only during a handshake: a live connection survives it,
    /// so the owner of a connection must set a timer.
    pub not_after: SystemTime,
    /// When the chain that it was read with ends: `not_after`, or the end of an intermediate above it
    /// that ends first. For a certificate that was read alone it is `not_after`.
    pub expires: SystemTime,
    /// SHA-256 of the whole certificate in hexadecimal.
    pub fingerprint: String,
    /// Whether it may sign other certificates.
    pub is_authority: bool,
    /// The client it names, if it names a client and not a node.
    pub client: Option<ClientName>,
}

impl CertificateSummary {
    /// Reads a certificate.
    ///
    /// # Errors
    /// [`NameError::Malformed`] if it is not a certificate.
    #[doc(hidden)]
    pub fn from_certificate(certificate: &CertificateDer<'_>) -> Result<Self, NameError> {
        let parsed = parse(certificate)?;
        let sha256 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
        let not_after = system_time(parsed.validity().not_after)?;
        Ok(Self {
            name: PeerName::from_parsed(&parsed, &Naming::default()),
            subject: shown(&parsed.subject().to_string()),
            issuer: shown(&parsed.issuer().to_string()),
            serial: hex(parsed.raw_serial()),
            not_before: system_time(parsed.validity().not_before)?,
            not_after,
            expires: not_after,
            fingerprint: hex(sha256.as_ref()),
            is_authority: parsed.is_ca(),
            client: match uris(&parsed).as_deref() {
                Ok([uri]) => ClientName::from_uri(uri).ok(),
                _ => None,
            },
        })
    }

    /// Reads the certificates of a file, the leaf first, and when each ends together with those above
    /// it. Only their names determine which one is above which.
    ///
    /// # Errors
    /// [`NameError::Malformed`] if one of them is not a certificate.
    pub(crate) fn of_chain(chain: &[CertificateDer<'_>]) -> Result<Vec<Self>, NameError> {
        let parsed = chain.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        let mut summaries =
            chain.iter().map(Self::from_certificate).collect::<Result<Vec<_>, _>>()?;
        // If several have one name, the one that lasts longest counts: a peer uses it as well.
        let above = |at: usize| {
            let issuer = parsed[at].issuer().as_raw();
            let signs = |other: &usize| {
                let (subject, signer) = (parsed[*other].subject().as_raw(), &parsed[*other]);
                subject == issuer && signer.issuer().as_raw() != subject && signer.is_ca()
            };
            (0..parsed.len()).filter(signs).max_by_key(|other| summaries[*other].not_after)
        };
        let mut expires = Vec::with_capacity(summaries.len());
        for place in 0..summaries.len() {
            let (mut at, mut end) = (place, summaries[place].not_after);
            for _ in 0..CHAIN_DEPTH_MAX {
                let Some(next) = above(at) else { break };
                (at, end) = (next, end.min(summaries[next].not_after));
            }
            expires.push(end);
        }
        for (summary, expires) in summaries.iter_mut().zip(expires) {
            summary.expires = expires;
        }
        Ok(summaries)
    }

    /// How long it and its chain are still valid; `None` once they have expired.
    #[must_use]
    #[doc(hidden)]
    pub fn expires_in(&self, now: SystemTime) -> Option<Duration> {
        self.expires.duration_since(now).ok()
    }
}

impl fmt::Display for CertificateSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, &self.client) {
            (Ok(name), _) => writeln!(f, "name         {name}")?,
            (Err(_), Some(client)) => writeln!(f, "name         {client}")?,
            (Err(_), None) if self.is_authority => {
                writeln!(f, "name         (certificate authority)")?;
            }
            (Err(e), None) => writeln!(f, "name         none: {}", Foreign::from(e.to_string()))?,
        }
        writeln!(f, "subject      {}", Foreign::from(self.subject.as_str()))?;
        writeln!(f, "issuer       {}", Foreign::from(self.issuer.as_str()))?;
        writeln!(f, "serial       {}", self.serial)?;
        writeln!(f, "valid from   {}", date(self.not_before))?;
        writeln!(f, "valid until  {}", date(self.not_after))?;
        if self.expires < self.not_after {
            let end = date(self.expires);
            writeln!(f, "expires      {end}: an intermediate certificate above it ends first")?;
        }
        write!(f, "sha256       {}", self.fingerprint)
    }
}

impl PeerName {
    /// Reads the one URI name of a leaf certificate.
    ///
    /// This alone proves nothing: anybody can write a certificate. For a peer it is proved only by
    /// the handshake.
    ///
    /// # Errors
    /// [`NameError`] unless the certificate is readable and has exactly one URI name, of the form
    /// `spiffe://<cluster>/<datacenter>/<node>`.
    #[doc(hidden)]
    pub fn from_certificate(leaf: &CertificateDer<'_>) -> Result<Self, NameError> {
        Self::named(leaf, &Naming::default())
    }

    /// The same for a URI of another form.
    ///
    /// # Errors
    /// As [`PeerName::from_certificate`].
    #[doc(hidden)]
    pub fn named(leaf: &CertificateDer<'_>, naming: &Naming) -> Result<Self, NameError> {
        Self::from_parsed(&parse(leaf)?, naming)
    }

    pub(super) fn from_parsed(
        leaf: &X509Certificate<'_>,
        naming: &Naming,
    ) -> Result<Self, NameError> {
        match uris(leaf)?[..] {
            [] => Err(NameError::NoUri),
            [uri] => naming.read(uri),
            ref several => Err(NameError::SeveralUris(several.len())),
        }
    }
}

pub(super) fn parse<'a>(
    certificate: &'a CertificateDer<'_>,
) -> Result<X509Certificate<'a>, NameError> {
    match X509Certificate::from_der(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        Ok(_) => Err(NameError::Malformed("bytes follow it".to_owned())),
        Err(_) => Err(NameError::Malformed("it is damaged, or no X.509 certificate".to_owned())),
    }
}

/// The validity of a certificate alone, start and end; `None` if it cannot be read.
pub(super) fn validity(certificate: &CertificateDer<'_>) -> Option<(SystemTime, SystemTime)> {
    period(&parse(certificate).ok()?)
}

/// The validity of a certificate that was read.
pub(super) fn period(parsed: &X509Certificate<'_>) -> Option<(SystemTime, SystemTime)> {
    let validity = parsed.validity();
    Some((system_time(validity.not_before).ok()?, system_time(validity.not_after).ok()?))
}

/// SHA-256 of a chain in hexadecimal; for a single certificate that of the certificate.
pub(crate) fn chain_fingerprint(chain: &[CertificateDer<'_>]) -> String {
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    chain.iter().for_each(|certificate| digest.update(certificate));
    hex(digest.finish().as_ref())
}

/// The one URI name of a certificate, whatever its form.
pub(super) fn only_uri(certificate: &CertificateDer<'_>) -> Result<String, NameError> {
    match uris(&parse(certificate)?)?[..] {
        [] => Err(NameError::NoUri),
        [uri] => Ok(uri.to_owned()),
        ref several => Err(NameError::SeveralUris(several.len())),
    }
}

/// All URI names. A name that cannot be read might be a URI, so it makes the certificate unusable.
fn uris<'a>(certificate: &'a X509Certificate<'_>) -> Result<Vec<&'a str>, NameError> {
    let malformed = |why: &str| NameError::Malformed(why.to_owned());
    let extension = certificate
        .subject_alternative_name()
        .map_err(|_| malformed("its alternative names are damaged or given twice"))?;
    let Some(extension) = extension else {
        return Ok(Vec::new());
    };
    let mut uris = Vec::new();
    for name in &extension.value.general_names {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            GeneralName::Invalid(..) => return Err(malformed("an alternative name is damaged")),
            _ => {}
        }
    }
    Ok(uris)
}

/// The URI of a certificate authority's cluster, `spiffe://<cluster>`.
pub(crate) fn authority_uri(cluster: &ClusterId) -> String {
    format!("{SCHEME}{cluster}")
}

/// The cluster that an authority's certificate names.
pub(crate) fn authority_cluster(certificate: &CertificateDer<'_>) -> Option<ClusterId> {
    let parsed = parse(certificate).ok()?;
    let [uri] = uris(&parsed).ok()?[..] else {
        return None;
    };
    ClusterId::new(uri.strip_prefix(SCHEME)?).ok()
}

fn system_time(time: ASN1Time) -> Result<SystemTime, NameError> {
    let seconds = time.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 {
        UNIX_EPOCH.checked_sub(distance)
    } else {
        UNIX_EPOCH.checked_add(distance)
    };
    time.ok_or_else(|| NameError::Malformed("its dates are out of range".to_owned()))
}

/// A date by RFC 3339 in whole seconds, UTC.
#[must_use]
pub fn date(time: SystemTime) -> String {
    let seconds = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |s| -s),
    };
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|date| date.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{seconds} s since 1970"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Maximum number of certificates above a leaf that are read.
const CHAIN_DEPTH_MAX: usize = 8;
