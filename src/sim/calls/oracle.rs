//! What ran where, and what callers may see of it.
//!
//! The numbers of the properties: 1 every call ends, once, in time; 2 what a caller is told of a handler is true;
//! 3 casts arrive in order, and none is missing but at the end of a connection; 4 what has ended keeps nobody waiting;
//! 5 a drain in time loses nothing; 6 no limit is exceeded; 7 retries and second attempts stay within the budget, at
//! nodes that were not asked before; 8 the directory follows from what is known, and a client's from what its host knows;
//! 9 a node that is gone loses its keys, and no other key moves; 10 a client is shown, and runs, only what admits it. 0
//! is for what cannot be.

use std::{collections::BTreeMap, fmt::Arguments};

use bytes::Bytes;

use crate::{
    protocol::{
        service::{
            balance::retry::ATTEMPTS,
            failure::{CallFailure, Lost},
            room::RoomLimits,
        },
        time::Time,
    },
    sim::queue::micros,
};

/// A deadline may be missed by so much, in microseconds.
const TICK: u64 = 1_000;

/// What a run has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The property that is broken, and how.
    pub found: Option<(u8, String)>,
    pub calls: usize,
    pub answered: usize,
    pub not_run: usize,
    pub unknown: usize,
    pub failed: usize,
    pub dropped: usize,
    pub retries: u32,
    pub streams: usize,
    pub streams_whole: usize,
    pub casts: usize,
    pub casts_arrived: usize,
    /// Calls that ran more than once, and must not.
    pub ran_twice: usize,
    /// Idempotent calls that ran more than once.
    pub repeated: usize,
}

/// The judge of a run.
#[derive(Debug)]
pub(super) struct Oracle {
    services: usize,
    calls: Vec<Judged>,
    report: Report,
    handles: BTreeMap<(usize, usize), (u32, u32)>,
    lanes: BTreeMap<usize, Casts>,
    /// The latest cast that has arrived, of one process at another.
    latest: BTreeMap<(usize, usize), u64>,
    rooms: BTreeMap<(usize, usize), Used>,
    streams: Vec<Streamed>,
}

/// A stream of one call.
#[derive(Debug)]
struct Streamed {
    process: usize,
    /// It has to end in time. Others have to begin in time.
    ends: bool,
    deadline: Time,
    /// The caller knows that the handler has begun.
    heard: bool,
    began: u32,
    ended: Option<Said>,
}

#[derive(Debug)]
struct Judged {
    process: usize,
    idempotent: bool,
    deadline: Time,
    began: u32,
    ended: Option<Said>,
    /// The nodes at which it was tried.
    tried: Vec<usize>,
}

/// What the caller was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Answered,
    NotRun,
    Other,
}

/// The casts of one connection.
#[derive(Debug, Default)]
struct Casts {
    sent: Vec<u64>,
    arrived: usize,
}

/// What is used of the room of an offer.
#[derive(Debug, Default)]
struct Used {
    running: usize,
    waiting: usize,
    callers: BTreeMap<usize, usize>,
}

impl Oracle {
    pub(super) fn new(services: usize) -> Self {
        Self {
            services,
            calls: Vec::new(),
            report: Report::default(),
            handles: BTreeMap::new(),
            lanes: BTreeMap::new(),
            latest: BTreeMap::new(),
            rooms: BTreeMap::new(),
            streams: Vec::new(),
        }
    }

    pub(super) const fn is_content(&self) -> bool {
        self.report.found.is_none()
    }

    pub(super) fn report(&self) -> Report {
        self.report.clone()
    }

    /// Something is not as it must be.
    pub(super) fn found(&mut self, property: u8, what: Arguments<'_>) {
        if self.report.found.is_none() {
            self.report.found = Some((property, what.to_string()));
        }
    }

    pub(super) fn called(&mut self, call: usize, process: usize, idempotent: bool, deadline: Time) {
        debug_assert_eq!(call, self.calls.len(), "calls are numbered one after another");
        self.report.calls += 1;
        self.calls.push(Judged {
            process,
            idempotent,
            deadline,
            began: 0,
            ended: None,
            tried: Vec::new(),
        });
    }

    /// A call is tried at a node: never twice at one, and not too often.
    pub(super) fn tries(&mut self, call: usize, node: usize) {
        let tried = &mut self.calls[call].tried;
        let again = tried.contains(&node);
        tried.push(node);
        let times = tried.len();
        if again || times > ATTEMPTS as usize {
            self.found(7, format_args!("call {call} is tried at {node}, as number {times}"));
        }
    }

