//! Tokens are recorded, claimed, refused and forgotten.

use std::{fs, os::unix::fs::PermissionsExt, time::UNIX_EPOCH};

use super::{
    book::{KEPT_AFTER, SECONDS_MAX},
    terms::{NAME_HELD, TOKENS_MAX},
    *,
};
use crate::{
    issuer::request::{Exported, Join, Refused},
    tls::Pin,
};

#[test]
fn treats_a_time_that_is_out_of_range_as_long_ago() {
    for seconds in [SECONDS_MAX + 1, i64::MAX as u64 - 1, i64::MAX as u64, u64::MAX - 1, u64::MAX] {
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
        assert_eq!(ledger.list(later).unwrap().len(), 1, "tokens that are long over are removed");
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
                    usize::from(claimed(&ledger, token, claim(&format!("n{n}")), NOW, &[]).is_ok())
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

    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
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

fn why(ledger: &Ledger, token: &Token, join: Join, now: SystemTime, living: &[&str]) -> Refused {
    claimed(ledger, token, join, now, living).unwrap_err().why
}

const EXPORTED: Exported = Exported([1; 32]);
const HOUR: Duration = Duration::from_secs(3600);
const NOW: SystemTime = UNIX_EPOCH;
