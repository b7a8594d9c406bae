//! Who wrote what, and when it was told: what the copies are compared with.

use std::collections::BTreeMap;

use crate::protocol::time::Time;

/// How far one node's copy of one owner reaches.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reach<'a> {
    /// It has all up to this version.
    UpTo(u64),
    /// It has each key at the version that stands here.
    Each(&'a [u32]),
}

/// How stale the copies of all nodes are together, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Staleness {
    /// Entries of which the owner has told a newer value, over all nodes.
    pub(crate) entries: u64,
    /// Seconds since the first of those newer values was told: the largest of all entries.
    pub(crate) max_s: f64,
    /// The mean of them, over the stale entries.
    pub(crate) mean_s: f64,
    /// Seconds since the first newer value was written, told or not: the largest.
    pub(crate) written_max_s: f64,
}

/// What all owners have told, in order, and what waits to be told.
#[derive(Debug)]
pub(super) struct Ledger {
    owners: Vec<Owner>,
}

#[derive(Clone, Debug, Default)]
struct Owner {
    told: Vec<Told>,
    /// By key: since when it waits.
    waiting: BTreeMap<usize, Time>,
}

/// A key was told at a version.
#[derive(Clone, Copy, Debug)]
struct Told {
    key: usize,
    version: u64,
    at: Time,
    /// When it was first written after it had been told before.
    written: Time,
}

impl Ledger {
    pub(super) fn new(owners: usize) -> Self {
        Self { owners: vec![Owner::default(); owners] }
    }

    /// An owner has written a key; it is not told yet.
    pub(super) fn wrote(&mut self, owner: usize, key: usize, now: Time) {
        self.owners[owner].waiting.entry(key).or_insert(now);
    }

    /// An owner tells a key, which it has written, at this version: the versions of an owner rise.
    pub(super) fn told(&mut self, owner: usize, key: usize, version: u64, now: Time) {
        let owner = &mut self.owners[owner];
        let written = owner.waiting.remove(&key).unwrap_or(now);
        owner.told.push(Told { key, version, at: now, written });
    }

    /// Compares all copies with what was told.
    pub(super) fn measure<'a>(
        &self,
        nodes: usize,
        now: Time,
        reach: impl Fn(usize, usize) -> Reach<'a>,
    ) -> Staleness {
        let since = |at: Time| now.since(at).as_secs_f64();
        let (mut all, mut seconds) = (Staleness::default(), 0.0);
        for node in 0..nodes {
            for (at, owner) in self.owners.iter().enumerate().filter(|(at, _)| *at != node) {
                owner.lacking(reach(node, at), |told| {
                    all.entries += 1;
                    all.max_s = all.max_s.max(since(told.at));
                    all.written_max_s = all.written_max_s.max(since(told.written));
                    seconds += since(told.at);
                });
            }
        }
        for owner in &self.owners {
            let waited = owner.waiting.values().map(|at| since(*at));
            all.written_max_s = waited.fold(all.written_max_s, f64::max);
        }
        all.mean_s = if all.entries > 0 { seconds / all.entries as f64 } else { 0.0 };
        all
    }
}

impl Owner {
    /// Names, for each key that a copy lacks a version of, the first such version.
    fn lacking(&self, reach: Reach<'_>, mut first: impl FnMut(&Told)) {
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
        assert_eq!((waiting.entries, waiting.written_max_s), (0, 4.0));
        ledger.told(0, 1, 1, at(5));
        let told = ledger.measure(2, at(6), |_, _| Reach::UpTo(0));
        assert_eq!((told.entries, told.max_s, told.written_max_s), (1, 1.0, 5.0));
        let arrived = ledger.measure(2, at(6), |_, _| Reach::UpTo(1));
        assert_eq!(arrived, Staleness::default());
    }
}
