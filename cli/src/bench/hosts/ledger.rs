//! What came of the calls, for all methods together and each.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use clap::ValueEnum;
use gossipmonger::service::{CallError, CallFailure};
use serde_json::{Map, Value, json};

use super::{histogram::Histogram, rates::Rates, verdicts::Verdicts};
use crate::{bench::Report, stopwatch::Stopwatch};

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Method {
    /// A call that may run twice.
    Echo,
    /// A call that must not run twice.
    Once,
    /// A message without an answer.
    Cast,
}

/// How a call ended.
#[derive(Debug)]
pub(super) enum Ending {
    Answered,
    /// The answer is not what it has to be.
    Wrong,
    Failed(CallError),
}

/// What came of all calls so far.
#[derive(Debug)]
pub(super) struct Ledger {
    clock: Stopwatch,
    book: Mutex<Book>,
}

#[derive(Clone, Debug, Default)]
struct Book {
    methods: BTreeMap<Method, Calls>,
    times: Histogram,
    rates: Rates,
    verdicts: Verdicts,
    suspected: Vec<Value>,
    under_way: u64,
}

#[derive(Clone, Debug, Default)]
struct Calls {
    sent: u64,
    answered: u64,
    wrong: u64,
    /// By kind and reason.
    failed: BTreeMap<(&'static str, String), u64>,
}

impl Ledger {
    /// Its clock starts now.
    pub(super) fn start() -> Self {
        Self { clock: Stopwatch::start(), book: Mutex::default() }
    }

    /// The time since the start.
    pub(super) fn now(&self) -> Duration {
        self.clock.elapsed()
    }

    /// A call begins; returns when.
    pub(super) fn begin(&self, method: Method) -> Duration {
        let mut book = self.lock();
        book.under_way += 1;
        book.methods.entry(method).or_default().sent += 1;
        self.now()
    }

    /// A call that began then has ended.
    pub(super) fn end(&self, method: Method, begun: Duration, ending: Ending) {
        let mut book = self.lock();
        let now = self.now();
        book.under_way -= 1;
        book.verdicts.ended(begun, now);
        let calls = book.methods.entry(method).or_default();
        match ending {
            Ending::Answered => {
                calls.answered += 1;
                book.times.record(now.saturating_sub(begun));
                book.rates.record(now);
            }
            Ending::Wrong => calls.wrong += 1,
            Ending::Failed(error) => {
                *calls.failed.entry(reason(error.failure())).or_default() += 1;
                if let Some(node) = error.node() {
                    book.verdicts.failed(node.as_str(), now);
                }
            }
        }
    }

    /// A node was found dead.
    pub(super) fn dead(&self, node: &str) {
        let mut book = self.lock();
        let (now, under_way) = (self.now(), book.under_way);
        book.verdicts.dead(node.to_owned(), now, under_way);
    }

    /// A node is suspected.
    pub(super) fn suspect(&self, node: &str) {
        let mut book = self.lock();
        if book.suspected.len() < SUSPECTED_MAX {
            let at = u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX);
            book.suspected.push(json!({ "node": node, "at_ms": at }));
        }
    }

    pub(super) fn under_way(&self) -> u64 {
        self.lock().under_way
    }

    /// Calls that were begun, those that were answered, and those with a wrong answer.
    pub(super) fn counts(&self) -> [u64; 3] {
        let book = self.lock();
        let sum = |of: fn(&Calls) -> u64| book.methods.values().map(of).sum();
        [sum(|calls| calls.sent), sum(|calls| calls.answered), sum(|calls| calls.wrong)]
    }

    /// `rate`: with which calls were begun until `end`; `None`: with no certain one.
    pub(super) fn report(&self, rate: Option<f64>, end: Duration, out: &mut Report) {
        let book = self.lock().clone();
        let mut total = Calls::default();
        let mut methods = Map::new();
        for (method, calls) in &book.methods {
            total.add(calls);
            methods.insert(method.name(), calls.report().into());
        }
        out.append(&mut total.report());
        out.insert("methods".into(), methods.into());
        out.insert("latency_ms".into(), book.times.report());
        out.insert("answered_per_100_ms".into(), book.rates.report());
        out.insert("verdicts".into(), book.verdicts.report(&book.rates, rate, end));
        out.insert("suspected".into(), book.suspected.into());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Calls {
    fn add(&mut self, more: &Self) {
        self.sent += more.sent;
        self.answered += more.answered;
        self.wrong += more.wrong;
        for (reason, count) in &more.failed {
            *self.failed.entry(reason.clone()).or_default() += count;
        }
    }

    fn report(&self) -> Report {
        let mut failed = json!({ "not_run": {}, "unknown": {}, "failed": {} });
        for ((kind, reason), count) in &self.failed {
            failed[kind][reason] = (*count).into();
        }
        let mut out = Report::new();
        out.insert("sent".into(), self.sent.into());
        out.insert("answered".into(), self.answered.into());
        out.insert("wrong".into(), self.wrong.into());
        out.insert("failed".into(), failed);
        out
    }
}

impl Method {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// What a failure means for the caller, and its reason by the name of the library.
pub(super) fn reason(failure: &CallFailure) -> (&'static str, String) {
    match failure {
        CallFailure::NotRun(why) => ("not_run", name(why)),
        CallFailure::Unknown(why) => ("unknown", name(why)),
        CallFailure::Failed(why) => ("failed", name(why)),
        other => ("failed", name(other)),
    }
}

/// The name of a variant.
fn name(variant: &impl std::fmt::Debug) -> String {
    format!("{variant:?}").chars().take_while(char::is_ascii_alphanumeric).collect()
}

/// How many suspicions are listed.
const SUSPECTED_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use gossipmonger::service::{Lost, NotRun};

    use super::*;

    #[test]
    fn failures_are_counted_by_what_they_mean() {
        let connection = CallFailure::Unknown(Lost::Connection("timed out".into()));
        assert_eq!(reason(&connection), ("unknown", "Connection".into()));
        let mut calls = Calls { sent: 3, answered: 1, ..Calls::default() };
        calls.failed.insert(reason(&connection), 1);
        calls.failed.insert(reason(&CallFailure::NotRun(NotRun::NoProvider)), 1);
        let mut total = Calls::default();
        total.add(&calls);
        total.add(&calls);
        let report = Value::Object(total.report());
        assert_eq!((&report["sent"], &report["answered"]), (&json!(6), &json!(2)), "{report}");
        assert_eq!(report["failed"]["unknown"], json!({ "Connection": 2 }), "{report}");
        assert_eq!(report["failed"]["not_run"], json!({ "NoProvider": 2 }), "{report}");
    }
}
