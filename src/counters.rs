//! The counters of a node, for `info`, metrics and tests.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::protocol::{
    route::Counter,
    timing::{self, Timing},
};

/// Maximum number of different reasons; further ones are counted as `other`.
pub(crate) const REASONS_MAX: usize = 64;

/// The counters of one node, which only grow, and a few of its present figures.
#[derive(Debug)]
pub struct Counters {
    counts: [AtomicU64; Counter::ALL.len()],
    timings: [Times; Timing::ALL.len()],
    refusals: Mutex<BTreeMap<&'static str, u64>>,
    longest_storage_step: AtomicU64,
    lag: AtomicU64,
    longest_lag: AtomicU64,
    store_fails: AtomicBool,
}

/// One timing: how many durations are in each class, and their sum.
#[derive(Debug, Default)]
struct Times {
    classes: [AtomicU64; timing::BOUNDS_US.len() + 1],
    nanos: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        let counts = std::array::from_fn(|_| AtomicU64::new(0));
        let zero = || AtomicU64::new(0);
        Self {
            counts,
            timings: std::array::from_fn(|_| Times::default()),
            refusals: Mutex::default(),
            store_fails: AtomicBool::new(false),
            longest_storage_step: zero(),
            lag: zero(),
            longest_lag: zero(),
        }
    }
}

impl Counters {
    /// What the last write to the store came to.
    pub(crate) fn note_store(&self, failed: bool) {
        self.store_fails.store(failed, Ordering::Relaxed);
    }

    /// Whether the last write to the store failed; the node tries it again.
    #[must_use]
    pub fn store_is_failing(&self) -> bool {
        self.store_fails.load(Ordering::Relaxed)
    }

    /// Increments a counter.
    pub fn add(&self, counter: Counter, times: u64) {
        self.counts[counter as usize].fetch_add(times, Ordering::Relaxed);
    }

    /// The present value of a counter.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.counts[counter as usize].load(Ordering::Relaxed)
    }

    /// Records how long something took.
    #[doc(hidden)]
    pub fn took(&self, timing: Timing, took: Duration) {
        let times = &self.timings[timing as usize];
        times.classes[timing::class(took)].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        times.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// How many durations are in each class of [`BOUNDS_US`](timing::BOUNDS_US), and the sum of all.
    #[must_use]
    #[doc(hidden)]
    pub fn times(&self, timing: Timing) -> (Vec<u64>, Duration) {
        let times = &self.timings[timing as usize];
        let classes = times.classes.iter().map(|class| class.load(Ordering::Relaxed)).collect();
        (classes, Duration::from_nanos(times.nanos.load(Ordering::Relaxed)))
    }

    /// Records how long storage was busy with one message.
    pub(crate) fn storage_step(&self, time: Duration) {
        self.took(Timing::StorageStep, time);
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.longest_storage_step.fetch_max(micros, Ordering::Relaxed);
    }

    /// The longest time that storage was busy with one message, which is the longest that all others
    /// waited for one. It is wall-clock time, so the load of other processes counts.
    #[must_use]
    #[doc(hidden)]
    pub fn longest_storage_step(&self) -> Duration {
        Duration::from_micros(self.longest_storage_step.load(Ordering::Relaxed))
    }

    /// Records how late the node is served.
    pub(crate) fn note_lag(&self, lag: Duration) {
        let micros = u64::try_from(lag.as_micros()).unwrap_or(u64::MAX);
        self.lag.store(micros, Ordering::Relaxed);
        self.longest_lag.fetch_max(micros, Ordering::Relaxed);
    }

    /// How late the node is served: the most that a ready task or a message for storage waited for its turn in the
    /// last 200 ms.
    #[must_use]
    #[doc(hidden)]
    pub fn lag(&self) -> Duration {
        Duration::from_micros(self.lag.load(Ordering::Relaxed))
    }

    /// The largest lag since the start.
    #[must_use]
    #[doc(hidden)]
    pub fn longest_lag(&self) -> Duration {
        Duration::from_micros(self.longest_lag.load(Ordering::Relaxed))
    }

    /// Counts a connection that was refused, by the reason.
    #[doc(hidden)]
    pub fn refuse(&self, reason: &'static str) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let known = refusals.contains_key(reason) || refusals.len() < REASONS_MAX;
        *refusals.entry(if known { reason } else { "other" }).or_default() += 1;
    }

    /// Connections refused, by us or by the peer, by the reason.
    #[must_use]
    pub fn refusals(&self) -> BTreeMap<&'static str, u64> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All counters by name.
    #[must_use]
    pub fn all(&self) -> BTreeMap<&'static str, u64> {
        Counter::ALL.into_iter().map(|counter| (counter.as_str(), self.get(counter))).collect()
    }
}
