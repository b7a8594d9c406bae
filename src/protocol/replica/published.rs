//! The published forms of the maps: digest and sketch for peers, views for readers.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use imbl::OrdMap;

use crate::protocol::{
    digest::Digest,
    id::NodeId,
    map::NodeMap,
    sketch::{Sketch, SketchKey, Symbol},
    view::NodeView,
};

/// Where nodes in one process find equal copies of a peer's map, so that they keep one together.
pub trait CopyPool: std::fmt::Debug + Send + Sync {
    /// Replaces `copy` by an equal one of another node, or keeps it for others to find.
    ///
    /// Copies of one owner are equal if generation, reach, horizon, floor, record and verdict are,
    /// unless [`NodeMap::is_settled`] denies it.
    fn share(&self, owner: &NodeId, copy: &mut Arc<NodeMap>);
}

/// The data derived from the maps, for peers and for readers.
#[derive(Debug)]
pub(super) struct Published {
    /// As long as nothing has changed.
    digest: Option<Arc<Digest>>,
    /// The sums of its lines, updated with every change.
    sketch: Sketch,
    /// The pool of equal copies of other nodes in this process; a node that uses it has no readers.
    pool: Option<Arc<dyn CopyPool>>,
    view: OrdMap<NodeId, Arc<NodeView>>,
    /// The nodes whose view is not as the map is.
    changed: BTreeSet<NodeId>,
}

impl Published {
    /// With no maps.
    pub(super) fn new(key: SketchKey) -> Self {
        Self {
            digest: None,
            sketch: Sketch::new(key),
            pool: None,
            view: OrdMap::new(),
            changed: BTreeSet::new(),
        }
    }

    /// The digest, if nothing has changed since it was made.
    pub(super) const fn digest(&self) -> Option<&Arc<Digest>> {
        self.digest.as_ref()
    }

    /// The digest as it is now.
    pub(super) fn set_digest(&mut self, digest: &Arc<Digest>) {
        self.digest = self.pool.is_none().then(|| Arc::clone(digest));
    }

    /// The digest has to be made again.
    pub(super) fn outdate(&mut self) {
        self.digest = None;
    }

    /// The sums of all lines.
    pub(super) const fn sketch(&self) -> &Sketch {
        &self.sketch
    }

    pub(super) fn set_sketch(&mut self, sketch: Sketch) {
        self.sketch = sketch;
    }

    /// Replaces the symbol of a line in the sums.
    pub(super) fn replace(&mut self, old: Option<Symbol>, new: Option<Symbol>) {
        if old != new {
            old.into_iter().for_each(|symbol| self.sketch.remove(symbol));
            new.into_iter().for_each(|symbol| self.sketch.insert(symbol));
        }
    }

    /// From now on copies are shared, and nothing is kept for readers.
    pub(super) fn share(&mut self, pool: Arc<dyn CopyPool>) {
        self.pool = Some(pool);
        self.changed.clear();
        self.digest = None;
    }

    /// The view of a map has to be made again.
    pub(super) fn show(&mut self, node: NodeId) {
        self.changed.insert(node);
    }

    /// A map has changed: readers are to see it, or it is shared.
    pub(super) fn touched(&mut self, node: NodeId, copies: &mut BTreeMap<NodeId, Arc<NodeMap>>) {
        match &self.pool {
            None => self.show(node),
            Some(pool) => {
                if let Some(copy) = copies.get_mut(&node) {
                    pool.share(&node, copy);
                }
            }
        }
    }

    /// The nodes whose view is not as the map is.
    pub(super) fn take_changed(&mut self) -> BTreeSet<NodeId> {
        mem::take(&mut self.changed)
    }

    /// Shows a map, or that it is gone.
    pub(super) fn set_view(&mut self, node: NodeId, view: Option<NodeView>) {
        match view {
            Some(view) => self.view.insert(node, Arc::new(view)),
            None => self.view.remove(&node),
        };
    }

    /// The maps as they are shown.
    pub(super) const fn view(&self) -> &OrdMap<NodeId, Arc<NodeView>> {
        &self.view
    }
}
