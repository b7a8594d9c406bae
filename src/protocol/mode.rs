//! How news travels: by flooding, or along a tree.
//!
//! The owner decides it for each update, by the rate of the news of all owners that reach it, and relays keep to
//! it. So one update among few is everywhere as fast as the links carry it, in several copies, and each of many
//! takes one copy a node. A relay may leave out edges, for which it leaves a note; it never adds any.

use std::time::Duration;

use super::time::Time;

/// Updates of one owner up to this size may flood. Bytes, without the signature.
pub const FLOOD_BYTES_MAX: usize = 512;
/// From this rate of news on, of all owners together, an owner's news travels along trees.
pub const TREES_FROM_PER_SECOND: u32 = 50;
/// Below this rate it floods again.
pub const FLOODS_BELOW_PER_SECOND: u32 = 35;
/// Above this rate a relay sends flooded news along trees as well: its owner sees less news than there is, or
/// is of an earlier version, which knows no other way.
pub const FLOODS_RELAYED_PER_SECOND: u32 = 2 * TREES_FROM_PER_SECOND;
/// A node that is this late floods nothing.
pub const LATE: Duration = Duration::from_millis(50);

/// How an update travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// To all linked peers.
    #[default]
    Flood,
    /// To the next ones in the owner's tree; others are sent a note.
    Tree,
}

/// The rate of news, and what follows from it.
#[derive(Debug, Default)]
pub struct Pace {
    /// How much news there was in each part of the window, and the number of that part since the start.
    parts: [(u64, u32); PARTS],
    busy: bool,
}

impl Pace {
    /// So many updates were told.
    pub fn told(&mut self, now: Time, updates: u32) {
        let part = part(now);
        let (at, count) = &mut self.parts[place(part)];
        if *at != part {
            (*at, *count) = (part, 0);
        }
        *count = count.saturating_add(updates);
    }

    /// How much news there is in a second, by the last half of one.
    #[must_use]
    pub fn rate(&self, now: Time) -> u32 {
        let now = part(now);
        let lately = self.parts.iter().filter(|(part, _)| part + PARTS as u64 > now);
        let count = lately.fold(0_u32, |sum, (_, count)| sum.saturating_add(*count));
        count.saturating_mul(WINDOWS_PER_SECOND)
    }

    /// How an update of this node is to travel, of this many bytes, while the node is so late.
    pub fn choose(&mut self, now: Time, bytes: usize, lag: Duration) -> Mode {
        let limit = if self.busy { FLOODS_BELOW_PER_SECOND } else { TREES_FROM_PER_SECOND };
        self.busy = self.rate(now) >= limit;
        let floods = !self.busy && bytes <= FLOOD_BYTES_MAX && lag < LATE;
        if floods { Mode::Flood } else { Mode::Tree }
    }

    /// Whether this node passes on to all links what floods.
    #[must_use]
    pub fn relays_floods(&self, now: Time, bytes: usize, lag: Duration) -> bool {
        let often = self.rate(now) > FLOODS_RELAYED_PER_SECOND;
        !often && bytes <= FLOOD_BYTES_MAX && lag < LATE
    }
}

fn part(now: Time) -> u64 {
    let part = now.since(Time::ZERO).as_millis() / PART.as_millis();
    // The first one is zero as a place that was never used.
    u64::try_from(part).unwrap_or(u64::MAX - 1) + 1
}

fn place(part: u64) -> usize {
    usize::try_from(part % PARTS as u64).unwrap_or(0)
}

const PARTS: usize = 5;
const PART: Duration = Duration::from_millis(100);
const WINDOWS_PER_SECOND: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    const NO_LAG: Duration = Duration::ZERO;

    /// After two seconds of news at this rate.
    fn at_rate(pace: &mut Pace, from: Time, per_second: u32) -> Time {
        for n in 0..2 * per_second {
            pace.told(from + Duration::from_secs(1) * n / per_second, 1);
        }
        from + Duration::from_millis(1_999)
    }

    #[test]
    fn what_is_large_or_told_late_does_not_flood() {
        let mut pace = Pace::default();
        let now = Time::ZERO + Duration::from_secs(9);
        assert_eq!(pace.choose(now, FLOOD_BYTES_MAX, NO_LAG), Mode::Flood);
        assert_eq!(pace.choose(now, FLOOD_BYTES_MAX + 1, NO_LAG), Mode::Tree);
        assert_eq!(pace.choose(now, 1, LATE), Mode::Tree);
        assert!(pace.relays_floods(now, 1, NO_LAG));
        assert!(!pace.relays_floods(now, 1, LATE));
        assert!(!pace.relays_floods(now, FLOOD_BYTES_MAX + 1, NO_LAG));
    }

    #[test]
    fn trees_begin_above_one_rate_and_end_below_a_lower_one() {
        let (mut pace, mut now) = (Pace::default(), Time::ZERO);
        for (rate, mode) in [
            (20, Mode::Flood),
            (44, Mode::Flood),
            (60, Mode::Tree),
            (44, Mode::Tree),
            (30, Mode::Flood),
            (44, Mode::Flood),
            (1_000, Mode::Tree),
        ] {
            now = at_rate(&mut pace, now, rate);
            assert_eq!(pace.choose(now, 1, NO_LAG), mode, "{rate}");
            now = now + Duration::from_millis(1);
        }
        now = now + Duration::from_millis(500);
        assert_eq!(pace.rate(now), 0);
        assert_eq!(pace.choose(now, 1, NO_LAG), Mode::Flood);
    }

    #[test]
    fn a_relay_obeys_up_to_twice_that_rate() {
        let (mut pace, mut now) = (Pace::default(), Time::ZERO);
        for (rate, relays) in [(90, true), (120, false), (90, true)] {
            now = at_rate(&mut pace, now, rate);
            assert_eq!(pace.relays_floods(now, 1, NO_LAG), relays, "{rate}");
            now = now + Duration::from_millis(1);
        }
    }
}
