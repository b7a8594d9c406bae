//! The files of an agent's directory, and the lock that admits one agent at a time.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, ErrorKind, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    thread,
    time::Duration,
};

use gossipmonger::Foreign;

use crate::error::CliError;

pub(crate) use gossipmonger::unstable::file::CONFIG;

/// Held by the agent while it runs.
pub(crate) const LOCK: &str = "gossipmonger.lock";

/// Refuses a path that is not a directory; it may be mounted later.
pub(crate) fn check(dir: &Path) -> Result<(), CliError> {
    match fs::metadata(dir) {
        Ok(found) if found.is_dir() => Ok(()),
        Err(error) if !is_absence(&error) => Err(unreachable(dir, &error)),
        _ => Err(CliError::credentials(format!("there is no directory {}", dir.display()))),
    }
}

/// Refuses a file of the agent that does not exist, or that cannot be accessed, which is a different error.
pub(crate) fn check_file(file: &Path) -> Result<(), CliError> {
    match fs::metadata(file) {
        Ok(_) => Ok(()),
        Err(error) if is_absence(&error) => {
            Err(CliError::credentials(format!("there is no {}", file.display())))
        }
        Err(error) => Err(unreachable(file, &error)),
    }
}

/// Whether the path certainly does not exist.
pub(crate) fn is_absent(path: &Path) -> bool {
    fs::metadata(path).is_err_and(|error| is_absence(&error))
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn unreachable(path: &Path, error: &io::Error) -> CliError {
    let whose = match error.kind() {
        ErrorKind::PermissionDenied => {
            "; may the user that runs the agent read all directories above it?"
        }
        _ => "",
    };
    CliError::credentials(format!("{}: {error}{whose}", path.display()))
}

/// The command that makes an agent's directory.
pub(crate) fn how_to_make(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "make it with:\n  gossipmonger ca init --cluster NAME --dir pki    (once a cluster)\n  \
         gossipmonger cert issue --ca pki --node NAME --datacenter NAME --dir {dir}\nor, with a token of an \
         agent that issues:\n  gossipmonger join TOKEN HOST --dir {dir}"
    )
}

/// This process has the directory while this lives; the system releases it with the process.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the directory, and writes into the lock which process has it. Waits a moment for an agent that is ending.
    pub(crate) fn take(dir: &Path) -> Result<Self, CliError> {
        let path = dir.join(LOCK);
        let failed = |error| CliError::failed(format!("{}: {error}", path.display()));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(failed)?;
        for attempt in 1.. {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(failed(error)),
                Err(TryLockError::WouldBlock) if attempt == ATTEMPTS => {
                    return Err(taken(dir, &mut file));
                }
                Err(TryLockError::WouldBlock) => thread::sleep(ATTEMPT_WAIT),
            }
        }
        note(&mut file).map_err(failed)?;
        Ok(Self { _file: file })
    }

    /// Whether another process has the directory; also `false` if that cannot be determined.
    pub(crate) fn is_taken(dir: &Path) -> bool {
        let lock = File::options().read(true).write(true).open(dir.join(LOCK));
        lock.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
    }
}

fn note(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn taken(dir: &Path, file: &mut File) -> CliError {
    let mut pid = String::new();
    let _ = file.take(PID_BYTES_MAX).read_to_string(&mut pid);
    let pid = Foreign::from(pid.trim());
    let by = if pid.is_empty() { String::new() } else { format!(" (process {pid})") };
    CliError::failed(format!(
        "an agent{by} runs in {} already: stop it first, or give this one a directory of its own",
        dir.display()
    ))
}

const ATTEMPTS: u32 = 10;
const ATTEMPT_WAIT: Duration = Duration::from_millis(30);
const PID_BYTES_MAX: u64 = 32;
