//! The way of a call at its caller: a provider, an attempt there, and whether there is another one.

use std::time::Duration;

use super::{
    event::Event,
    settings::Mutation,
    state::{Call, Handle, Place, Run, Try, TryState, Way},
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
        let tried = self.calls[call].attempts.tried().to_vec();
        self.target_but(call, &tried)
    }

    /// The same, but for none of these nodes.
    fn target_but(&mut self, call: usize, tried: &[NodeId]) -> Result<(Target, Duration), NotRun> {
        let Call { process, service, place, .. } = &self.calls[call];
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
        let ask = Ask { since: 0, prefer, tried, bounds: Bounds::default() };
        let (balance, now) = (&process.handles[*service].balance, self.queue.now());
        let now = crate::protocol::time::Time::from_origin(Duration::from_micros(now));
        let pick = balance.pick(listing, &ask, now, &mut self.rng, |_| 0.0);
        let pick = pick.map_err(|why| NotRun::no_pick(why, self.services[*service].major))?;
        Ok(((number(&pick.provider.node), pick.provider.generation), pick.wait))
    }

    /// The pause before another attempt is over.
    pub(super) fn again(&mut self, call: usize, target: Target) {
        let held = &self.calls[call];
        if !held.over && held.tries.is_empty() {
            self.attempt(call, target);
        }
    }

    /// Tries a call at a node.
    pub(super) fn attempt(&mut self, call: usize, target: Target) {
        let (now, number) = (self.now(), self.tries.len());
        self.tries.push(Try { call, target, begun: now, state: TryState::New, hedged: false });
        let held = &mut self.calls[call];
        held.tries.push(number);
        let Call { process, service, hedge, .. } = *held;
        if hedge.is_some() {
            self.waiting.entry((process, target.0)).or_default().insert(number);
        }
        let (own, node) = (self.processes[process].node, self.nodes[target.0].id.clone());
        self.note(format_args!("call {call} tries {}@{}", target.0, target.1));
        self.oracle.tries(call, target.0);
        self.processes[process].handles[service].balance.began(now, &node);
        if let Some(after) = hedge {
            self.after(micros(after), Event::Hedge(number));
        }
        if target.0 == own {
            self.attempt_here(number);
        } else {
            match self.link(process, target) {
                Ok(connection) => self.queue_attempt(number, connection),
                Err(why) => self.attempted(number, Ending::not_run(why)),
            }
        }
    }

    /// Tries a call at the own node.
    fn attempt_here(&mut self, attempt: usize) {
        let Call { process, service, method, .. } = self.calls[self.tries[attempt].call];
        if !self.processes[process].offers.contains_key(&service) {
            return self.attempted(attempt, Ending::not_run(NotRun::NoSuchService));
        }
        let call = self.tries[attempt].call;
        let (run, deadline) = (self.runs.len(), self.calls[call].attempts.deadline());
        self.tries[attempt].state = TryState::Here(run);
        self.queue.at(micros(deadline.since_origin()), Event::Late(attempt));
        let caller = self.processes[process].node;
        self.runs.push(Run {
            process,
            service,
            caller,
            method,
            number: call as u64,
            deadline,
            way: Way::Here(attempt),
            cancelled: false,
            begun: None,
            over: false,
        });
        self.enter(run);
    }

    /// Hands an attempt to a link, or waits for room there.
    fn queue_attempt(&mut self, attempt: usize, connection: usize) {
        let held = &self.calls[self.tries[attempt].call];
        let (deadline, content) = (held.attempts.deadline(), (held.method, held.body.clone()));
        let calls = &mut self.connections[connection].calls;
        match calls.call(&self.services[held.service], content, deadline, attempt) {
            Ok(id) => {
                self.tries[attempt].state = TryState::Sent(connection, id);
                self.writes(connection);
                self.watch_deadlines(connection);
            }
            Err((NoRoom::Ended, _)) => {
                self.tries[attempt].state = TryState::New;
                let why = self.connections[connection].why.clone();
                let ended = Outcome::Ended { sent: false };
                self.attempted(attempt, Ending::settle(ended, || why.unwrap_or(LinkEnd::Stopped)));
            }
            Err((NoRoom::Draining, _)) => {
                self.tries[attempt].state = TryState::New;
                self.attempted(attempt, Ending::not_run(NotRun::Draining));
            }
            Err((NoRoom::Calls | NoRoom::Bytes | NoRoom::Binds, _)) => {
                if self.tries[attempt].state != TryState::Room(connection) {
                    self.tries[attempt].state = TryState::Room(connection);
                    self.queue.at(micros(deadline.since_origin()), Event::Late(attempt));
                }
                self.connections[connection].waiters.push(attempt);
            }
        }
        self.check_connection(connection);
    }

    /// There may be room on a link.
    pub(super) fn room(&mut self, connection: usize) {
        for attempt in std::mem::take(&mut self.connections[connection].waiters) {
            if self.tries[attempt].state == TryState::Room(connection) {
                self.queue_attempt(attempt, connection);
            }
        }
    }

    /// Delivers the ends of attempts on a link.
    pub(super) fn settle(&mut self, connection: usize, done: Vec<(usize, Outcome)>) {
        for (attempt, outcome) in done {
            let is_there =
                matches!(self.tries[attempt].state, TryState::Sent(at, _) if at == connection);
            if !is_there || self.strikes(Mutation::LoseCompletion) {
                continue;
            }
            let why = self.connections[connection].why.clone();
            let ending = Ending::settle(outcome, || why.unwrap_or(LinkEnd::Stopped));
            self.attempted(attempt, ending);
        }
    }

    /// The deadline of an attempt that waits for room, or of one at the own node.
    pub(super) fn late(&mut self, attempt: usize) {
        match self.tries[attempt].state {
            TryState::Room(_) => self.attempted(attempt, Ending::not_run(NotRun::link_is_full())),
            TryState::Here(run) => {
                self.tries[attempt].state = TryState::New;
                self.cancel(run);
                let late = Outcome::Deadline { sent: true };
                self.attempted(attempt, Ending::settle(late, || LinkEnd::Stopped));
            }
            _ => {}
        }
    }

    /// An attempt is slow, or its node is suspected: a second node is asked as well.
    pub(super) fn hedge(&mut self, attempt: usize) {
        let Try { call, target, state, hedged, .. } = self.tries[attempt];
        if state == TryState::Over || hedged || self.calls[call].tries.len() != 1 {
            return;
        }
        self.tries[attempt].hedged = true;
        let node = &self.nodes[target.0].id;
        let mut beside = self.calls[call].attempts.beside(node);
        if self.mutates(Mutation::HedgeAnything) {
            beside = beside.or_else(|| Some(vec![node.clone()]));
        }
        if self.mutates(Mutation::HedgeAnywhere) {
            beside = beside.map(|_| Vec::new());
        }
        let (Some(beside), Place::Any(_)) = (beside, &self.calls[call].place) else { return };
        let Ok((second, _)) = self.target_but(call, &beside) else { return };
        let Call { process, service, .. } = self.calls[call];
        if !self.processes[process].handles[service].budget.pays() {
            return;
        }
        self.note(format_args!("call {call} is hedged"));
        self.oracle.counts_retry(process, service);
        self.figures.hedged += 1;
        self.attempt(call, second);
    }

    /// A node is suspected, or offers a service no more: who waits for it asks a second one.
    pub(super) fn hedge_suspected(&mut self, process: usize, node: usize) {
        let listings = self.processes[process].directory.listings();
        let waits: Vec<usize> =
            self.waiting.get(&(process, node)).into_iter().flatten().copied().collect();
        for attempt in waits {
            let call = &self.calls[self.tries[attempt].call];
            let listing = listings.get(&self.services[call.service]);
            let found = listing.and_then(|listing| listing.find(&self.nodes[node].id));
            if call.hedge.is_some() && found.is_none_or(|provider| provider.suspect) {
                self.hedge(attempt);
            }
        }
    }

    /// An attempt has ended.
    pub(super) fn attempted(&mut self, attempt: usize, ending: Ending) {
        let now = self.now();
        let Try { call, target, begun, state, .. } = self.tries[attempt];
        let Call { process, service, .. } = self.calls[call];
        let node = self.nodes[target.0].id.clone();
        let took = now.since(begun);
        // One end may have seen the break, and the other one not.
        let broken = matches!(state, TryState::Sent(at, _) if self.connections[at].broken);
        self.over(attempt);
        let Handle { balance, .. } = &mut self.processes[process].handles[service];
        balance.ended(now, &node, took, ending.load, ending.judged());
        let failure = match ending.result {
            Ok(reply) => {
                self.calls[call].tries.clone().into_iter().for_each(|other| self.abandon(other));
                return self.end(call, Ok(reply));
            }
            Err(failure) => failure,
        };
        self.note(format_args!("call {call} failed at {}: {failure}", target.0));
        self.figures.failed(call, self.queue.now(), target, ending.verdict);
        if let CallFailure::Unknown(why) = &failure {
            let in_time = !broken && self.drain_of(target.0, target.1, process);
            self.oracle.lost(call, why, in_time);
        }
        self.calls[call].attempts.failed(node, &failure);
        // The other one may still be answered.
        if !self.calls[call].tries.is_empty() {
            return;
        }
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

    /// An attempt is not under way any more.
    fn over(&mut self, attempt: usize) {
        let Try { call, target, .. } = self.tries[attempt];
        self.tries[attempt].state = TryState::Over;
        self.calls[call].tries.retain(|other| *other != attempt);
        let process = self.calls[call].process;
        if let Some(waiting) = self.waiting.get_mut(&(process, target.0)) {
            waiting.remove(&attempt);
        }
    }

    /// Nobody waits for an attempt any more.
    fn abandon(&mut self, attempt: usize) {
        let now = self.now();
        let Try { call, target, begun, state, .. } = self.tries[attempt];
        let Call { process, service, .. } = self.calls[call];
        self.over(attempt);
        self.figures.failed(call, self.queue.now(), target, false);
        match state {
            TryState::Sent(connection, id) => {
                self.connections[connection].calls.cancel(id);
                self.writes(connection);
                self.room(connection);
                self.end_if_drained(connection);
            }
            TryState::Here(run) => self.cancel(run),
            TryState::New | TryState::Room(_) | TryState::Over => {}
        }
        let node = self.nodes[target.0].id.clone();
        let balance = &mut self.processes[process].handles[service].balance;
        balance.ended(now, &node, now.since(begun), None, Judged::Cancelled);
    }

    /// A call has ended.
    fn end(&mut self, call: usize, result: Result<bytes::Bytes, CallFailure>) {
        self.calls[call].over = true;
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
        if self.calls[call].over {
            return;
        }
        self.calls[call].over = true;
        self.calls[call].tries.clone().into_iter().for_each(|attempt| self.abandon(attempt));
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
