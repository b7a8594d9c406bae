//! Streams of single calls: a call by a stream of its own, many items of the callee, or many of the caller.
//!
//! The frames, the decision whether a handler begins ([`Beginning`]), and what a refusal means are those of the machines.
//! Each stream has a connection of its own here, which dies with one of its processes, or when it breaks.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rand::RngExt;

use super::{
    caller::{ASK, Target, body},
    event::{Event, Stage},
    settings::Mutation,
    state::{Drain, Pipe, Process, Run, Way},
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
            frame::Code,
            identity::Tag,
            limits::DEADLINE_MAX,
            link_end::LinkEnd,
            stream::{Beginning, Open, StreamFrame, StreamFrames},
        },
        time::Time,
    },
    sim::queue::micros,
};

/// The methods of streams; that of a call is [`ASK`].
pub(super) const FOLLOW: u16 = 4;
pub(super) const IMPORT: u16 = 5;
/// Most items of a stream.
const ITEMS: u64 = 6;
/// The longest body.
const BODY: usize = 100_000;

/// A stream, both ends.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) process: usize,
    pub(super) node: usize,
    pub(super) generation: Generation,
    pub(super) to: Option<usize>,
    service: usize,
    pub(super) kind: Kind,
    deadline: Time,
    up: Pipe,
    down: Pipe,
    broken: bool,
    // The caller's end.
    pub(super) over: bool,
    written: bool,
    begun: bool,
    answers: StreamFrames,
    answered: bool,
    arrived: u64,
    /// Items that the caller sends.
    sends: u64,
    // The callee's end.
    pub(super) ended: bool,
    questions: StreamFrames,
    left: Option<Duration>,
    run: Option<usize>,
    beginning: Beginning,
    taken: u64,
    items: u64,
    /// The caller has sent its last item.
    complete: bool,
}

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
        self.streams.push(Stream {
            process,
            node,
            generation,
            to: None,
            service,
            kind,
            deadline,
            up: Pipe::default(),
            down: Pipe::default(),
            broken: false,
            over: false,
            written: false,
            begun: false,
            answers: StreamFrames::new(BODY),
            answered: false,
            arrived: 0,
            sends: 0,
            ended: false,
            questions: StreamFrames::new(BODY),
            left: None,
            run: None,
            beginning: Beginning::default(),
            taken: 0,
            items: 0,
            complete: false,
        });
        self.note(format_args!(
            "stream {number} of process {process} to {node}@{generation}: {kind}"
        ));
        self.oracle.opened(number, process);
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
        let method = match kind {
            Kind::ServerStream => FOLLOW,
            Kind::ClientStream => IMPORT,
            _ => ASK,
        };
        let tag = Tag::default();
        self.note(format_args!("stream {number} from {process} to {to}"));
        self.stream_send(number, true, StreamFrame::Open(Open { service, method, left_ms, tag }));
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
        if arrived == sends {
            return self.stream_send(number, true, StreamFrame::End { load: 0 });
        }
        self.stream_send(number, true, StreamFrame::Item(body(arrived, 10)));
        // The caller counts what it has sent.
        self.streams[number].arrived += 1;
        let pause = self.within(Duration::from_millis(20));
        self.after(pause, Event::Stream(number, Stage::Send));
    }

    /// Bytes of the caller arrive.
    fn stream_up(&mut self, number: usize) {
        while let Some(bytes) = arrived(&mut self.streams[number].up, self.queue.now()) {
            if self.streams[number].ended {
                return;
            }
            self.streams[number].questions.push(bytes);
            loop {
                match self.streams[number].questions.take() {
                    Ok(Some(frame)) => self.stream_question(number, frame),
                    Ok(None) => break,
                    Err(error) => return self.oracle.found(0, format_args!("{error}")),
                }
            }
        }
    }

    fn stream_question(&mut self, number: usize, frame: StreamFrame) {
        let Stream { run, left, kind, taken, ended, .. } = self.streams[number];
        match (frame, left, run) {
            _ if ended => {}
            (StreamFrame::Open(open), None, None) => {
                let left = Duration::from_millis(open.left_ms.into()).min(DEADLINE_MAX);
                self.streams[number].left = Some(left);
                self.after(micros(left), Event::Stream(number, Stage::FarLate));
                if self.rng.random_bool(0.1) {
                    let pause = self.within(Duration::from_millis(300));
                    self.after(pause, Event::Stream(number, Stage::Fault));
                }
            }
            (StreamFrame::Item(_), Some(left), None) => self.stream_runs(number, left),
            (StreamFrame::Item(item), _, Some(_)) if kind == Kind::ClientStream => {
                if item[..8] != taken.to_be_bytes() {
                    self.oracle.found(3, format_args!("stream {number}: item {taken} is missing"));
                }
                self.streams[number].taken += 1;
            }
            (StreamFrame::End { .. }, _, Some(run)) if kind == Kind::ClientStream => {
                let work = self.within(self.settings.work);
                self.streams[number].complete = true;
                if self.runs[run].begun.is_some() {
                    self.after(work, Event::Done(run));
                }
            }
            (frame, ..) => self.oracle.found(0, format_args!("a caller sends {frame:?}")),
        }
    }

    /// A question has arrived: it asks for a place.
    fn stream_runs(&mut self, number: usize, left: Duration) {
        let Stream { process: from, to, service, kind, .. } = self.streams[number];
        let (Some(process), run) = (to, self.runs.len()) else { return };
        let method = match kind {
            Kind::ServerStream => FOLLOW,
            Kind::ClientStream => IMPORT,
            _ => ASK,
        };
        self.streams[number].run = Some(run);
        self.runs.push(Run {
            process,
            service,
            caller: self.processes[from].node,
            method,
            number: number as u64,
            deadline: self.now() + left,
            way: Way::Stream(number),
            cancelled: false,
            begun: None,
            over: false,
        });
        self.enter(run);
    }

    /// The handler of a stream has a place; whether it begins.
    pub(super) fn stream_begins(&mut self, number: usize) -> bool {
        if !self.streams[number].beginning.begin() {
            return false;
        }
        self.note(format_args!("stream {number} runs"));
        self.oracle.stream_began(number);
        if self.streams[number].kind != Kind::Call {
            self.stream_send(number, false, StreamFrame::Begun);
        }
        true
    }

    /// What happens when the handler of a stream has worked for a while.
    pub(super) fn stream_works(&mut self, number: usize, run: usize, work: u64) {
        match self.streams[number].kind {
            Kind::ServerStream => {
                self.streams[number].items = self.rng.random_range(0..=ITEMS);
                self.after(work, Event::Stream(number, Stage::Next));
            }
            // It waits for the last item.
            Kind::ClientStream if !self.streams[number].complete => {}
            _ => self.after(work, Event::Done(run)),
        }
    }

    /// The handler sends its next item, or ends.
    fn next_item(&mut self, number: usize) {
        let Stream { ended, run: Some(run), items, taken, .. } = self.streams[number] else {
            return;
        };
        if ended || self.runs[run].over {
            return;
        }
        if self.strikes(Mutation::LoseItems) {
            self.streams[number].taken += 1;
        }
        if taken == items {
            return self.queue.at(self.queue.now(), Event::Done(run));
        }
        self.stream_send(number, false, StreamFrame::Item(body(taken, 10)));
        // The callee counts what it has sent.
        self.streams[number].taken += 1;
        let pause = self.within(self.settings.work / 4);
        self.after(pause, Event::Stream(number, Stage::Next));
    }

    /// Sends what a handler has come to.
    pub(super) fn stream_settled(&mut self, number: usize, outcome: Outcome) {
        let Stream { ended, kind, .. } = self.streams[number];
        if ended {
            return;
        }
        match outcome {
            Outcome::Reply { load, body } => {
                if kind != Kind::ServerStream {
                    self.stream_send(number, false, StreamFrame::Item(body));
                }
                self.stream_send(number, false, StreamFrame::End { load });
            }
            Outcome::Refused { code, retry_after, words } => {
                // Once it has begun, no refusal says that it has not run.
                let code = match self.mutates(Mutation::RefuseBegun) {
                    true => code,
                    false => self.streams[number].beginning.refusal(code),
                };
                let retry_after_ms = retry_after.as_millis() as u32;
                self.stream_send(
                    number,
                    false,
                    StreamFrame::Refuse { code, retry_after_ms, words },
                );
            }
            Outcome::Deadline { .. } | Outcome::Ended { .. } => {}
        }
        self.streams[number].ended = true;
    }

    /// The deadline at the callee: a call has to be answered by then, anything else has to begin.
    fn stream_far_late(&mut self, number: usize) {
        let Stream { ended, kind, .. } = self.streams[number];
        if ended {
            return;
        }
        if self.streams[number].beginning.give_up() {
            self.stream_refused(number, Code::Deadline);
        } else if kind == Kind::Call {
            // It may have run: its caller finds out by its own deadline.
            self.abort_stream(number);
        }
    }

    /// The caller has sent something that the callee does not take.
    fn stream_fault(&mut self, number: usize) {
        if !self.streams[number].ended {
            self.stream_refused(number, Code::TooLarge);
        }
    }

    fn stream_refused(&mut self, number: usize, code: Code) {
        let (retry_after, words) = (Duration::ZERO, String::new());
        self.stream_settled(number, Outcome::Refused { code, retry_after, words });
        if let Some(run) = self.streams[number].run {
            self.cancel(run);
        }
    }

    /// The callee's end is over without an answer.
    fn abort_stream(&mut self, number: usize) {
        if !self.streams[number].ended {
            self.streams[number].ended = true;
            if let Some(run) = self.streams[number].run {
                self.cancel(run);
            }
        }
        self.close_stream(number, false);
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
            StreamFrame::Item(item) if kind == Kind::ServerStream => {
                let expected = held.arrived;
                held.arrived += 1;
                if item[..8] != expected.to_be_bytes() {
                    let what = format_args!("stream {number}: item {expected} is missing");
                    self.oracle.found(3, what);
                }
            }
            StreamFrame::Item(_) if !held.answered => held.answered = true,
            StreamFrame::End { .. } if kind == Kind::ServerStream || held.answered => {
                if kind == Kind::ServerStream && held.arrived != held.taken {
                    let what = format_args!("stream {number} ends, and items are missing");
                    self.oracle.found(3, what);
                }
                return self.end_stream(number, Ok(()));
            }
            frame => return self.oracle.found(0, format_args!("a callee sends {frame:?}")),
        }
        self.streams[number].begun = true;
    }

    /// The deadline at the caller.
    fn stream_late(&mut self, number: usize) {
        let Stream { over, begun, kind, written, .. } = self.streams[number];
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
        self.oracle.stream_ended(number, &result);
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
