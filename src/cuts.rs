//! Why connections with peers were last ended on purpose, for whoever asks why a peer is not there.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use crate::protocol::{id::NodeId, time::Time};

/// Most peers of which it is kept; beyond that the oldest is dropped.
pub const CUTS_MAX: usize = 1_024;

/// Why the connection with a peer was last ended on purpose, by either end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cut {
    /// When, on the monotonic clock of this node.
    pub at: Time,
    /// Whether the peer ended it, and not this node.
    pub by_peer: bool,
    /// One word for it, as it is counted among the refusals.
    pub label: &'static str,
    /// What happened, for an operator. Of a peer's words no more is to be believed than of the peer.
    pub reason: String,
}

/// The last one of each peer.
#[derive(Debug, Default)]
pub(crate) struct Cuts(Mutex<BTreeMap<NodeId, Cut>>);

impl Cuts {
    pub(crate) fn note(&self, peer: &NodeId, cut: Cut) {
        let mut cuts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cuts.len() >= CUTS_MAX && !cuts.contains_key(peer) {
            let oldest = cuts.iter().min_by_key(|(_, cut)| cut.at).map(|(peer, _)| peer.clone());
            oldest.and_then(|oldest| cuts.remove(&oldest));
        }
        cuts.insert(peer.clone(), cut);
    }

    pub(crate) fn get(&self, peer: &NodeId) -> Option<Cut> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(peer).cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn keeps_no_more_than_so_many_and_the_latest_of_each() {
        let cuts = Cuts::default();
        let name = |n: usize| NodeId::new(&format!("n{n}")).unwrap();
        let cut = |n: usize| Cut {
            at: Time::from_origin(Duration::from_secs(n as u64)),
            by_peer: false,
            label: "expired",
            reason: n.to_string(),
        };
        (0..CUTS_MAX + 10).for_each(|n| cuts.note(&name(n), cut(n)));
        assert_eq!(cuts.get(&name(9)), None);
        assert_eq!(cuts.get(&name(10)), Some(cut(10)));
        cuts.note(&name(10), cut(5_000));
        assert_eq!(cuts.get(&name(10)), Some(cut(5_000)));
        assert_eq!(cuts.0.lock().unwrap().len(), CUTS_MAX);
    }
}
