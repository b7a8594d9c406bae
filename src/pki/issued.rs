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
            files.push((file::ROOTS, &self.roots_pem, Audience::Anyone));
        }
        save(directory, existing, &files)
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}
