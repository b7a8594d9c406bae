//! The way of a call at its caller: a provider, an attempt there, and whether there is another one.

use std::time::Duration;

use super::{
    event::Event,
    settings::Mutation,
    state::{Call, CallState, Handle, Place, Run, Way},
    world::World,
};
use crate::{
    protocol::{
        id::{Generation, NodeId},
        service::{
            attempt::Ending,
            balance::{Ask, Bounds, Outcome as Judged, retry::Retry},
            calls::{NoRoom, Outcome},
            failure::{CallFailure, NotRun},
            link_end::LinkEnd,
        },
    },
    sim::queue::micros,
};

/// Where an attempt goes.
pub(super) type Target = (usize, Generation);

impl World {
    /// A new call makes its first attempt.
    pub(super) fn call(&mut self, call: Call) {
        let number = self.calls.len();
        let Call { process, service, idempotent, .. } = call;
        let (node, deadline) = (self.processes[process].node, call.attempts.deadline());
        self.note(format_args!("call {number} of {node} to service {service}"));
        self.oracle.called(number, process, idempotent, deadline);
        self.oracle.counts_call(process, service);
        self.processes[process].handles[service].budget.called();
        self.calls.push(call);
        match self.target(number) {
            Ok((target, _)) => self.attempt(number, target),
            Err(why) => self.end(number, Err(CallFailure::NotRun(why))),
        }
    }

    /// Where the next attempt of a call goes, and after which pause.
    pub(super) fn target(&mut self, call: usize) -> Result<(Target, Duration), NotRun> {
        let Call { process, service, place, attempts, .. } = &self.calls[call];
        let process = &self.processes[*process];
        if process.stopping {
            return Err(NotRun::Stopped);
        }
        let prefer = match place {
            Place::At(node, generation) => return Ok(((*node, *generation), Duration::ZERO)),
            Place::Any(prefer) => prefer,
        };
        let listings = process.directory.listings();
        let listing = listings.get(&self.services[*service]).ok_or(NotRun::NoProvider)?;
        let ask = Ask { since: 0, prefer, tried: attempts.tried(), bounds: Bounds::default() };
        let (balance, now) = (&process.handles[*service].balance, self.queue.now());
        let now = crate::protocol::time::Time::from_origin(Duration::from_micros(now));
        let pick = balance.pick(listing, &ask, now, &mut self.rng, |_| 0.0);
        let pick = pick.map_err(|why| NotRun::no_pick(why, self.services[*service].major))?;
        Ok(((number(&pick.provider.node), pick.provider.generation), pick.wait))
    }

    /// Tries a call at a node.
    pub(super) fn attempt(&mut self, call: usize, target: Target) {
        if self.calls[call].state != CallState::Between {
            return;
        }
        let now = self.now();
        let held = &mut self.calls[call];
        (held.target, held.begun) = (target, now);
        let (process, service) = (held.process, held.service);
        let (own, node) = (self.processes[process].node, self.nodes[target.0].id.clone());
        self.note(format_args!("call {call} tries {}@{}", target.0, target.1));
        self.processes[process].handles[service].balance.began(now, &node);
        if target.0 == own {
            return self.attempt_here(call);
        }
        match self.link(process, target) {
            Ok(connection) => self.queue_call(call, connection),
            Err(why) => self.attempted(call, Ending::not_run(why)),
        }
    }

    /// Tries a call at the own node.
    fn attempt_here(&mut self, call: usize) {
        let Call { process, service, method, .. } = self.calls[call];
        if !self.processes[process].offers.contains_key(&service) {
            return self.attempted(call, Ending::not_run(NotRun::NoSuchService));
        }
        let (run, deadline) = (self.runs.len(), self.calls[call].attempts.deadline());
        self.calls[call].state = CallState::Here(run);
        self.queue.at(micros(deadline.since_origin()), Event::Late(call));
        let caller = self.processes[process].node;
        self.runs.push(Run {
            process,
            service,
            caller,
            method,
            number: call as u64,
            deadline,
            way: Way::Here(call),
            cancelled: false,
            begun: None,
            over: false,
        });
        self.enter(run);
    }

