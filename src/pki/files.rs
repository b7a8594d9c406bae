//! How files of certificates and keys are written: completely or not at all, and keys for their owner only.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

#[cfg(feature = "issuer")]
use zeroize::Zeroizing;

use super::error::AuthorityError;
use crate::tls::files::Audience;
#[cfg(feature = "issuer")]
use crate::tls::files::{LoadError, read};

/// What to do with existing files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Existing {
    /// Refuse, and write nothing.
    Refuse,
    /// Replace them, each completely.
    Replace,
}

pub(super) type NewFile<'a> = (&'static str, &'a str, Audience);

pub(super) fn save(
    directory: &Path,
    existing: Existing,
    files: &[NewFile<'_>],
) -> Result<(), AuthorityError> {
    make_directory(directory)
        .map_err(|error| AuthorityError::Write { path: directory.to_owned(), error })?;
    if existing == Existing::Refuse
        && let Some(path) = files.iter().map(|f| directory.join(f.0)).find(|path| path.exists())
    {
        return Err(AuthorityError::Exists { path });
    }
    let mut made = Vec::new();
    for (name, text, audience) in files {
        let path = directory.join(name);
        if let Err(error) = write(&path, text, *audience, existing) {
            // A part of them would be in the way of the next attempt, when the disk has room again.
            made.iter().for_each(|path| drop(fs::remove_file(path)));
            return Err(match error.kind() {
                io::ErrorKind::AlreadyExists => AuthorityError::Exists { path },
                _ => AuthorityError::Write { path, error },
            });
        }
        if existing == Existing::Refuse {
            made.push(path);
        }
    }
    Ok(())
}

/// Replacing writes a draft first and then renames it: no reader sees half of it. After a failure there is no new file.
pub(super) fn write(
    path: &Path,
    text: &str,
    audience: Audience,
    existing: Existing,
) -> io::Result<()> {
    let draft = match existing {
        Existing::Refuse => path.to_owned(),
        Existing::Replace => draft_of(path),
    };
    let file = create(&draft, audience)?;
    let written = fill(file, text).and_then(|()| match existing {
        Existing::Refuse => Ok(()),
        Existing::Replace => fs::rename(&draft, path),
    });
    if written.is_err() {
        // It may contain a part of a key.
        let _ = fs::remove_file(&draft);
    }
    written
}

/// Reads a file that only its owner may read.
#[cfg(feature = "issuer")]
pub(crate) fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, LoadError> {
    read(path, Audience::OwnerOnly).map_err(|error| error.in_file(path))
}

/// Writes a file that only its owner may read, completely or not at all, and on the disk when this returns.
#[cfg(feature = "issuer")]
pub(crate) fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    write(path, text, Audience::OwnerOnly, Existing::Replace)?;
    match path.parent() {
        Some(directory) if cfg!(unix) => fs::File::open(directory)?.sync_all(),
        _ => Ok(()),
    }
}

/// A draft name that is unique per file, process and write, so that no writer renames the draft of another.
fn draft_of(path: &Path) -> PathBuf {
    static DRAFTS: AtomicU64 = AtomicU64::new(0);
    let (process, draft) = (std::process::id(), DRAFTS.fetch_add(1, Ordering::Relaxed));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{process}-{draft}.{DRAFT_EXTENSION}"));
    path.with_file_name(name)
}

fn fill(mut file: fs::File, text: &str) -> io::Result<()> {
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Created with its permissions, not changed afterwards: so others can never open the key, not even
/// for a moment.
#[cfg(unix)]
fn create(path: &Path, audience: Audience) -> io::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    let mode = match audience {
        Audience::OwnerOnly => 0o600,
        Audience::Anyone => 0o644,
    };
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
}

#[cfg(not(unix))]
fn create(path: &Path, _: Audience) -> io::Result<fs::File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

#[cfg(unix)]
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(not(unix))]
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

const DRAFT_EXTENSION: &str = "draft";

#[cfg(all(test, unix))]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::pki::file;

    #[test]
    fn a_draft_has_a_name_of_its_own_and_is_removed_after_a_failure() {
        let directory = tempfile::tempdir().unwrap();
        let paths = [file::KEY, file::CERTIFICATE].map(|name| directory.path().join(name));
        let drafts: HashSet<_> = paths.iter().chain(&paths).map(|path| draft_of(path)).collect();
        assert_eq!(drafts.len(), 4);
        // A directory has its name.
        fs::create_dir(&paths[0]).unwrap();
        write(&paths[0], "key", Audience::OwnerOnly, Existing::Replace).unwrap_err();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn files_that_cannot_all_be_made_are_all_taken_away_and_those_of_others_stay() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("other"), "stays").unwrap();
        let save = |third| {
            let files = ["one", "two", third].map(|name| (name, "text", Audience::Anyone));
            save(directory.path(), Existing::Refuse, &files)
        };
        let names = || {
            let listed = fs::read_dir(directory.path()).unwrap();
            let names = listed.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.collect::<std::collections::BTreeSet<_>>()
        };
        assert!(matches!(save("nosuch/three"), Err(AuthorityError::Write { .. })));
        assert_eq!(names(), ["other".to_owned()].into());
        assert!(matches!(save("other"), Err(AuthorityError::Exists { .. })));
        // The same name twice: made by somebody else meanwhile.
        assert!(matches!(save("one"), Err(AuthorityError::Exists { .. })));
        assert_eq!(names(), ["other".to_owned()].into());
        save("three").unwrap();
        assert_eq!(names().len(), 4);
    }
}
