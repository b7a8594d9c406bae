//! Whether the member list moves: more than a few members came or went within the last second.

use std::{collections::VecDeque, time::Duration};

use crate::protocol::time::Time;

/// The last changes of the member list, in served time.
#[derive(Debug, Default)]
pub(super) struct Moving {
    /// When the last members came or went: as many as have to for the list to move.
    changes: VecDeque<Time>,
    most: usize,
    /// Since when it has moved without a rest.
    since: Option<Time>,
}

impl Moving {
    /// A member came or went; there are so many now.
    pub(super) fn note(&mut self, now: Time, members: usize) {
        if !self.within(now) {
            self.since = None;
        }
        self.most = (members / SHARE).max(FEW);
        self.changes.push_back(now);
        while self.changes.len() > self.most {
            self.changes.pop_front();
        }
        if self.since.is_none() && self.within(now) {
            self.since = Some(now);
        }
    }

    /// Whether the list moves. One that always moves counts as resting after [`MOVING_MAX`].
    pub(super) fn is_moving(&self, now: Time) -> bool {
        self.within(now) && self.since.is_some_and(|since| now.since(since) < MOVING_MAX)
    }

    /// When it has come to rest, if nothing changes until then.
    pub(super) fn rests_at(&self) -> Option<Time> {
        let first = self.changes.front().filter(|_| self.changes.len() >= self.most)?;
        Some((*first + REST).min(self.since? + MOVING_MAX))
    }

    fn within(&self, now: Time) -> bool {
        self.changes.len() >= self.most.max(FEW)
            && self.changes.front().is_some_and(|first| now.since(*first) < REST)
    }
}

/// The list rests if fewer than this many members, and fewer than this share of them, came or went within a second.
const FEW: usize = 2;
const SHARE: usize = 64;
const REST: Duration = Duration::from_secs(1);
/// A list that moves for longer is taken as it is.
pub(super) const MOVING_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_origin(Duration::from_millis(ms))
    }

    #[test]
    fn a_single_change_moves_nothing() {
        let mut moving = Moving::default();
        assert!(!moving.is_moving(at(0)));
        moving.note(at(0), 50);
        assert!(!moving.is_moving(at(0)));
        moving.note(at(1_500), 50);
        assert!(!moving.is_moving(at(1_500)));
        moving.note(at(2_000), 50);
        assert!(moving.is_moving(at(2_000)) && moving.is_moving(at(2_499)));
        assert_eq!(moving.rests_at(), Some(at(2_500)));
        assert!(!moving.is_moving(at(2_500)));
    }

    #[test]
    fn in_a_large_cluster_it_takes_more() {
        let mut moving = Moving::default();
        for n in 0..9 {
            moving.note(at(n * 100), 640);
            assert!(!moving.is_moving(at(n * 100)), "{n}");
        }
        moving.note(at(900), 640);
        assert!(moving.is_moving(at(900)));
    }

    #[test]
    fn a_list_that_never_rests_counts_as_resting_in_the_end_and_moves_again_after_a_rest() {
        let mut moving = Moving::default();
        for n in 0..200 {
            moving.note(at(n * 100), 20);
            assert_eq!(moving.is_moving(at(n * 100)), (1..=100).contains(&n), "{n}");
        }
        let later = at(60_000);
        assert!(!moving.is_moving(later));
        moving.note(later, 20);
        moving.note(later, 20);
        assert!(moving.is_moving(later));
    }
}
