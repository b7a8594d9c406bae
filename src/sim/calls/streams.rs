//! Streams of single calls: a call by a stream of its own, many items of the callee, or many of the caller.
//!
//! The frames, the decision whether a handler begins ([`Beginning`](crate::protocol::service::stream::Beginning)), and what a refusal means are those of the machines.
//! Each stream has a connection of its own here, which dies with one of its processes, or when it breaks. `callee` has the
//! callee's end.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rand::RngExt;

use super::{
    caller::{ASK, Target, body},
    event::{Event, Stage},
    settings::Mutation,
    state::{Drain, Pipe, Process},
    stream::Stream,
    world::World,
};
use crate::{
    protocol::{
        id::Generation,
        service::{
            Kind,
            attempt::Ending,
            calls::Outcome,
            failure::{CallFailure, NotRun, refused, refused_after_begun},
            identity::Tag,
            link_end::LinkEnd,
            stream::{Open, StreamFrame},
        },
    },
    sim::queue::micros,
};

mod callee;

/// The methods of streams; that of a call is [`ASK`].
const FOLLOW: u16 = 4;
const IMPORT: u16 = 5;
/// Most items of a stream.
const ITEMS: u64 = 6;

impl World {
    /// A process opens a stream to a node.
    pub(super) fn open(
        &mut self,
        process: usize,
        service: usize,
        target: Target,
        within: Duration,
    ) {
        let (number, (node, generation)) = (self.streams.len(), target);
        let kind =
            [Kind::Call, Kind::ServerStream, Kind::ClientStream][self.rng.random_range(0..3)];
        let deadline = self.now() + within;
        self.streams.push(Stream::new(process, target, (service, kind), deadline));
        self.note(format_args!(
            "stream {number} of process {process} to {node}@{generation}: {kind}"
        ));
        self.oracle.opened(number, process, kind == Kind::Call, deadline);
        if let Some(why) = self.processes[process].directory.ended(&self.nodes[node].id, generation)
        {
            let why = NotRun::NotConnected(why.to_string());
            return self.end_stream(number, Err(CallFailure::NotRun(why)));
        }
        self.queue.at(micros(deadline.since_origin()), Event::Stream(number, Stage::Late));
        let own = self.processes[process].node;
        let (there, cut) = (self.latency(own, node), self.cut_until(own, node));
        let reached = self.nodes[node].process.is_some_and(|to| {
            self.processes[to].paused_until <= self.queue.now() && cut <= self.queue.now()
        });
        let wait = if reached { 3 * there } else { micros(self.settings.dial_timeout) };
        self.after(wait, Event::Stream(number, Stage::Dialed { reached }));
        if self.rng.random_bool(0.05) {
            let pause = self.within(Duration::from_millis(300));
            self.after(pause, Event::Stream(number, Stage::Drop));
        }
    }

    /// Something happens to a stream.
    pub(super) fn stream(&mut self, number: usize, stage: Stage) {
        match stage {
            Stage::Dialed { reached } => self.stream_dialed(number, reached),
            Stage::Up => self.stream_up(number),
            Stage::Down => self.stream_down(number),
            Stage::Send => self.send_item(number),
            Stage::Next => self.next_item(number),
            Stage::Late => self.stream_late(number),
            Stage::FarLate => self.stream_far_late(number),
            Stage::Fault => self.stream_fault(number),
            Stage::Drop => {
                if !self.streams[number].over {
                    self.streams[number].over = true;
                    self.oracle.stream_dropped(number);
                    self.close_stream(number, true);
                }
            }
            Stage::NearClosed => {
                self.stream_down(number);
                let broken = self.streams[number].broken;
                let words = if broken { "broken" } else { "closed" };
                self.lose_stream(number, LinkEnd::Connection(words.to_owned()));
            }
            Stage::FarClosed => self.abort_stream(number),
        }
    }

