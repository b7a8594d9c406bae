//! The figures of calls: a row of counters for each method and end.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::protocol::service::{
    ServiceId,
    figures::{CallOutcome, LATENCY_BOUNDS_US, METHODS_MAX, latency_class},
};

/// Which end of its calls a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallEnd {
    /// It calls.
    Caller,
    /// It is called.
    Provider,
}

/// The counters of one method at one end. They only grow.
#[derive(Debug, Default)]
pub(crate) struct Row {
    begun: AtomicU64,
    ended: [AtomicU64; CallOutcome::ALL.len()],
    retries: AtomicU64,
    classes: [AtomicU64; LATENCY_BOUNDS_US.len() + 1],
    nanos: AtomicU64,
}

impl Row {
    /// A call or cast begins.
    pub(crate) fn begin(&self) {
        self.begun.fetch_add(1, Relaxed);
    }

    /// One that has begun ends.
    pub(crate) fn end(&self, outcome: CallOutcome) {
        self.ended[outcome as usize].fetch_add(1, Relaxed);
    }

    /// One has taken this long.
    pub(crate) fn took(&self, took: Duration) {
        self.classes[latency_class(took)].fetch_add(1, Relaxed);
        self.nanos.fetch_add(took.as_nanos() as u64, Relaxed);
    }

    /// One is tried again.
    pub(crate) fn retry(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    pub(crate) fn read(&self) -> Read {
        // First the ends: what begins meanwhile counts as in flight, and nothing counts as ended that has not begun.
        let ended = self.ended.each_ref().map(|count| count.load(Relaxed));
        let begun = self.begun.load(Relaxed);
        Read {
            in_flight: begun.saturating_sub(ended.iter().sum()),
            ended,
            retries: self.retries.load(Relaxed),
            classes: self.classes.each_ref().map(|count| count.load(Relaxed)),
            nanos: self.nanos.load(Relaxed),
        }
    }
}

/// A row as it was at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) in_flight: u64,
    pub(crate) ended: [u64; CallOutcome::ALL.len()],
    pub(crate) retries: u64,
    pub(crate) classes: [u64; LATENCY_BOUNDS_US.len() + 1],
    pub(crate) nanos: u64,
}

/// The rows of one process.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    rows: Mutex<BTreeMap<(CallEnd, ServiceId, u16), Named>>,
    /// Of what has no row of its own.
    other: [Arc<Row>; 2],
}

#[derive(Debug)]
struct Named {
    name: &'static str,
    row: Arc<Row>,
}

/// One row with its end and name: `None` is the row of all that have none of their own.
pub(crate) type Line = (CallEnd, Option<(ServiceId, &'static str)>, Read);

impl Figures {
    /// The row of a method, which is called often and kept: this one takes a lock.
    pub(crate) fn row(
        &self,
        end: CallEnd,
        service: &ServiceId,
        (number, name): (u16, &'static str),
    ) -> Arc<Row> {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (end, service.clone(), number);
        if rows.len() >= METHODS_MAX && !rows.contains_key(&key) {
            return self.other(end);
        }
        let named = rows.entry(key).or_insert_with(|| Named { name, row: Arc::default() });
        Arc::clone(&named.row)
    }

    /// The row of what has none of its own.
    pub(crate) fn other(&self, end: CallEnd) -> Arc<Row> {
        Arc::clone(&self.other[end as usize])
    }

    /// All rows, by end, service and method, then the two of what has none.
    pub(crate) fn all(&self) -> Vec<Line> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let named = rows.iter().map(|((end, service, _), named)| {
            (*end, Some((service.clone(), named.name)), named.row.read())
        });
        let ends = [CallEnd::Caller, CallEnd::Provider];
        let others = ends.map(|end| (end, None, self.other[end as usize].read()));
        named.chain(others).collect()
    }
}

impl CallEnd {
    /// Its label in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Provider => "provider",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::service::ServiceName;

    #[test]
    fn methods_beyond_the_limit_share_a_row() {
        let figures = Figures::default();
        let id = |n| ServiceId { name: ServiceName::new(&format!("s{n}")).unwrap(), major: 1 };
        for n in 0..10 * METHODS_MAX {
            figures.row(CallEnd::Caller, &id(n), (1, "Ask")).begin();
        }
        let all = figures.all();
        assert_eq!(all.len(), METHODS_MAX + 2);
        let others: Vec<_> = all.iter().filter(|(_, named, _)| named.is_none()).collect();
        assert_eq!(others[0].2.in_flight, 9 * METHODS_MAX as u64);
        // One that has a row keeps it.
        figures.row(CallEnd::Caller, &id(0), (1, "Ask")).end(CallOutcome::Ok);
        let first = figures.all().into_iter().next().unwrap().2;
        assert_eq!((first.in_flight, first.ended[CallOutcome::Ok as usize]), (0, 1));
    }
}
