//! Tokens for browsers and scrapers: a file that only its owner may read.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, Metadata},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gossipmonger::tls::Role;
use rand::{TryRng, rngs::SysRng};
use rustix::fs::OFlags;
use serde::Deserialize;

use crate::{
    agent::offload::{TOKENS, offload},
    clock::Clock,
    error::CliError,
};

/// The name of the file in the agent's directory.
pub(crate) const FILE: &str = "http-tokens.toml";
/// The token of the web view, which the agent makes if there is no file.
pub(crate) const WEB: &str = "web";

/// The tokens of a file, as it is now.
#[derive(Clone, Debug)]
pub(super) struct Tokens {
    path: Option<PathBuf>,
    read: Arc<Mutex<Read>>,
}

#[derive(Debug, Default)]
struct Read {
    /// What the file was when it was read; `None`: it has to be read again.
    stamp: Option<Stamp>,
    tokens: Arc<File>,
    /// Why no token is accepted. It is logged once.
    problem: Option<String>,
}

/// Differs when the file does: device, inode, bytes, times of the last change of the content and of the file.
type Stamp = [i128; 7];

type File = BTreeMap<String, Entry>;

/// A token.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    role: Role,
    token: String,
}

impl Tokens {
    pub(super) fn none() -> Self {
        Self { path: None, read: Arc::default() }
    }

    pub(super) fn at(path: PathBuf) -> Self {
        Self { path: Some(path), read: Arc::default() }
    }

