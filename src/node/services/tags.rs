//! What this process sends beside its questions: numbers, and what traces follow.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use crate::protocol::service::identity::{Tag, TraceContext};

/// Carries traces from one process to the next, for the library that an application traces with.
pub trait Propagator: fmt::Debug + Send + Sync {
    /// The trace that a call of this task belongs to. It is asked in the span of the call, if a subscriber takes that.
    fn current(&self) -> Option<TraceContext>;

    /// A call of this trace has arrived; this is the span in which it is served. The span is disabled if no subscriber
    /// takes it.
    fn received(&self, context: TraceContext, span: &tracing::Span);
}

/// What this process sends beside its questions.
#[derive(Debug)]
pub(crate) struct Tags {
    next: AtomicU64,
    propagator: OnceLock<Arc<dyn Propagator>>,
}

impl Tags {
    /// The first call has this number.
    pub(crate) const fn from(first: u64) -> Self {
        Self { next: AtomicU64::new(first), propagator: OnceLock::new() }
    }

    /// The number of another call.
    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Relaxed)
    }

    /// What travels beside a message without an answer.
    pub(crate) fn of_message(&self) -> Tag {
        Tag { number: 0, trace: self.current() }
    }

    /// The trace that this task belongs to.
    pub(crate) fn current(&self) -> Option<TraceContext> {
        self.propagator.get()?.current()
    }

    /// A call of a trace is served in this span.
    pub(crate) fn received(&self, context: TraceContext, span: Option<&tracing::Span>) {
        if let Some(propagator) = self.propagator.get() {
            propagator.received(context, span.unwrap_or(&tracing::Span::none()));
        }
    }

    /// The first propagator stays.
    pub(crate) fn set_propagator(&self, propagator: Arc<dyn Propagator>) {
        let _ = self.propagator.set(propagator);
    }
}
