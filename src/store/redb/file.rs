//! Creating and opening the file: only its owner may read it, and it gets its name only when complete.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use super::fault::Fault;

/// Opens a file that [`create`] made.
pub(super) fn open(path: &Path) -> Result<File, Fault> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    check_private(&file)?;
    if file.metadata()?.len() == 0 {
        return Err(Fault::Damaged("the file is empty".into()));
    }
    Ok(file)
}

/// Creates a file with `fill` under another name beside it, and then renames it, unless another
/// process was faster: then the other's file stays.
pub(super) fn create(
    path: &Path,
    fill: impl FnOnce(File) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let draft = draft_of(path);
    // Left by a process with our id that crashed here.
    let _ = fs::remove_file(&draft);
    let result = create_private(&draft)
        .map_err(Fault::from)
        .and_then(fill)
        .and_then(|()| Ok(publish(&draft, path)?));
    // Gone already if it was renamed.
    let _ = fs::remove_file(&draft);
    result
}

/// A name that no other process, and no other call in this one, uses now.
fn draft_of(path: &Path) -> PathBuf {
    static DRAFTS: AtomicU64 = AtomicU64::new(0);
    let draft = DRAFTS.fetch_add(1, Ordering::Relaxed);
    let mut name = OsString::from(path);
    name.push(format!(".new-{}-{draft}", process::id()));
    name.into()
}

fn publish(draft: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(draft, path) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        // A file system without hard links. Renaming replaces a file of the same name, so two processes
        // that create the store in the same instant could both succeed; there is no better way there.
        Err(_) => fs::rename(draft, path)?,
    }
    sync_directory(path)
}

#[cfg(unix)]
fn create_private(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().read(true).write(true).create_new(true).mode(PRIVATE).open(path)
}

#[cfg(unix)]
fn check_private(file: &File) -> Result<(), Fault> {
    use std::os::unix::fs::PermissionsExt;
    let mode = file.metadata()?.permissions().mode() & 0o777;
    if mode & !PRIVATE & 0o077 == 0 { Ok(()) } else { Err(Fault::Exposed(mode)) }
}

/// Without this a power cut may undo the rename.
#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

/// On other systems the directory's own access list decides who may read.
#[cfg(not(unix))]
fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).open(path)
}

#[cfg(not(unix))]
fn check_private(_: &File) -> Result<(), Fault> {
    Ok(())
}

#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Read and write for the owner.
#[cfg(unix)]
const PRIVATE: u32 = 0o600;
