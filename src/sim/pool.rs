//! One copy of a node's map for all nodes with the same state of it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use crate::protocol::{
    id::{Generation, NodeId, Version},
    map::NodeMap,
    replica::CopyPool,
    verdict::Verdict,
};

/// The copies that any node holds.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<Copies>);

#[derive(Debug, Default)]
struct Copies {
    held: HashMap<Same, Weak<NodeMap>>,
    /// At this number of copies those without a holder are searched.
    sweep: usize,
}

/// The common key of two copies of one state of a map.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Same {
    owner: NodeId,
    generation: Generation,
    versions: [Version; 5],
    verdict: Verdict,
}

impl Same {
    fn of(owner: &NodeId, map: &NodeMap) -> Self {
        let versions =
            [map.max_version(), map.horizon(), map.gc_floor(), map.record_version(), map.torn()];
        let (generation, verdict) = (map.generation(), map.verdict());
        Self { owner: owner.clone(), generation, versions, verdict }
    }
}

impl CopyPool for Pool {
    fn share(&self, owner: &NodeId, copy: &mut Arc<NodeMap>) {
        if !copy.is_settled() {
            return;
        }
        // Code under the lock cannot panic half way.
        let mut copies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let held = copies.held.entry(Same::of(owner, copy)).or_default();
        match held.upgrade() {
            Some(same) => *copy = same,
            None => *held = Arc::downgrade(copy),
        }
        if copies.held.len() > copies.sweep {
            copies.held.retain(|_, copy| copy.strong_count() > 0);
            copies.sweep = (2 * copies.held.len()).max(SWEEP_MIN);
        }
    }
}

/// Below this number of copies there is no search.
const SWEEP_MIN: usize = 1 << 16;
