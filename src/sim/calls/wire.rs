//! The connection of a caller and a callee, and the caller's end of it.

use std::time::Duration;

use bytes::BytesMut;
use rand::RngExt;

use super::{
    caller::Target,
    event::Event,
    knowledge::FEW,
    settings::{Latency, Mutation},
    state::{Connection, Pipe, Try, TryState},
    world::World,
};
use crate::{
    protocol::{
        hash,
        id::ClusterId,
        service::{
            calls::{Calls, LaneLimits, Outcome},
            directory::Gone,
            failure::NotRun,
            frame::{ClientHello, Frame, Frames, Hello},
            introduction::Reuse,
            link_end::LinkEnd,
        },
    },
    sim::queue::micros,
};

/// Bytes written to a lane at once.
pub(super) const WRITE_BYTES: usize = 48 << 10;
/// One way inside a datacenter, in microseconds.
const LAN: u64 = 250;
/// The delay of acknowledgements, in microseconds.
const ACK_DELAY: u64 = 25_000;
/// A packet that is lost so often arrives all the same.
const LOSSES_MAX: u32 = 4;

impl World {
    /// The link of a process to a node in a generation. It is dialed if there is none.
    pub(super) fn link(&mut self, process: usize, target: Target) -> Result<usize, NotRun> {
        let (node, generation) = target;
        let (now, held) = (self.now(), &self.processes[process]);
        let before = held.links.get(&node).copied();
        let open = before.filter(|at| !self.connections[*at].has_ended());
        let known = || held.directory.standing(&self.nodes[node].id, generation);
        match (Reuse::of(open.map(|at| self.connections[at].generation), generation, known), open) {
            (Reuse::Keep, Some(at)) => return Ok(at),
            (Reuse::Refuse(why), _) => return Err(NotRun::NotConnected(why.to_string())),
            (Reuse::Keep | Reuse::Replace, _) => {}
        }
        if let Some(why) = held.back_off.refuses(now, &self.nodes[node].id) {
            return Err(NotRun::NotConnected(why.to_owned()));
        }
        let connection = self.connections.len();
        let mut limits = self.settings.lane;
        if self.mutates(Mutation::IgnoreLane) {
            limits = LaneLimits { calls: limits.calls + 1, ..limits };
        }
        self.connections.push(Connection {
            from: process,
            node,
            generation,
            to: None,
            calls: Calls::new(limits),
            why: None,
            waiters: Vec::new(),
            writes: false,
            ticks: None,
            up: Pipe::default(),
            down: Pipe::default(),
            frames: Frames::default(),
            lane: None,
            broken: false,
            refused: false,
        });
        self.processes[process].links.insert(node, connection);
        if let Some(before) = before {
            self.end_link(before, LinkEnd::Gone(Gone::Restarted));
        }
        let own = self.processes[process].node;
        let (there, cut) = (self.latency(own, node), self.cut_until(own, node));
        let reached = self.nodes[node].process.is_some_and(|to| {
            self.processes[to].paused_until <= self.queue.now() && cut <= self.queue.now()
        });
        let timeout = micros(self.settings.dial_timeout);
        let wait = if reached { 3 * there } else { timeout };
        self.after(wait, Event::Dialed { connection, reached });
        Ok(connection)
    }

    /// A dial has an end.
    pub(super) fn dialed(&mut self, connection: usize, reached: bool) {
        let Connection { from, node, generation, .. } = self.connections[connection];
        let now = self.now();
        let process = &mut self.processes[from];
        let Some(to) = self.nodes[node].process.filter(|_| reached) else {
            process.back_off.failed(now, &self.nodes[node].id, "no answer");
            return self.end_link(connection, LinkEnd::NotConnected("no answer".to_owned()));
        };
        process.back_off.forget(&self.nodes[node].id);
        if self.connections[connection].has_ended() {
            return;
        }
        self.note(format_args!("connection {connection} from {from} to {to}"));
        let mut bytes = BytesMut::new();
        let own = self.processes[from].node;
        match self.is_client(own) {
            true => Frame::ClientHello(ClientHello { expected: generation, features: 0 }),
            false => Frame::Hello(Hello {
                cluster: ClusterId::new("calls").expect("a label"),
                node: self.nodes[own].id.clone(),
                generation: self.processes[from].generation,
                expected: generation,
                features: 0,
            }),
        }
        .encode(&mut bytes);
        self.connections[connection].to = Some(to);
        self.send(connection, true, bytes.freeze());
        self.writes(connection);
    }