    /// A handler begins a call.
    pub(super) fn began(&mut self, call: u64) {
        let judged = &mut self.calls[call as usize];
        judged.began += 1;
        let (began, said, idempotent) = (judged.began, judged.ended, judged.idempotent);
        if began == 2 {
            *(if idempotent { &mut self.report.repeated } else { &mut self.report.ran_twice }) += 1;
        }
        if said == Some(Said::NotRun) {
            self.found(
                2,
                format_args!("call {call} runs, and its caller was told that it has not"),
            );
        }
        if began > 1 && !idempotent {
            self.found(2, format_args!("call {call} runs {began} times"));
        }
    }

    /// A call has ended. `paused`: until when its process was paused last.
    pub(super) fn ended(
        &mut self,
        call: usize,
        now: u64,
        paused: u64,
        result: &Result<Bytes, CallFailure>,
    ) {
        let judged = &mut self.calls[call];
        let (began, twice) = (judged.began, judged.ended.is_some());
        let late = late(judged.deadline, now, paused);
        let (said, counter) = match result {
            Ok(_) => (Said::Answered, &mut self.report.answered),
            Err(CallFailure::NotRun(_)) => (Said::NotRun, &mut self.report.not_run),
            Err(CallFailure::Unknown(_)) => (Said::Other, &mut self.report.unknown),
            Err(_) => (Said::Other, &mut self.report.failed),
        };
        *counter += 1;
        judged.ended = Some(said);
        if twice {
            self.found(1, format_args!("call {call} ends twice"));
        }
        if let Some(late) = late {
            self.found(1, format_args!("call {call} ends {late} us too late"));
        }
        if let Ok(body) = result
            && body.get(..8) != Some(&(call as u64).to_be_bytes())
        {
            self.found(2, format_args!("call {call} gets the answer to another one"));
        }
        match said {
            Said::Answered if began == 0 => {
                self.found(2, format_args!("call {call} is answered, and has not run"));
            }
            Said::NotRun if began > 0 => {
                self.found(
                    2,
                    format_args!("call {call} has run, and its caller is told: {result:?}"),
                );
            }
            _ => {}
        }
    }

    /// A caller has given a call up.
    pub(super) fn dropped(&mut self, call: usize) {
        self.report.dropped += 1;
        self.calls[call].ended = Some(Said::Other);
    }

    /// A stream begins. `ends`: it has to end by the deadline, otherwise its handler has to begin by then.
    pub(super) fn opened(&mut self, stream: usize, process: usize, ends: bool, deadline: Time) {
        debug_assert_eq!(stream, self.streams.len(), "streams are numbered one after another");
        self.report.streams += 1;
        let (heard, began, ended) = (false, 0, None);
        self.streams.push(Streamed { process, ends, deadline, heard, began, ended });
    }

    /// The handler of a stream begins.
    pub(super) fn stream_began(&mut self, stream: usize) {
        let judged = &mut self.streams[stream];
        judged.began += 1;
        let (began, said) = (judged.began, judged.ended);
        if said == Some(Said::NotRun) || began > 1 {
            self.found(2, format_args!("stream {stream} begins, number {began}, after {said:?}"));
        }
    }

    /// The caller learns that the handler of a stream has begun.
    pub(super) fn stream_heard(&mut self, stream: usize, now: u64, paused: u64) {
        let judged = &mut self.streams[stream];
        judged.heard = true;
        if let Some(late) = late(judged.deadline, now, paused) {
            self.found(1, format_args!("stream {stream} begins {late} us too late"));
        }
    }

    /// A stream has ended. `paused`: until when its process was paused last.
    pub(super) fn stream_ended(
        &mut self,
        stream: usize,
        now: u64,
        paused: u64,
        result: &Result<(), CallFailure>,
    ) {
        let judged = &mut self.streams[stream];
        let late = late(judged.deadline, now, paused).filter(|_| judged.ends || !judged.heard);
        let (began, twice) = (judged.began, judged.ended.is_some());
        let said = match result {
            Ok(()) => Said::Answered,
            Err(CallFailure::NotRun(_)) => Said::NotRun,
            Err(_) => Said::Other,
        };
        judged.ended = Some(said);
        self.report.streams_whole += usize::from(said == Said::Answered);
        if twice {
            self.found(1, format_args!("stream {stream} ends twice"));
        }
        if let Some(late) = late {
            self.found(1, format_args!("stream {stream} ends {late} us too late"));
        }
        if said == Said::NotRun && began > 0 || said == Said::Answered && began == 0 {
            self.found(
                2,
                format_args!("stream {stream} began {began} times, and ends: {result:?}"),
            );
        }
    }

    /// A caller has given a stream up.
    pub(super) fn stream_dropped(&mut self, stream: usize) {
        self.streams[stream].ended = Some(Said::Other);
    }

    /// It is unknown whether an attempt ran. `in_time`: the node that it was made at has drained in time.
    pub(super) fn lost(&mut self, call: usize, why: &Lost, in_time: bool) {
        let by_leaving = match why {
            Lost::NodeLeft => true,
            Lost::Connection(why) => why == "closed",
            _ => false,
        };
        if in_time && by_leaving {
            self.found(5, format_args!("call {call} is lost with a node that drained: {why}"));
        }
    }

