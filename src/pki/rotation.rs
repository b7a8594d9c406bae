//! Replaces one authority by another, in a directory and in three phases; between two phases the operator
//! waits until all nodes have followed.
//!
//! *Prepare* creates the new authority and the bundle of roots with both. *Switch* issues from the new
//! one. *Finish* drops the old one. Each phase ends with the one step that completes it, so an interrupted
//! one is run again. The files alone determine the phase; no other state is kept.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    authority::{Authority, AuthorityOptions},
    error::AuthorityError,
    file,
    files::{Existing, write},
};
pub use super::{
    directory::{authorities_in, roots_of},
    phase::RotationPhase,
};
use crate::tls::{
    files::{Audience, read},
    roots::Roots,
};

/// Replaces the roots in a node's roots file, completely, if they differ; returns whether it did. A
/// certificate that is not a certificate authority's is refused. The agent notices the change by itself.
///
/// # Errors
/// [`AuthorityError::Load`] if these are not roots, or [`AuthorityError::Write`].
pub fn replace_roots(roots_file: &Path, roots_pem: &str) -> Result<bool, AuthorityError> {
    Roots::from_pem(roots_pem.as_bytes())?;
    if fs::read(roots_file).is_ok_and(|old| old == roots_pem.as_bytes()) {
        return Ok(false);
    }
    put(roots_file, roots_pem, Audience::Anyone)?;
    Ok(true)
}

/// Creates the new authority, of the same cluster, and the bundle. If the authority exists: only the bundle.
///
/// # Errors
/// [`AuthorityError`]; [`AuthorityError::Phase`] if the directory is beyond this phase.
pub fn prepare(directory: &Path, options: &AuthorityOptions) -> Result<(), AuthorityError> {
    match RotationPhase::of(directory) {
        RotationPhase::Settled => {
            let current = Authority::load(directory)?;
            let new = Authority::create(current.cluster().clone(), options)?;
            // A key without its certificate was never used.
            put(&directory.join(file::NEXT_AUTHORITY_KEY), &new.key_pem(), Audience::OwnerOnly)?;
            put(&directory.join(file::NEXT_AUTHORITY), new.certificate_pem(), Audience::Anyone)?;
        }
        RotationPhase::Prepared => {}
        phase @ RotationPhase::Switched => return Err(out_of_turn("prepare", phase)),
    }
    put_bundle(directory)
}

/// Makes the new authority the issuer. The key of the old one is kept until *finish*.
///
/// # Errors
/// As [`prepare`].
pub fn switch(directory: &Path) -> Result<(), AuthorityError> {
    let phase = RotationPhase::of(directory);
    let path = |name: &str| directory.join(name);
    match phase {
        RotationPhase::Settled => return Err(out_of_turn("switch", phase)),
        RotationPhase::Switched => return settle(directory),
        RotationPhase::Prepared => {}
    }
    if path(file::NEXT_AUTHORITY_KEY).exists() {
        for (from, to, audience) in [
            (file::AUTHORITY_KEY, file::OLD_AUTHORITY_KEY, Audience::OwnerOnly),
            (file::AUTHORITY, file::OLD_AUTHORITY, Audience::Anyone),
        ] {
            let pem = read(&path(from), audience).map_err(|error| error.in_file(&path(from)))?;
            put(&path(to), &String::from_utf8_lossy(&pem), audience)?;
        }
        // From here until the next step key and certificate do not match: a process that loads them
        // in between receives an error, and issues no certificate.
        rename(&path(file::NEXT_AUTHORITY_KEY), &path(file::AUTHORITY_KEY))?;
    }
    rename(&path(file::NEXT_AUTHORITY), &path(file::AUTHORITY))?;
    settle(directory)
}

/// Completes the switch: the new authority signs the revocations of the old one.
fn settle(directory: &Path) -> Result<(), AuthorityError> {
    Authority::load(directory)?.take_over_revocations(directory)?;
    put_bundle(directory)
}

/// Drops the old authority, with its key.
///
/// # Errors
/// As [`prepare`].
pub fn finish(directory: &Path) -> Result<(), AuthorityError> {
    let phase = RotationPhase::of(directory);
    if phase != RotationPhase::Switched {
        return Err(out_of_turn("finish", phase));
    }
    // Without the old authority, the revocations that it has signed since the switch could not be verified.
    Authority::load(directory)?.take_over_revocations(directory)?;
    for name in [file::OLD_AUTHORITY_KEY, file::OLD_AUTHORITY] {
        let path = directory.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(AuthorityError::Write { path, error });
            }
            _ => {}
        }
    }
    put_bundle(directory)
}

fn put_bundle(directory: &Path) -> Result<(), AuthorityError> {
    replace_roots(&directory.join(file::ROOTS), &roots_of(directory)?).map(drop)
}

fn put(path: &Path, pem: &str, audience: Audience) -> Result<(), AuthorityError> {
    write(path, pem, audience, Existing::Replace).map_err(|error| failed(path, error))
}

fn rename(from: &Path, to: &Path) -> Result<(), AuthorityError> {
    fs::rename(from, to).map_err(|error| failed(to, error))
}

fn failed(path: &Path, error: io::Error) -> AuthorityError {
    AuthorityError::Write { path: PathBuf::from(path), error }
}