    /// Something waits to be sent.
    pub(super) fn writes(&mut self, connection: usize) {
        let held = &mut self.connections[connection];
        if !held.writes && held.to.is_some() && held.calls.has_waiting() {
            held.writes = true;
            let pause = self.rng.random_range(0..200);
            self.after(pause, Event::Write(connection));
        }
    }

    /// A caller writes what waits, as far as the window of the connection permits.
    pub(super) fn write(&mut self, connection: usize) {
        let (now, window) = (self.now(), self.settings.window);
        let held = &mut self.connections[connection];
        held.writes = false;
        if held.has_ended() || held.up.bytes >= window {
            return;
        }
        let (mut to, mut done) = (BytesMut::new(), Vec::new());
        let most = WRITE_BYTES.min(window - held.up.bytes);
        held.calls.write(now, most, &mut to, &mut done);
        self.settle(connection, done);
        if !to.is_empty() {
            self.send(connection, true, to.freeze());
        }
        self.room(connection);
        self.writes(connection);
        self.check_connection(connection);
    }

    /// Puts bytes onto a connection, in one direction.
    pub(super) fn send(&mut self, connection: usize, up: bool, bytes: bytes::Bytes) {
        let Connection { from, node, broken, .. } = self.connections[connection];
        let own = self.processes[from].node;
        let begins = self.cut_until(own, node).max(self.queue.now());
        let arrives = begins + self.latency(own, node);
        let held = &mut self.connections[connection];
        let pipe = if up { &mut held.up } else { &mut held.down };
        pipe.bytes += bytes.len();
        if broken {
            return;
        }
        pipe.last = pipe.last.max(arrives);
        pipe.chunks.push_back((pipe.last, bytes));
        let event = if up { Event::Up(connection) } else { Event::Down(connection) };
        self.queue.at(pipe.last, event);
    }

    /// The next bytes that have arrived in one direction.
    pub(super) fn arrived(&mut self, connection: usize, up: bool) -> Option<bytes::Bytes> {
        let now = self.queue.now();
        let held = &mut self.connections[connection];
        let pipe = if up { &mut held.up } else { &mut held.down };
        if pipe.chunks.front().is_none_or(|(at, _)| *at > now) {
            return None;
        }
        let (_, bytes) = pipe.chunks.pop_front()?;
        pipe.bytes -= bytes.len();
        Some(bytes)
    }

    /// Answers have arrived.
    pub(super) fn read_answers(&mut self, connection: usize) {
        while let Some(bytes) = self.arrived(connection, false) {
            if self.connections[connection].has_ended() {
                return;
            }
            self.connections[connection].frames.push(bytes);
            loop {
                match self.connections[connection].frames.take() {
                    Ok(Some(frame)) => self.answer_arrived(connection, frame),
                    Ok(None) => break,
                    Err(error) => return self.oracle.found(0, format_args!("{error}")),
                }
            }
        }
        self.answers(connection);
    }

    fn answer_arrived(&mut self, connection: usize, frame: Frame) {
        let (id, outcome) = match frame {
            Frame::Welcome => {
                self.connections[connection].calls.welcomed();
                return self.writes(connection);
            }
            Frame::Drain => {
                let mut done = Vec::new();
                self.connections[connection].calls.drain(&mut done);
                self.settle(connection, done);
                self.room(connection);
                return self.end_if_drained(connection);
            }
            Frame::Reply { id, load, body } => (id, Outcome::Reply { load, body }),
            Frame::Refuse { id, code, retry_after_ms, words } => {
                let retry_after = Duration::from_millis(retry_after_ms.into());
                (id, Outcome::Refused { code, retry_after, words })
            }
            frame => return self.oracle.found(0, format_args!("a callee sends {frame:?}")),
        };
        match self.connections[connection].calls.answered(id, outcome) {
            Ok(done) => self.settle(connection, done.into_iter().collect()),
            Err(error) => self.oracle.found(0, format_args!("{error}")),
        }
        self.end_if_drained(connection);
    }

    /// Ends a link if the node takes no new requests and has answered all.
    pub(super) fn end_if_drained(&mut self, connection: usize) {
        let held = &self.connections[connection];
        if !held.has_ended() && held.calls.is_drained() {
            self.end_link(connection, LinkEnd::Drained);
        }
    }

