//! The events to come, in the order of their times; those of one time by their rank and then in the order in
//! which they were scheduled, so that a run is the same each time.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

/// Events to come, on a clock in microseconds.
#[derive(Debug)]
pub struct Queue<E> {
    heap: BinaryHeap<Reverse<Due<E>>>,
    scheduled: u64,
    now: u64,
}

/// Time, rank and number of an event, and the event.
type Due<E> = (u64, u32, u64, Slot<E>);

/// An event, which the order of the heap ignores.
#[derive(Debug)]
struct Slot<E>(E);

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E> Queue<E> {
    pub const fn new() -> Self {
        Self { heap: BinaryHeap::new(), scheduled: 0, now: 0 }
    }

    /// The time of the event that was taken last, or of the end of the last span.
    pub const fn now(&self) -> u64 {
        self.now
    }

    /// Schedules an event; one that is late happens now.
    pub fn at(&mut self, at: u64, event: E) {
        self.ranked(at, 0, event);
    }

    /// The same, for events whose order within one time must not depend on when they were scheduled.
    pub fn ranked(&mut self, at: u64, rank: u32, event: E) {
        self.scheduled += 1;
        self.heap.push(Reverse((at.max(self.now), rank, self.scheduled, Slot(event))));
    }

    /// When the next event is due.
    pub fn due(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    /// Takes the next event that is due by `end`; if there is none, it is `end` now.
    pub fn next(&mut self, end: u64) -> Option<E> {
        if self.heap.peek().is_some_and(|Reverse((at, ..))| *at <= end) {
            let Reverse((at, _, _, Slot(event))) = self.heap.pop()?;
            self.now = at;
            return Some(event);
        }
        self.now = self.now.max(end);
        None
    }
}

impl<E> PartialEq for Slot<E> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<E> Eq for Slot<E> {}

impl<E> PartialOrd for Slot<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Slot<E> {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

/// A span on that clock.
pub fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_in_the_order_of_scheduling() {
        let mut queue = Queue::new();
        for (at, name) in [(5, "c"), (3, "a"), (5, "d"), (3, "b"), (9, "late")] {
            queue.at(at, name);
        }
        let come: Vec<_> = std::iter::from_fn(|| queue.next(6)).collect();
        assert_eq!((come.as_slice(), queue.now()), (["a", "b", "c", "d"].as_slice(), 6));
        queue.ranked(1, 1, "later");
        queue.at(1, "overdue");
        assert_eq!(queue.next(6), Some("overdue"));
        assert_eq!(queue.next(6), Some("later"));
        assert_eq!(queue.now(), 6);
    }
}
