//! Which certificate a node shows, and which name a certificate proves.
//!
//! A name is one URI, `spiffe://<cluster>/<datacenter>/<node>`, and nothing else: neither the
//! subject nor a DNS name is ever read as an identity. Whether a certificate is to be believed is
//! not decided here but in the verifier.

use std::{
    fmt,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::CertifiedKey,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    prelude::{ASN1Time, FromDer},
};
use zeroize::Zeroizing;

use super::{
    kind::{self, ALLOWED, Holder},
    naming::Naming,
    pem::{chain_from_pem, key_from_pem},
    refusal::words,
    role::ClientName,
};
use crate::{
    foreign::{Foreign, is_unsafe},
    protocol::id::{ClusterId, Datacenter, NodeId},
};

/// Largest certificate, key or roots file that is read, in bytes. A chain of three RSA-4096
/// certificates is 8 kB.
pub const PEM_FILE_MAX: u64 = 1024 * 1024;

/// Who a certificate says its holder is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeerName {
    /// The cluster; the trust domain in SPIFFE's words.
    pub cluster: ClusterId,
    /// The datacenter the node runs in.
    pub datacenter: Datacenter,
    /// The node, unique in the cluster.
    pub node: NodeId,
}

impl PeerName {
    /// Reads the one URI name of a leaf certificate.
    ///
    /// This proves nothing yet: anybody can write a certificate. Of a peer it is true only after
    /// the handshake.
    ///
    /// # Errors
    /// [`NameError`] unless the certificate is readable and has exactly one URI name, of the form
    /// `spiffe://<cluster>/<datacenter>/<node>`.
    pub fn from_certificate(leaf: &CertificateDer<'_>) -> Result<Self, NameError> {
        Self::named(leaf, &Naming::default())
    }

    /// The same of a URI of another form.
    ///
    /// # Errors
    /// As [`PeerName::from_certificate`].
    pub fn named(leaf: &CertificateDer<'_>, naming: &Naming) -> Result<Self, NameError> {
        Self::from_parsed(&parse(leaf)?, naming)
    }

    /// Reads a URI of the form `spiffe://<cluster>/<datacenter>/<node>`.
    ///
    /// # Errors
    /// [`NameError::BadUri`], which names the URI and what is wrong with it.
    pub fn from_uri(uri: &str) -> Result<Self, NameError> {
        Naming::default().read(uri)
    }

    /// The name as the URI that a certificate carries.
    #[must_use]
    pub fn to_uri(&self) -> String {
        format!("{SCHEME}{}/{}/{}", self.cluster, self.datacenter, self.node)
    }

    fn from_parsed(leaf: &X509Certificate<'_>, naming: &Naming) -> Result<Self, NameError> {
        match uris(leaf)?[..] {
            [] => Err(NameError::NoUri),
            [uri] => naming.read(uri),
            ref several => Err(NameError::SeveralUris(several.len())),
        }
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.to_uri())
    }
}

/// A certificate does not say, in the one way that counts, whose it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Not an X.509 certificate, or one that contradicts itself.
    #[error("the certificate cannot be read: {0}")]
    Malformed(String),
    /// No URI among the subject alternative names.
    #[error("the certificate has no URI name; {WANTED}")]
    NoUri,
    /// More than one URI among the subject alternative names.
    #[error("the certificate has {0} URI names; {WANTED}")]
    SeveralUris(usize),
    /// The one URI is not a name of the kind that is needed.
    #[error(
        "the certificate's URI name {uri:?} is not a {of}'s name: {why}; it needs one as {wanted}"
    )]
    BadUri {
        /// The start of the URI.
        uri: String,
        /// Whose name it should be: `node` or `client`.
        of: &'static str,
        /// What is wrong with it.
        why: String,
        /// The form that is needed.
        wanted: String,
    },
    /// The connection has no certificate of the peer: its handshake is not complete.
    #[error("the peer has shown no certificate (yet)")]
    NoCertificate,
}

