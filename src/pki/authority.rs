//! The cluster's own certificate authority: one self-signed root that signs nodes' certificates.
//!
//! It is for clusters without a PKI; certificates of any other CA with the same URI names work as
//! well. It refuses to overwrite a key, and it signs only leaves.

use std::{
    fmt,
    path::Path,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SigningKey, SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::{
    directory::{keys_of, roots_of},
    error::{AuthorityError, made},
    file,
    files::{Existing, save},
    issued::Issued,
    leaf::{
        AUTHORITY_VALIDITY, BACKDATE, KeyKind, LeafOptions, calendar, common_name, generate, leaf,
        random_serial, uri,
    },
    revoked::Revoked,
};
use crate::{
    clock::Clock,
    protocol::{
        id::{ClusterId, Datacenter, NodeId},
        revocation::{CUTOFF_AHEAD_MAX, IssuerId, Revocation, RevocationError},
    },
    tls::{
        certificate::{CertificateSummary, authority_cluster, authority_uri, date},
        files::{Audience, LoadError, read},
        name::PeerName,
        pem::chain_from_pem,
        revoked::{AuthorityKey, issuer_id, seconds},
    },
};

/// How to create an authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityOptions {
    /// The kind of its key.
    pub key: KeyKind,
    /// The start of its validity.
    pub not_before: SystemTime,
    /// The end of its validity.
    pub not_after: SystemTime,
}

impl Default for AuthorityOptions {
    /// Ed25519, from one hour ago until ten years from now.
    fn default() -> Self {
        let now = Clock::wall();
        Self {
            key: KeyKind::default(),
            not_before: now - BACKDATE,
            not_after: now + AUTHORITY_VALIDITY,
        }
    }
}

/// A certificate authority, with its private key.
pub struct Authority {
    cluster: ClusterId,
    certificate_pem: String,
    /// Its certificate, and during a rotation that of the other authority.
    roots_pem: String,
    summary: CertificateSummary,
    issuer: Issuer<'static, KeyPair>,
    /// It issues no certificate that these revoke.
    pub(super) revoked: Revoked,
}

