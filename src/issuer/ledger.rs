//! An issuer's records: its tokens, and the names granted lately. One file, for its owner only.
//!
//! Every change reads the file, changes it and writes it completely, under a lock that other issuers
//! with the same directory respect. No change is acknowledged before it is on the disk. The file holds
//! a key derived from each secret; verifying an HMAC needs the same key as making it, so the key is
//! worth as much as the token.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::{
    request::{Exported, Join, Refused},
    token::{ProofKey, Token, TokenId, from_hex, to_hex},
};
use crate::{
    pki::{read_secret, write_secret},
    protocol::id::{Datacenter, NodeId},
    tls::LoadError,
};

/// The name of the file in the authority's directory.
pub const TOKENS_FILE: &str = "tokens.toml";

/// Maximum number of tokens; beyond it expired or used ones are dropped, and if none is, no more are created.
pub const TOKENS_MAX: usize = 500;

/// Maximum number of uses of a token.
pub const USES_MAX: u32 = 10_000;

/// Maximum lifetime of a token.
pub const TTL_MAX: Duration = Duration::from_secs(90 * 24 * 3600);

/// How long a name that was granted to a joining node is reserved: it appears in the gossip only
/// when its agent has been started.
pub const NAME_HELD: Duration = Duration::from_secs(120);

/// What a token permits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The only node that may join with it; `None`: any.
    pub node: Option<NodeId>,
    /// The only datacenter; `None`: any.
    pub datacenter: Option<Datacenter>,
    /// How long it is valid, at most [`TTL_MAX`].
    pub ttl: Duration,
    /// The number of uses, 1 to [`USES_MAX`].
    pub uses: u32,
}

/// A token as its issuer sees it, without the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenView {
    /// Its id.
    pub id: TokenId,
    /// What it permits.
    pub terms: Terms,
    /// When it was created.
    pub created: SystemTime,
    /// The end of its validity.
    pub expires: SystemTime,
    /// How often it was used.
    pub used: u32,
    /// The last few nodes that joined with it.
    pub by: Vec<NodeId>,
    /// Whether it is still valid, and if not, why not.
    pub state: TokenState,
}

/// The state of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenState {
    /// It is valid.
    Good,
    /// All of its uses are used up.
    Used,
    /// It has expired.
    Expired,
    /// It was revoked.
    Revoked,
}

impl TokenState {
    /// The stable word for lists and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Used => "used",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// The ledger could not be read or written, or the request is impossible. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The file cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The file is not a ledger of ours.
    #[error("{}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The fault.
        reason: String,
    },
    /// The file cannot be written or locked.
    #[error("{}: {error}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// There are too many tokens.
    #[error("there are {TOKENS_MAX} tokens that are still good: revoke some first")]
    Full,
    /// The terms are out of range.
    #[error("a token is good for up to {} days and 1 to {USES_MAX} uses; for a node it is good once", TTL_MAX.as_secs() / 86_400)]
    Terms,
    /// The token does not exist.
    #[error("no token {0} is known; see `gossipmonger token list`")]
    Unknown(TokenId),
}

/// A claim was denied.
#[derive(Debug)]
pub(crate) struct Denied {
    pub(crate) why: Refused,
    pub(crate) detail: String,
}

impl Denied {
    pub(crate) fn new(why: Refused, detail: impl ToString) -> Self {
        Self { why, detail: detail.to_string() }
    }
}

impl From<LedgerError> for Denied {
    fn from(error: LedgerError) -> Self {
        Self::new(Refused::Unable, error)
    }
}

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
            let entry = book.find(id).ok_or(LedgerError::Unknown(id))?;
            entry.revoked = true;
            Ok((Kept::Changed, entry.view(now)))
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
        self.locked(|book| {
            let held = book.grant.len();
            book.grant.retain(|grant| grant.node != *node);
            let kept = if book.grant.len() < held { Kept::Changed } else { Kept::AsItIs };
            Ok((kept, ()))
        })
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

/// The claimed name, and the claimant's proof.
pub(crate) struct Claim<'a> {
    pub(crate) join: &'a Join,
    pub(crate) exported: &'a Exported,
    /// The datacenter of a node if neither token nor request sets one.
    pub(crate) datacenter: &'a Datacenter,
    pub(crate) now: SystemTime,
}

