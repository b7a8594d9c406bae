//! The way of a request at the node that it has reached: admission, room, handler, answer.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rand::RngExt;

use super::{
    caller::{ASK, CAST, body},
    event::Event,
    settings::{Mutation, Traffic},
    state::{Connection, Drain, Lane, Run, TryState, Way},
    wire::WRITE_BYTES,
    world::World,
};
use crate::{
    protocol::{
        id::Generation,
        service::{
            attempt::Ending,
            calls::{Outcome, WAITING_BYTES},
            frame::{Code, Frame, Frames},
            intake::{Arrived, Intake},
            introduction::{admit, admit_client},
            limits::DEADLINE_MAX,
            link_end::LinkEnd,
            room::Entered,
        },
    },
    sim::queue::micros,
};

/// Lanes of one caller, at most.
const LANES_MAX: usize = 4;
/// How long a cast may wait for room.
const CAST_DEADLINE: Duration = Duration::from_secs(60);
/// The end of a handler that answers.
const ANSWERS: u32 = 19;
/// How often a callee looks for requests whose deadline has passed.
const LOOK: u64 = 1_000_000;

impl World {
    /// Requests have arrived. A caller that does not read its answers gets no further ones.
    pub(super) fn read_requests(&mut self, connection: usize) {
        loop {
            let lane = self.connections[connection].lane.as_ref();
            if lane.is_some_and(|lane| lane.ended || lane.out.len() > self.settings.answer_bytes) {
                return;
            }
            let Some(bytes) = self.arrived(connection, true) else { break };
            if self.connections[connection].refused {
                continue;
            }
            if lane_of(&mut self.connections[connection]).is_none() {
                if !self.introduced(connection, bytes) {
                    self.connections[connection].refused = true;
                    return self.close(connection, false);
                }
                continue;
            }
            self.read_chunk(connection, bytes);
        }
        self.writes(connection);
    }

    /// The caller introduces itself; whether it is admitted.
    fn introduced(&mut self, connection: usize, bytes: Bytes) -> bool {
        let Connection { from, to, .. } = self.connections[connection];
        let Some(to) = to else { return false };
        let mut frames = Frames::default();
        frames.push(bytes);
        let (process, caller) = (&self.processes[to], self.processes[from].node);
        let known = process.views.get(&caller).map_or(Generation::ZERO, |view| view.generation);
        let hello = frames.take();
        let (generation, judged) = match &hello {
            Ok(Some(Frame::Hello(hello))) => {
                (hello.generation, admit(hello, process.generation, known))
            }
            Ok(Some(Frame::ClientHello(hello))) => {
                (Generation::ZERO, admit_client(hello, process.generation))
            }
            _ => {
                self.oracle.found(0, format_args!("no introduction on {connection}"));
                return false;
            }
        };
        let of_it = |lane: &&usize| {
            self.connections[**lane].lane.as_ref().is_some_and(|lane| lane.caller == caller)
        };
        let open = process.lanes.iter().filter(of_it).count();
        if judged.is_err()
            || open >= LANES_MAX
            || !matches!(process.drain, Drain::No | Drain::Begun | Drain::Refuses)
        {
            self.note(format_args!("connection {connection} is refused"));
            return false;
        }
        let mut lane = Lane {
            caller,
            generation,
            frames,
            intake: Intake::default(),
            out: BytesMut::new(),
            answers: false,
            ended: false,
        };
        if let Ok(Some(hello)) = hello {
            let _ = lane.intake.frame(hello);
        }
        Frame::Welcome.encode(&mut lane.out);
        self.connections[connection].lane = Some(lane);
        self.processes[to].lanes.insert(connection);
        self.answers(connection);
        self.after(LOOK, Event::Look(connection));
        true
    }