    /// Looks at the deadlines of a link when the earliest is due.
    pub(super) fn watch_deadlines(&mut self, connection: usize) {
        let held = &mut self.connections[connection];
        let Some(wake) = held.calls.wake().map(|wake| micros(wake.since_origin())) else { return };
        if held.ticks.is_none_or(|ticks| wake < ticks) {
            held.ticks = Some(wake);
            self.queue.at(wake, Event::Tick(connection));
        }
    }

    /// A deadline on a link.
    pub(super) fn tick(&mut self, connection: usize) {
        let (now, mut done) = (self.now(), Vec::new());
        let held = &mut self.connections[connection];
        held.ticks = None;
        held.calls.tick(now, &mut done);
        let any = !done.is_empty();
        self.settle(connection, done);
        if any {
            self.room(connection);
            self.end_if_drained(connection);
        }
        self.writes(connection);
        self.watch_deadlines(connection);
    }

    /// Ends a link, and all calls with it. The first reason counts.
    pub(super) fn end_link(&mut self, connection: usize, why: LinkEnd) {
        let Connection { from, node, to, .. } = self.connections[connection];
        let held = &mut self.connections[connection];
        if held.why.is_none() {
            held.why = Some(why);
        }
        let mut done = Vec::new();
        held.calls.end(&mut done);
        let links = &mut self.processes[from].links;
        if links.get(&node) == Some(&connection) {
            links.remove(&node);
        }
        self.settle(connection, done);
        self.room(connection);
        if to.is_some() {
            self.close(connection, true);
        }
    }

    /// One end closes the connection; the other one learns it.
    pub(super) fn close(&mut self, connection: usize, near: bool) {
        let Connection { from, node, .. } = self.connections[connection];
        let own = self.processes[from].node;
        let (now, cut) = (self.queue.now(), self.cut_until(own, node));
        let idle = now + micros(self.settings.idle_timeout);
        let at = (cut.max(now) + self.latency(own, node)).min(idle);
        let event = if near { Event::FarClosed(connection) } else { Event::NearClosed(connection) };
        self.queue.at(at, event);
    }

    /// The caller's end learns that the connection has ended.
    pub(super) fn near_closed(&mut self, connection: usize) {
        if !self.connections[connection].has_ended() {
            self.read_answers(connection);
            let broken = self.connections[connection].broken;
            let words = if broken { "broken" } else { "closed" };
            self.end_link(connection, LinkEnd::Connection(words.to_owned()));
        }
    }

    /// Whether a call of this process still waits for an answer of a node in this or an earlier generation.
    pub(super) fn waits_for(&self, process: usize, (node, generation): Target) -> Option<usize> {
        if self.settings.nodes > FEW {
            let link = self.connections.get(*self.processes[process].links.get(&node)?)?;
            let waits = link.generation <= generation && link.calls.pending_calls() > 0;
            return waits.then_some(0);
        }
        let waits = |attempt: &&Try| {
            let (TryState::Room(at) | TryState::Sent(at, _)) = attempt.state else { return false };
            let connection = &self.connections[at];
            self.calls[attempt.call].process == process
                && connection.node == node
                && connection.generation <= generation
        };
        self.tries.iter().find(waits).map(|attempt| attempt.call)
    }

    pub(super) fn latency(&mut self, one: usize, other: usize) -> u64 {
        let Latency::Sites { wan_rtt, loss } = self.settings.latency else {
            let pair = hash::mix((one.min(other) as u64) << 32 | one.max(other) as u64);
            let base = 100 + pair % 10_000;
            return base + self.rng.random_range(0..base);
        };
        let far = self.nodes[one].datacenter != self.nodes[other].datacenter;
        let base = if far { LAN + micros(wan_rtt) / 2 } else { LAN };
        let mut travels = base + self.rng.random_range(0..base / 10);
        // What is lost is sent again after a probe timeout (RFC 9002, section 6.2.1), which doubles.
        for lost in 0..LOSSES_MAX {
            if loss <= 0.0 || !self.rng.random_bool(loss) {
                break;
            }
            travels += (3 * base + ACK_DELAY) << lost;
        }
        travels
    }

    /// Until when two nodes do not hear each other.
    pub(super) fn cut_until(&self, one: usize, other: usize) -> u64 {
        let of =
            |(a, b, _): &&(usize, usize, u64)| (*a, *b) == (one, other) || (*a, *b) == (other, one);
        self.cuts.iter().filter(of).map(|(_, _, until)| *until).max().unwrap_or(0)
    }
}