impl Authority {
    /// Creates the authority of a cluster, in memory; [`Authority::save`] writes it.
    ///
    /// # Errors
    /// [`AuthorityError::Make`] if a date is out of range or the system provides no randomness.
    pub fn create(cluster: ClusterId, options: &AuthorityOptions) -> Result<Self, AuthorityError> {
        let key = generate(options.key)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&format!("gossipmonger authority of {cluster}"));
        params.subject_alt_names = vec![uri(&authority_uri(&cluster))?];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(random_serial()?);
        params.not_before = calendar(options.not_before)?;
        params.not_after = calendar(options.not_after)?;
        let certificate = params.self_signed(&key).map_err(made)?;
        let keys = AuthorityKey::of(certificate.der()).into_iter().collect();
        Ok(Self {
            revoked: Revoked::new(cluster.clone(), keys),
            cluster,
            certificate_pem: certificate.pem(),
            roots_pem: certificate.pem(),
            summary: CertificateSummary::from_certificate(certificate.der())
                .map_err(LoadError::from)?,
            issuer: Issuer::new(params, key),
        })
    }

    /// Loads an authority that [`Authority::save`] wrote, and its revocations.
    ///
    /// # Errors
    /// [`AuthorityError::Load`], naming the file, if one is missing or damaged, if others than the
    /// owner may read the key, or if key and certificate do not match. [`AuthorityError::Unsigned`]
    /// if a line of the list has no signature by an authority of the directory.
    pub fn load(directory: &Path) -> Result<Self, AuthorityError> {
        let certificate_path = directory.join(file::AUTHORITY);
        let key_path = directory.join(file::AUTHORITY_KEY);
        let certificate =
            read(&certificate_path, Audience::Anyone).map_err(|e| e.in_file(&certificate_path))?;
        let key = read(&key_path, Audience::OwnerOnly).map_err(|e| e.in_file(&key_path))?;
        let key = std::str::from_utf8(&key)
            .ok()
            .and_then(|pem| KeyPair::from_pem(pem).ok())
            .ok_or_else(|| LoadError::NoKey.in_file(&key_path))?;
        let loaded =
            Self::from_parts(&certificate, key).map_err(|e| e.in_file(&certificate_path))?;
        let roots_pem = roots_of(directory)?;
        let revoked = Revoked::new(loaded.cluster.clone(), keys_of(&roots_pem)?);
        revoked.merge_file(directory)?;
        Ok(Self { roots_pem, revoked, ..loaded })
    }

    /// Writes certificate and key into a directory, which is created if necessary.
    ///
    /// The key is readable for its owner only. No file is ever overwritten: after the loss of an
    /// authority key the whole cluster needs new certificates.
    ///
    /// # Errors
    /// [`AuthorityError::Exists`] or [`AuthorityError::Write`], naming the file.
    pub fn save(&self, directory: &Path) -> Result<(), AuthorityError> {
        let key_pem = self.key_pem();
        save(
            directory,
            Existing::Refuse,
            &[
                (file::AUTHORITY_KEY, &key_pem, Audience::OwnerOnly),
                (file::AUTHORITY, &self.certificate_pem, Audience::Anyone),
            ],
        )
    }

    /// Issues a node's certificate with a new key. [`LEAF_VALIDITY`](super::LEAF_VALIDITY) is for renewal by
    /// hand; a few days are enough where a machine renews.
    ///
    /// # Errors
    /// As [`Authority::issue_with`].
    pub fn issue(
        &self,
        node: NodeId,
        datacenter: Datacenter,
        validity: Duration,
    ) -> Result<Issued, AuthorityError> {
        let name = PeerName { cluster: self.cluster.clone(), datacenter, node };
        self.issue_with(&LeafOptions::new(&name, validity))
    }

    /// Issues a certificate with these options and a new key. The authority does not check the
    /// names: verifiers do.
    ///
    /// # Errors
    /// [`AuthorityError::Expired`] if the authority itself has expired; [`AuthorityError::Make`] if
    /// a certificate cannot contain a name or a date.
    pub fn issue_with(&self, options: &LeafOptions) -> Result<Issued, AuthorityError> {
        let key = generate(options.key)?;
        let certificate = self.sign(options, &key)?;
        Ok(Issued {
            certificate_pem: certificate.pem(),
            key_pem: Zeroizing::new(key.serialize_pem()),
            roots_pem: self.roots_pem.clone(),
            certificate: CertificateSummary::from_certificate(certificate.der())
                .map_err(LoadError::from)?,
        })
    }

    /// Signs a statement that revokes all certificates of a node issued until `at`. From now on it
    /// issues none that this would cover; [`Authority::save_revocations`] makes that durable.
    ///
    /// # Errors
    /// [`AuthorityError::Make`] if it cannot sign; [`AuthorityError::Ahead`] if the cutoff would be more than
    /// [`CUTOFF_AHEAD_MAX`] from now.
    pub fn revoke(&self, node: NodeId, at: SystemTime) -> Result<Revocation, AuthorityError> {
        let mut revoked = self.revoked.lock();
        // A certificate issued since the last revocation may begin as late as that.
        let earlier = revoked.cutoff(&node).map(|cutoff| cutoff + 1);
        let mut statement = Revocation {
            issuer: self.id(),
            cutoff: seconds(at).max(earlier.unwrap_or_default()),
            // None of its certificates is valid longer.
            expires: seconds(self.summary.not_after),
            node,
            signature: Vec::new(),
        };
        statement.check_cutoff(seconds(Clock::wall())).map_err(AuthorityError::Ahead)?;
        self.seal(&mut statement)?;
        revoked.merge(statement.clone());
        Ok(statement)
    }

    /// Adds statements of unknown origin if an authority of the directory has signed them: it issues no
    /// certificate that they revoke. Returns the statements that are not added, unless the known ones cover them.
    #[doc(hidden)]
    pub fn heed(
        &self,
        statements: impl IntoIterator<Item = Revocation>,
    ) -> Vec<(Revocation, RevocationError)> {
        self.revoked.heed(statements)
    }

    /// The statements of this authority and those of the other authorities of its directory, all signed by this one,
    /// so that they count for nodes that trust only this one. Statements that cannot be verified are left out.
    ///
    /// # Errors
    /// [`AuthorityError::Make`] if it cannot sign.
    #[doc(hidden)]
    pub fn statements(&self) -> Result<Vec<Revocation>, AuthorityError> {
        let issuer = self.id();
        let latest = seconds(Clock::wall()).saturating_add(CUTOFF_AHEAD_MAX);
        let mut revoked = self.revoked.lock();
        let foreign: Vec<_> = revoked.iter().filter(|s| s.issuer != issuer).cloned().collect();
        for statement in foreign {
            // A later cutoff was signed while a clock was ahead.
            let cutoff = statement.cutoff.min(latest);
            let signed = |s: &Revocation| s.issuer == issuer && s.cutoff >= cutoff;
            if revoked.of(&statement.node).any(signed) || self.revoked.check(&statement).is_err() {
                continue;
            }
            let expires = statement.expires.max(seconds(self.summary.not_after));
            let mut ours = Revocation { issuer, cutoff, expires, ..statement };
            self.seal(&mut ours)?;
            revoked.merge(ours);
        }
        Ok(revoked.iter().filter(|statement| statement.issuer == issuer).cloned().collect())
    }

    /// Signs and stores the statements of the other authorities of its directory, so that those can be removed.
    pub(super) fn take_over_revocations(&self, directory: &Path) -> Result<(), AuthorityError> {
        if self.statements()?.is_empty() { Ok(()) } else { self.save_revocations(directory) }
    }

    /// Its name in statements.
    pub(super) fn id(&self) -> IssuerId {
        issuer_id(&self.issuer.key().subject_public_key_info())
    }

    pub(super) fn seal(&self, statement: &mut Revocation) -> Result<(), AuthorityError> {
        let message = statement.message(&self.cluster);
        statement.signature = self.issuer.key().sign(&message).map_err(made)?;
        Ok(())
    }

    /// Adds the known revocations to the file in its directory.
    ///
    /// # Errors
    /// [`AuthorityError`], naming the file, if it cannot be read or replaced.
    pub fn save_revocations(&self, directory: &Path) -> Result<(), AuthorityError> {
        self.revoked.save(directory)
    }

    /// Issues a certificate with these options for another party's key, given as the DER of its
    /// SubjectPublicKeyInfo. The caller must know whether that party holds the private key.
    ///
    /// # Errors
    /// As [`Authority::issue_with`]; [`AuthorityError::Make`] also if the key is of an unknown kind.
    #[doc(hidden)]
    pub fn certify(
        &self,
        options: &LeafOptions,
        public_key: &[u8],
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        let key = SubjectPublicKeyInfo::from_der(public_key).map_err(made)?;
        Ok(self.sign(options, &key)?.der().clone())
    }

    /// The cluster it issues for.
    #[must_use]
    #[doc(hidden)]
    pub fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    /// The roots that nodes should have, in PEM: during a rotation more than its own certificate.
    #[must_use]
    pub fn roots_pem(&self) -> &str {
        &self.roots_pem
    }

    pub(super) fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.issuer.key().serialize_pem())
    }

    /// Its certificate in PEM: the root for nodes.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The content of its certificate.
    #[must_use]
    #[doc(hidden)]
    pub fn certificate(&self) -> &CertificateSummary {
        &self.summary
    }

    /// Whether it has revoked the certificates of this node that are valid from `since` on.
    #[must_use]
    #[doc(hidden)]
    pub fn has_revoked(&self, node: &NodeId, since: SystemTime) -> bool {
        self.revoked.lock().revokes(node, seconds(since))
    }

    /// The same for a name without revocations; else valid only after the cutoff.
    fn after_cutoff(&self, options: &LeafOptions) -> LeafOptions {
        let cutoff = self.revoked.cutoff(&options.uris);
        let first = cutoff.map(|cutoff| SystemTime::UNIX_EPOCH + Duration::from_secs(cutoff + 1));
        let not_before = first.map_or(options.not_before, |first| first.max(options.not_before));
        LeafOptions { not_before, ..options.clone() }
    }

    /// The one place where a leaf is signed.
    fn sign(
        &self,
        options: &LeafOptions,
        key: &impl PublicKeyData,
    ) -> Result<Certificate, AuthorityError> {
        if Clock::wall() > self.summary.not_after {
            return Err(AuthorityError::Expired { not_after: date(self.summary.not_after) });
        }
        let options = &self.after_cutoff(options);
        let params = leaf(options, options.not_after.min(self.summary.not_after))?;
        params.signed_by(key, &self.issuer).map_err(made)
    }

    fn from_parts(certificate_pem: &[u8], key: KeyPair) -> Result<Self, LoadError> {
        let certificate = chain_from_pem(certificate_pem)?.swap_remove(0);
        let summary = CertificateSummary::from_certificate(&certificate)?;
        let cluster = authority_cluster(&certificate)
            .filter(|_| summary.is_authority)
            .ok_or_else(|| LoadError::NotAnAuthority { subject: summary.subject.clone() })?;
        if !has_key(&certificate, &key) {
            return Err(LoadError::Mismatch);
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|_| LoadError::Unsupported(rustls::CertificateError::BadEncoding.into()))?;
        let certificate_pem = String::from_utf8_lossy(certificate_pem).into_owned();
        let roots_pem = certificate_pem.clone();
        let keys = AuthorityKey::of(&certificate).into_iter().collect();
        let revoked = Revoked::new(cluster.clone(), keys);
        Ok(Self { cluster, certificate_pem, roots_pem, summary, issuer, revoked })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("cluster", &self.cluster)
            .field("fingerprint", &self.summary.fingerprint)
            .finish_non_exhaustive()
    }
}

