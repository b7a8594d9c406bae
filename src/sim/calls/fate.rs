//! What befalls processes and the network between them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rand::RngExt;

use super::{
    event::{Event, Fate},
    knowledge::FEW,
    settings::{Mutation, Traffic},
    state::{Drain, Handle, Process},
    world::World,
};
use crate::{
    protocol::{
        hash,
        id::Generation,
        service::{
            back_off::BackOff,
            balance::{Balance, retry::RetryBudget},
            client_directory::ClientDirectory,
            directory::Directory,
            frame::Frame,
            link_end::LinkEnd,
            room::{Room, RoomLimits},
        },
        state::PeerState,
    },
    sim::queue::micros,
};

impl World {
    /// Something befalls a node.
    pub(super) fn befall(&mut self, node: usize, what: Fate) {
        let process = self.nodes[node].process;
        match (what, process) {
            (Fate::Start, None) => self.start(node),
            (Fate::Die, Some(process)) => self.die(process),
            (Fate::Drain, Some(process)) => self.drain(process),
            (Fate::Pause(pause), Some(process)) => {
                self.note(format_args!("process {process} pauses for {pause:?}"));
                let until = self.queue.now() + micros(pause);
                let held = &mut self.processes[process].paused_until;
                *held = until.max(*held);
            }
            (Fate::Cut(other, span), _) => {
                self.note(format_args!("{node} and {other} are cut off for {span:?}"));
                let until = self.queue.now() + micros(span);
                self.cuts.push((node, other, until));
            }
            (Fate::Break, Some(process)) => self.break_links(process),
            (Fate::WrongVerdict(about), Some(process)) => self.wrong_verdict(process, about),
            _ => {}
        }
    }

    /// A process starts.
    pub(super) fn start(&mut self, node: usize) {
        let (process, now) = (self.processes.len(), self.queue.now());
        let held = &mut self.nodes[node];
        held.generation += 1;
        held.process = Some(process);
        let generation = Generation(held.generation);
        let handle = || Handle {
            balance: Balance::new(held.id.clone(), held.datacenter.clone()),
            budget: RetryBudget::new(),
        };
        let mut limits = self.settings.room;
        if self.settings.mutation == Some(Mutation::IgnoreRoom) {
            limits = RoomLimits { concurrency: 1_000, queue: 1_000, per_caller: 100 };
        }
        let all = matches!(self.settings.traffic, Traffic::Even { .. });
        let provides = |service: &usize| {
            let offers = all || !hash::mix((node * 31 + service) as u64).is_multiple_of(4);
            node < self.settings.providers && offers
        };
        let offered = (0..self.settings.services).filter(provides);
        self.processes.push(Process {
            node,
            generation,
            alive: true,
            leaves: false,
            stopping: false,
            paused_until: now,
            directory: Directory::default(),
            views: BTreeMap::new(),
            handles: (0..self.settings.services).map(|_| handle()).collect(),
            links: BTreeMap::new(),
            back_off: BackOff::default(),
            offers: offered.map(|service| (service, Room::new(limits))).collect(),
            lanes: BTreeSet::new(),
            drain: Drain::No,
            shown: ClientDirectory::default(),
            asked: BTreeMap::new(),
            host: None,
        });
        self.note(format_args!("{node} starts as process {process} in generation {generation}"));
        if self.is_client(node) {
            return self.ask(process);
        }
        self.publish(process);
        self.verdicts(node, PeerState::Live, 0);
        self.catch_up(process);
    }

    /// A new process learns of all others.
    fn catch_up(&mut self, process: usize) {
        let known = match self.settings.nodes > FEW {
            true => self.settings.providers,
            false => self.settings.nodes,
        };
        for node in 0..known {
            if let Some(other) = self.nodes[node].process.filter(|other| *other != process) {
                let (node, map) = self.map_of(other);
                let (generation, state) = (self.processes[other].generation, PeerState::Live);
                let pause = self.within(self.settings.spread);
                self.after(pause, Event::Learn { process, node, map });
                let pause = pause + self.within(self.settings.spread);
                self.after(pause, Event::Judge { process, node, generation, state });
            }
        }
    }

    /// A process dies, without a word.
    fn die(&mut self, process: usize) {
        let node = self.processes[process].node;
        self.note(format_args!("process {process} of {node} dies"));
        self.ends(process);
        self.figures.died(self.queue.now(), (node, self.processes[process].generation));
        let spread = micros(self.settings.spread);
        self.verdicts(node, PeerState::Suspect, micros(self.settings.suspect_after));
        self.verdicts(node, PeerState::Dead, micros(self.settings.dead_after));
        if self.settings.nodes <= FEW {
            for other in 0..self.processes.len() {
                if self.processes[other].alive && !self.is_client(self.processes[other].node) {
                    self.after(5 * spread, Event::Forget { process: other, node });
                }
            }
        }
        let idle = micros(self.settings.idle_timeout);
        self.leaves_clients(process, idle);
        self.break_streams(process, (true, idle));
        // Only silence says to the other ends that it is gone.
        for connection in 0..self.connections.len() {
            let held = &mut self.connections[connection];
            let (near, far) = (held.from == process, held.to == Some(process));
            if (near || far) && !held.has_ended() {
                held.broken = true;
                let pause = micros(self.settings.idle_timeout) + self.within(self.settings.spread);
                let event = match near {
                    true => Event::FarClosed(connection),
                    false => Event::NearClosed(connection),
                };
                self.after(pause, event);
            }
        }
    }

