//! How calls spread over providers when each call goes where a pick says.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::{
    Balance, Outcome,
    fixture::{Offers, at, balance, named, nearest, node, offers, picked, seed},
};
use crate::protocol::{id::NodeId, time::Time};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// How many seeds each distribution is tried with.
const RUNS: u64 = 3;

/// Calls that begin at a rate, each where a pick says, and end when the provider's latency is over.
struct Run {
    balance: Balance,
    rng: SmallRng,
    now: Time,
    under_way: BinaryHeap<Reverse<(Time, NodeId, Duration)>>,
}

impl Run {
    fn new(seed: u64) -> Self {
        Self {
            balance: balance(),
            rng: SmallRng::seed_from_u64(seed),
            now: Time::ZERO,
            under_way: BinaryHeap::new(),
        }
    }

    /// So many calls, one each `pause`; how many each provider got.
    fn calls(
        &mut self,
        count: u32,
        pause: Duration,
        offers: &Offers,
        latency: impl Fn(&str) -> Duration,
    ) -> BTreeMap<String, u32> {
        let mut counts = BTreeMap::<String, u32>::new();
        for _ in 0..count {
            self.now = self.now + pause;
            self.end_calls();
            let ask = nearest(&[]);
            let pick = self.balance.pick(offers, &ask, self.now, &mut self.rng, |_| 0.0).unwrap();
            let to = &pick.provider.node;
            *counts.entry(to.to_string()).or_default() += 1;
            self.balance.began(self.now, to);
            // Evenly from half to one and a half of the mean.
            let took = latency(to.as_str()).mul_f64(self.rng.random_range(0.5..1.5));
            self.under_way.push(Reverse((self.now + took, to.clone(), took)));
        }
        counts
    }

    fn end_calls(&mut self) {
        while let Some(Reverse((end, ..))) = self.under_way.peek()
            && *end <= self.now
            && let Some(Reverse((end, node, took))) = self.under_way.pop()
        {
            self.balance.ended(end, &node, took, Some(0), Outcome::Answered);
        }
    }
}

fn share(counts: &BTreeMap<String, u32>, name: &str) -> f64 {
    let sum: u32 = counts.values().sum();
    f64::from(counts.get(name).copied().unwrap_or_default()) / f64::from(sum)
}

fn three() -> Offers {
    offers([("a", &["a1", "a2", "a3"])])
}

#[test]
fn equal_providers_get_equal_shares() {
    let seed = seed(11);
    for seed in seed..seed + RUNS {
        // 30 calls under way.
        let counts = Run::new(seed).calls(20_000, MS, &three(), |_| 30 * MS);
        for name in ["a1", "a2", "a3"] {
            assert!((share(&counts, name) - 1.0 / 3.0).abs() < 0.02, "{counts:?} SEED={seed}");
        }
        // One at a time, and nothing is known of anybody.
        let counts = Run::new(seed).calls(9_000, 11 * SECOND, &three(), |_| MS);
        for name in ["a1", "a2", "a3"] {
            assert!((share(&counts, name) - 1.0 / 3.0).abs() < 0.04, "{counts:?} SEED={seed}");
        }
    }
}

#[test]
fn a_slow_provider_gets_less() {
    let seed = seed(12);
    for seed in seed..seed + RUNS {
        let slow = |name: &str| if name == "a3" { 120 * MS } else { 30 * MS };
        let counts = Run::new(seed).calls(20_000, MS, &three(), slow);
        let got = share(&counts, "a3");
        assert!(got > 0.01 && got < 0.17, "{counts:?} SEED={seed}");
    }
}

#[test]
fn a_heavier_provider_gets_more_as_far_as_two_choices_allow() {
    let seed = seed(13);
    for seed in seed..seed + RUNS {
        let mut offers = three();
        named(&mut offers, "a3").weight = 2;
        // 200 calls under way: by weight it would be one half.
        let counts = Run::new(seed).calls(20_000, MS, &offers, |_| 200 * MS);
        assert!((share(&counts, "a3") - 0.5).abs() < 0.04, "{counts:?} SEED={seed}");
        // By weight it would get 99 % of the calls, but it is drawn in two of three.
        named(&mut offers, "a3").weight = 198;
        let counts = Run::new(seed).calls(20_000, MS, &offers, |_| 200 * MS);
        assert!((share(&counts, "a3") - 2.0 / 3.0).abs() < 0.03, "{counts:?} SEED={seed}");
    }
}

#[test]
fn one_bad_second_is_forgotten_after_ten() {
    let seed = seed(14);
    for seed in seed..seed + RUNS {
        let mut run = Run::new(seed);
        run.calls(1_000, MS, &three(), |_| 5 * MS);
        let bad = |name: &str| if name == "a2" { SECOND } else { 5 * MS };
        run.calls(1_000, MS, &three(), bad);
        let during = run.calls(2_000, MS, &three(), |_| 5 * MS);
        assert!(share(&during, "a2") < 0.1, "{during:?} SEED={seed}");
        // The last bad answer comes 1.5 s after the bad second.
        run.calls(9_500, MS, &three(), |_| 5 * MS);
        let after = run.calls(10_000, MS, &three(), |_| 5 * MS);
        assert!((share(&after, "a2") - 1.0 / 3.0).abs() < 0.05, "{after:?} SEED={seed}");
    }
}

#[test]
fn a_provider_that_fails_at_once_is_no_black_hole() {
    let seed = seed(15);
    let mut rng = SmallRng::seed_from_u64(seed);
    let (mut balance, offers, mut failed) = (balance(), three(), 0);
    for number in 0..1_000 {
        let now = at(number * MS);
        let name = picked(&balance, &offers, &nearest(&[]), now, &mut rng).unwrap();
        balance.began(now, &node(name));
        if name == "a2" {
            failed += 1;
            balance.ended(now, &node(name), Duration::ZERO, None, Outcome::Failed);
        } else {
            balance.ended(now, &node(name), 20 * MS, None, Outcome::Answered);
        }
    }
    assert!(failed < 10, "{failed} SEED={seed}");
}
