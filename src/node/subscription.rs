//! How changes reach subscribers: bounded streams that report a lag, and actors.
//!
//! Each subscription has a method `next`, and is a [`Stream`](futures_core::Stream) too.

mod error;
mod live;
mod queue;
mod stream;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, ready},
};

use imbl::OrdMap;
use ractor::{ActorRef, Message};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};

use self::queue::Queue;
use crate::{
    node::{shared::Shared, snapshot::Snapshot},
    protocol::{
        entry::{Content, Entry, Key, Value},
        event::{Event, ProtocolEvent},
        id::{Datacenter, Generation, NodeId, Version},
        reason::{Cause, Reason},
        state::PeerState,
    },
};

pub use self::{error::SubscriptionError, live::LiveKeys};

/// Every event from the moment of the subscription on.
#[derive(Debug)]
#[must_use = "events wait in it until they are read"]
pub struct Events {
    queue: Queue<Event>,
}

/// The protocol messages between nodes, from the moment of the subscription on.
#[derive(Debug)]
#[must_use = "events wait in it until they are read"]
#[doc(hidden)]
pub struct ProtocolEvents {
    queue: Queue<ProtocolEvent>,
}

/// Changes of all nodes' keys that begin with a prefix, in any state of their owners: keys of a node
/// that is dead or has left stay until it is forgotten. For the keys of the nodes that are usable
/// now, with the present ones first, see [`LiveKeys`].
#[derive(Debug)]
#[must_use = "changes wait in it until they are read"]
pub struct PrefixEvents {
    events: Events,
    prefix: String,
}

/// An event on its way to an actor. As long as it exists it occupies room in that actor's queue of
/// events, so take the event out when it is handled, not before.
#[derive(Debug)]
pub struct Delivery {
    /// What happened.
    pub event: Event,
    _room: OwnedSemaphorePermit,
}

/// One change of a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PrefixChange {
    /// The owner of the key.
    pub peer: NodeId,
    /// The key without the prefix.
    pub key: Key,
    /// Its value; `None` if it was removed.
    pub value: Option<Value>,
    /// The owner's generation.
    pub generation: Generation,
    /// The version it was written at.
    pub version: Version,
}

#[cfg(feature = "cluster")]
impl Message for Delivery {}

impl Events {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self::of(shared, shared.published.events.subscribe())
    }

    pub(crate) fn of(shared: &Arc<Shared>, events: broadcast::Receiver<Event>) -> Self {
        Self { queue: Queue::new(shared, events) }
    }

    /// Waits for the next event. Cancel safe: only a call that returns an event removes it.
    ///
    /// # Errors
    /// [`SubscriptionError::Lagged`], after which it continues; [`SubscriptionError::Ended`] for good.
    pub async fn next(&mut self) -> Result<Event, SubscriptionError> {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Event, SubscriptionError>> {
        self.queue.poll(context)
    }
}

impl ProtocolEvents {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self { queue: Queue::new(shared, shared.published.protocol_events.subscribe()) }
    }

    /// Waits for the next event.
    ///
    /// # Errors
    /// As [`Events::next`].
    pub async fn next(&mut self) -> Result<ProtocolEvent, SubscriptionError> {
        poll_fn(|context| self.queue.poll(context)).await
    }
}

impl PrefixEvents {
    pub(crate) fn new(shared: &Arc<Shared>, prefix: &str) -> Self {
        Self { events: Events::new(shared), prefix: prefix.to_owned() }
    }

    /// Waits for the next change.
    ///
    /// # Errors
    /// As [`Events::next`].
    pub async fn next(&mut self) -> Result<PrefixChange, SubscriptionError> {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<PrefixChange, SubscriptionError>> {
        loop {
            let (peer, key, value, generation, version) = match ready!(self.events.poll(context))? {
                Event::Updated { peer, key, value, generation, version } => {
                    (peer, key, Some(value), generation, version)
                }
                Event::Deleted { peer, key, generation, version } => {
                    (peer, key, None, generation, version)
                }
                _ => continue,
            };
            if let Some(rest) = key.as_str().strip_prefix(&self.prefix) {
                let key = Key::from(rest);
                return Poll::Ready(Ok(PrefixChange { peer, key, value, generation, version }));
            }
        }
    }
}

/// Sends an actor the present state, as events, and then every event, until the actor or the node ends.
pub(crate) async fn feed<M: Message + From<Delivery>>(
    shared: Arc<Shared>,
    (snapshot, events): (Snapshot, broadcast::Receiver<Event>),
    actor: ActorRef<M>,
) {
    let room = Arc::new(Semaphore::new(shared.config.event_queue));
    let mut events = Events::of(&shared, events);
    let mut told = Told::default();
    let mut news = told.catch_up(&snapshot);
    drop(snapshot);
    loop {
        for event in news.drain(..) {
            // An actor that is gone has dropped the events on their way to it, which freed the room.
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
            if actor.cast(M::from(Delivery { event, _room: permit })).is_err() {
                return;
            }
        }
        news = match events.next().await {
            Ok(event) => Vec::from_iter(told.is_new(&event).then_some(event)),
            Err(SubscriptionError::Lagged(_)) => {
                let (snapshot, later) = shared.cut();
                events = Events::of(&shared, later);
                told.catch_up(&snapshot)
            }
            Err(SubscriptionError::Ended) => return,
        };
    }
}

/// The state that an actor has received so far.
#[derive(Debug, Default)]
struct Told {
    peers: BTreeMap<NodeId, ToldPeer>,
    unreachable: BTreeSet<Datacenter>,
}

#[derive(Debug, Default)]
struct ToldPeer {
    state: Option<PeerState>,
    generation: Generation,
    record: Version,
    keys: OrdMap<Key, Entry>,
}

impl Told {
    /// The events that lead from the received state to `snapshot`.
    fn catch_up(&mut self, snapshot: &Snapshot) -> Vec<Event> {
        let mut events = Vec::new();
        let mut before = std::mem::take(&mut self.peers);
        for member in snapshot.members() {
            let peer = member.node;
            let Some(map) = snapshot.maps.get(&peer) else { continue };
            let Some((record, described)) = &map.record else { continue };
            let (generation, record) = (map.generation, *record);
            // An unreachable node is reported through its datacenter.
            let state = snapshot.life(&peer, described);
            let told = before.remove(&peer);
            match &told {
                None if !member.local => events.push(Event::NewPeer { peer: peer.clone() }),
                Some(told) if (told.generation, told.record) != (generation, record) => {
                    events.push(Event::PeerChanged { peer: peer.clone(), generation });
                }
                _ => {}
            }
            let told = told.unwrap_or_default();
            if told.state != Some(state) && !member.local {
                events.extend(state_event(&peer, state, snapshot));
            }
            tell_keys(&peer, generation, &told.keys, &map.entries, snapshot, &mut events);
            let (state, keys) = (Some(state), map.entries.clone());
            self.peers.insert(peer, ToldPeer { state, generation, record, keys });
        }
        for (peer, told) in before {
            let none = OrdMap::new();
            tell_keys(&peer, told.generation, &told.keys, &none, snapshot, &mut events);
            events.push(Event::PeerForgotten { peer });
        }
        let unreachable = snapshot.unreachable_datacenters();
        for datacenter in unreachable.difference(&self.unreachable).cloned() {
            events.push(Event::DatacenterUnreachable { datacenter });
        }
        for datacenter in self.unreachable.difference(unreachable).cloned() {
            events.push(Event::DatacenterReachable { datacenter });
        }
        self.unreachable.clone_from(unreachable);
        events
    }