    /// The process is no more.
    fn ends(&mut self, process: usize) {
        let node = self.processes[process].node;
        self.processes[process].alive = false;
        if self.nodes[node].process == Some(process) {
            self.nodes[node].process = None;
        }
    }

    /// Connections of a process break.
    fn break_links(&mut self, process: usize) {
        if self.rng.random_bool(0.5) {
            let wait = self.within(BREAK_SEEN);
            self.break_streams(process, (true, wait));
        }
        for connection in 0..self.connections.len() {
            let held = &self.connections[connection];
            let of_it = held.from == process || held.to == Some(process);
            if !of_it || held.has_ended() || held.to.is_none() || self.rng.random_bool(0.5) {
                continue;
            }
            self.note(format_args!("connection {connection} breaks"));
            let held = &mut self.connections[connection];
            held.broken = true;
            held.up.chunks.clear();
            held.down.chunks.clear();
            let (near, far) = (self.within(BREAK_SEEN), self.within(BREAK_SEEN));
            self.after(near, Event::NearClosed(connection));
            self.after(far, Event::FarClosed(connection));
        }
    }

    /// A process believes for a while that another one is suspect, dead, or out of reach.
    fn wrong_verdict(&mut self, process: usize, node: usize) {
        let Some(about) = self.nodes[node].process.filter(|about| *about != process) else {
            return;
        };
        let generation = self.processes[about].generation;
        let states = [PeerState::Suspect, PeerState::Dead, PeerState::Dead, PeerState::Unreachable];
        let state = states[self.rng.random_range(0..states.len())];
        self.judge(process, node, generation, state);
        let pause = self.within(4 * self.settings.spread);
        self.after(pause, Event::Judge { process, node, generation, state: PeerState::Live });
    }

    /// A process lets its requests end, and leaves.
    fn drain(&mut self, process: usize) {
        if self.processes[process].drain != Drain::No {
            return;
        }
        self.note(format_args!("process {process} drains"));
        self.processes[process].drain = Drain::Begun;
        self.publish(process);
        // The write of its own map.
        let pause = self.within(Duration::from_millis(10));
        self.after(pause, Event::Announced(process));
        self.after(micros(self.settings.drain), Event::DrainLimit(process));
    }

    /// The map says that the process drains.
    pub(super) fn announced(&mut self, process: usize) {
        self.processes[process].drain = Drain::Refuses;
        self.processes[process].offers.values_mut().for_each(Room::drain);
        self.drained(process);
    }

    /// If a process drains and no request runs or waits any more, its callers are to close their connections. When all
    /// have, it leaves.
    pub(super) fn drained(&mut self, process: usize) {
        let held = &self.processes[process];
        let is_empty = |room: &Room<usize, usize>| room.running() == 0 && room.waiting() == 0;
        let early = self.mutates(Mutation::LeaveEarly);
        if held.drain == Drain::Refuses && (early || held.offers.values().all(is_empty)) {
            self.processes[process].drain = Drain::Closes;
            for lane in self.processes[process].lanes.clone() {
                if let Some(held) = self.connections[lane].lane.as_mut() {
                    Frame::Drain.encode(&mut held.out);
                    self.answers(lane);
                }
            }
        }
        let held = &self.processes[process];
        if held.drain == Drain::Closes && (early || held.lanes.is_empty()) {
            self.processes[process].drain = Drain::InTime;
            self.farewell(process);
        }
    }

    /// The drain has taken too long.
    pub(super) fn drain_limit(&mut self, process: usize) {
        if !matches!(self.processes[process].drain, Drain::InTime) {
            self.processes[process].drain = Drain::TooLate;
            self.farewell(process);
        }
    }

    /// A process says that it leaves.
    fn farewell(&mut self, process: usize) {
        let drain = self.processes[process].drain;
        self.note(format_args!("process {process} leaves: {drain:?}"));
        self.processes[process].leaves = true;
        self.publish(process);
        let pause = self.within(self.settings.spread);
        self.after(pause, Event::Leave(process));
    }

    /// A process ends after it has left.
    pub(super) fn leave(&mut self, process: usize) {
        self.note(format_args!("process {process} ends"));
        self.processes[process].stopping = true;
        self.leaves_clients(process, 0);
        self.leave_streams(process);
        let links: Vec<_> = self.processes[process].links.values().copied().collect();
        links.into_iter().for_each(|link| self.end_link(link, LinkEnd::Stopped));
        let lanes: Vec<_> = self.processes[process].lanes.iter().copied().collect();
        lanes.into_iter().for_each(|lane| self.end_lane(lane));
        // What is under way at this node itself ends with it.
        for attempt in 0..self.tries.len() {
            if self.calls[self.tries[attempt].call].process == process {
                self.late(attempt);
            }
        }
        self.ends(process);
    }

    /// Whether a node has drained in time in this generation, and owed this caller that nothing is lost: it ends the
    /// connection of a caller that it believes dead.
    pub(super) fn drain_of(&self, node: usize, generation: Generation, caller: usize) -> bool {
        let of_it = |process: &&Process| process.node == node && process.generation == generation;
        let Process { node: from, generation: calls, .. } = self.processes[caller];
        self.processes.iter().find(of_it).is_some_and(|found| {
            let believed_dead = found.directory.ended(&self.nodes[from].id, calls);
            found.drain == Drain::InTime && believed_dead.is_none()
        })
    }
}

/// How long one end does not see that a connection has broken.
const BREAK_SEEN: Duration = Duration::from_millis(50);