/// What a certificate says, for display and for timers. Nothing of it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateSummary {
    /// The node it names, or why it names none (a certificate authority names none).
    pub name: Result<PeerName, NameError>,
    /// The subject's distinguished name.
    pub subject: String,
    /// The issuer's distinguished name.
    pub issuer: String,
    /// The serial number in hexadecimal.
    pub serial: String,
    /// Not valid before this.
    pub not_before: SystemTime,
    /// Not valid after this. TLS looks at it only during a handshake: a live connection survives
    /// it, so whoever holds connections must set a timer.
    pub not_after: SystemTime,
    /// When the chain that it was read with ends: `not_after`, or the end of an intermediate above it
    /// that ends first. Of a certificate that was read alone it is `not_after`.
    pub expires: SystemTime,
    /// SHA-256 of the whole certificate in hexadecimal.
    pub fingerprint: String,
    /// Whether it may sign other certificates.
    pub is_authority: bool,
    /// The client it names, if it names no node but one of those.
    pub client: Option<ClientName>,
}

impl CertificateSummary {
    /// Reads a certificate.
    ///
    /// # Errors
    /// [`NameError::Malformed`] if it is not one.
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

    /// Reads the certificates of a file, the leaf first, and when each ends with those above it. Which
    /// is above which is told by their names alone.
    ///
    /// # Errors
    /// [`NameError::Malformed`] if one is no certificate.
    #[cfg(feature = "cli")]
    pub(crate) fn of_chain(chain: &[CertificateDer<'_>]) -> Result<Vec<Self>, NameError> {
        let parsed = chain.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        let mut summaries =
            chain.iter().map(Self::from_certificate).collect::<Result<Vec<_>, _>>()?;
        // Of several of one name the one that lasts longest counts: a peer takes it as well.
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

/// The certificate chain a node shows, with its private key.
#[derive(Clone)]
pub struct Identity {
    name: PeerName,
    naming: Naming,
    summary: CertificateSummary,
    certified: Arc<CertifiedKey>,
}

impl Identity {
    /// Loads a certificate chain (the leaf first) and its private key from two PEM files.
    ///
    /// The key may be PKCS#8, SEC1 or PKCS#1.
    ///
    /// # Errors
    /// [`LoadError`], naming the file; among others if the key file may be read by others than its
    /// owner, if key and certificate do not belong together, or if the certificate has expired.
    pub fn from_pem_files(certificate: &Path, key: &Path) -> Result<Self, LoadError> {
        Self::from_pem_files_named(certificate, key, &Naming::default())
    }

    /// As [`Identity::from_pem_files`], with names of another form: all that the cluster's nodes show is
    /// read by it.
    ///
    /// # Errors
    /// As [`Identity::from_pem_files`].
    pub fn from_pem_files_named(
        certificate: &Path,
        key: &Path,
        naming: &Naming,
    ) -> Result<Self, LoadError> {
        let now = super::now();
        let chain = read(certificate, Audience::Anyone)
            .and_then(|pem| chain_from_pem(&pem))
            .map_err(|e| e.in_file(certificate))?;
        let key_der = read(key, Audience::OwnerOnly)
            .and_then(|pem| key_from_pem(&pem))
            .map_err(|e| e.in_file(key))?;
        Self::new(chain, key_der, naming, now).map_err(|error| match error {
            LoadError::Key => error.in_file(key),
            error => error.in_file(certificate),
        })
    }

    /// Reads a certificate chain (the leaf first) and its private key from PEM text.
    ///
    /// # Errors
    /// As [`Identity::from_pem_files`], without the files.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, LoadError> {
        Self::from_pem_at(certificate, key, super::now())
    }

    /// As [`Identity::from_pem_files`] on a host whose clock shows `now`.
    #[cfg(feature = "cli")]
    pub(crate) fn from_pem_files_at(
        certificate: &Path,
        key: &Path,
        now: SystemTime,
    ) -> Result<Self, LoadError> {
        let chain = read(certificate, Audience::Anyone).map_err(|e| e.in_file(certificate))?;
        let secret = read(key, Audience::OwnerOnly).map_err(|e| e.in_file(key))?;
        Self::from_pem_at(&chain, &secret, now)
    }

    /// As [`Identity::from_pem`] on a host whose clock shows `now`.
    ///
    /// # Errors
    /// As [`Identity::from_pem`].
    pub fn from_pem_at(certificate: &[u8], key: &[u8], now: SystemTime) -> Result<Self, LoadError> {
        Self::new(chain_from_pem(certificate)?, key_from_pem(key)?, &Naming::default(), now)
    }

    /// Who this certificate says we are.
    #[must_use]
    pub fn name(&self) -> &PeerName {
        &self.name
    }

    /// How names are read, ours and those of peers.
    #[must_use]
    pub const fn naming(&self) -> &Naming {
        &self.naming
    }

    /// What our leaf certificate says. Its end is that of the leaf alone: how long the chain is accepted
    /// depends on the roots, see [`Tls::certificate`](super::Tls::certificate).
    #[must_use]
    pub fn certificate(&self) -> &CertificateSummary {
        &self.summary
    }

    /// The certificates shown to peers, the leaf first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// Another number for another chain.
    pub(super) fn revision(&self) -> u64 {
        let mut hasher = blake3::Hasher::new();
        for certificate in self.chain() {
            hasher.update(certificate);
        }
        hasher
            .finalize()
            .as_bytes()
            .iter()
            .take(8)
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    pub(super) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    /// A certificate that is not valid yet is let through: on a host that starts before its clock
    /// is set, that repairs itself, and until then peers say why they refuse us.
    fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        naming: &Naming,
        now: SystemTime,
    ) -> Result<Self, LoadError> {
        let leaf = chain.first().ok_or(LoadError::NoCertificate)?;
        check_order(&chain)?;
        let name = PeerName::named(leaf, naming)?;
        let summary = CertificateSummary {
            name: Ok(name.clone()),
            ..CertificateSummary::from_certificate(leaf)?
        };
        if now > summary.not_after {
            return Err(LoadError::Expired { not_after: date(summary.not_after) });
        }
        check_kinds(&chain, Holder::Node)?;
        let certified = CertifiedKey::from_der(chain, key, &super::provider())
            .map_err(LoadError::from_rustls)?;
        let naming = naming.clone();
        Ok(Self { name, naming, summary, certified: Arc::new(certified) })
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("name", &self.name)
            .field("fingerprint", &self.summary.fingerprint)
            .finish_non_exhaustive()
    }
}

/// A certificate, key or roots file cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// One of the others, in this file.
    #[error("{}: {error}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        error: Box<Self>,
    },
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// The file is larger than [`PEM_FILE_MAX`].
    #[error(
        "is larger than {PEM_FILE_MAX} bytes, so it is not a PEM file of certificates or a key"
    )]
    TooLarge,
    /// The private key is not private.
    #[error("this private key may be used by others than its owner (mode {mode:03o}); run: chmod 600 {}", path.display())]
    KeyExposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// No certificate in the file.
    #[error("contains no certificate (no BEGIN CERTIFICATE in PEM)")]
    NoCertificate,
    /// No private key in the file.
    #[error("contains no private key (PKCS#8, SEC1 or PKCS#1 in PEM)")]
    NoKey,
    /// What is in the file is certificates or a key, but not in PEM as it is read here.
    #[error("{0}")]
    Form(&'static str),
    /// The first certificate is not the leaf.
    #[error(
        "the first certificate ({first}) is an authority's, and the leaf ({leaf}) is number {place}: put the \
         leaf first, then the intermediates"
    )]
    LeafNotFirst {
        /// The subject of the first one.
        first: String,
        /// The subject of the leaf.
        leaf: String,
        /// Where it stands, from 1 on.
        place: usize,
    },
    /// The leaf may sign other certificates.
    #[error(
        "the certificate of {subject} is an authority's (CA:true), which nobody accepts as a node's or a \
         client's: issue one with CA:false"
    )]
    LeafIsAuthority {
        /// Its subject.
        subject: String,
    },
    /// The key of a certificate is of a kind that is not accepted.
    #[error(
        "the key in the certificate of {subject} is {kind}; allowed are {ALLOWED}: issue one with such a key"
    )]
    KeyKind {
        /// The certificate's subject.
        subject: String,
        /// What the key is.
        kind: String,
    },
    /// A certificate is signed by way of a broken hash.
    #[error(
        "the certificate of {subject} is signed with {hash}, which nobody accepts: have its authority sign \
         it with SHA-256 or better"
    )]
    WeakSignature {
        /// The certificate's subject.
        subject: String,
        /// The hash.
        hash: &'static str,
    },
    /// The private key is damaged.
    #[error(
        "the private key cannot be used for TLS: it is damaged, or of another kind than {ALLOWED}; put the \
         key of this certificate there, or issue both anew"
    )]
    Key,
    /// A certificate above the leaf has expired.
    #[error(
        "the intermediate certificate of {subject} expired on {not_after}, and the node's certificate with \
         it: get one whose chain has the intermediate that took its place"
    )]
    IssuerExpired {
        /// Its subject.
        subject: String,
        /// When, by RFC 3339.
        not_after: String,
    },
    /// Peers with the same roots would refuse the certificate.
    #[error("its own roots refuse the certificate: {}", .0.seen_by_itself())]
    Refused(super::Rejection),
    /// The private key is encrypted with a passphrase.
    #[error(
        "the private key is encrypted with a passphrase, which is not supported; decrypt it with: openssl pkey -in FILE -out NEW"
    )]
    EncryptedKey,
    /// The file is damaged.
    #[error("is not valid PEM: {0}")]
    Pem(&'static str),
    /// Key and certificate do not belong together.
    #[error(
        "the certificate and the private key do not belong together: the certificate is of another key"
    )]
    Mismatch,
    /// Our own certificate has expired, so every peer would refuse us.
    #[error(
        "the certificate expired on {not_after}; issue a new one (with the authority's files: cert renew --break-glass)"
    )]
    Expired {
        /// When, by RFC 3339.
        not_after: String,
    },
    /// Our own certificate does not name a node.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A certificate given as a root may not sign others.
    #[error(
        "the certificate of {subject:?} is not a certificate authority's; roots are the certificates that sign nodes' certificates"
    )]
    NotAnAuthority {
        /// Its subject.
        subject: String,
    },
    /// Rustls does not support this certificate.
    #[error("cannot be used for TLS: {}", words(.0))]
    Unsupported(rustls::Error),
}

