//! Files of certificates and keys: reading them, and why one cannot be used.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{
    name::NameError,
    refusal::{Rejection, words},
};

/// Maximum size of a certificate, key or roots file, in bytes. A chain of three RSA-4096
/// certificates is 8 kB.
pub(crate) const PEM_FILE_MAX: u64 = 1024 * 1024;

/// A certificate, key or roots file cannot be used. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// One of the other errors, in this file.
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
    /// The file is larger than 1 MiB.
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
    /// The file contains certificates or a key, but not in PEM as it is read here.
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
        /// Its place in the file, from 1 on.
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
    /// A certificate's key is of a kind that is not accepted.
    #[error(
        "the key in the certificate of {subject} is {kind}; allowed are {ALLOWED}: issue one with such a key"
    )]
    KeyKind {
        /// The certificate's subject.
        subject: String,
        /// The kind of the key.
        kind: String,
    },
    /// A certificate is signed with a broken hash.
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
        /// Its expiry, by RFC 3339.
        not_after: String,
    },
    /// Peers with the same roots would refuse the certificate.
    #[error("its own roots refuse the certificate: {}", .0.seen_by_itself())]
    Refused(Rejection),
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
        /// Its expiry, by RFC 3339.
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
    pub(crate) fn in_file(self, path: &Path) -> Self {
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

/// The permitted readers of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    Anyone,
    OwnerOnly,
}

/// Reads a whole file. The permissions are checked on the opened file, since another file may have
/// the name a moment later.
pub(crate) fn read(path: &Path, audience: Audience) -> Result<Zeroizing<Vec<u8>>, LoadError> {
    let file = File::open(path)?;
    if audience == Audience::OwnerOnly {
        refuse_exposed(&file, path)?;
    }
    // Allocate all of it at once: a vector that grows leaves copies behind.
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
    use std::os::unix::fs::MetadataExt;
    let metadata = file.metadata()?;
    let mode = metadata.mode() & 0o777;
    if is_exposed(mode, metadata.uid()) {
        return Err(LoadError::KeyExposed { path: path.to_owned(), mode });
    }
    Ok(())
}

/// Only the owner may use the file. If root owns it, its group may read it: so Kubernetes mounts a secret (`fsGroup`), and
/// Debian keeps keys, for a process that is not root. PostgreSQL has the same rule.
#[cfg(unix)]
const fn is_exposed(mode: u32, owner: u32) -> bool {
    let refused = if owner == 0 { 0o037 } else { 0o077 };
    mode & refused != 0
}

#[cfg(not(unix))]
fn refuse_exposed(_: &File, _: &Path) -> Result<(), LoadError> {
    Ok(())
}

/// The accepted kinds of a node's key.
const ALLOWED: &str = "Ed25519, ECDSA P-256 or P-384, or RSA of 2048 to 8192 bits";

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_root_may_be_read_by_its_group_and_any_other_by_its_owner_alone() {
        const SOMEBODY: u32 = 1_000;
        for (mode, owner) in [(0o600, SOMEBODY), (0o400, 0), (0o440, 0), (0o640, 0)] {
            assert!(!is_exposed(mode, owner), "{mode:o} {owner}");
        }
        for (mode, owner) in
            [(0o440, SOMEBODY), (0o640, SOMEBODY), (0o660, 0), (0o644, 0), (0o604, 0), (0o450, 0)]
        {
            assert!(is_exposed(mode, owner), "{mode:o} {owner}");
        }
    }
}
