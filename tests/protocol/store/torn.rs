//! A file that the disk tore, cut or changed: the store opens as one of the last two commits, exactly,
//! or it refuses and names the file. It never panics and never makes anything up.
//!
//! What a power cut leaves is tried where the writes can be seen, in `src/store/redb/tests.rs`.

use std::{fs, path::Path};

use gossipmonger::{
    protocol::id::{ClusterId, Datacenter, Generation, NodeId, Version},
    store::{
        Change, EndpointKeys, Head, KnownPeer, Store, StoreError, Stored, StoredEntry,
        redb::RedbStore,
    },
};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use tempfile::TempDir;

use super::sample;

// C98
#[test]
fn serves_no_garbage_from_a_damaged_file() {
    let mut random = sample::random();
    let bench = Bench::new(&mut random);
    let mut outcomes = [0; 3];
    for _ in 0..DAMAGES {
        let at = random.random_range(0..bench.images.len());
        let mut bytes = bench.images[at].clone();
        let damage = damage(&mut bytes, &mut random);
        outcomes[bench.outcome(at, &bytes, &damage) as usize] += 1;
    }
    println!("refused, as last committed, as before that: {outcomes:?}");
}

/// A store's file as it was after each of several commits, and what was committed.
struct Bench {
    directory: TempDir,
    images: Vec<Vec<u8>>,
    states: Vec<Stored>,
}

enum Outcome {
    Refused,
    TheLast,
    TheOneBefore,
}

impl Bench {
    fn new(random: &mut StdRng) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("original");
        let store = RedbStore::open(&path).unwrap();
        let mut bench = Self {
            directory,
            images: vec![fs::read(&path).unwrap()],
            states: vec![Stored::default()],
        };
        for number in 1..=COMMITS {
            let mut stored = bench.states.last().unwrap().clone();
            let changes = changes(number, random);
            store.commit(&changes).unwrap();
            changes.iter().for_each(|change| stored.apply(change));
            bench.images.push(fs::read(&path).unwrap());
            bench.states.push(stored);
        }
        // Closed in order, which writes once more, but commits nothing of ours.
        drop(store);
        bench.images.push(fs::read(&path).unwrap());
        bench.states.push(bench.states.last().unwrap().clone());
        bench
    }

    /// What comes of opening image number `at` after `damage` made `bytes` of it.
    fn outcome(&self, at: usize, bytes: &[u8], damage: &str) -> Outcome {
        let path = self.directory.path().join("damaged");
        sample::write_private(&path, bytes);
        let loaded = RedbStore::open(&path).and_then(|store| Ok((store.load()?, store)));
        let (stored, store) = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                let named = error.to_string().contains(path.to_str().unwrap());
                assert!(named && matches!(error, StoreError::Damaged { .. }), "{damage}: {error}");
                return Outcome::Refused;
            }
        };
        let last = stored == self.states[at];
        assert!(
            last || stored == self.states[at.saturating_sub(1)],
            "image {at}, {damage}: {stored:?}"
        );
        self.still_works(&path, store, stored);
        if last { Outcome::TheLast } else { Outcome::TheOneBefore }
    }

    /// What recovered is a store like any other.
    fn still_works(&self, path: &Path, store: RedbStore, mut stored: Stored) {
        let changes = changes(COMMITS + 1, &mut StdRng::seed_from_u64(0));
        store.commit(&changes).unwrap();
        changes.iter().for_each(|change| stored.apply(change));
        assert_eq!(store.load().unwrap(), stored);
        drop(store);
        assert_eq!(RedbStore::open(path).unwrap().load().unwrap(), stored);
    }
}

/// One commit: every kind of change, so that every kind of record is old in one place and new in another.
fn changes(number: u64, random: &mut StdRng) -> Vec<Change> {
    let node = |number: u64| NodeId::new(&format!("node-{number}")).unwrap();
    let mut changes = vec![
        Change::Identity { cluster: ClusterId::new("cluster").unwrap(), node: node(number) },
        Change::Head(Head { max_version: Version(number), ..Head::default() }),
        Change::Tags([("tag".into(), number.to_string())].into()),
        Change::Left(number.is_multiple_of(2)),
        Change::EndpointKeys(EndpointKeys { reset: [number as u8; 64], connection_id: number }),
        Change::ForgetPeer(node(number - 1)),
        Change::Peer(KnownPeer {
            node: node(number),
            datacenter: Datacenter::new("eu").unwrap(),
            addresses: vec![format!("host:{number}")],
            generation: Generation(number),
            dead: false,
        }),
    ];
    for _ in 0..20 {
        let key = format!("key {}", random.random_range(0..60)).into();
        let value = vec![number as u8; random.random_range(0..600)];
        let entry =
            StoredEntry { version: Version(number), value: Some(value.into()), expires: None };
        changes.push(Change::Put { key, entry });
    }
    changes.push(Change::Remove(format!("key {}", random.random_range(0..60)).into()));
    changes
}

/// Damages `bytes` in one of the ways of disks, and tells how.
fn damage(bytes: &mut Vec<u8>, random: &mut StdRng) -> String {
    let length = bytes.len();
    // Half of it where it hurts most: the file's header and the roots are in its first page.
    let end = if random.random_bool(0.5) { HEADER } else { length };
    let at = random.random_range(0..end);
    let some = random.random_range(1..=4096.min(length - at));
    match random.random_range(0..5) {
        0 => {
            bytes.truncate(at);
            format!("cut at {at} of {length}")
        }
        1 => {
            bytes[at..at + some].fill(0);
            format!("{some} zeros at {at}")
        }
        2 => {
            random.fill_bytes(&mut bytes[at..at + some]);
            format!("{some} bytes of garbage at {at}")
        }
        3 => {
            bytes[at] ^= 1 << random.random_range(0..8);
            format!("a flipped bit at {at}")
        }
        _ => {
            let from = random.random_range(0..=length - some);
            bytes.copy_within(from..from + some, at);
            format!("{some} bytes at {at} overwritten with those at {from}")
        }
    }
}

const COMMITS: u64 = 8;
const DAMAGES: usize = 300;
const HEADER: usize = 512;