    /// Hands a call to a link, or waits for room there.
    fn queue_call(&mut self, call: usize, connection: usize) {
        let held = &self.calls[call];
        let (deadline, content) = (held.attempts.deadline(), (held.method, held.body.clone()));
        let calls = &mut self.connections[connection].calls;
        match calls.call(&self.services[held.service], content, deadline, call) {
            Ok(id) => {
                self.calls[call].state = CallState::Sent(connection, id);
                self.writes(connection);
                self.watch_deadlines(connection);
            }
            Err((NoRoom::Ended, _)) => {
                self.calls[call].state = CallState::Between;
                let why = self.connections[connection].why.clone();
                let ended = Outcome::Ended { sent: false };
                self.attempted(call, Ending::settle(ended, || why.unwrap_or(LinkEnd::Stopped)));
            }
            Err((NoRoom::Draining, _)) => {
                self.calls[call].state = CallState::Between;
                self.attempted(call, Ending::not_run(NotRun::Draining));
            }
            Err((NoRoom::Calls | NoRoom::Bytes | NoRoom::Binds, _)) => {
                if self.calls[call].state != CallState::Room(connection) {
                    self.calls[call].state = CallState::Room(connection);
                    self.queue.at(micros(deadline.since_origin()), Event::Late(call));
                }
                self.connections[connection].waiters.push(call);
            }
        }
        self.check_connection(connection);
    }

    /// There may be room on a link.
    pub(super) fn room(&mut self, connection: usize) {
        for call in std::mem::take(&mut self.connections[connection].waiters) {
            if self.calls[call].state == CallState::Room(connection) {
                self.queue_call(call, connection);
            }
        }
    }

    /// Delivers the ends of attempts on a link.
    pub(super) fn settle(&mut self, connection: usize, done: Vec<(usize, Outcome)>) {
        for (call, outcome) in done {
            let is_there =
                matches!(self.calls[call].state, CallState::Sent(at, _) if at == connection);
            if !is_there || self.strikes(Mutation::LoseCompletion) {
                continue;
            }
            let why = self.connections[connection].why.clone();
            let ending = Ending::settle(outcome, || why.unwrap_or(LinkEnd::Stopped));
            self.attempted(call, ending);
        }
    }

    /// The deadline of a call that waits for room, or of one at the own node.
    pub(super) fn late(&mut self, call: usize) {
        match self.calls[call].state {
            CallState::Room(_) => self.attempted(call, Ending::not_run(NotRun::link_is_full())),
            CallState::Here(run) => {
                self.calls[call].state = CallState::Between;
                self.cancel(run);
                let late = Outcome::Deadline { sent: true };
                self.attempted(call, Ending::settle(late, || LinkEnd::Stopped));
            }
            _ => {}
        }
    }

    /// An attempt has ended.
    pub(super) fn attempted(&mut self, call: usize, ending: Ending) {
        let now = self.now();
        let Call { process, service, target, begun, state, .. } = self.calls[call];
        let node = self.nodes[target.0].id.clone();
        let took = now.since(begun);
        // One end may have seen the break, and the other one not.
        let broken = matches!(state, CallState::Sent(at, _) if self.connections[at].broken);
        self.calls[call].state = CallState::Between;
        let Handle { balance, .. } = &mut self.processes[process].handles[service];
        balance.ended(now, &node, took, ending.load, ending.judged());
        let failure = match ending.result {
            Ok(reply) => return self.end(call, Ok(reply)),
            Err(failure) => failure,
        };
        self.note(format_args!("call {call} failed at {}: {failure}", target.0));
        self.figures.failed(call, self.queue.now(), target, ending.verdict);
        if let CallFailure::Unknown(why) = &failure {
            let in_time = !broken && self.drain_of(target.0, target.1, process);
            self.oracle.lost(call, why, in_time);
        }
        self.calls[call].attempts.failed(node, &failure);
        let next = match self.calls[call].place {
            Place::Any(_) => self.target(call).ok(),
            Place::At(..) => None,
        };
        let attempts = &self.calls[call].attempts;
        let budget = &mut self.processes[process].handles[service].budget;
        let wait = next.map(|(_, wait)| wait);
        let mut retry = attempts.decide(budget, now, (&failure, ending.verdict), wait);
        if self.mutates(Mutation::RetryFreely)
            && let (Retry::GiveUp(_), Some(wait), CallFailure::NotRun(_)) = (retry, wait, &failure)
            && attempts.tried().len() < 6
        {
            retry = Retry::After(wait);
        }
        let Some(((node, generation), _)) = next else { return self.end(call, Err(failure)) };
        match retry {
            Retry::AtOnce | Retry::After(_) if !ending.verdict => {
                self.oracle.counts_retry(process, service);
            }
            _ => {}
        }
        self.figures.retried += u64::from(!matches!(retry, Retry::GiveUp(_)));
        match retry {
            Retry::AtOnce => self.attempt(call, (node, generation)),
            Retry::After(wait) => self.after(micros(wait), Event::Again { call, node, generation }),
            Retry::GiveUp(_) => self.end(call, Err(failure)),
        }
    }

