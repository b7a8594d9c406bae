//! kill -9: a process that commits, or makes stores, is killed while it does.
//!
//! The process is this test binary again, running the one test named in [`run`]. What it acknowledged is
//! what it printed; the moment of its death is a number of such lines, not a time.

use std::{
    env,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use gossipmonger::{
    protocol::id::{ClusterId, NodeId, Version},
    store::{Change, Head, Store, Stored, StoredEntry, redb::RedbStore},
};
use rand::RngExt;
use tempfile::TempDir;

use super::sample;

#[test]
fn keeps_every_acknowledged_commit_and_no_half_one() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("store");
    let mut random = sample::random();
    let mut reached = 0;
    for _ in 0..KILLS {
        let lines = random.random_range(1..20);
        let acknowledged = run("store::killed::child_commits", &path, lines);
        let stored = RedbStore::open(&path).unwrap().load().unwrap();
        let found = stored.head.max_version.0;
        // The next one may have been done, and not yet said.
        assert!((acknowledged..=acknowledged + 1).contains(&found), "{found}, not {acknowledged}");
        assert!(acknowledged >= reached + lines, "{acknowledged} follows {reached}");
        assert_eq!(stored, expected(found));
        reached = found;
    }
}

#[test]
fn leaves_a_whole_store_or_none_when_killed_while_making_it() {
    let mut random = sample::random();
    for _ in 0..KILLS {
        let directory = TempDir::new().unwrap();
        let made =
            run("store::killed::child_makes_stores", directory.path(), random.random_range(1..8));
        for number in 1..=made + 1 {
            let path = directory.path().join(number.to_string());
            let stored = RedbStore::open(path).unwrap().load().unwrap();
            let empty = number > made && stored == Stored::default();
            assert!(empty || stored == numbered(number), "{number} of {made}: {stored:?}");
        }
    }
}

/// Not a test: what [`run`] runs.
#[test]
fn child_commits() {
    let Some(path) = env::var_os(CHILD) else { return };
    let store = RedbStore::open(path).unwrap();
    let reached = store.load().unwrap().head.max_version.0;
    for number in reached + 1.. {
        store.commit(&batch(number)).unwrap();
        println!("{DONE}{number}");
    }
}

/// Not a test: what [`run`] runs.
#[test]
fn child_makes_stores() {
    let Some(directory) = env::var_os(CHILD) else { return };
    for number in 1_u64.. {
        let store = RedbStore::open(Path::new(&directory).join(number.to_string())).unwrap();
        let node = NodeId::new(&number.to_string()).unwrap();
        store.commit(&[Change::Identity { cluster: ClusterId::new("c").unwrap(), node }]).unwrap();
        println!("{DONE}{number}");
    }
}

/// Runs `test` on `path` until it has acknowledged `lines` numbers, kills it, and returns the last one
/// that it acknowledged.
fn run(test: &str, path: &Path, lines: u64) -> u64 {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap()).lines();
    // The harness prints the name of the test in front of the first line.
    let mut done =
        output.filter_map(|line| Some(line.unwrap().split_once(DONE)?.1.parse().unwrap()));
    let mut last: u64 = done.nth(usize::try_from(lines - 1).unwrap()).expect("the child gave up");
    child.kill().unwrap();
    last = done.last().unwrap_or(last);
    child.wait().unwrap();
    last
}

/// Rewrites all keys, so that a mixture of two batches shows, with values of many pages; each batch
/// also removes one key.
fn batch(number: u64) -> Vec<Change> {
    let head = Head { max_version: Version(number), ..Head::default() };
    let puts = (0..KEYS).map(|key| Change::Put {
        key: format!("key {key}").into(),
        entry: StoredEntry {
            version: Version(number),
            value: Some(number.to_be_bytes().repeat(250).into()),
            expires: None,
        },
    });
    let removed = Change::Remove(format!("key {}", number % KEYS).into());
    puts.chain([removed, Change::Head(head)]).collect()
}

fn expected(number: u64) -> Stored {
    let mut stored = Stored::default();
    batch(number).iter().for_each(|change| stored.apply(change));
    stored
}

fn numbered(number: u64) -> Stored {
    let node = NodeId::new(&number.to_string()).unwrap();
    Stored { identity: Some((ClusterId::new("c").unwrap(), node)), ..Stored::default() }
}

const CHILD: &str = "GOSSIPMONGER_STORE_TEST_CHILD";
const DONE: &str = "done: ";
const KILLS: usize = 12;
const KEYS: u64 = 50;
