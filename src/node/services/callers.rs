//! Who calls the services of this node.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::caller::{Caller, CallerName};
use crate::protocol::{service::ServiceId, time::Time};

/// Pairs of a service and a caller that are remembered.
pub const CALLERS_MAX: usize = 4_096;

/// Who calls what.
#[derive(Debug, Default)]
pub(crate) struct Callers {
    counts: Mutex<BTreeMap<(ServiceId, CallerName), Arc<Count>>>,
}

/// The calls of one caller to one service.
#[derive(Debug)]
pub(crate) struct Count {
    calls: AtomicU64,
    first: Time,
    /// In nanoseconds from the origin of time.
    last: AtomicU64,
}

/// A service to which a caller has assigned a number on its lane.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) service: ServiceId,
    /// `None`: the node did not offer it then.
    count: Option<Arc<Count>>,
}

impl Bound {
    /// One more request or message for it.
    pub(crate) fn called(&self, now: Time) {
        if let Some(count) = &self.count {
            count.called(now);
        }
    }
}

/// A count as it was at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    pub(crate) calls: u64,
    pub(crate) first: Time,
    pub(crate) last: Time,
}

impl Count {
    /// One more.
    pub(crate) fn called(&self, now: Time) {
        self.calls.fetch_add(1, Relaxed);
        self.last.store(nanos(now), Relaxed);
    }

    fn read(&self) -> Counted {
        let last = Time::from_origin(Duration::from_nanos(self.last.load(Relaxed)));
        Counted { calls: self.calls.load(Relaxed), first: self.first, last }
    }
}

impl Callers {
    /// The count of a caller and a service, which a connection keeps: this takes a lock.
    pub(crate) fn count(&self, service: &ServiceId, caller: CallerName, now: Time) -> Arc<Count> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (service.clone(), caller);
        if let Some(count) = counts.get(&key) {
            return Arc::clone(count);
        }
        if counts.len() >= CALLERS_MAX {
            let oldest = counts.iter().min_by_key(|(_, count)| count.last.load(Relaxed));
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                counts.remove(&oldest);
            }
        }
        let count = Count { calls: AtomicU64::new(0), first: now, last: nanos(now).into() };
        Arc::clone(counts.entry(key).or_insert_with(|| Arc::new(count)))
    }

    /// A service that a caller binds. A service that is not offered is not counted, so made-up names fill no table.
    pub(crate) fn bound(
        &self,
        service: ServiceId,
        offered: bool,
        caller: &Caller,
        now: Time,
    ) -> Bound {
        let count = offered.then(|| self.count(&service, caller.name(), now));
        Bound { service, count }
    }

    /// All counts of callers that have called, by service and caller.
    pub(crate) fn all(&self) -> Vec<(ServiceId, CallerName, Counted)> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let all = counts
            .iter()
            .map(|((service, caller), count)| (service.clone(), caller.clone(), count.read()));
        all.filter(|(_, _, count)| count.calls > 0).collect()
    }
}

fn nanos(at: Time) -> u64 {
    u64::try_from(at.since(Time::ZERO).as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{id::NodeId, service::ServiceName};

    #[test]
    fn those_that_have_not_called_for_longest_are_forgotten() {
        let callers = Callers::default();
        let stock = ServiceId { name: ServiceName::new("stock").unwrap(), major: 1 };
        let at = |n: usize| Time::from_origin(Duration::from_secs(n as u64));
        for n in 0..CALLERS_MAX + 10 {
            let name = CallerName::Node(NodeId::new(&format!("n{n}")).unwrap());
            callers.count(&stock, name, at(n)).called(at(n));
        }
        let all = callers.all();
        assert_eq!(all.len(), CALLERS_MAX);
        assert!(all.iter().all(|(_, _, count)| count.first >= at(10) && count.calls == 1));
    }

    #[test]
    fn who_has_called_nothing_is_no_caller() {
        let callers = Callers::default();
        let stock = ServiceId { name: ServiceName::new("stock").unwrap(), major: 1 };
        let name = CallerName::Node(NodeId::new("a").unwrap());
        let count = callers.count(&stock, name.clone(), Time::ZERO);
        assert!(callers.all().is_empty());
        count.called(Time::ZERO);
        count.called(Time::from_origin(Duration::from_secs(3)));
        let [(_, caller, count)] = &callers.all()[..] else { panic!("not one") };
        assert_eq!((caller, count.calls), (&name, 2));
        assert_eq!(
            (count.first, count.last),
            (Time::ZERO, Time::from_origin(Duration::from_secs(3)))
        );
    }
}
