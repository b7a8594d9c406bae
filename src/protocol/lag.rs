//! The lag of a node: how late it is served.
//!
//! A task of the transport is to run every [`TICK`], and measures how late it does. A probe goes through the
//! mailbox of storage, the longest one; the time that it waits there is lag as well, also before it comes out.
//! The lag is the largest of both in the last [`WINDOW`]: it falls as fast as it rises, since a mean over
//! seconds would still hold work back when the cause is over. Nodes of one process all see the same lag.

use std::{collections::VecDeque, time::Duration};

use super::time::Time;

/// The time between two ticks.
pub const TICK: Duration = Duration::from_millis(20);
/// The time between two ticks of a node that was on time for [`QUIET_AFTER`].
pub const QUIET_TICK: Duration = Duration::from_millis(100);
/// A node that was on time for so long ticks less often.
pub const QUIET_AFTER: Duration = Duration::from_secs(10);
/// What was measured counts for so long.
pub const WINDOW: Duration = Duration::from_millis(200);
/// Less than this is no lag: timers are that coarse.
pub const GRAIN: Duration = Duration::from_millis(2);
/// A probe that has not come out of the mailbox after so long was lost with it.
pub const PROBE_MAX: Duration = Duration::from_secs(60);

/// The lag of one node.
#[derive(Debug, Default)]
pub struct Lag {
    /// What was measured, and when: only what is larger than everything after it.
    samples: VecDeque<(Time, Duration)>,
    /// When the next tick is due.
    planned: Option<Time>,
    /// When the probe that is under way was sent.
    probe: Option<Time>,
    /// Since when the node has been on time.
    quiet: Option<Time>,
    /// The last value that the machines were given.
    told: Duration,
    /// How late the ticks were since the start, in all, and what the machines know of it.
    late: Duration,
    told_late: Duration,
}

/// What to do after a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticked {
    /// When the next tick is due.
    pub next: Time,
    /// Whether to send a probe through the mailbox of storage now.
    pub probe: bool,
}

impl Lag {
    /// Nothing was measured yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A tick is served.
    pub fn tick(&mut self, now: Time) -> Ticked {
        if let Some(planned) = self.planned {
            let late = now.since(planned);
            self.note(now, late);
            self.late += if late > GRAIN { late } else { Duration::ZERO };
        }
        let waits = self.probe.map(|sent| now.since(sent));
        self.probe = self.probe.filter(|_| waits.is_none_or(|wait| wait < PROBE_MAX));
        if self.probe.is_some() {
            self.note(now, waits.unwrap_or_default());
        }
        let since = *self.quiet.get_or_insert(now);
        let quiet = now.since(since) >= QUIET_AFTER;
        let next = now + if quiet { QUIET_TICK } else { TICK };
        self.planned = Some(next);
        Ticked { next, probe: self.probe.is_none() }
    }

    /// The probe was sent.
    pub const fn sent(&mut self, now: Time) {
        self.probe = Some(now);
    }

    /// The probe has come out of the mailbox.
    pub fn received(&mut self, now: Time) {
        if let Some(sent) = self.probe.take() {
            self.note(now, now.since(sent));
        }
    }

    /// Storage has started again: a probe on its way was lost.
    pub const fn restarted(&mut self) {
        self.probe = None;
    }

    /// The task that ticks has started again: nothing was late while there was none.
    pub const fn resumed(&mut self) {
        self.planned = None;
    }

    /// How late this node is served.
    pub fn value(&mut self, now: Time) -> Duration {
        while self.samples.front().is_some_and(|(at, _)| now.since(*at) > WINDOW) {
            self.samples.pop_front();
        }
        self.samples.front().map_or(Duration::ZERO, |(_, lag)| *lag)
    }

    /// The value that the machines are to be given, if it differs enough from the last one.
    pub fn change(&mut self, now: Time) -> Option<Duration> {
        let value = self.value(now);
        if step(value) == step(self.told) {
            return None;
        }
        self.told = value;
        Some(value)
    }

    /// How late the ticks were since the start, in all: what the [served clock](super::served) leaves out.
    #[must_use]
    pub const fn late(&self) -> Duration {
        self.late
    }

    /// The same, if the machines are to be told.
    pub fn more_late(&mut self) -> Option<Duration> {
        if self.late < self.told_late + LATE_STEP {
            return None;
        }
        self.told_late = self.late;
        Some(self.late)
    }

    fn note(&mut self, now: Time, lag: Duration) {
        if lag <= GRAIN {
            return;
        }
        if lag >= LATE {
            self.quiet = Some(now);
        }
        while self.samples.back().is_some_and(|(_, earlier)| *earlier <= lag) {
            self.samples.pop_back();
        }
        self.samples.push_back((now, lag));
    }
}

/// Which of the differences that matter have been passed: those that a rule names, then every half more.
fn step(lag: Duration) -> usize {
    let named = STEPS.iter().take_while(|step| **step <= lag).count();
    let mut step = STEPS[STEPS.len() - 1];
    let mut beyond = 0;
    while step + step / 2 <= lag {
        step += step / 2;
        beyond += 1;
    }
    named + beyond
}