impl LoadError {
    pub(super) fn in_file(self, path: &Path) -> Self {
        Self::InFile { path: path.to_owned(), error: Box::new(self) }
    }

    pub(super) fn from_rustls(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch) => {
                Self::Mismatch
            }
            _ => Self::Key,
        }
    }
}

/// Refuses a chain whose first certificate is no leaf.
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

/// Refuses a chain with keys or signatures that nobody accepts. `holder`: of the leaf.
pub(super) fn check_kinds(chain: &[CertificateDer<'_>], holder: Holder) -> Result<(), LoadError> {
    for (place, certificate) in chain.iter().enumerate() {
        let holder = if place == 0 { holder } else { Holder::Other };
        kind::check(&parse(certificate)?, holder)?;
    }
    Ok(())
}

/// Who may have access to a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    Anyone,
    OwnerOnly,
}

/// Reads a whole file. The permissions are those of the opened file, not of whatever has the name
/// a moment later.
pub(super) fn read(path: &Path, audience: Audience) -> Result<Zeroizing<Vec<u8>>, LoadError> {
    let file = File::open(path)?;
    if audience == Audience::OwnerOnly {
        refuse_exposed(&file, path)?;
    }
    // Room for all of it at once: a vector that grows leaves copies behind.
    let room = file.metadata()?.len().min(PEM_FILE_MAX) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(room).unwrap_or(0)));
    file.take(PEM_FILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > PEM_FILE_MAX {
        return Err(LoadError::TooLarge);
    }
    Ok(bytes)
}

