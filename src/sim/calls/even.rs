//! A cluster that is planned: even traffic, the limits that ship, providers that die and drain.

use std::time::Duration;

use rand::RngExt;

use super::{
    caller::{ASK, body},
    event::{Event, Fate},
    settings::{Faults, Latency, Settings, Traffic},
    state::{Call, Place},
    world::World,
};
use crate::{
    protocol::service::{
        attempt::Attempts, balance::Prefer, calls::LaneLimits, introduction::Purpose,
        limits::ServiceLimits, room::RoomLimits,
    },
    sim::queue::micros,
};

impl Settings {
    /// Those of a cluster with the limits that ship, in which nothing befalls anybody. Calls begin after
    /// [`SETTLE`], until `duration`.
    #[must_use]
    pub fn planned(nodes: usize, providers: usize, duration: Duration) -> Self {
        let limits = ServiceLimits::default();
        let (calls, queue_bytes) = (limits.calls_per_link, limits.lane_queue_bytes);
        Self {
            nodes,
            clients: 0,
            providers,
            services: 1,
            traffic: Traffic::Even { period: Duration::from_secs(1), deadline: limits.deadline },
            duration,
            datacenters: 1,
            latency: Latency::Sites { wan_rtt: Duration::ZERO, loss: 0.0 },
            lane: LaneLimits { calls, queue_bytes },
            room: RoomLimits::default(),
            answer_bytes: queue_bytes,
            window: Purpose::Lane.window() as usize,
            body_max: 256,
            work: Duration::from_millis(10),
            hedge: None,
            spread: Duration::from_millis(100),
            suspect_after: Duration::from_millis(500),
            dead_after: Duration::from_millis(2_500),
            idle_timeout: Duration::from_secs(30),
            dial_timeout: Duration::from_secs(5),
            drain: limits.drain,
            faults: Faults::default(),
            mutation: None,
            history: false,
        }
    }
}

impl World {
    /// Puts the first call of each node, and the deaths and drains of providers, into the queue.
    pub(super) fn draw_even(&mut self) {
        let Traffic::Even { period, .. } = self.settings.traffic else { return };
        for node in 0..self.settings.nodes {
            let at = micros(SETTLE) + self.within(period);
            self.queue.at(at, Event::Begin(node));
        }
        let Faults { deaths, drains, .. } = self.settings.faults;
        let span = self.settings.duration.saturating_sub(SETTLE);
        let mut providers: Vec<usize> = (0..self.settings.providers).collect();
        for number in 0..(deaths + drains).min(self.settings.providers) {
            let node = providers.swap_remove(self.rng.random_range(0..providers.len()));
            let within = SETTLE + span.mul_f64(0.1);
            let at = micros(within) + self.within(span.mul_f64(0.4));
            let (what, back) = match number < deaths {
                true => (Fate::Die, 2 * self.settings.dead_after),
                false => (Fate::Drain, self.settings.drain + SETTLE),
            };
            self.queue.at(at, Event::Befall { node, what });
            self.queue.at(at + micros(back), Event::Befall { node, what: Fate::Start });
        }
    }

    /// A node begins a call, and the next one later.
    pub(super) fn begin_even(&mut self, node: usize, period: Duration, deadline: Duration) {
        if self.queue.now() + micros(period) < micros(self.settings.duration) {
            self.after(micros(period), Event::Begin(node));
        }
        let Some(process) = self.nodes[node].process else { return };
        let (number, deadline) = (self.calls.len(), self.now() + deadline);
        let padding = self.rng.random_range(0..=self.settings.body_max - 8);
        let (idempotent, service) = (self.rng.random_bool(0.5), 0);
        self.call(Call {
            process,
            service,
            method: ASK,
            body: body(number as u64, padding),
            idempotent,
            place: Place::Any(Prefer::Nearest),
            attempts: Attempts::new(idempotent, deadline),
            hedge: self.settings.hedge,
            tries: Vec::new(),
            over: false,
            made: self.queue.now(),
        });
    }
}

/// The time in which all nodes get to know all providers.
pub const SETTLE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_planned_cluster_has_the_limits_that_ship() {
        let limits = ServiceLimits::default();
        let planned = Settings::planned(10, 2, Duration::from_secs(1));
        assert_eq!(planned.lane.calls, limits.calls_per_link);
        assert_eq!(planned.lane.queue_bytes, limits.lane_queue_bytes);
        assert_eq!(planned.answer_bytes, limits.lane_queue_bytes);
        assert_eq!(planned.drain, limits.drain);
        let Traffic::Even { deadline, .. } = planned.traffic else { panic!("{planned:?}") };
        assert_eq!(deadline, limits.deadline);
    }
}
