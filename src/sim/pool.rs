//! One copy of a node's map for all nodes that hold the same.

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

/// The copies held by anybody.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<Copies>);

#[derive(Debug, Default)]
struct Copies {
    held: HashMap<Same, Weak<NodeMap>>,
    /// When there are so many, those that nobody holds any more are looked for.
    sweep: usize,
}

/// What two copies of one state of a map have in common.
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
        // Nothing under the lock can panic half way.
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

/// Below so many copies none is looked for.
const SWEEP_MIN: usize = 1 << 16;