/// A node is late from here on; less than this it is even when it has little to do.
const LATE: Duration = Duration::from_millis(5);
/// Machines are told of this much lateness.
const LATE_STEP: Duration = Duration::from_millis(20);
const STEPS: [Duration; 6] = [
    LATE,
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_origin(Duration::from_millis(1_000 + ms))
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A node that is served this late at each tick, until `end`.
    fn serve(lag: &mut Lag, mut now: Time, late: Duration, end: Time) -> Time {
        while now < end {
            let ticked = lag.tick(now);
            now = ticked.next + late;
        }
        now
    }

    #[test]
    fn a_node_on_time_has_no_lag_and_ticks_less_often_after_a_while() {
        let mut lag = Lag::new();
        let now = serve(&mut lag, at(0), ms(1), at(9_900));
        assert_eq!(lag.tick(now).next, now + TICK);
        let now = serve(&mut lag, now + TICK, ms(1), at(10_100));
        assert_eq!((lag.value(now), lag.change(now)), (Duration::ZERO, None));
        assert_eq!(lag.tick(now).next, now + QUIET_TICK);
    }

    #[test]
    fn it_falls_as_fast_as_it_rises() {
        let mut lag = Lag::new();
        let next = lag.tick(at(0)).next;
        let now = next + ms(300);
        let next = lag.tick(now).next;
        assert_eq!((lag.value(now), lag.change(now)), (ms(300), Some(ms(300))));
        assert_eq!(lag.change(now), None);
        let end = serve(&mut lag, next, ms(0), now + WINDOW + TICK);
        assert_eq!((lag.value(end), lag.change(end)), (Duration::ZERO, Some(Duration::ZERO)));
    }

    #[test]
    fn a_smaller_value_counts_once_the_larger_one_is_too_old() {
        let mut lag = Lag::new();
        lag.note(at(0), ms(300));
        lag.note(at(100), ms(60));
        assert_eq!(lag.value(at(200)), ms(300));
        assert_eq!(lag.value(at(201)), ms(60));
        assert_eq!(lag.value(at(301)), Duration::ZERO);
    }

    #[test]
    fn the_time_without_a_task_that_ticks_is_no_lag() {
        for resumed in [true, false] {
            let mut lag = Lag::new();
            let now = serve(&mut lag, Time::ZERO, Duration::ZERO, Time::ZERO + ms(100));
            let again = now + ms(150);
            if resumed {
                lag.resumed();
            }
            lag.tick(again);
            assert_eq!(lag.value(again).is_zero() && lag.late().is_zero(), resumed);
        }
    }

    #[test]
    fn a_probe_that_still_waits_is_lag_already() {
        let mut lag = Lag::new();
        assert!(lag.tick(at(0)).probe);
        lag.sent(at(0));
        assert!(!lag.tick(at(20)).probe);
        lag.planned = None;
        assert!(!lag.tick(at(500)).probe);
        assert_eq!(lag.value(at(500)), ms(500));
        lag.received(at(700));
        assert_eq!(lag.value(at(700)), ms(700));
        lag.planned = None;
        assert!(lag.tick(at(720)).probe);
    }

    #[test]
    fn a_probe_lost_with_its_mailbox_is_not_waited_for() {
        let mut lag = Lag::new();
        lag.tick(at(0));
        lag.sent(at(0));
        lag.restarted();
        assert!(lag.tick(at(20)).probe);
        lag.sent(at(20));
        lag.planned = None;
        assert!(lag.tick(at(60_020)).probe, "in the end it is given up");
        assert_eq!(lag.value(at(60_020)), Duration::ZERO);
    }

    #[test]
    fn what_the_ticks_were_late_is_added_up() {
        let mut lag = Lag::new();
        let now = serve(&mut lag, at(0), ms(1), at(1_000));
        assert_eq!((lag.late(), lag.more_late()), (Duration::ZERO, None));
        let next = lag.tick(now).next;
        let next = lag.tick(next + ms(15)).next;
        assert_eq!((lag.late(), lag.more_late()), (ms(15), None));
        lag.tick(next + ms(300));
        assert_eq!((lag.late(), lag.more_late()), (ms(315), Some(ms(315))));
        assert_eq!(lag.more_late(), None);
    }

    #[test]
    fn machines_are_told_when_a_difference_matters() {
        let mut lag = Lag::new();
        for (late, told) in [(3, false), (6, true), (8, false), (19, true), (21, true)] {
            lag.samples.clear();
            lag.note(at(0), ms(late));
            assert_eq!(lag.change(at(0)).is_some(), told, "{late} ms");
        }
        let steps: Vec<_> = [200, 299, 300, 449, 450].map(|late| step(ms(late))).into();
        assert_eq!(steps, [6, 6, 7, 7, 8]);
    }
}