    fn stream_dialed(&mut self, number: usize, reached: bool) {
        let Stream { process, node, generation, over, service, kind, deadline, .. } =
            self.streams[number];
        if over {
            return;
        }
        let there = self.nodes[node].process.filter(|_| reached);
        let admits = |to: &usize| {
            let Process { generation: is, drain, .. } = self.processes[*to];
            is == generation && matches!(drain, Drain::No | Drain::Begun | Drain::Refuses)
        };
        let Some(to) = there.filter(admits) else {
            return self.lose_stream(number, LinkEnd::NotConnected("no answer".to_owned()));
        };
        let held = &mut self.streams[number];
        (held.to, held.written) = (Some(to), true);
        let left_ms = deadline.since(self.now()).as_millis() as u32;
        let service = self.services[service].clone();
        let tag = Tag::default();
        self.note(format_args!("stream {number} from {process} to {to}"));
        self.stream_send(
            number,
            true,
            StreamFrame::Open(Open { service, method: method(kind), left_ms, tag }),
        );
        let padding = self.rng.random_range(0..1_000);
        self.stream_send(number, true, StreamFrame::Item(body(number as u64, padding)));
        if kind == Kind::ClientStream {
            self.streams[number].sends = self.rng.random_range(0..=ITEMS);
            self.after(1, Event::Stream(number, Stage::Send));
        }
    }

    /// The caller sends its next item, or that there are no more.
    fn send_item(&mut self, number: usize) {
        let Stream { over, sends, arrived, .. } = self.streams[number];
        if over {
            return;
        }
        if self.mutates(Mutation::LoseLastItem) && arrived + 1 == sends {
            self.streams[number].arrived += 1;
            return self.stream_send(number, true, StreamFrame::End { load: 0 });
        }
        if arrived == sends {
            return self.stream_send(number, true, StreamFrame::End { load: 0 });
        }
        self.stream_send(number, true, StreamFrame::Item(body(item(number, arrived), 10)));
        // The caller counts what it has sent.
        self.streams[number].arrived += 1;
        let pause = self.within(Duration::from_millis(20));
        self.after(pause, Event::Stream(number, Stage::Send));
    }

    /// Bytes of the callee arrive.
    fn stream_down(&mut self, number: usize) {
        while let Some(bytes) = arrived(&mut self.streams[number].down, self.queue.now()) {
            if self.streams[number].over {
                return;
            }
            self.streams[number].answers.push(bytes);
            while !self.streams[number].over {
                match self.streams[number].answers.take() {
                    Ok(Some(frame)) => self.stream_answer(number, frame),
                    Ok(None) => break,
                    Err(error) => return self.oracle.found(0, format_args!("{error}")),
                }
            }
        }
    }

    fn stream_answer(&mut self, number: usize, frame: StreamFrame) {
        let held = &mut self.streams[number];
        let (begun, kind) = (held.begun, held.kind);
        match frame {
            StreamFrame::Refuse { code, retry_after_ms, words } => {
                let means = if begun { refused_after_begun } else { refused };
                let retry_after = Duration::from_millis(retry_after_ms.into());
                return self.end_stream(number, Err(means(code, retry_after, words)));
            }
            StreamFrame::Begun if kind != Kind::Call && !begun => {}
            StreamFrame::Item(body) if kind == Kind::ServerStream => {
                let expected = held.arrived;
                held.arrived += 1;
                if body[..8] != item(number, expected).to_be_bytes() {
                    let what = format_args!("stream {number}: item {expected} is missing");
                    self.oracle.found(3, what);
                }
            }
            StreamFrame::Item(body) if !held.answered => {
                held.answered = true;
                if body[..8] != (number as u64).to_be_bytes() {
                    let what = format_args!("stream {number} gets the answer to another one");
                    self.oracle.found(2, what);
                }
            }
            StreamFrame::End { .. } if kind == Kind::ServerStream || held.answered => {
                if kind == Kind::ServerStream && held.arrived != held.taken {
                    let what = format_args!("stream {number} ends, and items are missing");
                    self.oracle.found(3, what);
                }
                return self.end_stream(number, Ok(()));
            }
            frame => return self.oracle.found(0, format_args!("a callee sends {frame:?}")),
        }
        if !begun {
            self.streams[number].begun = true;
            let paused = self.processes[self.streams[number].process].paused_until;
            self.oracle.stream_heard(number, self.queue.now(), paused);
        }
    }

    /// The deadline at the caller.
    fn stream_late(&mut self, number: usize) {
        let Stream { over, begun, kind, written, .. } = self.streams[number];
        if self.mutates(Mutation::WaitForStreams) {
            return;
        }
        if !over && (kind == Kind::Call || !begun) {
            let late = Ending::settle(Outcome::Deadline { sent: written }, || LinkEnd::Stopped);
            self.end_stream(number, late.result.map(drop));
        }
    }

