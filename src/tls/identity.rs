//! The certificate that a node shows. Whether to trust it is decided in the verifier, not here.

use std::{fmt, path::Path, sync::Arc, time::SystemTime};

use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::CertifiedKey,
};

use super::{
    certificate::{CertificateSummary, date},
    files::{Audience, LoadError, read},
    kind::{Holder, check_kinds, check_order},
    name::PeerName,
    naming::Naming,
    pem::{chain_from_pem, key_from_pem},
    provider::provider,
};
use crate::clock::Clock;

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
    /// [`LoadError`], naming the file; for example if others than the owner may read the key file,
    /// if key and certificate do not match, or if the certificate has expired.
    pub fn from_pem_files(
        certificate: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, LoadError> {
        Self::from_pem_files_named(certificate, key, &Naming::default())
    }

    /// As [`Identity::from_pem_files`], with names of another form, which applies to the certificates of
    /// all of the cluster's nodes.
    ///
    /// # Errors
    /// As [`Identity::from_pem_files`].
    pub fn from_pem_files_named(
        certificate: impl AsRef<Path>,
        key: impl AsRef<Path>,
        naming: &Naming,
    ) -> Result<Self, LoadError> {
        let (certificate, key) = (certificate.as_ref(), key.as_ref());
        let now = Clock::wall();
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
        Self::from_pem_at(certificate, key, Clock::wall())
    }

    /// As [`Identity::from_pem_files`] on a host whose clock shows `now`.
    ///
    /// # Errors
    /// As [`Identity::from_pem_files`].
    #[doc(hidden)]
    pub fn from_pem_files_at(
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
    #[doc(hidden)]
    pub fn from_pem_at(certificate: &[u8], key: &[u8], now: SystemTime) -> Result<Self, LoadError> {
        Self::new(chain_from_pem(certificate)?, key_from_pem(key)?, &Naming::default(), now)
    }

    /// The name in this certificate.
    #[must_use]
    pub fn name(&self) -> &PeerName {
        &self.name
    }

    /// The form of names, ours and those of peers.
    #[must_use]
    #[doc(hidden)]
    pub const fn naming(&self) -> &Naming {
        &self.naming
    }

    /// The content of our leaf certificate. Its end is that of the leaf alone: how long the chain is
    /// accepted depends on the roots, see [`Tls::certificate`](super::Tls::certificate).
    #[must_use]
    pub fn certificate(&self) -> &CertificateSummary {
        &self.summary
    }

    /// The certificates shown to peers, the leaf first.
    #[must_use]
    #[doc(hidden)]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// A different number for each chain.
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

    /// Accepts a certificate that is not valid yet: on a host that starts before its clock is set,
    /// time repairs that, and until then peers report why they refuse us.
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
        let certified =
            CertifiedKey::from_der(chain, key, &provider()).map_err(LoadError::from_rustls)?;
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

#[cfg(all(test, unix))]
mod tests {
    use std::{
        fs,
        os::unix::fs::PermissionsExt,
        path::PathBuf,
        time::{Duration, UNIX_EPOCH},
    };

    use proptest::{prelude::*, sample::Index};

    use super::*;
    use crate::{
        pki::{Authority, AuthorityOptions, Issued, LeafOptions},
        protocol::id::ClusterId,
        tls::{NameError, files::PEM_FILE_MAX},
    };

    #[test]
    fn refuses_a_key_that_others_may_use() {
        let (_directory, certificate, key) = files();
        for mode in [0o644, 0o604, 0o620, 0o777] {
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
        let not_before = Clock::wall() + Duration::from_secs(1000);
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
        issued("a").save(directory.path(), crate::pki::Existing::Refuse).unwrap();
        (directory, paths.0, paths.1)
    }
}