#[derive(PartialEq, Eq)]
enum Kept {
    AsItIs,
    Changed,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Book {
    token: Vec<Entry>,
    grant: Vec<Grant>,
}

/// Times are seconds since 1970.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    key: String,
    node: Option<NodeId>,
    datacenter: Option<Datacenter>,
    created: u64,
    expires: u64,
    uses: u32,
    #[serde(default)]
    used: u32,
    #[serde(default)]
    revoked: bool,
    #[serde(default)]
    by: Vec<NodeId>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Grant {
    node: NodeId,
    at: u64,
}

impl Book {
    fn find(&mut self, id: TokenId) -> Option<&mut Entry> {
        self.token.iter_mut().find(|entry| entry.id() == Some(id))
    }

    /// Removes tokens that ended long ago; if there is no room, all that have ended.
    fn make_room(&mut self, now: SystemTime) -> Result<(), LedgerError> {
        // Cannot overflow: times are limited to the year 9999.
        self.token.retain(|entry| time(entry.expires) + KEPT_AFTER > now);
        while self.token.len() >= TOKENS_MAX {
            let over = |entry: &Entry| entry.state(now) != TokenState::Good;
            let place = self.token.iter().position(over).ok_or(LedgerError::Full)?;
            self.token.remove(place);
        }
        Ok(())
    }

    fn forget_grants(&mut self, now: SystemTime) {
        // An entry in the future was written before a clock was set back.
        let fresh =
            |grant: &Grant| now.duration_since(time(grant.at)).is_ok_and(|since| since < NAME_HELD);
        self.grant.retain(fresh);
    }

    /// Judges a claim; the secret first, so that a client without it learns nothing else.
    fn judge(
        &self,
        claim: &Claim<'_>,
        lives: impl Fn(&NodeId) -> bool,
    ) -> Result<(usize, NodeId, Datacenter, ProofKey), Denied> {
        let Claim { join, exported, now, .. } = claim;
        let place = self.token.iter().position(|entry| entry.id() == Some(join.token));
        let place = place.ok_or_else(|| Denied::new(Refused::UnknownToken, ""))?;
        let entry = &self.token[place];
        let key = entry.key().ok_or_else(|| Denied::new(Refused::Unable, ""))?;
        if !join.is_proved(&key, exported) {
            return Err(Denied::new(Refused::WrongSecret, ""));
        }
        entry.check_good(*now)?;
        let (node, datacenter) = entry.name(join, claim.datacenter)?;
        if lives(&node) {
            let detail = format!(
                "a node {node} is in the cluster and not dead; stop it, or choose another name"
            );
            return Err(Denied::new(Refused::NameTaken, detail));
        }
        if self.grant.iter().any(|grant| grant.node == node) {
            let detail = format!(
                "{node} was let in less than {} s ago and has not been seen yet; wait, or choose \
                 another name",
                NAME_HELD.as_secs()
            );
            return Err(Denied::new(Refused::NameTaken, detail));
        }
        Ok((place, node, datacenter, key))
    }

    fn note(&mut self, place: usize, node: NodeId, now: SystemTime) {
        if let Some(entry) = self.token.get_mut(place) {
            entry.used += 1;
            entry.by.push(node.clone());
            let many = entry.by.len().saturating_sub(BY_KEPT);
            entry.by.drain(..many);
        }
        let many = (self.grant.len() + 1).saturating_sub(GRANTS_MAX);
        self.grant.drain(..many);
        self.grant.push(Grant { node, at: seconds(now) });
    }
}

impl Entry {
    fn new(token: &Token, terms: &Terms, now: SystemTime) -> Self {
        Self {
            id: token.id().to_string(),
            key: to_hex(&token.key().0),
            node: terms.node.clone(),
            datacenter: terms.datacenter.clone(),
            created: seconds(now),
            expires: seconds(now + terms.ttl),
            uses: terms.uses,
            used: 0,
            revoked: false,
            by: Vec::new(),
        }
    }

    fn id(&self) -> Option<TokenId> {
        self.id.parse().ok()
    }

    fn key(&self) -> Option<ProofKey> {
        from_hex(&self.key).map(ProofKey)
    }

    fn state(&self, now: SystemTime) -> TokenState {
        if self.revoked {
            TokenState::Revoked
        } else if self.used >= self.uses {
            TokenState::Used
        } else if now >= time(self.expires) {
            TokenState::Expired
        } else {
            TokenState::Good
        }
    }

