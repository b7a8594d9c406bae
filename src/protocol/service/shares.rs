//! What each caller uses of a room that all share.

use std::collections::BTreeMap;

/// One caller may use this part of a room, or one body.
pub const PART: usize = 16;
/// As long as less than this part of a room is used, a caller may use more.
const PLENTY: usize = 2;

/// What one caller may use of a room of `bytes`, if a body has at most `longest`.
#[must_use]
pub const fn share(bytes: usize, longest: usize) -> usize {
    let part = bytes / PART;
    if part > longest { part } else { longest }
}

/// The bytes of a room that are used. `K` is a caller.
///
/// One caller alone may use half of the room. The other half is kept for callers that use no more than their share: so
/// no caller keeps the others out.
#[derive(Debug)]
pub struct Shares<K> {
    bytes: usize,
    share: usize,
    used: usize,
    /// Of each caller that uses any.
    by_caller: BTreeMap<K, usize>,
}

impl<K: Clone + Ord> Shares<K> {
    /// An empty room of so many bytes. `longest`: the longest body.
    #[must_use]
    pub const fn new(bytes: usize, longest: usize) -> Self {
        Self { bytes, share: share(bytes, longest), used: 0, by_caller: BTreeMap::new() }
    }

    /// Takes room for a body of a caller; returns the bytes that the caller uses then, this body included. `None` if
    /// there is no room. Otherwise [`Shares::give_back`] must follow.
    #[must_use]
    pub fn take(&mut self, caller: &K, bytes: usize) -> Option<usize> {
        let own = self.by_caller.get(caller).copied().unwrap_or(0).saturating_add(bytes);
        let all = self.used.saturating_add(bytes);
        let most = if own <= self.share { self.bytes } else { self.bytes / PLENTY };
        if all > most {
            return None;
        }
        self.used = all;
        self.by_caller.insert(caller.clone(), own);
        Some(own)
    }

    /// A body of a caller uses no room any more.
    pub fn give_back(&mut self, caller: &K, bytes: usize) {
        self.used = self.used.saturating_sub(bytes);
        let Some(own) = self.by_caller.get_mut(caller) else { return };
        *own = own.saturating_sub(bytes);
        if *own == 0 {
            self.by_caller.remove(caller);
        }
    }

    /// The bytes that are used.
    #[must_use]
    pub const fn used(&self) -> usize {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(room: &mut Shares<u32>, caller: u32, bytes: usize) -> usize {
        std::iter::from_fn(|| room.take(&caller, bytes).map(|_| bytes)).sum()
    }

    #[test]
    fn one_caller_takes_no_more_than_half() {
        let mut room = Shares::new(1_600, 100);
        assert_eq!(fill(&mut room, 0, 50), 800);
        for caller in 1..=8 {
            assert_eq!(fill(&mut room, caller, 50), 100);
        }
        assert_eq!((fill(&mut room, 9, 50), room.used()), (0, 1_600));
    }

    #[test]
    fn where_others_use_half_a_caller_takes_no_more_than_its_share() {
        let mut room = Shares::new(1_600, 10);
        assert_eq!(room.take(&0, 800), Some(800));
        assert_eq!(fill(&mut room, 1, 30), 90);
        room.give_back(&0, 800);
        assert_eq!(fill(&mut room, 1, 30), 690);
    }

    #[test]
    fn the_longest_body_finds_room_in_every_share() {
        let mut room = Shares::new(1_600, 700);
        assert_eq!(room.take(&0, 800), Some(800));
        assert_eq!(room.take(&1, 700), Some(700));
        assert_eq!(room.take(&1, 100), None);
        assert_eq!(room.take(&2, 100), Some(100));
    }

    #[test]
    fn what_was_given_back_is_forgotten() {
        let mut room = Shares::new(1_600, 10);
        assert_eq!(room.take(&0, usize::MAX), None);
        assert_eq!((room.take(&0, 10), room.take(&0, 5)), (Some(10), Some(15)));
        room.give_back(&0, 10);
        room.give_back(&0, 5);
        assert_eq!((room.used(), room.by_caller.len()), (0, 0));
    }
}