fn has_key(certificate: &[u8], key: &KeyPair) -> bool {
    use x509_parser::prelude::{FromDer, X509Certificate};
    X509Certificate::from_der(certificate)
        .is_ok_and(|(_, parsed)| parsed.public_key().raw == key.subject_public_key_info())
}

#[cfg(all(test, unix))]
mod tests {
    use std::{collections::HashSet, fs, os::unix::fs::PermissionsExt};

    use super::{
        super::samples::{DAY, authority, issue, load_node, name},
        *,
    };
    use crate::tls::Roots;

    #[test]
    fn refuses_to_overwrite_an_authority_or_a_node() {
        let directory = tempfile::tempdir().unwrap();
        let first = authority();
        first.save(directory.path()).unwrap();
        let error = authority().save(directory.path()).unwrap_err();
        assert!(matches!(error, AuthorityError::Exists { .. }), "{error}");
        assert!(error.to_string().contains("ca.key exists already"), "{error}");
        assert_eq!(Authority::load(directory.path()).unwrap().certificate(), first.certificate());

        issue(&first, "a").save(directory.path(), Existing::Refuse).unwrap();
        let error = issue(&first, "b").save(directory.path(), Existing::Refuse).unwrap_err();
        assert!(error.to_string().contains("node.key exists already"), "{error}");
        assert_eq!(load_node(directory.path()).name().node.as_str(), "a");
    }

