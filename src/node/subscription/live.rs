//! Keys of the live nodes: the input of a service registry, kept up to date by the node.

use std::{
    collections::{BTreeMap, VecDeque, btree_map::Entry},
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, ready},
};

use super::{Events, PrefixChange, SubscriptionError};
use crate::{
    node::{shared::Shared, snapshot::Snapshot},
    protocol::{
        entry::{Key, Value},
        event::Event,
        id::{Generation, NodeId, Version},
    },
};

/// The keys of all live nodes that begin with a prefix: first every present one, then every change.
///
/// A key is reported without a value when its owner deletes it, and also when the owner stops being
/// live: it is dead, has left, cannot be reached, or was forgotten. If the owner is live again, its
/// keys are reported again. So a consumer that only inserts and removes the reported keys holds the
/// keys of the nodes that are usable now.
#[derive(Debug)]
#[must_use = "changes wait in it until they are read"]
pub struct LiveKeys {
    shared: Arc<Shared>,
    events: Events,
    prefix: String,
    shown: Shown,
    waiting: VecDeque<PrefixChange>,
}

/// The consumer's state: for each node its generation, and its keys without the prefix.
type Shown = BTreeMap<NodeId, BTreeMap<Key, Held>>;

#[derive(Clone, Debug, PartialEq)]
struct Held {
    value: Value,
    generation: Generation,
    version: Version,
}

impl LiveKeys {
    pub(crate) fn new(shared: &Arc<Shared>, prefix: &str) -> Self {
        let (snapshot, events) = shared.cut();
        let mut live = Self {
            shared: Arc::clone(shared),
            events: Events::of(shared, events),
            prefix: prefix.to_owned(),
            shown: Shown::new(),
            waiting: VecDeque::new(),
        };
        live.compare_all(&snapshot);
        live
    }

    /// Waits for the next change. A consumer that falls behind is brought up to date: it may miss
    /// values that were replaced meanwhile, but not the last one.
    ///
    /// Cancel safe: only a call that returns a change removes it.
    ///
    /// # Errors
    /// [`SubscriptionError::Ended`]: the node has ended. Nothing follows.
    pub async fn next(&mut self) -> Result<PrefixChange, SubscriptionError> {
        poll_fn(|context| self.poll(context)).await
    }

    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<PrefixChange, SubscriptionError>> {
        loop {
            if let Some(change) = self.waiting.pop_front() {
                return Poll::Ready(Ok(change));
            }
            match ready!(self.events.poll(context)) {
                Ok(event) => self.follow(&event),
                Err(SubscriptionError::Lagged(_)) => {
                    let (snapshot, events) = self.shared.cut();
                    self.events = Events::of(&self.shared, events);
                    self.compare_all(&snapshot);
                }
                Err(SubscriptionError::Ended) => {
                    return Poll::Ready(Err(SubscriptionError::Ended));
                }
            }
        }
    }

    /// Compares the keys that an event may have changed with the snapshot, which already shows the change.
    fn follow(&mut self, event: &Event) {
        match event {
            Event::Updated { peer, key, .. } | Event::Deleted { peer, key, .. } => {
                if let Some(rest) = key.as_str().strip_prefix(&self.prefix) {
                    let rest = Key::from(rest);
                    let now = held(&self.shared.snapshot(), peer, key);
                    self.show(peer, &rest, now);
                }
            }
            Event::PeerLive { peer, .. }
            | Event::PeerSuspect { peer, .. }
            | Event::PeerDead { peer, .. }
            | Event::PeerLeft { peer, .. }
            | Event::PeerForgotten { peer }
            | Event::PeerChanged { peer, .. } => self.compare(&self.shared.snapshot(), peer),
            Event::DatacenterUnreachable { .. } | Event::DatacenterReachable { .. } => {
                self.compare_all(&self.shared.snapshot());
            }
            _ => {}
        }
    }

    fn compare_all(&mut self, snapshot: &Snapshot) {
        let shown: Vec<NodeId> = self.shown.keys().cloned().collect();
        for node in shown.iter().chain(snapshot.maps.keys()) {
            self.compare(snapshot, node);
        }
    }

    fn compare(&mut self, snapshot: &Snapshot, node: &NodeId) {
        let before: Vec<Key> =
            self.shown.get(node).map_or_else(Vec::new, |keys| keys.keys().cloned().collect());
        for rest in before {
            let key = Key::from(format!("{}{}", self.prefix, rest.as_str()));
            self.show(node, &rest, held(snapshot, node, &key));
        }
        if !snapshot.maps.get(node).is_some_and(|map| snapshot.is_live(node, map)) {
            return;
        }
        let prefix = std::mem::take(&mut self.prefix);
        for (key, _) in snapshot.prefix(node, &prefix) {
            let rest = Key::from(&key.as_str()[prefix.len()..]);
            self.show(node, &rest, held(snapshot, node, key));
        }
        self.prefix = prefix;
    }

    /// Records the present value of a key, and reports it if it has changed.
    fn show(&mut self, node: &NodeId, rest: &Key, now: Option<Held>) {
        let keys = self.shown.entry(node.clone()).or_default();
        let change = |held: Held, value| PrefixChange {
            peer: node.clone(),
            key: rest.clone(),
            value,
            generation: held.generation,
            version: held.version,
        };
        match (keys.entry(rest.clone()), now) {
            (Entry::Occupied(before), None) => {
                self.waiting.push_back(change(before.remove(), None));
            }
            (Entry::Occupied(mut before), Some(held)) if *before.get() != held => {
                before.insert(held.clone());
                let value = Some(held.value.clone());
                self.waiting.push_back(change(held, value));
            }
            (Entry::Vacant(place), Some(held)) => {
                place.insert(held.clone());
                let value = Some(held.value.clone());
                self.waiting.push_back(change(held, value));
            }
            _ => {}
        }
        if keys.is_empty() {
            self.shown.remove(node);
        }
    }
}

/// The value of a live node's key; `None` also if the node is not live.
fn held(snapshot: &Snapshot, node: &NodeId, key: &Key) -> Option<Held> {
    let map = snapshot.maps.get(node).filter(|map| snapshot.is_live(node, map))?;
    let entry = map.entries.get(key)?;
    let value = entry.visible(snapshot.now)?.clone();
    Some(Held { value, generation: map.generation, version: entry.version })
}
