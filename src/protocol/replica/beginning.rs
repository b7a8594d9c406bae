//! What this machine begins by itself, and only if the node is on time.

use super::Replica;
use crate::protocol::{
    gate::{Kind, OPEN_BELOW},
    id::NodeId,
    route::Output,
    time::Time,
    wave::Swell,
};

impl Replica {
    /// Whether an exchange with a peer may begin that asks for more than can be sent at once.
    pub(super) fn may_owe(&mut self, now: Time, peer: &NodeId, out: &mut Vec<Output>) -> bool {
        self.push.may_begin(now, peer) && self.gates_owed(now, peer, out)
    }

    /// Whether the node has time for it. Otherwise it is asked again in a while.
    pub(super) fn gates_owed(&mut self, now: Time, peer: &NodeId, out: &mut Vec<Output>) -> bool {
        let lag = self.lag();
        let may = self.quotas.gating.begins_unheard(now, lag, Kind::Owed);
        if !may {
            self.push.put_off(peer);
            out.push(Output::Count(Kind::Owed.held(), 1));
        }
        may
    }

    /// How many introductions may be told unasked in this batch, of those that the budget allows.
    pub(super) fn may_introduce(&mut self, now: Time, some: bool) -> usize {
        let lag = self.lag();
        if lag < OPEN_BELOW || !self.config.rules.gate {
            return usize::MAX;
        }
        usize::from(some && self.quotas.gating.begins_unheard(now, lag, Kind::Introduction))
    }

    /// A wave of this node begins, now or when the gate lets it.
    pub(super) fn begin_wave(&mut self, now: Time, swells: Vec<Swell>, out: &mut Vec<Output>) {
        let (passes, rest): (Vec<_>, Vec<_>) =
            swells.into_iter().partition(|swell| matches!(swell, Swell::Pass(..)));
        self.swell(now, rest, out);
        let waits = self.quotas.gating.held.len();
        self.quotas.gating.held.extend(passes);
        self.release_waves(now, out);
        if self.quotas.gating.held.len() > waits {
            out.push(Output::Count(Kind::Wave.held(), 1));
        }
    }

    /// Sends the waves that may begin.
    pub(super) fn release_waves(&mut self, now: Time, out: &mut Vec<Output>) {
        let lag = self.lag();
        loop {
            let waves = &self.waves;
            let gating = &mut self.quotas.gating;
            gating.held.retain(|swell| matches!(swell, Swell::Pass(_, wave) if waves.is_out(wave)));
            let under_way = waves.own().saturating_sub(gating.held.len());
            if gating.held.is_empty() || !gating.begins(now, lag, Kind::Wave, under_way) {
                return;
            }
            let next: Vec<_> = gating.held.pop_front().into_iter().collect();
            self.swell(now, next, out);
        }
    }

    /// When a wave that waits may begin.
    pub(super) fn wave_due(&self) -> Option<Time> {
        let gating = &self.quotas.gating;
        if gating.held.is_empty() { None } else { gating.gate.due(self.lag(), Kind::Wave) }
    }
}
