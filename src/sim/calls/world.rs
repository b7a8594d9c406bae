//! A run: its state, its clock, and the way from an event to what it does.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Arguments,
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::{
    event::Event,
    figures::Figures,
    oracle::{Oracle, Report},
    settings::{Mutation, Settings},
    state::{Call, Connection, Node, Process, Run, Try, Way},
    stream::Stream,
};
use crate::{
    protocol::{hash::hash, service::ServiceId, time::Time},
    sim::queue::{Queue, micros},
};

/// A run of calls.
#[derive(Debug)]
pub struct World {
    pub(super) settings: Settings,
    pub(super) rng: SmallRng,
    pub(super) queue: Queue<Event>,
    pub(super) nodes: Vec<Node>,
    pub(super) processes: Vec<Process>,
    pub(super) connections: Vec<Connection>,
    pub(super) calls: Vec<Call>,
    pub(super) tries: Vec<Try>,
    /// The attempts under way of calls that are hedged, by process and node.
    pub(super) waiting: BTreeMap<(usize, usize), BTreeSet<usize>>,
    pub(super) casts: u64,
    pub(super) streams: Vec<Stream>,
    pub(super) runs: Vec<Run>,
    /// Pairs of nodes that are cut off from each other, and until when.
    pub(super) cuts: Vec<(usize, usize, u64)>,
    pub(super) services: Vec<ServiceId>,
    pub(super) oracle: Oracle,
    pub(super) figures: Figures,
    trace: u64,
    history: Vec<String>,
}

/// After the last call has begun, all have ended within this time: the longest deadline, and the longest pause.
const REST: Duration = Duration::from_secs(8);

impl World {
    /// Runs everything that the seed decides; returns what was found.
    #[must_use]
    pub fn run(seed: u64, settings: Settings) -> (Report, Self) {
        let mut world = Self {
            rng: SmallRng::seed_from_u64(seed),
            queue: Queue::new(),
            nodes: Vec::new(),
            processes: Vec::new(),
            connections: Vec::new(),
            calls: Vec::new(),
            tries: Vec::new(),
            waiting: BTreeMap::new(),
            casts: 0,
            streams: Vec::new(),
            runs: Vec::new(),
            cuts: Vec::new(),
            services: Vec::new(),
            oracle: Oracle::new(settings.services),
            figures: Figures::default(),
            trace: seed,
            history: Vec::new(),
            settings,
        };
        world.draw();
        let end = micros(world.settings.duration + REST);
        while world.oracle.is_content()
            && let Some(event) = world.queue.next(end)
        {
            world.step(event);
        }
        if world.oracle.is_content() {
            world.check_end();
        }
        let report = world.oracle.report();
        (report, world)
    }

    /// What callers saw.
    #[must_use]
    pub const fn figures(&self) -> &Figures {
        &self.figures
    }

    /// What happened, in short.
    #[must_use]
    pub const fn trace(&self) -> u64 {
        self.trace
    }

    /// What happened, line by line, if it was to be kept.
    #[must_use]
    pub fn history(&self) -> &[String] {
        &self.history
    }

    pub(super) fn now(&self) -> Time {
        Time::from_origin(Duration::from_micros(self.queue.now()))
    }

    pub(super) fn note(&mut self, what: Arguments<'_>) {
        let line = format!("{:>10} {what}", self.queue.now());
        self.trace = hash(line.as_bytes()) ^ self.trace.rotate_left(1);
        if self.settings.history {
            self.history.push(line);
        }
    }

    /// Nodes and clients: these have the numbers behind those.
    pub(super) const fn everybody(&self) -> usize {
        self.settings.nodes + self.settings.clients
    }

    pub(super) const fn is_client(&self, node: usize) -> bool {
        node >= self.settings.nodes
    }

    pub(super) fn mutates(&self, mutation: Mutation) -> bool {
        self.settings.mutation == Some(mutation)
    }

    /// Whether a mutation strikes now.
    pub(super) fn strikes(&mut self, mutation: Mutation) -> bool {
        self.mutates(mutation) && self.rng.random_bool(0.1)
    }

    pub(super) fn after(&mut self, pause: u64, event: Event) {
        self.queue.at(self.queue.now() + pause, event);
    }

    /// A random time below this one, in microseconds.
    pub(super) fn within(&mut self, most: Duration) -> u64 {
        self.rng.random_range(0..micros(most).max(1))
    }

    /// Whether a process runs now. If it is paused, the event is put off.
    fn is_awake(&mut self, process: usize, event: &Event) -> bool {
        let Process { alive, paused_until, .. } = self.processes[process];
        if alive && paused_until > self.queue.now() {
            self.queue.at(paused_until, event.clone());
            return false;
        }
        alive
    }