    fn read_chunk(&mut self, connection: usize, bytes: Bytes) {
        let Some(lane) = lane_of(&mut self.connections[connection]) else { return };
        lane.frames.push(bytes);
        let mut frames = Vec::new();
        while let Some(lane) = lane_of(&mut self.connections[connection]) {
            match lane.frames.take() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return self.oracle.found(0, format_args!("{error}")),
            }
        }
        if self.mutates(Mutation::SwapCasts) {
            let casts = |pair: &[Frame]| pair.iter().all(|frame| matches!(frame, Frame::Cast(_)));
            if let Some(at) = frames.windows(2).position(casts) {
                frames.swap(at, at + 1);
            }
        }
        frames.into_iter().for_each(|frame| self.take(connection, frame));
    }

    /// Takes a frame of a caller.
    fn take(&mut self, connection: usize, frame: Frame) {
        let now = self.now();
        let Connection { from, to, .. } = self.connections[connection];
        let (next, Some(process)) = (self.runs.len(), to) else { return };
        let Some(lane) = lane_of(&mut self.connections[connection]).filter(|lane| !lane.ended)
        else {
            return;
        };
        let caller = lane.caller;
        let arrived = match lane.intake.frame(frame) {
            Ok(arrived) => arrived,
            Err(violation) => {
                self.oracle.found(0, format_args!("an honest caller is accused: {violation}"));
                return;
            }
        };
        let number = |body: &Bytes| u64::from_be_bytes(body[..8].try_into().expect("a number"));
        let new = |service, method, number, deadline, way| Run {
            process,
            service,
            caller,
            method,
            number,
            deadline,
            way,
            cancelled: false,
            begun: None,
            over: false,
        };
        match arrived {
            Arrived::Hello(_) | Arrived::Nothing => {}
            Arrived::Bind(service) => lane.intake.bind(service),
            Arrived::Cancelled(run) => self.cancel(run),
            Arrived::TooMany(request) => {
                let code = Code::PeerOverloaded;
                let words = String::new();
                let refuse = Frame::Refuse { id: request.id, code, retry_after_ms: 0, words };
                refuse.encode(&mut lane.out);
                self.answers(connection);
            }
            Arrived::Cast(service, cast) => {
                let service = self.services.iter().position(|known| known == service);
                let number = number(&cast.body);
                let is_late = self.queue.now() > micros(self.settings.duration) / 2;
                if self.strikes(Mutation::LoseCasts)
                    || is_late && self.mutates(Mutation::LoseLastCasts)
                {
                    return;
                }
                self.oracle.cast_arrived(connection, (from, process), number);
                let deadline = now + CAST_DEADLINE;
                self.runs.push(new(service.unwrap_or(0), cast.method, number, deadline, Way::None));
                self.enter(next);
            }
            Arrived::Request(service, request) => {
                let service = self.services.iter().position(|known| known == service);
                let left = Duration::from_millis(request.left_ms.into()).min(DEADLINE_MAX);
                let (deadline, number) = (now + left, number(&request.body));
                lane.intake.began(request.id, next, deadline);
                let way = Way::Lane(connection, request.id);
                self.runs.push(new(service.unwrap_or(0), request.method, number, deadline, way));
                self.enter(next);
            }
        }
        self.check_connection(connection);
    }

    /// A request or cast asks for a place.
    pub(super) fn enter(&mut self, run: usize) {
        let Run { process, service, caller, method, way, .. } = self.runs[run];
        if !self.processes[process].offers.contains_key(&service) {
            return self.refuse(run, Code::NoSuchService, Duration::ZERO);
        }
        let expected = match way {
            Way::None => method == CAST,
            Way::Stream(_) => true,
            Way::Lane(..) | Way::Here(_) => method == ASK,
        };
        if !expected {
            return self.refuse(run, Code::NoSuchMethod, Duration::ZERO);
        }
        if !self.is_admitted(caller, service) && !self.mutates(Mutation::AdmitAll) {
            return self.refuse(run, Code::Forbidden, Duration::ZERO);
        }
        let room = self.processes[process].offers.get_mut(&service).expect("it is offered");
        let runs = &self.runs;
        let (entered, gone) = room.enter_or_purge(&caller, run, |run| runs[*run].cancelled);
        for gone in gone {
            self.oracle.purged((process, service), self.runs[gone].caller);
            self.no_answer(gone);
        }
        match entered {
            Entered::Runs(run) => {
                self.oracle.entered((process, service), caller, true);
                self.run_request(run);
            }
            Entered::Waits => self.oracle.entered((process, service), caller, false),
            Entered::Refused { request, code, retry_after } => {
                self.refuse(request, code, retry_after);
            }
        }
        self.check_room(process, service);
    }

    /// A request that has a place runs.
    fn run_request(&mut self, run: usize) {
        let now = self.now();
        let Run { process, way, deadline, cancelled, number, service, caller, .. } = self.runs[run];
        self.runs[run].begun = Some(now);
        if !self.is_admitted(caller, service) {
            let what = format_args!("client {caller} runs service {service}, which admits none");
            self.oracle.found(10, what);
        }
        if cancelled {
            self.no_answer(run);
            return self.leave_room(run);
        }
        if deadline.since(now).is_zero() {
            self.refuse(run, Code::Deadline, Duration::ZERO);
            return self.leave_room(run);
        }
        if let Way::Stream(stream) = way {
            if !self.stream_begins(stream) {
                return self.leave_room(run);
            }
            let work = self.within(self.settings.work);
            return self.stream_works(stream, run, work);
        }
        let times = if self.strikes(Mutation::RunTwice) { 2 } else { 1 };
        if way != Way::None {
            self.note(format_args!("call {number} runs at process {process}"));
            (0..times).for_each(|_| self.oracle.began(number));
        }
        let mut work = self.within(self.settings.work);
        if self.rng.random_bool(0.05) {
            work *= 10;
        }
        self.after(work, Event::Done(run));
    }

    /// A handler is done.
    pub(super) fn done(&mut self, run: usize) {
        let Run { process, service, way, over, number, .. } = self.runs[run];
        if over {
            return;
        }
        if way != Way::None {
            let ending = match self.settings.traffic {
                Traffic::Any(_) => self.rng.random_range(0..20),
                Traffic::Even { .. } => ANSWERS,
            };
            let padding = self.rng.random_range(0..=self.settings.body_max - 8);
            match ending {
                0 => self.refuse(run, Code::Panicked, Duration::ZERO),
                1 => self.refuse(run, Code::ActorEnded, Duration::ZERO),
                2 => self.no_answer(run),
                _ => {
                    let load = self.processes[process].offers[&service].load();
                    let reply = Outcome::Reply { load, body: body(number, padding) };
                    self.respond(run, reply);
                }
            }
        }
        self.leave_room(run);
    }

    /// Gives a place back. The next request may run in it.
    fn leave_room(&mut self, run: usize) {
        let now = self.now();
        let Run { process, service, caller, begun, .. } = self.runs[run];
        self.runs[run].over = true;
        let took = now.since(begun.unwrap_or(now));
        let room = self.processes[process].offers.get_mut(&service).expect("it is offered");
        let next = room.leave(&caller, took);
        self.oracle.left((process, service), caller, next.is_some());
        if let Some((_, next)) = next {
            self.run_request(next);
        }
        self.check_room(process, service);
        self.drained(process);
    }

    /// Nobody waits for the answer of a request any more.
    pub(super) fn cancel(&mut self, run: usize) {
        let Run { over, begun, cancelled, .. } = self.runs[run];
        self.runs[run].cancelled = true;
        if !over && !cancelled && begun.is_some() {
            self.no_answer(run);
            self.leave_room(run);
        }
    }

    fn refuse(&mut self, run: usize, code: Code, retry_after: Duration) {
        let is_call = !matches!(self.runs[run].way, Way::Stream(_));
        if is_call && code.has_not_run() && self.strikes(Mutation::RunRefused) {
            self.oracle.began(self.runs[run].number);
        }
        self.respond(run, Outcome::Refused { code, retry_after, words: String::new() });
    }

    fn no_answer(&mut self, run: usize) {
        self.refuse(run, Code::NoAnswer, Duration::ZERO);
    }

    /// Sends the outcome of a request, if the caller still waits for it.
    fn respond(&mut self, run: usize, outcome: Outcome) {
        self.runs[run].over = true;
        match self.runs[run].way {
            Way::None => {}
            Way::Stream(stream) => self.stream_settled(stream, outcome),
            Way::Here(attempt) => {
                if self.tries[attempt].state == TryState::Here(run) {
                    self.attempted(attempt, Ending::settle(outcome, || LinkEnd::Stopped));
                }
            }
            Way::Lane(connection, id) => {
                let Some(lane) = lane_of(&mut self.connections[connection]) else { return };
                if lane.ended || !lane.intake.finished(id) {
                    return;
                }
                let frame = match outcome {
                    Outcome::Reply { load, body } => Frame::Reply { id, load, body },
                    Outcome::Refused { code, retry_after, words } => {
                        let retry_after_ms = retry_after.as_millis() as u32;
                        Frame::Refuse { id, code, retry_after_ms, words }
                    }
                    Outcome::Deadline { .. } | Outcome::Ended { .. } => return,
                };
                frame.encode(&mut lane.out);
                self.answers(connection);
            }
        }
    }

    /// An answer waits to be sent.
    pub(super) fn answers(&mut self, connection: usize) {
        let Some(lane) = lane_of(&mut self.connections[connection]) else { return };
        if !lane.answers && !lane.ended && !lane.out.is_empty() {
            lane.answers = true;
            let pause = self.rng.random_range(0..200);
            self.after(pause, Event::Answer(connection));
        }
    }

    /// A callee writes answers, as far as the window of the connection permits.
    pub(super) fn write_answers(&mut self, connection: usize) {
        let (window, held) = (self.settings.window, &mut self.connections[connection]);
        let room = window.saturating_sub(held.down.bytes);
        let Some(lane) = lane_of(held) else { return };
        lane.answers = false;
        let most = lane.out.len().min(WRITE_BYTES).min(room);
        if most == 0 || lane.ended {
            return;
        }
        let bytes = lane.out.split_to(most).freeze();
        self.send(connection, false, bytes);
        self.answers(connection);
        self.read_requests(connection);
    }

    /// Stops requests whose deadline has passed.
    pub(super) fn look(&mut self, connection: usize) {
        let now = self.now();
        let Some(lane) = lane_of(&mut self.connections[connection]).filter(|lane| !lane.ended)
        else {
            return;
        };
        let late = lane.intake.late(now);
        late.into_iter().for_each(|run| self.cancel(run));
        self.after(LOOK, Event::Look(connection));
    }

    /// The callee's end of a connection has ended.
    pub(super) fn end_lane(&mut self, connection: usize) {
        let held = &mut self.connections[connection];
        let to = held.to;
        let Some(lane) = lane_of(held).filter(|lane| !lane.ended) else { return };
        lane.ended = true;
        let running = lane.intake.end();
        if let Some(to) = to {
            self.processes[to].lanes.remove(&connection);
        }
        running.into_iter().for_each(|run| self.cancel(run));
        self.close(connection, false);
        if let Some(to) = to {
            self.drained(to);
        }
    }

    /// No limit is exceeded on a connection.
    pub(super) fn check_connection(&mut self, connection: usize) {
        let (held, limits) = (&self.connections[connection], self.settings.lane);
        let (calls, bytes) = (held.calls.pending_calls(), held.calls.waiting_bytes());
        let most = limits.queue_bytes.max(WAITING_BYTES + self.settings.body_max);
        if calls > limits.calls || bytes > most {
            self.oracle.found(6, format_args!("{calls} calls, {bytes} bytes wait on a lane"));
        }
    }

    /// No limit of an offer is exceeded.
    fn check_room(&mut self, process: usize, service: usize) {
        let room = self.settings.room;
        self.oracle.check_room((process, service), &room);
    }
}

fn lane_of(connection: &mut Connection) -> Option<&mut Lane> {
    connection.lane.as_mut()
}
