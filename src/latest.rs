//! The last event of one kind with each peer, for a limited number of peers.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use crate::protocol::{id::NodeId, time::Time};

/// Maximum number of peers; beyond that the oldest is dropped.
pub(crate) const LATEST_MAX: usize = 1_024;

/// The last one of each peer, with the time on the monotonic clock of this node.
#[derive(Debug)]
pub(crate) struct Latest<T>(Mutex<BTreeMap<NodeId, (Time, T)>>);

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Latest<T> {
    pub(crate) fn note(&self, peer: &NodeId, at: Time, what: T) {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.len() >= LATEST_MAX && !latest.contains_key(peer) {
            let oldest = latest.iter().min_by_key(|(_, (at, _))| *at).map(|(peer, _)| peer.clone());
            oldest.and_then(|oldest| latest.remove(&oldest));
        }
        latest.insert(peer.clone(), (at, what));
    }

    pub(crate) fn get(&self, peer: &NodeId) -> Option<(Time, T)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(peer).cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn keeps_no_more_than_so_many_and_the_latest_of_each() {
        let latest = Latest::default();
        let name = |n: usize| NodeId::new(&format!("n{n}")).unwrap();
        let at = |n: usize| Time::from_origin(Duration::from_secs(n as u64));
        (0..LATEST_MAX + 10).for_each(|n| latest.note(&name(n), at(n), n));
        assert_eq!(latest.get(&name(9)), None);
        assert_eq!(latest.get(&name(10)), Some((at(10), 10)));
        latest.note(&name(10), at(5_000), 5_000);
        assert_eq!(latest.get(&name(10)), Some((at(5_000), 5_000)));
        assert_eq!(latest.0.lock().unwrap().len(), LATEST_MAX);
    }
}
