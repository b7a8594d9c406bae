//! The writes of all owners, and when they were sent: the reference for the copies.

use std::collections::BTreeMap;

use gossipmonger::protocol::time::Time;

/// How far one node's copy of one owner reaches.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reach<'a> {
    /// The copy has everything up to this version.
    UpTo(u64),
    /// The copy has each key at the version given here.
    Each(&'a [u32]),
}

/// How stale the copies of all nodes together are, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Staleness {
    /// Entries of which the owner has sent a newer value, over all nodes.
    pub(crate) entries: u64,
    /// Seconds since the first of those newer values was sent: the largest of all entries.
    pub(crate) max_s: f64,
    /// The mean of them, over the stale entries.
    pub(crate) mean_s: f64,
    /// Entries of which the owner has written a newer value, sent or not.
    pub(crate) written_entries: u64,
    /// Seconds since the first of those newer values was written: the largest.
    pub(crate) written_max_s: f64,
    /// The mean of them.
    pub(crate) written_mean_s: f64,
}

/// What all owners have sent, in order, and what waits to be sent.
#[derive(Debug)]
pub(super) struct Ledger {
    owners: Vec<Owner>,
}

#[derive(Clone, Debug, Default)]
struct Owner {
    told: Vec<Told>,
    /// By key: when its wait began.
    waiting: BTreeMap<usize, Time>,
}

/// A key was sent at a version.
#[derive(Clone, Copy, Debug)]
struct Told {
    key: usize,
    version: u64,
    at: Time,
    /// When it was first written after it had been sent before.
    written: Time,
}

impl Ledger {
    pub(super) fn new(owners: usize) -> Self {
        Self { owners: vec![Owner::default(); owners] }
    }

    /// An owner has written a key, and has not sent it yet.
    pub(super) fn wrote(&mut self, owner: usize, key: usize, now: Time) {
        self.owners[owner].waiting.entry(key).or_insert(now);
    }

    /// An owner sends a key that it has written, at this version: the versions of an owner rise.
    pub(super) fn told(&mut self, owner: usize, key: usize, version: u64, now: Time) {
        let owner = &mut self.owners[owner];
        let written = owner.waiting.remove(&key).unwrap_or(now);
        owner.told.push(Told { key, version, at: now, written });
    }

    /// Compares all copies with what was sent.
    pub(super) fn measure<'a>(
        &self,
        nodes: usize,
        now: Time,
        reach: impl Fn(usize, usize) -> Reach<'a>,
    ) -> Staleness {
        let since = |at: Time| now.since(at).as_secs_f64();
        let (mut told, mut written) = (Ages::default(), Ages::default());
        for node in 0..nodes {
            for (at, owner) in self.owners.iter().enumerate().filter(|(at, _)| *at != node) {
                let lacking = owner.lacking(reach(node, at), |first| {
                    told.add(since(first.at));
                    written.add(since(first.written));
                });
                let waiting = owner.waiting.iter().filter(|(key, _)| lacking & (1 << **key) == 0);
                waiting.for_each(|(_, at)| written.add(since(*at)));
            }
        }
        Staleness {
            entries: told.count,
            max_s: told.max,
            mean_s: told.mean(),
            written_entries: written.count,
            written_max_s: written.max,
            written_mean_s: written.mean(),
        }
    }
}

/// A sum of ages in seconds.
#[derive(Clone, Copy, Debug, Default)]
struct Ages {
    count: u64,
    max: f64,
    sum: f64,
}

impl Ages {
    fn add(&mut self, seconds: f64) {
        self.count += 1;
        self.max = self.max.max(seconds);
        self.sum += seconds;
    }

    fn mean(&self) -> f64 {
        if self.count > 0 { self.sum / self.count as f64 } else { 0.0 }
    }
}

impl Owner {
    /// Calls `first` with the first version that the copy lacks, for each key that lacks one. Returns those keys, a bit
    /// each.
    fn lacking(&self, reach: Reach<'_>, mut first: impl FnMut(&Told)) -> u64 {
        let has = |key: usize| match reach {
            Reach::UpTo(version) => version,
            Reach::Each(versions) => u64::from(versions[key]),
        };
        let all = match reach {
            Reach::UpTo(version) => version,
            Reach::Each(versions) => versions.iter().copied().min().map_or(0, u64::from),
        };
        let begin = self.told.partition_point(|told| told.version <= all);
        let mut seen = 0_u64;
        for told in self.told[begin..].iter().filter(|told| told.version > has(told.key)) {
            if seen & (1 << told.key) == 0 {
                seen |= 1 << told.key;
                first(told);
            }
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_origin(Duration::from_secs(seconds))
    }

    #[test]
    fn a_key_is_stale_since_the_first_version_that_the_copy_lacks() {
        let mut ledger = Ledger::new(2);
        for (second, version) in [(1, 1), (2, 2), (3, 3)] {
            ledger.wrote(0, 7, at(second));
            ledger.told(0, 7, version, at(second));
        }
        let stale = |reach: u64| ledger.measure(2, at(10), |_, _| Reach::UpTo(reach));
        assert_eq!((stale(3).entries, stale(3).max_s), (0, 0.0));
        assert_eq!((stale(1).entries, stale(1).max_s, stale(1).mean_s), (1, 8.0, 8.0));
        let mut versions = [0_u32; 8];
        versions[7] = 2;
        let each = ledger.measure(2, at(10), |_, _| Reach::Each(&versions));
        assert_eq!((each.entries, each.max_s), (1, 7.0));
    }

    #[test]
    fn a_write_that_waits_to_be_told_counts_since_it_was_written() {
        let mut ledger = Ledger::new(2);
        ledger.wrote(0, 1, at(1));
        ledger.wrote(0, 1, at(3));
        let waiting = ledger.measure(2, at(5), |_, _| Reach::UpTo(0));
        assert_eq!((waiting.entries, waiting.written_entries, waiting.written_max_s), (0, 1, 4.0));
        ledger.told(0, 1, 1, at(5));
        let told = ledger.measure(2, at(6), |_, _| Reach::UpTo(0));
        assert_eq!((told.entries, told.max_s, told.written_max_s), (1, 1.0, 5.0));
        let arrived = ledger.measure(2, at(6), |_, _| Reach::UpTo(1));
        assert_eq!(arrived, Staleness::default());
    }
}
