//! A certificate that an authority has issued, with its private key.

use std::{fmt, fs, path::Path};

use zeroize::Zeroizing;

use super::{
    error::AuthorityError,
    file,
    files::{Existing, NewFile, make_directory, save},
};
use crate::tls::{certificate::CertificateSummary, files::Audience};

/// A new certificate with its private key, not written to disk yet.
#[derive(Clone)]
#[non_exhaustive]
pub struct Issued {
    /// The certificate in PEM.
    pub certificate_pem: String,
    /// The private key in PEM, PKCS#8.
    pub key_pem: Zeroizing<String>,
    /// The certificate of the authority in PEM; during a rotation those of both.
    pub roots_pem: String,
    /// The content of the certificate.
    pub certificate: CertificateSummary,
}

impl Issued {
    /// Writes certificate, key and roots into a node's directory, or under other names into a
    /// client's. The directory is created if necessary.
    ///
    /// The key is readable for its owner only. Replacing swaps each file completely, the key first:
    /// a process that loads the directory in between finds that key and certificate do not match,
    /// keeps its present ones, and loads again. The roots are written only if none exist, so that a
    /// renewal does not undo a rotation of roots.
    ///
    /// # Errors
    /// [`AuthorityError::Exists`] or [`AuthorityError::Write`], naming the file.
    pub fn save(&self, directory: &Path, existing: Existing) -> Result<(), AuthorityError> {
        let (key, certificate) = match self.certificate.client {
            Some(_) => (file::CLIENT_KEY, file::CLIENT_CERTIFICATE),
            None => (file::KEY, file::CERTIFICATE),
        };
        let mut files: Vec<NewFile<'_>> = vec![
            (key, &self.key_pem, Audience::OwnerOnly),
            (certificate, &self.certificate_pem, Audience::Anyone),
        ];
        make_directory(directory)
            .map_err(|error| AuthorityError::Write { path: directory.to_owned(), error })?;
        // Two processes that replace the files at once would leave the key of one and the certificate of the other.
        // If a directory cannot be locked, only one process may renew.
        let _lock = fs::File::open(directory).and_then(|open| open.lock().map(|()| open));
        if !directory.join(file::ROOTS).exists() {
            // Before the certificate: who finds that, finds everything.
            files.insert(0, (file::ROOTS, &self.roots_pem, Audience::Anyone));
        }
        save(directory, existing, &files)
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::{
        super::samples::{authority, issue, load_node},
        *,
    };
    use crate::tls::Roots;

    #[test]
    fn makes_private_keys_private() {
        let directory = tempfile::tempdir().unwrap();
        let node = directory.path().join("new/node");
        authority().save(directory.path()).unwrap();
        issue(&authority(), "a").save(&node, Existing::Refuse).unwrap();
        issue(&authority(), "a").save(&node, Existing::Replace).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&directory.path().join(file::AUTHORITY_KEY)), 0o600);
        assert_eq!(mode(&node.join(file::KEY)), 0o600);
        assert_eq!(mode(&node), 0o700);
    }

    #[test]
    fn concurrent_replacements_leave_a_certificate_with_its_key() {
        let directory = tempfile::tempdir().unwrap();
        let ca = authority();
        issue(&ca, "a").save(directory.path(), Existing::Refuse).unwrap();
        for _ in 0..10 {
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        issue(&ca, "a").save(directory.path(), Existing::Replace).unwrap();
                    });
                }
            });
            load_node(directory.path());
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3, "no drafts");
    }

    #[test]
    fn replaces_a_certificate_but_not_the_roots() {
        let directory = tempfile::tempdir().unwrap();
        let (old, new) = (authority(), authority());
        issue(&old, "a").save(directory.path(), Existing::Refuse).unwrap();
        let renewed = issue(&new, "a");
        renewed.save(directory.path(), Existing::Replace).unwrap();
        assert_eq!(*load_node(directory.path()).certificate(), renewed.certificate);
        let roots = Roots::from_pem_file(directory.path().join(file::ROOTS)).unwrap();
        assert_eq!(roots.certificates(), [old.certificate().clone()]);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
    }
}
