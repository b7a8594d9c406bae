//! An issuer's records: its tokens, and the names granted lately. One file, for its owner only.
//!
//! Every change reads the file, changes it and writes it completely, under a lock that other issuers
//! with the same directory respect. No change is acknowledged before it is on the disk. The file holds
//! a key derived from each secret; verifying an HMAC needs the same key as making it, so the key is
//! worth as much as the token.

mod book;
mod error;
mod terms;

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};

use zeroize::Zeroizing;

pub(crate) use self::{book::Claim, error::Denied};
use self::{
    book::{Book, Entry},
    terms::{TTL_MAX, USES_MAX},
};
pub use self::{
    error::LedgerError,
    terms::{Terms, TokenState, TokenView},
};
use super::token::{ProofKey, Token, TokenId};
use crate::{
    pki::{read_secret, write_secret},
    protocol::id::{Datacenter, NodeId},
    tls::LoadError,
};

/// The name of the file in the authority's directory.
pub(super) const TOKENS_FILE: &str = "tokens.toml";

/// The ledger in one directory.
#[derive(Debug)]
pub(crate) struct Ledger {
    file: PathBuf,
    lock: PathBuf,
}

impl Ledger {
    /// The ledger of an authority's directory; fails if it cannot be read or locked.
    pub(crate) fn open(directory: &Path) -> Result<Self, LedgerError> {
        let ledger = Self { file: directory.join(TOKENS_FILE), lock: directory.join(LOCK_FILE) };
        ledger.locked(|_| Ok((Kept::AsItIs, ())))?;
        Ok(ledger)
    }

    /// Records a new token; when this returns, it is on the disk.
    pub(crate) fn add(
        &self,
        token: &Token,
        terms: &Terms,
        now: SystemTime,
    ) -> Result<TokenView, LedgerError> {
        let for_one_node = terms.node.is_none() || terms.uses == 1;
        let in_range = (1..=USES_MAX).contains(&terms.uses) && terms.ttl <= TTL_MAX;
        if !in_range || !for_one_node || terms.ttl.is_zero() {
            return Err(LedgerError::Terms);
        }
        let entry = Entry::new(token, terms, now);
        let view = entry.view(now);
        self.locked(|book| {
            book.make_room(now)?;
            book.token.push(entry);
            Ok((Kept::Changed, view))
        })
    }

    /// All recorded tokens, the oldest first.
    pub(crate) fn list(&self, now: SystemTime) -> Result<Vec<TokenView>, LedgerError> {
        self.locked(|book| {
            Ok((Kept::AsItIs, book.token.iter().map(|entry| entry.view(now)).collect()))
        })
    }

    /// Revokes a token.
    pub(crate) fn revoke(&self, id: TokenId, now: SystemTime) -> Result<TokenView, LedgerError> {
        self.locked(|book| {
            Ok((Kept::Changed, book.revoke(id, now).ok_or(LedgerError::Unknown(id))?))
        })
    }

    /// Uses a token for a claim, if all is right: then `issue` is called, and only if it grants
    /// something, that counts as a use. Of several claims at once exactly as many succeed as the
    /// token has uses.
    pub(crate) fn claim<T>(
        &self,
        claim: &Claim<'_>,
        lives: impl Fn(&NodeId) -> bool,
        issue: impl FnOnce(NodeId, Datacenter, &ProofKey) -> Result<T, Denied>,
    ) -> Result<T, Denied> {
        self.locked(|book| {
            book.forget_grants(claim.now);
            Ok(match book.judge(claim, lives) {
                Err(denied) => (Kept::AsItIs, Err(denied)),
                Ok((place, node, datacenter, key)) => match issue(node.clone(), datacenter, &key) {
                    Err(denied) => (Kept::AsItIs, Err(denied)),
                    Ok(granted) => {
                        book.note(place, node, claim.now);
                        (Kept::Changed, Ok(granted))
                    }
                },
            })
        })?
    }

    /// Lets a name be granted again at once.
    pub(crate) fn release(&self, node: &NodeId) -> Result<(), LedgerError> {
        self.locked(|book| Ok((if book.release(node) { Kept::Changed } else { Kept::AsItIs }, ())))
    }

    fn locked<T>(
        &self,
        change: impl FnOnce(&mut Book) -> Result<(Kept, T), LedgerError>,
    ) -> Result<T, LedgerError> {
        let _lock = self.lock()?;
        let mut book = self.read()?;
        let (kept, value) = change(&mut book)?;
        if kept == Kept::Changed {
            self.write(&book)?;
        }
        Ok(value)
    }

    /// Others hold it for a few milliseconds; the wait for one that hangs is limited.
    fn lock(&self) -> Result<File, LedgerError> {
        let failed = |error| LedgerError::Write { path: self.lock.clone(), error };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&self.lock).map_err(failed)?;
        for _ in 0..LOCK_ATTEMPTS {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
                Err(TryLockError::WouldBlock) => thread::sleep(LOCK_WAIT),
            }
        }
        Err(failed(io::Error::new(io::ErrorKind::TimedOut, "another process holds it too long")))
    }

    fn read(&self) -> Result<Book, LedgerError> {
        let text = match read_secret(&self.file) {
            Ok(text) => text,
            Err(error) if is_missing(&error) => return Ok(Book::default()),
            Err(error) => return Err(error.into()),
        };
        let damaged = |reason: &str| LedgerError::Damaged {
            path: self.file.clone(),
            reason: format!("{reason}; move it away to begin anew (its tokens are lost then)"),
        };
        let text = std::str::from_utf8(&text).map_err(|_| damaged("is not UTF-8"))?;
        // The parser's own error would quote the file.
        let book: Book = toml::from_str(text).map_err(|_| damaged("cannot be read"))?;
        if book.token.iter().any(|entry| entry.id().is_none() || entry.key().is_none()) {
            return Err(damaged("has a token without an id or a key"));
        }
        Ok(book)
    }

    fn write(&self, book: &Book) -> Result<(), LedgerError> {
        let failed = |error| LedgerError::Write { path: self.file.clone(), error };
        let text = toml::to_string(book).map_err(|e| failed(io::Error::other(e.to_string())))?;
        write_secret(&self.file, &Zeroizing::new(format!("{HEADER}{text}"))).map_err(failed)
    }
}

#[derive(PartialEq, Eq)]
enum Kept {
    AsItIs,
    Changed,
}

fn is_missing(error: &LoadError) -> bool {
    match error {
        LoadError::InFile { error, .. } => is_missing(error),
        LoadError::Read(error) => error.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}

const LOCK_FILE: &str = "tokens.lock";
const HEADER: &str =
    "# Join tokens of this authority, written by gossipmonger. Who can read the keys can join.\n\n";
/// Five seconds in total.
const LOCK_ATTEMPTS: u32 = 500;
const LOCK_WAIT: Duration = Duration::from_millis(10);

#[cfg(all(test, unix))]
mod tests;