#[cfg(unix)]
fn refuse_exposed(file: &File, path: &Path) -> Result<(), LoadError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = file.metadata()?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(LoadError::KeyExposed { path: path.to_owned(), mode });
    }
    Ok(())
}

#[cfg(not(unix))]
fn refuse_exposed(_: &File, _: &Path) -> Result<(), LoadError> {
    Ok(())
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

/// From when and until when a certificate alone is valid; `None` if it cannot be read.
pub(super) fn validity(certificate: &CertificateDer<'_>) -> Option<(SystemTime, SystemTime)> {
    let parsed = parse(certificate).ok()?;
    let validity = parsed.validity();
    Some((system_time(validity.not_before).ok()?, system_time(validity.not_after).ok()?))
}

/// SHA-256 of a chain in hexadecimal; of a single certificate that of the certificate.
pub(crate) fn chain_fingerprint(chain: &[CertificateDer<'_>]) -> String {
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    chain.iter().for_each(|certificate| digest.update(certificate));
    hex(digest.finish().as_ref())
}

/// What the certificates of a PEM file say, in their order.
#[cfg(feature = "cli")]
pub(crate) fn summaries_of(path: &Path) -> Result<Vec<CertificateSummary>, LoadError> {
    let summaries = || {
        let chain = chain_from_pem(&read(path, Audience::Anyone)?)?;
        Ok(CertificateSummary::of_chain(&chain)?)
    };
    summaries().map_err(|error: LoadError| error.in_file(path))
}

/// The one URI name of a certificate, whatever it says.
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
pub(super) fn authority_uri(cluster: &ClusterId) -> String {
    format!("{SCHEME}{cluster}")
}

/// The cluster that an authority's certificate says it is of.
pub(super) fn authority_cluster(certificate: &CertificateDer<'_>) -> Option<ClusterId> {
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
pub(crate) fn date(time: SystemTime) -> String {
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

/// The start of a foreign text, so that an error message stays one line.
pub(super) fn shown(text: &str) -> String {
    text.chars().filter(|c| !is_unsafe(*c)).take(URI_SHOWN_MAX).collect()
}

pub(super) const SCHEME: &str = "spiffe://";
const WANTED: &str = "it needs exactly one, spiffe://<cluster>/<datacenter>/<node>";
/// Three labels of the longest length, the scheme and two slashes are 200 characters.
const URI_SHOWN_MAX: usize = 200;
/// So many certificates above a leaf are looked at.
#[cfg(feature = "cli")]
const CHAIN_DEPTH_MAX: usize = 8;

#[cfg(all(test, unix))]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use proptest::{prelude::*, sample::Index};

    use super::*;
    use crate::tls::{Authority, AuthorityOptions, Issued, LeafOptions, now};

    #[test]
    fn refuses_a_key_that_others_may_use() {
        let (_directory, certificate, key) = files();
        for mode in [0o640, 0o604, 0o620, 0o777] {
            fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
            let error = Identity::from_pem_files(&certificate, &key).unwrap_err().to_string();
            let fix = format!("(mode {mode:o}); run: chmod 600 {}", key.display());
            assert!(error.contains(&fix), "{error}");
        }
        for mode in [0o600, 0o400] {
            fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
            Identity::from_pem_files(&certificate, &key).unwrap();
        }
    }

    #[test]
    fn refuses_files_that_are_missing_or_of_another_kind() {
        let (_directory, certificate, key) = files();
        let load = || Identity::from_pem_files(&certificate, &key).unwrap_err().to_string();
        let write_key = |text: &str| fs::write(&key, text).unwrap();
        for (text, expected) in [
            ("", "node.key: contains no private key"),
            (
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
                "encrypted with a passphrase",
            ),
            (
                "-----BEGIN PRIVATE KEY-----\nSECRET",
                "node.key: is not valid PEM: a section has no END",
            ),
            ("-----BEGIN PRIVATE KEY-----\n?SECRET\n-----END PRIVATE KEY-----\n", "base64"),
            (
                "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
                "cannot be used for TLS",
            ),
        ] {
            write_key(text);
            let error = load();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("SECRET"), "{error}");
        }
        fs::write(&certificate, "").unwrap();
        write_key(&issued("a").key_pem);
        assert!(load().contains("node.pem: contains no certificate"), "{}", load());
        fs::write(&certificate, vec![b'x'; PEM_FILE_MAX as usize + 1]).unwrap();
        assert!(load().contains("node.pem: is larger than"), "{}", load());
        fs::remove_file(&certificate).unwrap();
        assert!(load().contains("node.pem: cannot be read"), "{}", load());
    }

    #[test]
    fn refuses_a_key_of_another_certificate() {
        let (a, b) = (issued("a"), issued("b"));
        let error = load(&a.certificate_pem, &b.key_pem).unwrap_err();
        assert!(matches!(error, LoadError::Mismatch), "{error}");
    }

    #[test]
    fn refuses_an_expired_certificate_with_its_date() {
        let not_after = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let not_before = not_after - Duration::from_secs(1000);
        let expired = issue(&LeafOptions { not_before, not_after, ..options("a") });
        let error = load(&expired.certificate_pem, &expired.key_pem).unwrap_err().to_string();
        assert!(error.contains("expired on 2023-11-14T22:13:20Z"), "{error}");
        let (certificate, key) = (expired.certificate_pem.as_bytes(), expired.key_pem.as_bytes());
        Identity::from_pem_at(certificate, key, not_after).unwrap();
        Identity::from_pem_at(certificate, key, not_after + Duration::from_secs(1)).unwrap_err();
    }

    #[test]
    fn refuses_a_certificate_without_exactly_one_uri() {
        let uri = |node| name(node).to_uri();
        let foreign = "https://example.org/a".to_owned();
        for (uris, expected) in [
            (vec![], NameError::NoUri),
            (vec![uri("a"), uri("b")], NameError::SeveralUris(2)),
            (vec![uri("a"), uri("a"), foreign], NameError::SeveralUris(3)),
        ] {
            let issued = issue(&LeafOptions { uris, ..options("a") });
            assert_eq!(issued.certificate.name, Err(expected));
            let error = load(&issued.certificate_pem, &issued.key_pem).unwrap_err().to_string();
            assert!(error.contains("spiffe://<cluster>/<datacenter>/<node>"), "{error}");
        }
    }

    #[test]
    fn refuses_uris_that_are_not_a_nodes_name() {
        for bad in [
            "",
            "spiffe://",
            "spiffe://demo",
            "spiffe://demo/eu",
            "spiffe://demo/eu/",
            "spiffe://demo//a",
            "spiffe:///eu/a",
            "spiffe://demo/eu/a/b",
            "spiffe://demo/eu/a/",
            "spiffe://demo/eu/a?role=b",
            "spiffe://demo/eu/a#b",
            "spiffe://demo/eu/%61",
            "spiffe://demo:7100/eu/a",
            "spiffe://root@demo/eu/a",
            "spiffe://Demo/eu/a",
            "SPIFFE://demo/eu/a",
            "https://demo/eu/a",
            " spiffe://demo/eu/a",
        ] {
            let error = PeerName::from_uri(bad).unwrap_err();
            assert!(matches!(error, NameError::BadUri { .. }), "{bad}: {error}");
        }
        let error = PeerName::from_uri(&"x".repeat(100_000)).unwrap_err().to_string();
        assert!(error.len() < 500, "{}", error.len());
    }

    #[test]
    fn refuses_bytes_after_a_certificate() {
        let mut der = der(&issued("a"));
        assert!(PeerName::from_certificate(&der.clone().into()).is_ok());
        der.push(0);
        let error = PeerName::from_certificate(&der.into()).unwrap_err();
        assert!(matches!(error, NameError::Malformed(_)), "{error}");
    }

    #[test]
    fn reads_the_name_whatever_other_names_there_are() {
        let issued = issue(&LeafOptions {
            dns_names: vec!["b.example.org".to_owned()],
            ip_addresses: vec![[127, 0, 0, 1].into()],
            ..options("a")
        });
        assert_eq!(issued.certificate.name, Ok(name("a")));
        assert_eq!(name("a").to_string(), "spiffe://demo/eu/a");
    }

    #[test]
    fn loads_a_certificate_that_becomes_valid_later() {
        let not_before = now() + Duration::from_secs(1000);
        let early = issue(&LeafOptions { not_before, ..options("a") });
        assert!(load(&early.certificate_pem, &early.key_pem).is_ok());
    }

    #[test]
    fn shows_a_certificate_but_never_a_key() {
        let issued = issued("a");
        let identity = load(&issued.certificate_pem, &issued.key_pem).unwrap();
        let text = identity.certificate().to_string();
        for part in ["spiffe://demo/eu/a", "valid until  20", &issued.certificate.fingerprint] {
            assert!(text.contains(part), "{text}");
        }
        let secret = issued.key_pem.lines().nth(1).unwrap();
        for shown in [format!("{identity:?}"), format!("{issued:?}")] {
            assert!(!shown.contains(secret) && !shown.contains("PRIVATE"), "{shown}");
        }
    }

    proptest! {
        // C90
        #[test]
        fn never_panics_on_arbitrary_bytes(bytes: Vec<u8>) {
            let certificate = CertificateDer::from(bytes.clone());
            prop_assert!(PeerName::from_certificate(&certificate).is_err());
            prop_assert!(CertificateSummary::from_certificate(&certificate).is_err());
            let _ = chain_from_pem(&bytes);
            let _ = key_from_pem(&bytes);
        }

        // C90
        #[test]
        fn never_panics_on_a_damaged_certificate(
            flips in prop::collection::vec((any::<Index>(), 1u8..), 1..4),
            length: Option<Index>,
        ) {
            let mut der = SAMPLE.with(Clone::clone);
            for (place, mask) in flips {
                let place = place.index(der.len());
                der[place] ^= mask;
            }
            if let Some(length) = length {
                der.truncate(length.index(der.len()));
            }
            let certificate = CertificateDer::from(der);
            if let Ok(summary) = CertificateSummary::from_certificate(&certificate) {
                let _ = summary.to_string();
            }
        }

        #[test]
        fn never_panics_on_an_arbitrary_uri(uri in "(spiffe://)?[a-z/%.\\PC]{0,80}") {
            if let Ok(name) = PeerName::from_uri(&uri) {
                prop_assert_eq!(name.to_uri(), uri);
            }
        }
    }

    thread_local! {
        static SAMPLE: Vec<u8> = der(&issued("a"));
    }

    fn name(node: &str) -> PeerName {
        PeerName::from_uri(&format!("spiffe://demo/eu/{node}")).unwrap()
    }

    fn options(node: &str) -> LeafOptions {
        LeafOptions::new(&name(node), Duration::from_secs(1000))
    }

    fn issue(options: &LeafOptions) -> Issued {
        let cluster = ClusterId::new("demo").unwrap();
        let authority = Authority::create(cluster, &AuthorityOptions::default()).unwrap();
        authority.issue_with(options).unwrap()
    }

    fn issued(node: &str) -> Issued {
        issue(&options(node))
    }

    fn load(certificate: &str, key: &str) -> Result<Identity, LoadError> {
        Identity::from_pem(certificate.as_bytes(), key.as_bytes())
    }

    fn der(issued: &Issued) -> Vec<u8> {
        chain_from_pem(issued.certificate_pem.as_bytes()).unwrap()[0].to_vec()
    }

    fn files() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let paths = (directory.path().join("node.pem"), directory.path().join("node.key"));
        issued("a").save(directory.path(), crate::tls::Existing::Refuse).unwrap();
        (directory, paths.0, paths.1)
    }
}