const fn out_of_turn(wanted: &'static str, phase: RotationPhase) -> AuthorityError {
    AuthorityError::Phase { wanted, phase }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::{
        clock::Clock,
        pki::{Issued, LEAF_VALIDITY},
        protocol::id::{ClusterId, Datacenter, NodeId},
        tls::{CertificateSummary, Identity},
    };

    #[test]
    fn refuses_a_phase_out_of_turn() {
        let (directory, _) = authority();
        let dir = directory.path();
        let told = |refused: Result<(), AuthorityError>| refused.unwrap_err().to_string();
        assert!(told(switch(dir)).contains("ca rotate --phase prepare"), "{}", told(switch(dir)));
        assert!(told(finish(dir)).contains("ca rotate --phase prepare"));
        prepare(dir, &AuthorityOptions::default()).unwrap();
        assert!(told(finish(dir)).contains("ca rotate --phase switch"));
        switch(dir).unwrap();
        assert!(
            told(prepare(dir, &AuthorityOptions::default())).contains("ca rotate --phase finish")
        );
        finish(dir).unwrap();
        assert_eq!(RotationPhase::of(dir), RotationPhase::Settled);
    }

    #[test]
    fn certificates_of_either_are_accepted_until_the_end() {
        let (directory, old) = authority();
        let dir = directory.path();
        let before = issue(dir);
        prepare(dir, &AuthorityOptions::default()).unwrap();
        assert_eq!(Authority::load(dir).unwrap().certificate(), &old, "it still issues");
        assert_eq!(accepted(dir, &[&before, &issue(dir)]), [true, true]);
        switch(dir).unwrap();
        assert_ne!(Authority::load(dir).unwrap().certificate(), &old);
        let after = issue(dir);
        assert_eq!(after.roots_pem, fs::read_to_string(dir.join(file::ROOTS)).unwrap());
        assert_eq!(accepted(dir, &[&before, &after]), [true, true]);
        finish(dir).unwrap();
        assert_eq!(accepted(dir, &[&before, &after]), [false, true]);
        let names =
            |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(names).collect();
        files.sort();
        assert_eq!(files, [file::AUTHORITY_KEY, file::AUTHORITY, file::ROOTS]);
    }

    #[test]
    fn a_phase_that_was_interrupted_is_run_again() {
        let (directory, _) = authority();
        let path = |name: &str| directory.path().join(name);
        // Interrupted after the key of the new one was written.
        fs::write(path(file::NEXT_AUTHORITY_KEY), "half").unwrap();
        prepare(directory.path(), &AuthorityOptions::default()).unwrap();
        // Before the bundle was written.
        fs::remove_file(path(file::ROOTS)).unwrap();
        prepare(directory.path(), &AuthorityOptions::default()).unwrap();
        assert_eq!(authorities_in(directory.path()).unwrap().len(), 2);
        // Between the two renames.
        fs::copy(path(file::AUTHORITY), path(file::OLD_AUTHORITY)).unwrap();
        fs::rename(path(file::NEXT_AUTHORITY_KEY), path(file::AUTHORITY_KEY)).unwrap();
        assert!(Authority::load(directory.path()).is_err(), "nothing is issued meanwhile");
        assert_eq!(RotationPhase::of(directory.path()), RotationPhase::Prepared);
        switch(directory.path()).unwrap();
        assert_eq!(RotationPhase::of(directory.path()), RotationPhase::Switched);
        assert_eq!(authorities_in(directory.path()).unwrap().len(), 2);
        finish(directory.path()).unwrap();
        assert_eq!(authorities_in(directory.path()).unwrap().len(), 1);
    }

    #[test]
    fn keys_are_private_and_roots_are_roots() {
        let (directory, _) = authority();
        let path = |name: &str| directory.path().join(name);
        let mode = |name: &str| fs::metadata(path(name)).unwrap().permissions().mode() & 0o777;
        prepare(directory.path(), &AuthorityOptions::default()).unwrap();
        assert_eq!(mode(file::NEXT_AUTHORITY_KEY), 0o600);
        switch(directory.path()).unwrap();
        assert_eq!((mode(file::AUTHORITY_KEY), mode(file::OLD_AUTHORITY_KEY)), (0o600, 0o600));
        let leaf = issue(directory.path()).certificate_pem;
        let roots = fs::read(path(file::ROOTS)).unwrap();
        for none in ["", "text", &leaf] {
            assert!(replace_roots(&path(file::ROOTS), none).is_err());
        }
        assert_eq!(fs::read(path(file::ROOTS)).unwrap(), roots);
    }

    fn authority() -> (tempfile::TempDir, CertificateSummary) {
        let directory = tempfile::tempdir().unwrap();
        let cluster = ClusterId::new("demo").unwrap();
        let authority = Authority::create(cluster, &AuthorityOptions::default()).unwrap();
        authority.save(directory.path()).unwrap();
        (directory, authority.certificate().clone())
    }

    fn issue(directory: &Path) -> Issued {
        let (node, datacenter) = (NodeId::new("a").unwrap(), Datacenter::new("eu").unwrap());
        Authority::load(directory).unwrap().issue(node, datacenter, LEAF_VALIDITY).unwrap()
    }

    /// Whether nodes with the roots of the directory accept these.
    fn accepted(directory: &Path, issued: &[&Issued]) -> Vec<bool> {
        let roots = Roots::from_pem_file(directory.join(file::ROOTS)).unwrap();
        let accepts = |issued: &&Issued| {
            let (certificate, key) = (issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes());
            roots.check(&Identity::from_pem(certificate, key).unwrap(), Clock::wall()).is_ok()
        };
        issued.iter().map(accepts).collect()
    }
}