    /// Whether an event contains something new; if so, notes it as sent.
    fn is_new(&mut self, event: &Event) -> bool {
        match event {
            Event::NewPeer { peer } => {
                let new = !self.peers.contains_key(peer);
                self.peer(peer);
                new
            }
            Event::PeerLive { peer, .. } => self.enters(peer, PeerState::Live),
            Event::PeerSuspect { peer, .. } => self.enters(peer, PeerState::Suspect),
            Event::PeerDead { peer, .. } => self.enters(peer, PeerState::Dead),
            Event::PeerLeft { peer, .. } => self.enters(peer, PeerState::Left),
            Event::PeerForgotten { peer } => self.peers.remove(peer).is_some(),
            Event::Updated { peer, key, value, version, .. } => {
                let content = Content::Value { value: value.clone(), expires: None };
                let entry = Entry { version: *version, content };
                self.peer(peer).keys.insert(key.clone(), entry);
                true
            }
            Event::Deleted { peer, key, .. } => {
                let old = self.peer(peer).keys.remove(key);
                old.is_some_and(|entry| !entry.is_tombstone())
            }
            Event::DatacenterUnreachable { datacenter } => {
                self.unreachable.insert(datacenter.clone())
            }
            Event::DatacenterReachable { datacenter } => self.unreachable.remove(datacenter),
            Event::PeerChanged { .. }
            | Event::PeerReturned { .. }
            | Event::PeerRemoved { .. }
            | Event::PeerRevoked { .. }
            | Event::Error(_) => true,
        }
    }

    fn enters(&mut self, peer: &NodeId, state: PeerState) -> bool {
        self.peer(peer).state.replace(state) != Some(state)
    }

    fn peer(&mut self, peer: &NodeId) -> &mut ToldPeer {
        self.peers.entry(peer.clone()).or_default()
    }
}

fn state_event(peer: &NodeId, state: PeerState, snapshot: &Snapshot) -> Option<Event> {
    let last = snapshot.why(peer).and_then(|history| history.last_change());
    let reason = last.filter(|last| last.to == state).map(|last| Arc::clone(&last.reason));
    let reason = reason.unwrap_or_else(|| Arc::new(Reason::of(Cause::Vouched)));
    let peer = peer.clone();
    match state {
        PeerState::Unheard | PeerState::Unreachable => None,
        PeerState::Live => Some(Event::PeerLive { peer, reason }),
        PeerState::Suspect => Some(Event::PeerSuspect { peer, reason }),
        PeerState::Dead => Some(Event::PeerDead { peer, reason }),
        PeerState::Left => Some(Event::PeerLeft { peer, reason }),
    }
}

fn tell_keys(
    peer: &NodeId,
    generation: Generation,
    old: &OrdMap<Key, Entry>,
    new: &OrdMap<Key, Entry>,
    snapshot: &Snapshot,
    events: &mut Vec<Event>,
) {
    for (key, entry) in new {
        let before = old.get(key).and_then(|entry| entry.visible(snapshot.now));
        if let Some(value) = entry.visible(snapshot.now).filter(|value| before != Some(*value)) {
            let (peer, key, value) = (peer.clone(), key.clone(), value.clone());
            let version = entry.version;
            events.push(Event::Updated { peer, key, value, generation, version });
        }
    }
    for (key, entry) in old.iter().filter(|(_, entry)| !entry.is_tombstone()) {
        let now = new.get(key);
        if now.is_none_or(Entry::is_tombstone) {
            let version = now.unwrap_or(entry).version;
            let (peer, key) = (peer.clone(), key.clone());
            events.push(Event::Deleted { peer, key, generation, version });
        }
    }
}
