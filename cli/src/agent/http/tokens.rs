//! Tokens for browsers and scrapers: a file that only its owner may read.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs, io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use gossipmonger::tls::Role;
use rand::{TryRng, rngs::SysRng};
use serde::Deserialize;

use crate::error::CliError;

/// The name of the file in the agent's directory.
pub(crate) const FILE: &str = "http-tokens.toml";
/// The token of the web view, which the agent makes if there is no file.
pub(crate) const WEB: &str = "web";

/// The tokens of a file, as it is now.
#[derive(Debug)]
pub(super) struct Tokens {
    path: Option<PathBuf>,
    read: Mutex<Read>,
}

#[derive(Debug, Default)]
struct Read {
    /// What the file was when it was read.
    stamp: Option<(SystemTime, u64, u64)>,
    tokens: Arc<File>,
}

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
        Self { path: None, read: Mutex::default() }
    }

    pub(super) fn at(path: PathBuf) -> Self {
        Self { path: Some(path), read: Mutex::default() }
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
    /// at once; while the file is wrong, no token is accepted.
    pub(super) fn find(&self, token: &str) -> Option<(String, Role)> {
        let tokens = self.current();
        let mut found = None;
        for (name, entry) in &*tokens {
            if is_equal(entry.token.as_bytes(), token.as_bytes()) {
                found = Some((format!("token {name}"), entry.role));
            }
        }
        found
    }

    fn current(&self) -> Arc<File> {
        let Some(path) = &self.path else { return Arc::default() };
        let stamp = fs::metadata(path)
            .ok()
            .and_then(|file| Some((file.modified().ok()?, file.len(), file.ino())));
        // No code under the lock can panic halfway.
        let mut known = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if known.stamp != stamp || stamp.is_none() {
            let tokens = read(path).unwrap_or_else(|error| {
                tracing::warn!("no token is accepted: {error}");
                File::default()
            });
            *known = Read { stamp, tokens: Arc::new(tokens) };
        }
        Arc::clone(&known.tokens)
    }
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
    let wrong = |why: &dyn std::fmt::Display| CliError::usage(format!("{}: {why}", path.display()));
    let file = fs::metadata(path).map_err(|error| wrong(&error))?;
    if file.mode() & 0o077 != 0 {
        return Err(wrong(&"others may read the tokens: make it private with chmod 600"));
    }
    if file.len() > FILE_BYTES_MAX {
        return Err(wrong(&format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    let text = fs::read_to_string(path).map_err(|error| wrong(&error))?;
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
        "# Who may ask this agent over HTTP: a name, its role (read, watch or admin), and its secret.\n\
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
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
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

    #[test]
    fn makes_a_private_file_with_a_token_that_may_watch() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        Tokens::prepare(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let secret = token(&path, WEB).unwrap().unwrap();
        let found = Tokens::at(path.clone()).find(&secret).unwrap();
        assert_eq!((&*found.0, found.1), ("token web", Role::Watch));
        Tokens::prepare(&path).unwrap();
        assert_eq!(token(&path, WEB).unwrap().unwrap(), secret);
    }

    #[test]
    fn a_token_that_is_taken_out_is_refused_at_once_and_so_are_all_of_a_file_that_is_gone() {
        let (_directory, path) = file(&format!("[a]\nrole = \"read\"\ntoken = \"{SECRET}\"\n"));
        let tokens = Tokens::at(path.clone());
        assert!(tokens.find(SECRET).is_some() && tokens.find(&SECRET[1..]).is_none());
        fs::write(&path, "# none\n").unwrap();
        assert!(tokens.find(SECRET).is_none());
        fs::remove_file(&path).unwrap();
        assert!(tokens.find(SECRET).is_none());
        assert!(Tokens::none().find("").is_none());
    }
}