    /// The process that has something to do.
    fn actor(&self, event: &Event) -> Option<usize> {
        match *event {
            Event::Begin(node) => self.nodes[node].process,
            Event::Learn { process, .. }
            | Event::Judge { process, .. }
            | Event::Forget { process, .. }
            | Event::Announced(process)
            | Event::DrainLimit(process)
            | Event::Ask(process)
            | Event::Told { client: process, .. }
            | Event::HostLost { client: process, .. }
            | Event::Asked { host: process, .. }
            | Event::Leave(process) => Some(process),
            Event::Dialed { connection, .. }
            | Event::Write(connection)
            | Event::Down(connection)
            | Event::NearClosed(connection)
            | Event::Tick(connection) => Some(self.connections[connection].from),
            Event::Up(connection)
            | Event::Answer(connection)
            | Event::FarClosed(connection)
            | Event::Look(connection) => self.connections[connection].to,
            Event::Late(attempt) | Event::Hedge(attempt) => {
                Some(self.calls[self.tries[attempt].call].process)
            }
            Event::Again { call, .. } | Event::Drop(call) => Some(self.calls[call].process),
            Event::Done(run) => Some(self.runs[run].process),
            Event::Stream(stream, stage) => {
                let stream = &self.streams[stream];
                if stage.is_far() { stream.to } else { Some(stream.process) }
            }
            Event::Befall { .. } => None,
        }
    }

    fn step(&mut self, event: Event) {
        if let Some(process) = self.actor(&event)
            && !self.is_awake(process, &event)
        {
            return;
        }
        match event {
            Event::Begin(node) => self.begin(node),
            Event::Dialed { connection, reached } => self.dialed(connection, reached),
            Event::Write(connection) => self.write(connection),
            Event::Up(connection) => self.read_requests(connection),
            Event::Answer(connection) => self.write_answers(connection),
            Event::Down(connection) => self.read_answers(connection),
            Event::NearClosed(connection) => self.near_closed(connection),
            Event::FarClosed(connection) => self.end_lane(connection),
            Event::Tick(connection) => self.tick(connection),
            Event::Late(attempt) => self.late(attempt),
            Event::Hedge(attempt) => self.hedge(attempt),
            Event::Again { call, node, generation } => self.again(call, (node, generation)),
            Event::Drop(call) => self.give_up(call),
            Event::Done(run) => self.done(run),
            Event::Look(connection) => self.look(connection),
            Event::Learn { process, node, map } => self.learn(process, node, map),
            Event::Judge { process, node, generation, state } => {
                self.judge(process, node, generation, state);
            }
            Event::Forget { process, node } => self.forget(process, node),
            Event::Stream(stream, stage) => self.stream(stream, stage),
            Event::Befall { node, what } => self.befall(node, what),
            Event::Announced(process) => self.announced(process),
            Event::DrainLimit(process) => self.drain_limit(process),
            Event::Leave(process) => self.leave(process),
            Event::Ask(process) => self.ask(process),
            Event::Asked { client, host, since } => self.asked(client, host, since),
            Event::Told { client, host, all, version, rows } => {
                self.told(client, (host, all, version), rows);
            }
            Event::HostLost { client, host } => self.host_lost(client, host),
        }
    }

    /// What a connection carries has arrived if it is open at both ends.
    fn check_open(&mut self) {
        let lives = |process: usize| self.processes[process].alive;
        for (number, connection) in self.connections.iter().enumerate() {
            let Connection { from, to: Some(to), broken: false, ref lane, .. } = *connection else {
                continue;
            };
            let open = !connection.has_ended() && lane.as_ref().is_some_and(|lane| !lane.ended);
            if open && lives(from) && lives(to) {
                self.oracle.lane_open(number);
            }
        }
    }

    /// No handler of a stream runs.
    fn check_handlers(&mut self) {
        for run in &self.runs {
            let Way::Stream(stream) = run.way else { continue };
            if run.begun.is_some() && !run.over && self.processes[run.process].alive {
                self.oracle.found(4, format_args!("the handler of stream {stream} never ends"));
            }
        }
    }

    /// What must hold when nothing happens any more.
    fn check_end(&mut self) {
        let processes = &self.processes;
        self.oracle.end(|process| processes[process].alive);
        self.check_open();
        self.check_handlers();
        for process in 0..self.processes.len() {
            self.check_directory(process);
            self.check_client(process);
        }
    }
}
