//! The content of an authority's directory.

use std::path::Path;

use super::{error::AuthorityError, file};
use crate::{
    protocol::revocation::Revocation,
    tls::{
        certificate::CertificateSummary,
        files::{Audience, LoadError, read},
        pem::chain_from_pem,
        revoked::AuthorityKey,
    },
};

/// The roots that nodes should have now, in PEM: both authorities during a rotation.
///
/// # Errors
/// [`AuthorityError::Load`], naming the file.
pub fn roots_of(directory: &Path) -> Result<String, AuthorityError> {
    let mut bundle = String::new();
    for name in [file::AUTHORITY, file::NEXT_AUTHORITY, file::OLD_AUTHORITY] {
        let path = directory.join(name);
        if name == file::AUTHORITY || path.exists() {
            let pem = read(&path, Audience::Anyone).map_err(|error| error.in_file(&path))?;
            let pem = String::from_utf8_lossy(&pem).into_owned();
            // After an interruption in between, one of them exists under two names.
            if !bundle.contains(pem.trim()) {
                bundle.push_str(pem.trim());
                bundle.push('\n');
            }
        }
    }
    Ok(bundle)
}

/// The content of the authorities' certificates in a directory; the issuing one first.
///
/// # Errors
/// As [`roots_of`].
pub fn authorities_in(directory: &Path) -> Result<Vec<CertificateSummary>, AuthorityError> {
    let mut found = Vec::new();
    for certificate in chain_from_pem(roots_of(directory)?.as_bytes())? {
        found.push(CertificateSummary::from_certificate(&certificate).map_err(LoadError::from)?);
    }
    Ok(found)
}

/// The revocations in an authority's directory; most have none.
pub(super) fn revocations(directory: &Path) -> Result<Vec<Revocation>, AuthorityError> {
    let path = directory.join(file::REVOCATIONS);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let bytes = read(&path, Audience::Anyone).map_err(|error| error.in_file(&path))?;
    let text = String::from_utf8_lossy(&bytes);
    Revocation::list_from_text(&text).map_err(|error| AuthorityError::Revocations { path, error })
}

/// The keys of the authorities in a bundle.
pub(super) fn keys_of(roots_pem: &str) -> Result<Vec<AuthorityKey>, AuthorityError> {
    Ok(chain_from_pem(roots_pem.as_bytes())?.iter().filter_map(AuthorityKey::of).collect())
}