    /// A call has ended.
    fn end(&mut self, call: usize, result: Result<bytes::Bytes, CallFailure>) {
        self.calls[call].state = CallState::Over;
        let result = result.map_err(|last| self.calls[call].attempts.clone().end(last).0);
        let outcome = result.as_ref().map(bytes::Bytes::len).map_err(ToString::to_string);
        self.note(format_args!("call {call} ended: {outcome:?}"));
        let Call { process, made, .. } = self.calls[call];
        let now = self.queue.now();
        self.figures.ended(call, (process, made, now), &result);
        let paused = self.processes[process].paused_until;
        let times = if self.strikes(Mutation::EndTwice) { 2 } else { 1 };
        for _ in 0..times {
            self.oracle.ended(call, now, paused, &result);
        }
    }

    /// The caller gives a call up.
    pub(super) fn give_up(&mut self, call: usize) {
        let now = self.now();
        let Call { process, service, target, begun, state, .. } = self.calls[call];
        match state {
            CallState::Over => return,
            CallState::Sent(connection, id) => {
                self.connections[connection].calls.cancel(id);
                self.writes(connection);
                self.calls[call].state = CallState::Over;
                self.room(connection);
                self.end_if_drained(connection);
            }
            CallState::Here(run) => {
                self.calls[call].state = CallState::Over;
                self.cancel(run);
            }
            CallState::Room(_) | CallState::Between => {}
        }
        if state != CallState::Between {
            let node = self.nodes[target.0].id.clone();
            let balance = &mut self.processes[process].handles[service].balance;
            balance.ended(now, &node, now.since(begun), None, Judged::Cancelled);
        }
        self.calls[call].state = CallState::Over;
        self.note(format_args!("call {call} is given up"));
        self.oracle.dropped(call);
    }

    /// Sends a message without an answer, if there is room for it.
    pub(super) fn cast(&mut self, process: usize, service: usize, target: Target, padding: usize) {
        let number = self.casts;
        self.casts += 1;
        let own = self.processes[process].node;
        if target.0 == own {
            return;
        }
        let Ok(connection) = self.link(process, target) else { return };
        let body = body(number, padding);
        let service_id = &self.services[service];
        let calls = &mut self.connections[connection].calls;
        if calls.cast(service_id, (CAST, body)).is_ok() {
            self.note(format_args!("cast {number} of {own} to {}", target.0));
            self.oracle.cast(connection, number);
            self.writes(connection);
        }
        self.check_connection(connection);
    }
}

/// The method of casts, one that exists, and one that does not.
pub(super) const CAST: u16 = 1;
pub(super) const ASK: u16 = 2;
pub(super) const NO_METHOD: u16 = 3;

/// A body that begins with this number.
pub(super) fn body(number: u64, padding: usize) -> bytes::Bytes {
    let mut body = number.to_be_bytes().to_vec();
    body.resize(8 + padding, 0);
    body.into()
}

/// The number of a node in its name.
fn number(node: &NodeId) -> usize {
    node.as_str()[1..].parse().expect("names of nodes end with their numbers")
}