    pub(super) fn counts_call(&mut self, process: usize, service: usize) {
        self.handles.entry((process, service)).or_default().0 += 1;
    }

    pub(super) fn counts_retry(&mut self, process: usize, service: usize) {
        self.report.retries += 1;
        let (calls, retries) = self.handles.entry((process, service)).or_default();
        *retries += 1;
        let (calls, retries) = (*calls, *retries);
        if retries > calls / 10 + 10 {
            self.found(7, format_args!("{retries} retries of {calls} calls"));
        }
    }

    /// A cast is handed to a connection.
    pub(super) fn cast(&mut self, connection: usize, number: u64) {
        self.report.casts += 1;
        self.lanes.entry(connection).or_default().sent.push(number);
    }

    /// A cast has arrived. `pair`: the two processes.
    pub(super) fn cast_arrived(&mut self, connection: usize, pair: (usize, usize), number: u64) {
        self.report.casts_arrived += 1;
        let lane = self.lanes.entry(connection).or_default();
        let expected = lane.sent.get(lane.arrived).copied();
        lane.arrived += 1;
        if expected != Some(number) {
            let what = format_args!("cast {number} arrives on {connection}, not {expected:?}");
            self.found(3, what);
        }
        if let Some(later) = self.latest.insert(pair, number).filter(|latest| *latest > number) {
            self.found(3, format_args!("cast {number} arrives after cast {later}"));
        }
    }

    /// A connection is open at the end of the run: nothing is missing.
    pub(super) fn lane_open(&mut self, connection: usize) {
        let Some(Casts { sent, arrived }) = self.lanes.get(&connection) else { return };
        let (sent, arrived) = (sent.len(), *arrived);
        if sent != arrived {
            let what = format_args!("{arrived} of {sent} casts have arrived on {connection}");
            self.found(3, what);
        }
    }

    /// A request has a place: it runs, or waits.
    pub(super) fn entered(&mut self, room: (usize, usize), caller: usize, runs: bool) {
        let used = self.rooms.entry(room).or_default();
        *(if runs { &mut used.running } else { &mut used.waiting }) += 1;
        *used.callers.entry(caller).or_default() += 1;
    }

    /// A request has given its place back; whether one that waited runs now.
    pub(super) fn left(&mut self, room: (usize, usize), caller: usize, next: bool) {
        let used = self.rooms.entry(room).or_default();
        if next {
            used.waiting = used.waiting.saturating_sub(1);
        } else {
            used.running = used.running.saturating_sub(1);
        }
        leave(used, caller);
    }

    /// A request that waited was removed.
    pub(super) fn purged(&mut self, room: (usize, usize), caller: usize) {
        let used = self.rooms.entry(room).or_default();
        used.waiting = used.waiting.saturating_sub(1);
        leave(used, caller);
    }

    pub(super) fn check_room(&mut self, room: (usize, usize), limits: &RoomLimits) {
        let used = self.rooms.entry(room).or_default();
        // A part of the places and a part of the queue, one of each at least.
        let part = |of: usize| (of * limits.per_caller / 100).max(1);
        let share = part(limits.concurrency) + part(limits.queue);
        let too_many = used.running > limits.concurrency
            || used.waiting > limits.queue
            || used.callers.values().any(|own| *own > share);
        if too_many {
            let what = format!("{used:?} of {limits:?}");
            self.found(6, format_args!("{what}"));
        }
    }

    /// Nothing happens any more: every call of a process that lives has ended.
    pub(super) fn end(&mut self, lives: impl Fn(usize) -> bool) {
        let open = |call: &Judged| call.ended.is_none() && lives(call.process);
        if let Some(call) = self.calls.iter().position(open) {
            self.found(1, format_args!("call {call} never ends"));
        }
        let open = |stream: &Streamed| stream.ended.is_none() && lives(stream.process);
        if let Some(stream) = self.streams.iter().position(open) {
            self.found(1, format_args!("stream {stream} never ends"));
        }
        debug_assert!(self.handles.keys().all(|(_, service)| *service < self.services));
    }
}

/// By how much a deadline is missed, in microseconds. `paused`: until when the process was paused last.
fn late(deadline: Time, now: u64, paused: u64) -> Option<u64> {
    let latest = micros(deadline.since_origin()).max(paused) + TICK;
    now.checked_sub(latest).filter(|late| *late > 0)
}

fn leave(used: &mut Used, caller: usize) {
    if let Some(own) = used.callers.get_mut(&caller) {
        *own -= 1;
        if *own == 0 {
            used.callers.remove(&caller);
        }
    }
}