    /// The caller learns that the connection has ended.
    fn lose_stream(&mut self, number: usize, why: LinkEnd) {
        let Stream { over, written, .. } = self.streams[number];
        if !over {
            let ended = Ending::settle(Outcome::Ended { sent: written }, || why);
            self.end_stream(number, ended.result.map(drop));
        }
    }

    fn end_stream(&mut self, number: usize, result: Result<(), CallFailure>) {
        self.streams[number].over = true;
        self.note(format_args!(
            "stream {number} ended: {:?}",
            result.as_ref().map_err(ToString::to_string)
        ));
        let paused = self.processes[self.streams[number].process].paused_until;
        self.oracle.stream_ended(number, self.queue.now(), paused, &result);
        self.close_stream(number, true);
    }

    /// A node serves no call of this or an earlier generation any more, as a process sees it.
    pub(super) fn end_streams(
        &mut self,
        process: usize,
        node: usize,
        generation: Generation,
        why: &LinkEnd,
    ) {
        for number in 0..self.streams.len() {
            let held = &self.streams[number];
            if held.process == process && held.node == node && held.generation <= generation {
                self.lose_stream(number, why.clone());
            }
        }
    }

    /// The streams of a process that is no more, or leaves: the other ends find out after `wait`.
    pub(super) fn break_streams(&mut self, process: usize, (break_off, wait): (bool, u64)) {
        for number in 0..self.streams.len() {
            let held = &mut self.streams[number];
            let (near, far) = (held.process == process, held.to == Some(process));
            if !near && !far || held.over && held.ended {
                continue;
            }
            held.broken |= break_off;
            if break_off {
                held.up.chunks.clear();
                held.down.chunks.clear();
            }
            if near || held.to.is_some() && break_off {
                self.queue.at(self.queue.now() + wait, Event::Stream(number, Stage::FarClosed));
            }
            if !near || break_off {
                let last = self.streams[number].down.last;
                let at = last.max(self.queue.now() + wait);
                self.queue.at(at, Event::Stream(number, Stage::NearClosed));
            }
        }
    }

    /// A process ends after it has left: so do its streams.
    pub(super) fn leave_streams(&mut self, process: usize) {
        for number in 0..self.streams.len() {
            if self.streams[number].process == process {
                self.lose_stream(number, LinkEnd::Stopped);
            }
        }
        self.break_streams(process, (false, 0));
    }

    fn close_stream(&mut self, number: usize, near: bool) {
        let Stream { process, node, to, ref up, ref down, .. } = self.streams[number];
        if to.is_none() {
            return;
        }
        let own = self.processes[process].node;
        let last = if near { up.last } else { down.last };
        let at = self.cut_until(own, node).max(self.queue.now()) + self.latency(own, node);
        let stage = if near { Stage::FarClosed } else { Stage::NearClosed };
        self.queue.at(at.max(last), Event::Stream(number, stage));
    }

    fn stream_send(&mut self, number: usize, up: bool, frame: StreamFrame) {
        let Stream { process, node, broken, .. } = self.streams[number];
        let own = self.processes[process].node;
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        // Frames arrive in pieces.
        let at = self.rng.random_range(0..=bytes.len());
        let second = bytes.split_off(at);
        for piece in [bytes.freeze(), second.freeze()] {
            let begins = self.cut_until(own, node).max(self.queue.now());
            let arrives = begins + self.latency(own, node);
            if broken || piece.is_empty() {
                continue;
            }
            let held = &mut self.streams[number];
            let pipe = if up { &mut held.up } else { &mut held.down };
            pipe.last = pipe.last.max(arrives);
            pipe.chunks.push_back((pipe.last, piece));
            let stage = if up { Stage::Up } else { Stage::Down };
            self.queue.at(pipe.last, Event::Stream(number, stage));
        }
    }
}

/// The next bytes that have arrived in one direction.
fn arrived(pipe: &mut Pipe, now: u64) -> Option<Bytes> {
    pipe.chunks.front().filter(|(at, _)| *at <= now)?;
    pipe.chunks.pop_front().map(|(_, bytes)| bytes)
}

/// What the body of an item begins with: the number of its stream, and its own.
const fn item(stream: usize, number: u64) -> u64 {
    (stream as u64) << 8 | number
}

const fn method(kind: Kind) -> u16 {
    match kind {
        Kind::ServerStream => FOLLOW,
        Kind::ClientStream => IMPORT,
        _ => ASK,
    }
}
