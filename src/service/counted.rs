//! One call of this process in the figures and in traces.

use std::{sync::Arc, time::Duration};

use super::{
    Method,
    error::{CallError, CallFailure},
};
use crate::{
    node::services::figures::{CallEnd, Figures, Row},
    protocol::service::{ServiceId, figures::CallOutcome},
};

/// The target of the spans of calls. They are made only if a subscriber takes them.
pub(super) const TARGET: &str = "gossipmonger::service";

/// The rows of the methods that one callee is called by.
#[derive(Debug)]
pub(super) struct Rows {
    /// By the number of the method. They are few, so none is searched by more than a glance.
    named: Vec<(u16, Arc<Row>)>,
    other: Arc<Row>,
}

impl Rows {
    /// Those of methods that have no rows of their own.
    pub(super) fn none(figures: &Figures) -> Self {
        Self { named: Vec::new(), other: figures.other(CallEnd::Caller) }
    }

    /// Those of the methods of a service.
    pub(super) fn of(figures: &Figures, service: &ServiceId, methods: &[Method]) -> Self {
        let row = |method: &Method| {
            let row = figures.row(CallEnd::Caller, service, (method.number, method.name));
            (method.number, row)
        };
        Self { named: methods.iter().map(row).collect(), ..Self::none(figures) }
    }

    pub(super) fn row(&self, method: u16) -> &Row {
        let named = self.named.iter().find(|(number, _)| *number == method);
        named.map_or(&*self.other, |(_, row)| row)
    }
}

/// A call that has begun. If it is dropped, its caller has cancelled it.
pub(super) struct Counted<'a> {
    row: &'a Row,
    ended: bool,
}

impl<'a> Counted<'a> {
    pub(super) fn new(row: &'a Row) -> Self {
        row.begin();
        Self { row, ended: false }
    }

    pub(super) fn answered(mut self, took: Duration) {
        self.row.took(took);
        self.end(CallOutcome::Ok);
    }

    pub(super) fn failed(mut self, failure: &CallFailure) {
        self.end(CallOutcome::failed(failure));
    }

    fn end(&mut self, outcome: CallOutcome) {
        self.ended = true;
        self.row.end(outcome);
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.row.end(CallOutcome::Cancelled);
        }
    }
}

/// How a cast has ended at its caller.
pub(super) fn count_cast<T>(row: &Row, sent: &Result<T, CallError>) {
    row.begin();
    row.end(
        sent.as_ref().err().map_or(CallOutcome::Ok, |error| CallOutcome::failed(error.failure())),
    );
}