    fn check_good(&self, now: SystemTime) -> Result<(), Denied> {
        let (why, detail) = match self.state(now) {
            TokenState::Good => return Ok(()),
            TokenState::Revoked => (Refused::TokenRevoked, String::new()),
            TokenState::Expired => {
                (Refused::Expired, format!("on {}", crate::tls::date(time(self.expires))))
            }
            TokenState::Used => {
                let by: Vec<_> = self.by.iter().map(NodeId::as_str).collect();
                (Refused::Used, format!("by {}", by.join(", ")))
            }
        };
        Err(Denied { why, detail })
    }

    /// The name that a claim is for.
    fn name(&self, join: &Join, datacenter: &Datacenter) -> Result<(NodeId, Datacenter), Denied> {
        if let (Some(fixed), Some(asked)) = (&self.node, &join.node)
            && fixed != asked
        {
            let detail = format!("it is for node {fixed}, not {asked}");
            return Err(Denied::new(Refused::WrongName, detail));
        }
        if let (Some(fixed), Some(asked)) = (&self.datacenter, &join.datacenter)
            && fixed != asked
        {
            let detail = format!("it is for datacenter {fixed}, not {asked}");
            return Err(Denied::new(Refused::WrongName, detail));
        }
        let node = self
            .node
            .as_ref()
            .or(join.node.as_ref())
            .ok_or_else(|| Denied::new(Refused::NameNeeded, "say --node NAME"))?;
        let chosen = self.datacenter.as_ref().or(join.datacenter.as_ref()).unwrap_or(datacenter);
        for name in [node.as_str(), chosen.as_str()] {
            if name.starts_with('-') {
                let detail =
                    format!("{name} begins with '-', so commands would take it for an option");
                return Err(Denied::new(Refused::WrongName, detail));
            }
        }
        Ok((node.clone(), chosen.clone()))
    }

