//! The worked example of `docs/testkit.md`: a replicated cache with a bug, the test that finds it, and the mended one.
//!
//! One node writes, and sends each write to the others, again and again until it is acknowledged. If only the reply is
//! lost, an old write arrives a second time, after newer ones.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
    time::Duration,
};

use gossipmonger::{
    Gossipmonger, NodeId,
    service::Access,
    testkit::{Kit, Loss, Process, check, run},
};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

// --- the cache

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Put {
    key: String,
    version: u64,
    value: String,
}

gossipmonger::service! {
    /// The copies of a cache.
    struct Copies = "copies", 1.0;
    1: call Put -> bool;
}

/// Which cache is tested.
#[derive(Clone, Copy, Debug)]
enum Edition {
    /// It takes every write that arrives.
    Buggy,
    /// It takes a write only if it is newer.
    Mended,
}

/// One node's copy.
struct Cache {
    edition: Edition,
    entries: Mutex<BTreeMap<String, Put>>,
}

impl Cache {
    fn new(edition: Edition) -> Arc<Self> {
        Arc::new(Self { edition, entries: Mutex::default() })
    }

    /// Takes a write, unless there is a newer one.
    fn take(&self, put: Put) {
        let mut entries = self.entries.lock().unwrap();
        let known = entries.get(&put.key).map_or(0, |known| known.version);
        if matches!(self.edition, Edition::Buggy) || put.version > known {
            entries.insert(put.key.clone(), put);
        }
    }

    fn get(&self, key: &str) -> Option<Put> {
        self.entries.lock().unwrap().get(key).cloned()
    }
}

/// Sends a write to a node until the node has acknowledged it.
async fn replicate(node: Gossipmonger, to: NodeId, put: Put) {
    loop {
        if let Some(copies) = node.service::<Copies>().at(&to)
            && copies.call(put.clone()).within(Duration::from_millis(200)).await.is_ok()
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

// --- its test

/// The caches of the nodes that run, by name.
type Caches = Arc<Mutex<BTreeMap<String, Arc<Cache>>>>;

/// A process with a cache, as `main` would set it up.
async fn serve(process: Process, edition: Edition, caches: Caches) {
    let cache = Cache::new(edition);
    caches.lock().unwrap().insert(process.node().node().to_string(), Arc::clone(&cache));
    let offer = process.node().offer::<Copies>(Access::members()).call(move |put: Put, _| {
        let cache = Arc::clone(&cache);
        async move {
            cache.take(put);
            true
        }
    });
    process.keep(offer.start().await.unwrap());
}

/// Whatever is lost on the way, in the end all copies are equal.
async fn copies_become_equal(kit: Kit, edition: Edition) {
    let caches = Caches::default();
    let theirs = Arc::clone(&caches);
    kit.on_start(move |process| serve(process, edition, Arc::clone(&theirs)));
    let [a, ..] = kit.start_all(["a", "b", "c"]).await;
    for to in ["b", "c"] {
        kit.lose_requests("a", to, Loss::Part(0.05));
        kit.lose_replies("a", to, Loss::Part(0.05));
    }
    let (mut rng, mut under_way) = (kit.rng(), JoinSet::new());
    for version in 1..=20 {
        let put = Put { key: "tea".to_owned(), version, value: format!("{version} left") };
        for peer in a.live_peers() {
            under_way.spawn(replicate(a.clone(), peer.node, put.clone()));
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..100))).await;
    }
    kit.lose_nothing();
    while under_way.join_next().await.is_some() {}
    let copies = ["b", "c"].map(|name| caches.lock().unwrap()[name].get("tea").unwrap().version);
    assert_eq!(copies, [20, 20], "a copy is old");
}

/// Most seeds that are tried until the bug is found.
const SEEDS: u64 = 20;

#[test]
fn the_kit_finds_the_bug_and_the_seed_repeats_it() {
    let fails = |seed| {
        let test = || run(seed, |kit| copies_become_equal(kit, Edition::Buggy));
        let panic = catch_unwind(AssertUnwindSafe(test)).err()?;
        Some(panic.downcast_ref::<String>().expect("a formatted message").clone())
    };
    let found = (1..=SEEDS).find_map(|seed| Some((seed, fails(seed)?)));
    let (seed, first) = found.expect("no seed finds the bug");
    assert!(first.contains("a copy is old"), "{first}");
    assert_eq!(fails(seed), Some(first), "seed {seed}");
}

#[test]
fn the_mended_cache_passes_with_every_seed() {
    check(1..=2 * SEEDS, |kit| copies_become_equal(kit, Edition::Mended));
}
