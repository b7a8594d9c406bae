//! What a seed decides.

use std::time::Duration;

use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng};

use super::{
    caller::{ASK, NO_METHOD, body},
    event::{Event, Fate},
    settings::{Faults, Latency, Settings, Traffic},
    state::{Call, Node, Place},
    world::World,
};
use crate::{
    protocol::{
        hash,
        id::{Datacenter, NodeId},
        service::{
            ServiceId, ServiceName,
            attempt::Attempts,
            balance::{Bounds, Prefer, by_key},
            calls::LaneLimits,
            room::RoomLimits,
        },
    },
    sim::queue::micros,
};

impl Settings {
    /// Those of a small cluster with tight limits, in which much goes wrong.
    #[must_use]
    pub fn drawn(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed ^ SETTINGS);
        let mut pick = |choices: &[usize]| choices[rng.random_range(0..choices.len())];
        let nodes = pick(&[2, 3, 4, 5, 6, 8]);
        let drawn = Self {
            nodes,
            clients: pick(&[0, 0, 1, 3]),
            providers: pick(&[1, 2, 3, 4, 8]).min(nodes),
            services: pick(&[1, 2, 3]),
            traffic: Traffic::Any(pick(&[50, 100, 200])),
            duration: Duration::from_secs(4),
            datacenters: 2,
            latency: Latency::Pairs,
            lane: LaneLimits {
                calls: pick(&[1, 2, 4, 16]),
                queue_bytes: pick(&[64, 1_000, 100_000]),
            },
            room: RoomLimits {
                concurrency: pick(&[1, 2, 4, 16]),
                queue: pick(&[0, 1, 4, 16]),
                per_caller: pick(&[10, 50, 100]),
            },
            answer_bytes: pick(&[100, 1_000, 100_000]),
            window: pick(&[500, 4_000, 100_000]),
            body_max: pick(&[8, 100, 2_000]),
            work: Duration::from_millis(pick(&[1, 30, 200]) as u64),
            spread: Duration::from_millis(pick(&[20, 200, 600]) as u64),
            hedge: None,
            suspect_after: Duration::ZERO,
            dead_after: Duration::ZERO,
            dial_timeout: Duration::ZERO,
            idle_timeout: Duration::from_millis(pick(&[500, 2_000]) as u64),
            drain: Duration::from_millis(pick(&[100, 1_000, 3_000]) as u64),
            faults: Faults {
                deaths: pick(&[0, 1, 3]),
                drains: pick(&[0, 1, 2]),
                breaks: pick(&[0, 2, 6]),
                cuts: pick(&[0, 1, 3]),
                pauses: pick(&[0, 1, 3]),
                wrong_verdicts: pick(&[0, 1, 4]),
            },
            mutation: None,
            history: false,
        };
        let Self { spread, idle_timeout, .. } = drawn;
        let (suspect_after, dead_after, dial_timeout) = (spread, 2 * spread, idle_timeout);
        Self { suspect_after, dead_after, dial_timeout, ..drawn }
    }
}

impl World {
    /// Puts all that the seed decides beforehand into the queue.
    pub(super) fn draw(&mut self) {
        for service in 0..self.settings.services {
            let name = ServiceName::new(&format!("service-{service}")).expect("a label");
            self.services.push(ServiceId { name, major: 1 });
        }
        for number in 0..self.everybody() {
            let id = NodeId::new(&format!("n{number:05}")).expect("a label");
            let site = number % self.settings.datacenters;
            let site = match site {
                0 => "east".to_owned(),
                1 => "west".to_owned(),
                site => format!("dc{site}"),
            };
            let datacenter = Datacenter::new(&site).expect("a label");
            let (generation, process, stamp) = (0, None, 0);
            self.nodes.push(Node { id, datacenter, generation, process, stamp });
        }
        for node in 0..self.everybody() {
            self.start(node);
        }
        let nodes = self.everybody();
        let Traffic::Any(calls) = self.settings.traffic else { return self.draw_even() };
        for _ in 0..calls {
            let (node, at) = (self.rng.random_range(0..nodes), self.within(self.settings.duration));
            // Often several at once.
            let burst = if self.rng.random_bool(0.1) { 10 } else { 1 };
            (0..burst).for_each(|_| self.queue.at(at, Event::Begin(node)));
        }
        self.draw_faults();
    }