    fn view(&self, now: SystemTime) -> TokenView {
        let (created, expires) = (time(self.created), time(self.expires));
        TokenView {
            id: self.id().unwrap_or(TokenId([0; 8])),
            terms: Terms {
                node: self.node.clone(),
                datacenter: self.datacenter.clone(),
                ttl: expires.duration_since(created).unwrap_or_default(),
                uses: self.uses,
            },
            created,
            expires,
            used: self.used,
            by: self.by.clone(),
            state: self.state(now),
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

fn is_missing(error: &LoadError) -> bool {
    match error {
        LoadError::InFile { error, .. } => is_missing(error),
        LoadError::Read(error) => error.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The time; one that a damaged file puts out of range counts as long ago.
fn time(seconds: u64) -> SystemTime {
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    time.filter(|_| seconds <= SECONDS_MAX).unwrap_or(UNIX_EPOCH)
}

/// The end of the year 9999: later times would overflow.
const SECONDS_MAX: u64 = 253_402_300_799;
const LOCK_FILE: &str = "tokens.lock";
const HEADER: &str =
    "# Join tokens of this authority, written by gossipmonger. Who can read the keys can join.\n\n";
/// Maximum number of names kept of those that joined with a token.
const BY_KEPT: usize = 16;
/// Maximum number of reserved names: far more than are granted within [`NAME_HELD`].
const GRANTS_MAX: usize = 2_000;
/// How long an expired token is kept, so that it is refused as expired, not as unknown.
const KEPT_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);
/// Five seconds in total.
const LOCK_ATTEMPTS: u32 = 500;
const LOCK_WAIT: Duration = Duration::from_millis(10);

#[cfg(all(test, unix))]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::tls::Pin;

    #[test]
    fn treats_a_time_that_is_out_of_range_as_long_ago() {
        for seconds in
            [SECONDS_MAX + 1, i64::MAX as u64 - 1, i64::MAX as u64, u64::MAX - 1, u64::MAX]
        {
            let (directory, ledger) = ledger();
            let good = token();
            ledger.add(&good, &terms(), NOW).unwrap();
            let path = directory.path().join(TOKENS_FILE);
            let text = fs::read_to_string(&path).unwrap();
            let line = |name| text.lines().find(|line| line.starts_with(name)).unwrap();
            let times = [line("expires"), line("created")];
            let damaged = times.iter().fold(text.clone(), |text, line| {
                let name = line.split(' ').next().unwrap();
                text.replace(line, &format!("{name} = {seconds}"))
            });
            fs::write(&path, damaged).unwrap();
            assert_eq!(ledger.list(NOW).unwrap()[0].state, TokenState::Expired, "{seconds}");
            let later = NOW + 2 * KEPT_AFTER;
            ledger.add(&token(), &terms(), later).unwrap();
            assert_eq!(
                ledger.list(later).unwrap().len(),
                1,
                "tokens that are long over are removed"
            );
        }
    }

    #[test]
    fn refuses_terms_out_of_range() {
        let (_directory, ledger) = ledger();
        let hour = terms();
        for bad in [
            Terms { uses: 0, ..hour.clone() },
            Terms { uses: USES_MAX + 1, ..hour.clone() },
            Terms { ttl: Duration::ZERO, ..hour.clone() },
            Terms { ttl: TTL_MAX + Duration::from_secs(1), ..hour.clone() },
            Terms { uses: 2, node: Some(node("b")), ..hour },
        ] {
            let error = ledger.add(&token(), &bad, NOW).unwrap_err();
            assert!(matches!(error, LedgerError::Terms), "{error}");
        }
        assert!(ledger.list(NOW).unwrap().is_empty());
    }

    #[test]
    fn refuses_claims_that_are_not_right() {
        let (_directory, ledger) = ledger();
        let good = token();
        let for_b = Terms {
            node: Some(node("b")),
            datacenter: Some(Datacenter::new("eu").unwrap()),
            ..terms()
        };
        ledger.add(&good, &for_b, NOW).unwrap();
        let refused = |token: &Token, join: Join, at| why(&ledger, token, join, at, &[]);
        assert_eq!(refused(&token(), claim("b"), NOW), Refused::UnknownToken);
        let foreign = Token::from_parts(good.id(), &token());
        assert_eq!(refused(&foreign, claim("b"), NOW), Refused::WrongSecret);
        assert_eq!(refused(&good, claim("c"), NOW), Refused::WrongName);
        let elsewhere = Join { datacenter: Some(Datacenter::new("us").unwrap()), ..claim("b") };
        assert_eq!(refused(&good, elsewhere, NOW), Refused::WrongName);
        assert_eq!(refused(&good, claim("b"), NOW + HOUR), Refused::Expired);
        assert_eq!(why(&ledger, &good, claim("b"), NOW, &["b"]), Refused::NameTaken);
        // None of these has used it up.
        assert_eq!(take(&ledger, &good, Join { node: None, ..claim("b") }, NOW), "b");
        assert_eq!(refused(&good, claim("b"), NOW), Refused::Used);
    }

    #[test]
    fn refuses_a_claim_without_a_name_or_to_one_that_was_just_granted() {
        let (_directory, ledger) = ledger();
        let token = token();
        ledger.add(&token, &Terms { uses: 9, ..terms() }, NOW).unwrap();
        let nameless = Join { node: None, ..claim("b") };
        assert_eq!(why(&ledger, &token, nameless, NOW, &[]), Refused::NameNeeded);
        assert_eq!(take(&ledger, &token, claim("b"), NOW), "b");
        assert_eq!(why(&ledger, &token, claim("b"), NOW, &[]), Refused::NameTaken);
        assert_eq!(take(&ledger, &token, claim("c"), NOW), "c");
        assert_eq!(take(&ledger, &token, claim("b"), NOW + NAME_HELD), "b");
        let view = &ledger.list(NOW).unwrap()[0];
        assert_eq!((view.used, view.state), (3, TokenState::Good));
    }

    #[test]
    fn refuses_a_revoked_token() {
        let (_directory, ledger) = ledger();
        let token = token();
        ledger.add(&token, &terms(), NOW).unwrap();
        assert_eq!(ledger.revoke(token.id(), NOW).unwrap().state, TokenState::Revoked);
        assert_eq!(why(&ledger, &token, claim("b"), NOW, &[]), Refused::TokenRevoked);
        let error = ledger.revoke(self::token().id(), NOW).unwrap_err();
        assert!(matches!(error, LedgerError::Unknown(_)), "{error}");
    }

    #[test]
    fn a_claim_that_cannot_be_granted_uses_nothing_up() {
        let (_directory, ledger) = ledger();
        let token = token();
        ledger.add(&token, &terms(), NOW).unwrap();
        let mut join = Join { token: token.id(), ..claim("b") };
        join.prove(&token.key(), &EXPORTED);
        let claim = context(&join, NOW);
        let denied = ledger.claim(
            &claim,
            |_| false,
            |_, _, _| Err::<(), _>(Denied::new(Refused::Unable, "no authority")),
        );
        assert_eq!(denied.unwrap_err().why, Refused::Unable);
        assert_eq!(take(&ledger, &token, self::claim("b"), NOW), "b");
    }

    #[test]
    fn of_many_at_once_one_gets_it() {
        let (directory, ledger) = ledger();
        let token = token();
        ledger.add(&token, &terms(), NOW).unwrap();
        let won: usize = thread::scope(|scope| {
            let tries: Vec<_> = (0..8)
                .map(|n| {
                    let (token, directory) = (&token, directory.path());
                    scope.spawn(move || {
                        // Each with its own ledger, like issuers that share the directory.
                        let ledger = Ledger::open(directory).unwrap();
                        usize::from(
                            claimed(&ledger, token, claim(&format!("n{n}")), NOW, &[]).is_ok(),
                        )
                    })
                })
                .collect();
            tries.into_iter().map(|tried| tried.join().unwrap()).sum()
        });
        assert_eq!(won, 1);
    }

    #[test]
    fn remembers_over_a_restart_for_its_owner_only() {
        let (directory, ledger) = ledger();
        let token = token();
        ledger.add(&token, &terms(), NOW).unwrap();
        let file = directory.path().join(TOKENS_FILE);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains(token.to_text().trim_start_matches("gmj1_")), "{text}");
        let again = Ledger::open(directory.path()).unwrap();
        assert_eq!(again.list(NOW).unwrap(), ledger.list(NOW).unwrap());
        assert_eq!(take(&again, &token, claim("b"), NOW), "b");

        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Ledger::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&file, "[[token]]\nkey = \"SECRET\"\n").unwrap();
        let error = Ledger::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains("tokens.toml") && !error.contains("SECRET"), "{error}");
    }

