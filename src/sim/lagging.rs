//! How late nodes are served, as their shells measure it: ticks that wait for their turn, and probes that wait behind
//! all other work. Without processors nobody is late, and nothing is measured.

use super::{
    cpu::Work,
    event::{Machine, What},
    queue::micros,
    world::World,
};
use crate::protocol::route::{DetectorInput, Output, SchedulerInput};

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
        let (change, late) = (node.lag.change(now), node.lag.more_late());
        self.bill(Work::Timers, |costs| costs.tick);
        self.after(micros(ticked.next.since(now)), What::Tick { slot, epoch });
        if ticked.probe {
            self.after(0, What::Tock { slot, epoch });
        }
        if let Some(late) = late {
            let told = Output::Scheduler(SchedulerInput::Late(late));
            self.input(slot, Machine::Transport, told);
        }
        if let Some(lag) = change {
            let told = Output::Scheduler(SchedulerInput::Lag(lag));
            self.input(slot, Machine::Transport, told);
            let told = Output::Detector(DetectorInput::Lag(lag));
            self.input(slot, Machine::Transport, told);
        }
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
