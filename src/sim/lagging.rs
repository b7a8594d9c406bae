//! How late nodes are served, as their shells measure it: ticks that wait for their turn, and probes that wait behind
//! all other work. Without processors nobody is late, and nothing is measured.

use std::time::Duration;

use super::{
    cpu::Work,
    event::{Machine, What},
    queue::micros,
    world::World,
};
use crate::protocol::{
    route::{DetectorInput, Output, SchedulerInput, StorageInput},
    served::Patience,
    time::Time,
};

impl World {
    /// From now on the lag of a process is measured.
    pub(super) fn measure_lag(&mut self, slot: usize) {
        if self.has_processors() {
            let epoch = self.slots[slot].epoch;
            self.after(0, What::Tick { slot, epoch });
        }
    }

    /// A tick is served.
    pub(super) fn lag_tick(&mut self, slot: usize, epoch: u64) {
        let now = self.local(slot);
        let same = self.slots[slot].epoch == epoch;
        let Some(node) = self.node_mut(slot).filter(|_| same) else { return };
        let ticked = node.lag.tick(now);
        if ticked.probe {
            node.lag.sent(now);
        }
        let (value, change, late) =
            (node.lag.value(now), node.lag.change(now), node.lag.more_late());
        node.lateness = value;
        self.bill(Work::Timers, |costs| costs.tick);
        self.after(micros(ticked.next.since(now)), What::Tick { slot, epoch });
        if ticked.probe {
            self.after(0, What::Tock { slot, epoch });
        }
        let late = late.map(|late| Output::Scheduler(SchedulerInput::Late(late)));
        let lag = change.into_iter().flat_map(|lag| {
            [
                Output::Scheduler(SchedulerInput::Lag(lag)),
                Output::Detector(DetectorInput::Lag(lag)),
                Output::Storage(StorageInput::Lag(lag)),
            ]
        });
        self.deliver(slot, Machine::Transport, late.into_iter().chain(lag).collect());
    }

    /// How late a process was since its start, in all, if its patience waits for it.
    pub(super) fn late(&self, slot: usize) -> Duration {
        let node = self.slots[slot].node.as_ref().filter(|_| self.settings.rules.gate);
        node.map_or(Duration::ZERO, |node| node.lag.late())
    }

    /// For how long a process has patience from now on, on its served clock and `most` times as long in plain time.
    pub(super) fn patience(&self, slot: usize, served: Duration, most: u32) -> Patience {
        let most = if self.settings.rules.gate { most } else { 1 };
        let now = Time::from_origin(self.now());
        Patience::new(now, self.late(slot), served, served * most)
    }

    /// How much of that is left, in microseconds.
    pub(super) fn left(&self, slot: usize, patience: &Patience) -> Option<u64> {
        let left = patience.left(Time::from_origin(self.now()), self.late(slot))?;
        Some(micros(left).max(1))
    }

    /// The round trip that a process assumes before it has measured one, in microseconds.
    pub(super) fn first_round_trip(&self, slot: usize) -> u64 {
        let node = self.slots[slot].node.as_ref().filter(|_| self.settings.rules.gate);
        let lag = node.map_or(0, |node| micros(node.lateness));
        (lag * 2).clamp(ROUND_TRIP[0], ROUND_TRIP[1])
    }

    /// A probe has come out of the queue.
    pub(super) fn lag_probe(&mut self, slot: usize, epoch: u64) {
        let now = self.local(slot);
        let same = self.slots[slot].epoch == epoch;
        if let Some(node) = self.node_mut(slot).filter(|_| same) {
            node.lag.received(now);
        }
    }
}

/// What is assumed at least, and of a late node at most (`net/quic/settings.rs`).
const ROUND_TRIP: [u64; 2] = [333_333, 4_000_000];