    fn draw_faults(&mut self) {
        let Faults { deaths, drains, breaks, cuts, pauses, wrong_verdicts } = self.settings.faults;
        let second = Duration::from_secs(1);
        for fate in [Fate::Die, Fate::Drain] {
            let count = if matches!(fate, Fate::Die) { deaths } else { drains };
            for _ in 0..count {
                let (node, at) = self.somewhen();
                self.queue.at(at, Event::Befall { node, what: fate });
                let back = at + self.within(3 * second);
                self.queue.at(back, Event::Befall { node, what: Fate::Start });
            }
        }
        for _ in 0..breaks {
            let (node, at) = self.somewhen();
            self.queue.at(at, Event::Befall { node, what: Fate::Break });
        }
        for _ in 0..pauses {
            let (node, at) = self.anywhen();
            let pause = Duration::from_micros(self.within(second));
            self.queue.at(at, Event::Befall { node, what: Fate::Pause(pause) });
        }
        for _ in 0..cuts {
            let ((node, at), (other, _)) = (self.anywhen(), self.somewhen());
            let span = Duration::from_micros(self.within(second));
            self.queue.at(at, Event::Befall { node, what: Fate::Cut(other, span) });
        }
        for _ in 0..wrong_verdicts {
            let ((node, at), (other, _)) = (self.somewhen(), self.somewhen());
            self.queue.at(at, Event::Befall { node, what: Fate::WrongVerdict(other) });
        }
    }

    fn somewhen(&mut self) -> (usize, u64) {
        (self.rng.random_range(0..self.settings.nodes), self.within(self.settings.duration))
    }

    /// The same, of a client as well.
    fn anywhen(&mut self) -> (usize, u64) {
        (self.rng.random_range(0..self.everybody()), self.within(self.settings.duration))
    }

    /// A node or a client begins a call or a cast.
    pub(super) fn begin(&mut self, node: usize) {
        if let Traffic::Even { period, deadline } = self.settings.traffic {
            return self.begin_even(node, period, deadline);
        }
        let Some(process) = self.nodes[node].process else { return };
        let service = self.rng.random_range(0..self.settings.services);
        let padding = self.rng.random_range(0..=self.settings.body_max - 8);
        let listings = self.processes[process].directory.listings();
        let key = hash::mix(self.rng.next_u64() % 4);
        let found = listings.get(&self.services[service]);
        let found = found.and_then(|listing| by_key(listing, None, Bounds::default(), key));
        let pinned = found.map(|found| {
            let node = found.node.as_str()[1..].parse().expect("a number");
            (node, found.generation)
        });
        if self.rng.random_bool(0.3) {
            if let Some(target) = pinned {
                self.cast(process, service, target, padding);
            }
            return;
        }
        // A client may guess what it is not shown.
        let guesses = self.is_client(node) && self.rng.random_bool(0.1);
        let other = self.rng.random_range(0..self.settings.nodes);
        let guess =
            self.nodes[other].process.map(|there| (other, self.processes[there].generation));
        let pinned = if guesses { guess } else { pinned };
        if let Some(target) = pinned.filter(|(other, _)| *other != node)
            && self.rng.random_bool(0.2)
        {
            let within = self.within(Duration::from_millis(500));
            return self.open(process, service, target, Duration::from_micros(within));
        }
        let place = match (self.rng.random_range(0..10), pinned) {
            (_, Some((node, generation))) if guesses => Place::At(node, generation),
            (0..2, Some((node, generation))) => Place::At(node, generation),
            (2, _) => Place::Any(Prefer::Here),
            (3..6, _) => Place::Any(Prefer::Anywhere),
            _ => Place::Any(Prefer::Nearest),
        };
        let deadline = match self.rng.random_range(0..4) {
            0 => Duration::from_micros(self.within(Duration::from_millis(20))),
            1 => Duration::from_micros(self.within(Duration::from_millis(500))),
            _ => Duration::from_secs(5),
        };
        let deadline = self.now() + deadline;
        let (idempotent, number) = (self.rng.random_bool(0.4), self.calls.len());
        let method = if self.rng.random_bool(0.03) { NO_METHOD } else { ASK };
        // The rule is that of the machine: here anything is hedged.
        let hedge = self.rng.random_bool(0.3).then(|| self.within(Duration::from_millis(200)));
        let hedge = hedge.map(Duration::from_micros);
        if self.rng.random_bool(0.05) {
            let pause = self.within(Duration::from_millis(300));
            // The call exists by then.
            self.after(pause + 1, Event::Drop(number));
        }
        self.call(Call {
            process,
            service,
            method,
            body: body(number as u64, padding),
            idempotent,
            place,
            attempts: Attempts::new(idempotent, deadline),
            hedge,
            tries: Vec::new(),
            over: false,
            made: self.queue.now(),
        });
        debug_assert!(micros(deadline.since_origin()) >= self.queue.now());
    }
}

/// Settings are drawn from other numbers than what happens.
const SETTINGS: u64 = 0x5e77_1965;
