//! One request at the node that answers it, from its arrival to its answer.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::runtime::Handle;
use tracing::Instrument;

use super::{Caller, context::Context, counted::TARGET, inline::Runs, remembered::Identity};
use crate::{
    clock::Clock,
    node::services::{
        caller::CallerName, offered::Attached, responder::Responder, room::Held, running::Running,
    },
    protocol::{
        route::Counter,
        service::{figures::CallOutcome, frame::Code, once::Recalled, stream::Beginning},
        time::Time,
    },
};

/// The offered service that a request belongs to.
pub(super) trait Owner: Send + Sync {
    /// The runtime of the node.
    fn runtime(&self) -> &Handle;

    /// The clock of the node.
    fn clock(&self) -> Clock;

    /// How full the service is.
    fn load(&self) -> u8;

    /// The longest answer, in bytes.
    fn reply_bytes(&self) -> usize;

    /// Increments a counter of the node.
    fn count(&self, counter: Counter);

    /// A request or message of this row has ended.
    fn ended(&self, row: usize, outcome: CallOutcome);

    /// One that ran has taken this long.
    fn took(&self, row: usize, took: Duration);

    /// A call or message that is audited has ended.
    fn audit(&self, call: &Audited, outcome: CallOutcome);

    /// A call that is remembered has run, and ended like this.
    fn ran(&self, call: &Identity, how: Recalled);

    /// A call that is remembered has not run.
    fn did_not_run(&self, call: &Identity, code: Code);

    /// A place is free, after this time.
    fn leave(self: Arc<Self>, caller: &CallerName, took: Duration);
}

/// A request that may run now. Its place in the room is given back when it is dropped.
pub(super) struct Job {
    pub(super) body: Bytes,
    /// The room that a long body uses, until it is decoded.
    pub(super) held: Option<Held>,
    /// What comes with it over a stream of its own.
    pub(super) attached: Option<Box<Attached>>,
    pub(super) context: Context,
    pub(super) answer: Answer,
    pub(super) place: Place,
    /// It comes from the task that reads a lane, and has not waited.
    pub(super) by_reader: bool,
}

/// Where the answer of a request goes, and its row in the figures.
pub(super) struct Answer {
    pub(super) owner: Arc<dyn Owner>,
    /// A cast has none.
    pub(super) running: Option<Arc<Running>>,
    pub(super) responder: Option<Responder>,
    /// Whether the handler begins, where a stream may end before that.
    beginning: Option<Arc<Beginning>>,
    /// Its row in the figures, until it has ended.
    row: Option<usize>,
    /// If it is remembered.
    pub(super) call: Option<Identity>,
    /// If its end is logged.
    pub(super) audited: Option<Box<Audited>>,
}

/// A call or message whose end is logged.
pub(super) struct Audited {
    pub(super) caller: Arc<Caller>,
    pub(super) method: u16,
    pub(super) begun: Time,
}

/// A place among the requests that run.
pub(super) struct Place {
    owner: Arc<dyn Owner>,
    caller: CallerName,
    row: usize,
    begun: Time,
}

impl Place {
    pub(super) fn new(
        owner: Arc<dyn Owner>,
        (caller, row): (CallerName, usize),
        begun: Time,
    ) -> Self {
        Self { owner, caller, row, begun }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let took = self.owner.clock().now().since(self.begun);
        self.owner.took(self.row, took);
        Arc::clone(&self.owner).leave(&self.caller, took);
    }
}

impl Job {
    /// Runs the rest of the request here, if a reader has brought it and it is known to be short, or else as a task,
    /// which ends when the caller gives up.
    pub(super) fn begin(
        (owner, by_reader): (&dyn Owner, bool),
        running: Option<&Arc<Running>>,
        runs: &Arc<Runs>,
        rest: impl Future<Output = ()> + Send + 'static,
    ) {
        let clock = owner.clock();
        let rest = if by_reader { runs.here(clock, rest) } else { Err(Box::pin(rest)) };
        if let Err(rest) = rest {
            let runs = Arc::clone(runs);
            Self::spawn(owner, running, async move { runs.there(clock, rest).await });
        }
    }