    /// Checks the file, and makes one with a token for the web view if there is none.
    pub(super) fn prepare(path: &Path) -> Result<(), CliError> {
        let failed = |error: io::Error| CliError::failed(format!("{}: {error}", path.display()));
        match path.symlink_metadata() {
            Ok(_) => check(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(path).map_err(failed),
            Err(error) => Err(failed(error)),
        }
    }

    /// The name and role of a token. Reads the file again when it has changed: a token that is gone from it is refused
    /// at once; while the file is wrong, or its file system does not answer, no token is accepted.
    pub(super) async fn find(&self, token: &str) -> Option<(String, Role)> {
        let path = self.path.clone()?;
        let read = Arc::clone(&self.read);
        let current = move || current(&path, &read);
        let tokens = match offload(&TOKENS, READING, TOKENS_TIMEOUT, current).await {
            Ok(tokens) => tokens,
            Err(error) => {
                self.tell(&error.to_string());
                return None;
            }
        };
        let mut found = None;
        for (name, entry) in &*tokens {
            if is_equal(entry.token.as_bytes(), token.as_bytes()) {
                found = Some((format!("token {name}"), entry.role));
            }
        }
        found
    }

    /// Any client of the address causes a read of the file, so the log gets each problem once.
    fn tell(&self, problem: &str) {
        let mut known = lock(&self.read);
        if known.problem.as_deref() != Some(problem) {
            tracing::warn!("no token is accepted: {problem}");
            known.problem = Some(problem.to_owned());
        }
    }
}

fn lock(read: &Mutex<Read>) -> MutexGuard<'_, Read> {
    // No code under the lock can panic halfway.
    read.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The tokens of the file, which is read only if it has changed. It may block, but not under the lock.
fn current(path: &Path, read: &Mutex<Read>) -> Result<Arc<File>, CliError> {
    let opened = open(path).and_then(|(file, metadata)| {
        let stamp = stamp(&metadata);
        if stamp.is_some() && lock(read).stamp == stamp {
            return Ok(None);
        }
        Ok(Some((parse(path, file)?, stamp)))
    });
    let mut known = lock(read);
    match opened {
        Ok(None) => {}
        Ok(Some((tokens, stamp))) => {
            *known = Read { stamp, tokens: Arc::new(tokens), problem: None };
        }
        Err(error) => {
            (known.stamp, known.tokens) = (None, Arc::default());
            return Err(error);
        }
    }
    Ok(Arc::clone(&known.tokens))
}

/// The stamp of a file; `None` as long as it is so new that another change might leave the same.
fn stamp(file: &Metadata) -> Option<Stamp> {
    let age = Clock::wall().duration_since(file.modified().ok()?).ok()?;
    (age > SETTLED).then(|| {
        [
            file.dev().into(),
            file.ino().into(),
            file.len().into(),
            file.mtime().into(),
            file.mtime_nsec().into(),
            file.ctime().into(),
            file.ctime_nsec().into(),
        ]
    })
}

/// Checks a file that exists.
pub(crate) fn check(path: &Path) -> Result<(), CliError> {
    read(path).map(drop)
}

/// The token of this name.
pub(crate) fn token(path: &Path, name: &str) -> Result<Option<String>, CliError> {
    Ok(read(path)?.remove(name).map(|entry| entry.token))
}

fn read(path: &Path) -> Result<File, CliError> {
    parse(path, open(path)?.0)
}

fn wrong(path: &Path, why: &dyn std::fmt::Display) -> CliError {
    CliError::usage(format!("{}: {why}", path.display()))
}

/// Opens the file, and judges it without reading: a pipe in its place would make the reader wait.
fn open(path: &Path) -> Result<(fs::File, Metadata), CliError> {
    let wrong = |why: &dyn std::fmt::Display| wrong(path, why);
    let mut options = fs::OpenOptions::new();
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = options.read(true).custom_flags(flags).open(path).map_err(|error| wrong(&error))?;
    let metadata = file.metadata().map_err(|error| wrong(&error))?;
    if !metadata.is_file() {
        return Err(wrong(
            &"is not a file: put the tokens into a file, or take it away and have one made",
        ));
    }
    // As for keys: Kubernetes mounts a secret as root's, readable for the group of the process.
    let refused = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if metadata.mode() & refused != 0 {
        return Err(wrong(&"others may read the tokens: make it private with chmod 600"));
    }
    Ok((file, metadata))
}

fn parse(path: &Path, file: fs::File) -> Result<File, CliError> {
    let wrong = |why: &dyn std::fmt::Display| wrong(path, why);
    let mut text = String::new();
    // It may grow meanwhile.
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(|error| wrong(&error))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(wrong(&format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    // The parser's own words may quote a token.
    let tokens: File = toml::from_str(&text).map_err(|error| {
        let line =
            error.span().map_or(0, |span| text[..span.start.min(text.len())].lines().count());
        wrong(&format!("line {line} is not understood: [NAME], role = \"read\", token = \"..\""))
    })?;
    for (name, entry) in &tokens {
        if entry.token.len() < TOKEN_CHARS_MIN {
            let least =
                format!("the token {name} is too short: at least {TOKEN_CHARS_MIN} characters");
            return Err(wrong(&least));
        }
    }
    Ok(tokens)
}

fn make(path: &Path) -> io::Result<()> {
    let mut secret = [0; SECRET_BYTES];
    SysRng.try_fill_bytes(&mut secret).map_err(io::Error::other)?;
    let mut token = String::new();
    for byte in secret {
        let _ = write!(token, "{byte:02x}");
    }
    let text = format!(
        "# Tokens for this agent's HTTP interface: a name, its role (read, watch or admin), and its secret.\n\
         [{WEB}]\nrole = \"watch\"\ntoken = \"{token}\"\n"
    );
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, text.as_bytes())?;
    file.sync_all()
}

/// Compares in a time that depends on the lengths alone.
fn is_equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

/// Shortest token.
const TOKEN_CHARS_MIN: usize = 32;
/// Random bytes of a token that the agent makes.
const SECRET_BYTES: usize = 24;
/// How long a request waits for the file.
const TOKENS_TIMEOUT: Duration = Duration::from_secs(3);
/// A file that was written this long ago differs in its times from one that is written now.
const SETTLED: Duration = Duration::from_secs(2);
/// How messages call the reading of the file.
const READING: &str = "reading the tokens of HTTP";
/// Longest file.
const FILE_BYTES_MAX: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        (directory, path)
    }

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn refuses_a_file_that_others_may_read_and_one_that_is_wrong_and_quotes_no_token() {
        let (_directory, path) = file(&format!("[a]\nrole = \"read\"\ntoken = \"{SECRET}\"\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Tokens::prepare(&path).unwrap_err().to_string().contains("chmod 600"));
        for wrong in [
            format!("[a]\nrole = \"king\"\ntoken = \"{SECRET}\"\n"),
            format!("[a]\nrole = \"read\"\ntoken = {SECRET}\n"),
            "[a]\nrole = \"read\"\ntoken = \"short\"\n".to_owned(),
        ] {
            let (_directory, path) = file(&wrong);
            let error = Tokens::prepare(&path).unwrap_err().to_string();
            assert!(!error.contains(SECRET), "{error}");
        }
    }

    #[tokio::test]
    async fn makes_a_private_file_with_a_token_that_may_watch() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        Tokens::prepare(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let secret = token(&path, WEB).unwrap().unwrap();
        let found = Tokens::at(path.clone()).find(&secret).await.unwrap();
        assert_eq!((&*found.0, found.1), ("token web", Role::Watch));
        Tokens::prepare(&path).unwrap();
        assert_eq!(token(&path, WEB).unwrap().unwrap(), secret);
    }

    #[tokio::test]
    async fn a_token_that_is_taken_out_is_refused_at_once_and_so_are_all_of_a_file_that_is_gone() {
        let (_directory, path) = file(&format!("[a]\nrole = \"read\"\ntoken = \"{SECRET}\"\n"));
        let tokens = Tokens::at(path.clone());
        assert!(tokens.find(SECRET).await.is_some() && tokens.find(&SECRET[1..]).await.is_none());
        fs::write(&path, "# none\n").unwrap();
        assert!(tokens.find(SECRET).await.is_none());
        fs::remove_file(&path).unwrap();
        assert!(tokens.find(SECRET).await.is_none());
        assert!(Tokens::none().find("").await.is_none());
    }

    #[tokio::test]
    async fn what_is_not_a_file_is_refused_and_keeps_nobody_waiting() {
        let (directory, path) = file("# none\n");
        let tokens = Tokens::at(path.clone());
        let make = |kind: &str| match kind {
            "pipe" => rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).unwrap(),
            "directory" => fs::create_dir(&path).unwrap(),
            "link" => std::os::unix::fs::symlink("/dev/zero", &path).unwrap(),
            _ => unreachable!(),
        };
        for kind in ["pipe", "directory", "link"] {
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
            make(kind);
            let error = Tokens::prepare(&path).unwrap_err().to_string();
            assert!(error.contains("is not a file"), "{kind}: {error}");
            assert!(tokens.find(SECRET).await.is_none(), "{kind}");
        }
        drop(directory);
    }

    #[tokio::test]
    async fn a_token_of_the_same_length_that_is_written_in_place_at_once_replaces_the_other() {
        let text = |secret: &str| format!("[a]\nrole = \"read\"\ntoken = \"{secret}\"\n");
        let (_directory, path) = file(&text(SECRET));
        let tokens = Tokens::at(path.clone());
        for n in 0..50_u8 {
            let (old, new) = (SECRET.replace('f', "e"), format!("{SECRET}{n:02}"));
            fs::write(&path, text(&format!("{old}{n:02}"))).unwrap();
            assert!(tokens.find(&format!("{old}{n:02}")).await.is_some());
            fs::write(&path, text(&new)).unwrap();
            assert!(tokens.find(&format!("{old}{n:02}")).await.is_none());
            assert!(tokens.find(&new).await.is_some());
        }
    }
}