    #[test]
    fn refuses_an_authority_key_that_others_may_read() {
        let directory = tempfile::tempdir().unwrap();
        authority().save(directory.path()).unwrap();
        let key = directory.path().join(file::AUTHORITY_KEY);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        let error = Authority::load(directory.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("run: chmod 600 {}", key.display())), "{error}");
    }

    #[test]
    fn refuses_an_authority_that_is_incomplete_or_not_one() {
        let directory = tempfile::tempdir().unwrap();
        let error = Authority::load(directory.path()).unwrap_err().to_string();
        assert!(error.contains("ca.pem: cannot be read"), "{error}");

        let ca = authority();
        ca.save(directory.path()).unwrap();
        let certificate = directory.path().join(file::AUTHORITY);
        fs::write(&certificate, authority().certificate_pem()).unwrap();
        let error = Authority::load(directory.path()).unwrap_err().to_string();
        assert!(error.contains("do not belong together"), "{error}");

        fs::write(&certificate, issue(&ca, "a").certificate_pem).unwrap();
        let error = Authority::load(directory.path()).unwrap_err().to_string();
        assert!(error.contains("is not a certificate authority's"), "{error}");

        fs::write(directory.path().join(file::AUTHORITY_KEY), "no key").unwrap();
        let error = Authority::load(directory.path()).unwrap_err().to_string();
        assert!(error.contains("ca.key: contains no private key"), "{error}");
    }

    #[test]
    fn refuses_to_issue_when_it_has_expired() {
        let now = Clock::wall();
        let options = AuthorityOptions {
            not_before: now - 2 * DAY,
            not_after: now - DAY,
            ..AuthorityOptions::default()
        };
        let ca = Authority::create(ClusterId::new("demo").unwrap(), &options).unwrap();
        let error = ca.issue_with(&LeafOptions::new(&name("a"), DAY)).unwrap_err();
        assert!(matches!(error, AuthorityError::Expired { .. }), "{error}");
    }

    #[test]
    fn refuses_names_and_dates_that_cannot_stand_in_a_certificate() {
        let ca = authority();
        let uris = vec!["spiffe://demo/eu/\u{e4}".to_owned()];
        let bad_name = LeafOptions { uris, ..LeafOptions::new(&name("a"), DAY) };
        let not_before = SystemTime::UNIX_EPOCH - DAY;
        let bad_date = LeafOptions { not_before, ..LeafOptions::new(&name("a"), DAY) };
        for options in [bad_name, bad_date] {
            assert!(matches!(ca.issue_with(&options), Err(AuthorityError::Make(_))));
        }
    }

    #[test]
    fn issues_after_a_restart_what_its_roots_accept() {
        for key in [KeyKind::Ed25519, KeyKind::P256] {
            let directory = tempfile::tempdir().unwrap();
            let options = AuthorityOptions { key, ..AuthorityOptions::default() };
            let made = Authority::create(ClusterId::new("demo").unwrap(), &options).unwrap();
            made.save(directory.path()).unwrap();
            let loaded = Authority::load(directory.path()).unwrap();
            assert_eq!(loaded.cluster(), made.cluster());
            issue(&loaded, "a").save(directory.path(), Existing::Refuse).unwrap();
            let roots = Roots::from_pem(made.certificate_pem().as_bytes()).unwrap();
            roots.check(&load_node(directory.path()), Clock::wall()).unwrap();
        }
    }

    #[test]
    fn issues_leaves_for_both_sides_that_sign_nothing_and_end_before_it_does() {
        let ca = authority();
        let issued = ca
            .issue(
                NodeId::new("a").unwrap(),
                Datacenter::new("eu").unwrap(),
                2 * AUTHORITY_VALIDITY,
            )
            .unwrap();
        assert_eq!(issued.certificate.not_after, ca.certificate().not_after);
        assert!(issued.certificate.not_before <= Clock::wall() - BACKDATE);
        assert!(!issued.certificate.is_authority);
        let chain = chain_from_pem(issued.certificate_pem.as_bytes()).unwrap();
        let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
        let usage = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.server_auth && usage.client_auth && !usage.any);
        assert_eq!(leaf.key_usage().unwrap().unwrap().value.flags, 1, "digitalSignature only");
    }

    #[test]
    fn never_gives_a_serial_number_twice() {
        let ca = authority();
        let serials: HashSet<_> = (0..50).map(|_| issue(&ca, "a").certificate.serial).collect();
        assert_eq!(serials.len(), 50);
        assert!(serials.iter().all(|serial| serial.len() == 40), "{serials:?}");
    }
}