    #[test]
    fn forgets_what_is_over_before_what_is_good() {
        let (_directory, ledger) = ledger();
        let over = token();
        ledger.add(&over, &terms(), NOW).unwrap();
        ledger.revoke(over.id(), NOW).unwrap();
        let mut book = ledger.read().unwrap();
        while book.token.len() < TOKENS_MAX {
            book.token.push(Entry::new(&token(), &terms(), NOW));
        }
        ledger.write(&book).unwrap();
        ledger.add(&token(), &terms(), NOW).unwrap();
        assert!(ledger.list(NOW).unwrap().iter().all(|view| view.id != over.id()));
        let error = ledger.add(&token(), &terms(), NOW).unwrap_err();
        assert!(matches!(error, LedgerError::Full), "{error}");
        ledger.add(&token(), &terms(), NOW + HOUR + KEPT_AFTER).unwrap();
        assert_eq!(ledger.list(NOW).unwrap().len(), 1);
    }

    fn ledger() -> (tempfile::TempDir, Ledger) {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(directory.path()).unwrap();
        (directory, ledger)
    }

    fn terms() -> Terms {
        Terms { node: None, datacenter: None, ttl: HOUR, uses: 1 }
    }

    fn node(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn token() -> Token {
        Token::generate(node("a"), 7102, Pin([0; 32])).unwrap()
    }

    fn claim(name: &str) -> Join {
        Join {
            token: TokenId([0; 8]),
            node: Some(node(name)),
            datacenter: None,
            csr: Vec::new(),
            proof: [0; 32],
        }
    }

    fn context(join: &Join, now: SystemTime) -> Claim<'_> {
        static HERE: std::sync::LazyLock<Datacenter> =
            std::sync::LazyLock::new(|| Datacenter::new("eu").unwrap());
        Claim { join, exported: &EXPORTED, datacenter: &HERE, now }
    }

    fn claimed(
        ledger: &Ledger,
        token: &Token,
        join: Join,
        now: SystemTime,
        living: &[&str],
    ) -> Result<String, Denied> {
        let mut join = Join { token: token.id(), ..join };
        join.prove(&token.key(), &EXPORTED);
        let lives = |node: &NodeId| living.contains(&node.as_str());
        ledger.claim(&context(&join, now), lives, |node, _, _| Ok(node.to_string()))
    }

    fn take(ledger: &Ledger, token: &Token, join: Join, now: SystemTime) -> String {
        claimed(ledger, token, join, now, &[]).unwrap()
    }

    fn why(
        ledger: &Ledger,
        token: &Token,
        join: Join,
        now: SystemTime,
        living: &[&str],
    ) -> Refused {
        claimed(ledger, token, join, now, living).unwrap_err().why
    }

    const EXPORTED: Exported = Exported([1; 32]);
    const HOUR: Duration = Duration::from_secs(3600);
    const NOW: SystemTime = UNIX_EPOCH;
}
