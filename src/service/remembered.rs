//! The calls that an offer remembers, and the repetitions that wait for them.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::Caller;
use crate::{
    node::services::{caller::CallerName, responder::Responder},
    protocol::{
        id::Generation,
        service::{
            frame::Code,
            once::{Begun, Once, Recalled},
        },
        time::Time,
    },
};

/// The identity of a call.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    caller: CallerName,
    number: (Generation, u64),
}

impl Identity {
    pub(super) fn new(caller: &Caller, number: u64) -> Self {
        Self { caller: caller.name(), number: (caller.generation(), number) }
    }
}

/// The calls that an offer remembers.
#[derive(Debug)]
pub(super) struct Remembered(Mutex<Once<CallerName, (Generation, u64), Responder>>);

/// What becomes of a call.
pub(super) enum Arrives {
    /// It is new, and runs.
    New(Responder),
    /// It came before: it is answered, or will be.
    Again,
    /// It cannot be remembered, so it does not run.
    NoRoom(Responder, Code),
}

impl Remembered {
    pub(super) const fn new(window: Duration) -> Self {
        Self(Mutex::new(Once::new(window)))
    }

    fn lock(&self) -> MutexGuard<'_, Once<CallerName, (Generation, u64), Responder>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call arrives. `load`: how full the service is.
    pub(super) fn arrives(&self, now: Time, call: &Identity, back: Responder, load: u8) -> Arrives {
        let begun = self.lock().begin(now, &call.caller, call.number, back);
        match begun {
            Begun::New(back) => Arrives::New(back),
            // Its caller has asked a third time.
            Begun::Waits(replaced) => {
                drop(replaced);
                Arrives::Again
            }
            Begun::Recalled(back, how) => {
                tell(back, how, load);
                Arrives::Again
            }
            Begun::NoRoom(back, code) => Arrives::NoRoom(back, code),
        }
    }

    /// A call that ran has ended.
    pub(super) fn ended(&self, now: Time, call: &Identity, how: Recalled, load: u8) {
        let waits = self.lock().ended(now, &call.caller, call.number, how);
        if let Some((back, how)) = waits {
            tell(back, how, load);
        }
    }

    /// A call has not run, and why.
    pub(super) fn forget(&self, call: &Identity, code: Code, retry_after: Duration) {
        let waits = self.lock().forget(&call.caller, call.number);
        if let Some(back) = waits {
            back.refuse(code, retry_after, "");
        }
    }
}

fn tell(back: Responder, how: Recalled, load: u8) {
    match how {
        Recalled::Reply(body) => back.reply(load, body),
        Recalled::NotKept => {
            let words = "it ran before, and its answer was not kept";
            back.refuse(Code::NoAnswer, Duration::ZERO, words);
        }
        Recalled::Failed(code) => back.refuse(code, Duration::ZERO, "it ran before"),
    }
}
