//! Small clusters in virtual time: the machines that ship, on a network that loses, delays, reorders,
//! duplicates and cuts, with crashes and restarts in between. No sockets, no clock, no threads
//! inside a run.
//!
//! One number decides a whole run. It is printed with every failure; to see that run again:
//!
//! ```text
//! SEED=123 cargo test --test simulation -- --nocapture
//! ```
//!
//! `SEEDS=10000` runs more of them than usual, `OFFSET=20000` others than usual: those from that number on.
//! A failure shows what was done to the cluster, event by event. What it teaches is kept as such events
//! (see [`kept`]): a seed draws another life as soon as anything here changes.

mod attacks;
mod calls;
mod connections;
mod datacenters;
mod failures;
mod faults;
mod kept;
mod lateness;
mod news;
#[path = "../protocol/notary.rs"]
#[expect(dead_code, reason = "nobody renews a certificate in these runs")]
mod notary;
mod oracle;
mod returning;
mod revocation;
mod scenarios;
mod storm;

use gossipmonger::{
    protocol::seal::Notary,
    sim::{network::Network, settings::Settings, world::World},
};

use std::{
    panic,
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
};

/// Machines of which none runs, with a judge of all that readers see.
fn world(seed: u64, count: usize, settings: Settings, network: Network) -> World {
    let mut world = World::new(seed, count, settings, network);
    world.hooks.witness = Some(Box::new(oracle::Oracle::default()));
    world
}

/// An authority that vouches for every node.
#[expect(clippy::unnecessary_wraps, reason = "as the settings want it")]
fn notary() -> Option<Arc<dyn Notary>> {
    Some(Arc::new(notary::TestNotary::new(1)))
}

/// Runs one whole random life of a cluster; `Err` says what went wrong.
fn run(seed: u64) -> Result<u64, String> {
    panic::catch_unwind(|| faults::random_life(seed).trace()).map_err(|cause| {
        let text = cause.downcast_ref::<String>().cloned();
        text.or_else(|| cause.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
    })
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|value| value.parse().ok())
}

// C12 C22 C23 C24 C25 C26 C46 C47 C62 C74
#[test]
fn a_thousand_random_lives_converge_and_break_no_promise() {
    if let Some(seed) = number("SEED") {
        println!("  {}", faults::random_life(seed).history().join("\n  "));
        return;
    }
    let (first, seeds) = (number("OFFSET").unwrap_or(0), number("SEEDS").unwrap_or(SEEDS));
    let end = first + seeds;
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let failures: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut failures = Vec::new();
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= end {
                            return failures;
                        }
                        if let Err(what) = run(seed) {
                            failures.push(format!("SEED={seed}: {what}"));
                        }
                    }
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    println!("seeds {first} to {}: {} failed", end - 1, failures.len());
    assert!(failures.is_empty(), "{} of {seeds} failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn one_seed_gives_one_trace() {
    for seed in [number("SEED").unwrap_or(7), 8, 9] {
        let trace = || faults::random_life(seed).trace();
        assert_eq!(trace(), trace(), "SEED={seed}");
    }
    assert_ne!(faults::random_life(1).trace(), faults::random_life(2).trace());
}

/// Random lives in one run of the tests.
const SEEDS: u64 = 1_000;