    /// Runs the rest of the request as a task, which ends when the caller gives up.
    pub(super) fn spawn(
        owner: &dyn Owner,
        running: Option<&Arc<Running>>,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let task = if tracing::enabled!(target: TARGET, tracing::Level::DEBUG) {
            owner.runtime().spawn(task.in_current_span())
        } else {
            owner.runtime().spawn(task)
        };
        if let Some(running) = running {
            running.runs(task.abort_handle());
        }
    }
}

impl Answer {
    pub(super) fn new(
        owner: Arc<dyn Owner>,
        (running, beginning): (Option<Arc<Running>>, Option<Arc<Beginning>>),
        responder: Option<Responder>,
        row: usize,
    ) -> Self {
        Self { owner, running, responder, beginning, row: Some(row), call: None, audited: None }
    }

    /// The handler is about to begin; returns whether it may. From then on the call may have run.
    pub(super) fn begins(&self) -> bool {
        self.beginning.as_ref().is_none_or(|beginning| beginning.begin())
    }

    fn ended(&mut self, outcome: CallOutcome) {
        if let Some(row) = self.row.take() {
            self.owner.ended(row, outcome);
        }
        if let Some(call) = self.audited.take() {
            self.owner.audit(&call, outcome);
        }
    }

    /// Whether the caller has cancelled the request.
    pub(super) fn is_cancelled(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.is_cancelled())
    }

    /// Sends the encoded answer.
    pub(super) fn reply(mut self, body: Result<Bytes, super::codec::CodecError>) {
        let body = match body {
            Ok(body) if body.len() <= self.owner.reply_bytes() => body,
            Ok(body) => {
                let most = self.owner.reply_bytes();
                let words = format!("{} bytes, {most} are allowed", body.len());
                return self.refuse(Code::ReplyTooLarge, words);
            }
            Err(error) => return self.refuse(Code::NoAnswer, error.to_string()),
        };
        let Some(responder) = self.responder.take() else { return };
        self.owner.count(Counter::CallsAnswered);
        self.ended(CallOutcome::Ok);
        if let Some(call) = self.call.take() {
            self.owner.ran(&call, Recalled::Reply(body.clone()));
        }
        responder.reply(self.owner.load(), body);
    }

    /// A message without an answer is taken.
    pub(super) fn took(mut self) {
        self.owner.count(Counter::CastsTaken);
        self.ended(CallOutcome::Ok);
    }

    /// Sends the reason why there is no answer.
    pub(super) fn refuse(mut self, code: Code, words: impl Into<String>) {
        let responder = self.responder.take();
        self.ended(CallOutcome::refused(code));
        let has_run = !code.has_not_run();
        match self.call.take() {
            Some(call) if has_run => self.owner.ran(&call, Recalled::Failed(code)),
            Some(call) => self.owner.did_not_run(&call, code),
            None => {}
        }
        self.owner.count(match (&responder, has_run) {
            (Some(_), true) => Counter::CallsFailed,
            (Some(_), false) => Counter::CallsRefused,
            (None, _) => Counter::CastsRefused,
        });
        if let Some(responder) = responder {
            responder.refuse(code, Duration::ZERO, words);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            let panicked = std::thread::panicking();
            let code = if panicked { Code::Panicked } else { Code::NoAnswer };
            self.owner.ran(&call, Recalled::Failed(code));
        }
        let is_cancelled = self.is_cancelled();
        self.ended(if is_cancelled { CallOutcome::Cancelled } else { CallOutcome::Failed });
        // The responder informs the caller.
        if self.responder.is_some() && !is_cancelled {
            self.owner.count(Counter::CallsFailed);
        }
    }
}
