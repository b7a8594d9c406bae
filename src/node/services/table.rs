//! The connections over which others call this node, and its offers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::Notify;

use super::{
    audit::Audit,
    built_in::BuiltIn,
    caller::CallerName,
    callers::Callers,
    exposed::{Exposed, Numbered},
    lane::Lane,
    offered::{Entry, Offered, Offers},
    outbound::Outbound,
    rates::Rates,
    room::{Arriving, Rooms, Unsent},
    tags::Tags,
};
use crate::{
    ambient::Ambient,
    clock::Clock,
    net::Connection,
    protocol::{
        id::{Datacenter, Generation, NodeId},
        service::{
            ServiceId,
            exposed::{EXPOSED, number},
            frame::Frame,
            limits::ServiceLimits,
            link_end::LinkEnd,
            manifest::{self, Manifest, NAMES_MAX, OFFERS_MAX},
        },
    },
    slot::Slot,
    tls::{CertificateSummary, Tls},
};

/// What one node offers and calls.
#[derive(Debug)]
pub(crate) struct Services {
    /// How this node calls others.
    pub(crate) outbound: Arc<Outbound>,
    offers: ArcSwap<Offers>,
    offering: Mutex<Offering>,
    /// How many changes of the offers are announced.
    announced: Slot<Announced>,
    /// One announcement at a time.
    pub(crate) announcing: tokio::sync::Mutex<()>,
    /// Which refusals are logged.
    pub(crate) audit: Audit,
    /// What each caller may send in a second.
    pub(super) rates: Rates,
    /// Who calls the offers of this node.
    pub(crate) callers: Callers,
    /// The actors that are called by number.
    pub(crate) exposed: Exposed,
    inbound: Mutex<Inbound>,
    /// A connection that another node has dialed has ended.
    left: Notify,
    /// The directory for clients.
    pub(crate) built_in: BuiltIn,
    /// This node takes no new requests.
    drains: Slot<()>,
    /// Room for long questions.
    questions: Arriving,
    /// Long answers that wait to be sent.
    pub(super) unsent: Arc<Unsent>,
}

/// The last announcement.
#[derive(Clone, Debug)]
struct Announced {
    /// The last change in it.
    number: u64,
    refused: Option<String>,
}

/// What is announced beside the offers.
#[derive(Debug, Default)]
struct Offering {
    /// The node ends.
    draining: bool,
    /// An operator wants no new calls here.
    maintained: bool,
    /// How often each service was offered.
    epochs: BTreeMap<ServiceId, u32>,
    /// How often the offers have changed.
    changes: u64,
}

/// The connections that others have dialed.
#[derive(Debug, Default)]
struct Inbound {
    next: u64,
    open: BTreeMap<u64, Incoming>,
    by_caller: BTreeMap<CallerName, usize>,
    /// Those of clients.
    clients: usize,
    /// This node drains: it admits no further caller.
    closed: bool,
}

/// A connection that another node or a client has dialed.
#[derive(Debug)]
struct Incoming {
    name: CallerName,
    generation: Generation,
    connection: Arc<dyn Connection>,
    lane: Arc<Lane>,
}

/// One of the places for inbound connections; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    services: Weak<Services>,
    number: u64,
}

/// What a request or message is for.
#[derive(Debug)]
pub(crate) enum Called {
    Found(Arc<dyn Offered>),
    /// A service that the node does not offer.
    NotOffered,
    /// An exposed actor that has ended.
    Ended,
    /// A number that no exposed actor is known to have had.
    Guessed,
}

/// Why a service is not offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotOffered {
    /// This node offers it already.
    Taken,
    /// It offers as many as it may.
    TooMany,
    /// Its offers name as many clients as they may.
    TooManyClients,
    /// It takes no new requests any more.
    Draining,
}

impl Services {
    /// `home`: the datacenter of this node.
    pub(crate) fn new(
        limits: ServiceLimits,
        (clock, ambient): (Clock, Ambient),
        home: Datacenter,
    ) -> Self {
        Self {
            outbound: Arc::new(Outbound::new(limits, (clock, ambient), Tags::from(1), Some(home))),
            offers: ArcSwap::default(),
            offering: Mutex::default(),
            announced: Slot::default(),
            announcing: tokio::sync::Mutex::default(),
            audit: Audit::default(),
            rates: Rates::new(limits.rates, clock),
            callers: Callers::default(),
            exposed: Exposed::default(),
            inbound: Mutex::default(),
            left: Notify::new(),
            built_in: BuiltIn::default(),
            drains: Slot::default(),
            questions: Arriving::new(limits.room_bytes, limits.request_bytes),
            unsent: Unsent::new(limits.room_bytes, limits.reply_bytes),
        }
    }

    /// Room for the long questions of one caller.
    pub(crate) fn questions(&self, of: CallerName) -> Rooms {
        self.questions.of(of)
    }

    pub(crate) fn limits(&self) -> &ServiceLimits {
        self.outbound.limits()
    }

    fn inbound(&self) -> MutexGuard<'_, Inbound> {
        self.inbound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node serves no call of this or an earlier generation any more.
    pub(super) fn end_peer(&self, peer: &NodeId, generation: Generation, why: &LinkEnd) {
        self.outbound.end_peer(peer, generation, why);
        let name = CallerName::Node(peer.clone());
        let inbound = self.inbound();
        let of_it =
            |incoming: &&Incoming| incoming.name == name && incoming.generation <= generation;
        let lanes = inbound.open.values().filter(of_it).map(|incoming| Arc::clone(&incoming.lane));
        let lanes: Vec<_> = lanes.collect();
        drop(inbound);
        lanes.iter().for_each(|lane| lane.end());
    }

    /// Ends everything: this node ends.
    pub(crate) fn end_all(&self) {
        self.outbound.end_all();
        let all = std::mem::take(&mut self.inbound().open);
        all.into_values().for_each(|incoming| incoming.lane.end());
    }

    /// Ends the connections with nodes whose certificates were revoked, and all calls over them.
    pub(crate) fn close_revoked(&self, tls: &Tls) {
        self.outbound.end_revoked(|connection| is_revoked(tls, connection));
        let all: Vec<_> = {
            let inbound = self.inbound();
            let all = inbound.open.values();
            all.map(|incoming| (Arc::clone(&incoming.connection), Arc::clone(&incoming.lane)))
                .collect()
        };
        for (connection, lane) in all {
            if is_revoked(tls, connection.as_ref()) {
                lane.end();
            }
        }
    }

    /// Takes a place for an inbound connection; `None` if there is none for this caller.
    pub(super) fn enter(
        self: &Arc<Self>,
        name: CallerName,
        generation: Generation,
        connection: &Arc<dyn Connection>,
        lane: &Arc<Lane>,
    ) -> Option<Place> {
        let mut inbound = self.inbound();
        let own = inbound.by_caller.get(&name).copied().unwrap_or(0);
        let is_client = matches!(name, CallerName::Client(_));
        if inbound.closed
            || is_client && inbound.clients >= self.limits().client_connections_in
            || own >= self.limits().connections_per_peer
            || inbound.open.len() >= self.limits().connections_in
        {
            return None;
        }
        inbound.by_caller.insert(name.clone(), own + 1);
        inbound.clients += usize::from(is_client);
        let number = inbound.next;
        inbound.next += 1;
        let (connection, lane) = (Arc::clone(connection), Arc::clone(lane));
        inbound.open.insert(number, Incoming { name, generation, connection, lane });
        Some(Place { services: Arc::downgrade(self), number })
    }

    /// Admits no caller from now on, and asks those that are there to close their connections once all that they have
    /// sent is answered.
    pub(super) fn close_lanes(&self) {
        let mut inbound = self.inbound();
        inbound.closed = true;
        inbound.open.values().for_each(|incoming| incoming.lane.say(&Frame::Drain));
    }

    /// The connections that others have dialed.
    pub(crate) fn connections_in(&self) -> usize {
        self.inbound().open.len()
    }

    /// Waits until no other node is connected for calls.
    pub(super) async fn lanes_closed(&self) {
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            if self.inbound().open.is_empty() {
                return;
            }
            left.await;
        }
    }

    /// Adds an offer; returns the number of the change. `announced`: without its epoch.
    pub(crate) fn add(
        &self,
        id: &ServiceId,
        offered: Arc<dyn Offered>,
        mut announced: manifest::Offered,
    ) -> Result<u64, NotOffered> {
        let mut offering = self.offering();
        let mut offers = Offers::clone(&self.offers.load());
        if offering.draining {
            return Err(NotOffered::Draining);
        }
        if offers.contains_key(id) {
            return Err(NotOffered::Taken);
        }
        if offers.len() >= OFFERS_MAX {
            return Err(NotOffered::TooMany);
        }
        let all = offers.values().map(|entry| &entry.announced).chain([&announced]);
        if all.map(|offer| offer.clients.names().len()).sum::<usize>() > NAMES_MAX {
            return Err(NotOffered::TooManyClients);
        }
        let epoch = offering.epochs.entry(id.clone()).or_default();
        *epoch += 1;
        announced.epoch = *epoch;
        offers.insert(id.clone(), Entry { offered, announced });
        self.offers.store(Arc::new(offers));
        offering.changes += 1;
        Ok(offering.changes)
    }

    /// Removes an offer, if it is this one; returns the number of the change.
    pub(crate) fn withdraw(&self, id: &ServiceId, offered: &Arc<dyn Offered>) -> u64 {
        let mut offering = self.offering();
        let mut offers = Offers::clone(&self.offers.load());
        if offers.get(id).is_some_and(|entry| Arc::ptr_eq(&entry.offered, offered)) {
            offers.remove(id);
            self.offers.store(Arc::new(offers));
            offering.changes += 1;
        }
        offering.changes
    }

    /// The node takes no new calls from now on, which is to be announced; returns the number of the change, and the offers.
    pub(crate) fn drain(&self) -> (u64, Vec<Arc<dyn Offered>>) {
        let mut offering = self.offering();
        offering.draining = true;
        self.drains.set(());
        offering.changes += 1;
        let offers = self.offers.load();
        let announced = offers.values().map(|entry| Arc::clone(&entry.offered));
        (offering.changes, announced.chain(self.exposed.close()).collect())
    }

    /// Whether other nodes are to prefer other providers, which is to be announced; returns the number of the change.
    pub(crate) fn maintain(&self, on: bool) -> u64 {
        let mut offering = self.offering();
        if offering.maintained != on {
            offering.maintained = on;
            offering.changes += 1;
        }
        offering.changes
    }

    /// Waits until this node takes no new requests.
    pub(crate) async fn drains(&self) {
        self.drains.wait().await;
    }

    /// Whether a client may call an offer of this node.
    pub(super) fn admits_clients(&self) -> bool {
        self.offers.load().values().any(|entry| !entry.announced.clients.is_none())
    }

    /// Whether nothing is offered.
    pub(crate) fn offers_nothing(&self) -> bool {
        self.offers.load().is_empty() && self.exposed.is_empty()
    }

    /// What is announced now, and the number of the last change in it.
    pub(crate) fn manifest(&self) -> (u64, Manifest) {
        let offering = self.offering();
        let offers = self.offers.load();
        let offers: Vec<_> = offers.values().map(|entry| entry.announced.clone()).collect();
        let draining = (offering.draining || offering.maintained) && !offers.is_empty();
        (offering.changes, Manifest { draining, offers })
    }

    /// The changes up to this number are in the node's map, unless storage has refused them.
    pub(crate) fn announced(&self, number: u64, refused: Option<String>) {
        self.announced.set(Announced { number, refused });
    }

    /// Waits until a change is in the node's map.
    ///
    /// # Errors
    /// Why storage has refused it.
    pub(crate) async fn is_announced(&self, number: u64) -> Result<(), String> {
        let announced = self.announced.wait_for(|announced| announced.number >= number).await;
        announced.refused.map_or(Ok(()), Err)
    }

    /// What a request or message is for: an offer, or the exposed actor whose number its body begins with.
    pub(crate) fn called(&self, id: &ServiceId, body: &mut Bytes) -> Called {
        if let Some(offer) = self.offer(id) {
            return Called::Found(offer);
        }
        if id.name.as_str() != EXPOSED {
            return Called::NotOffered;
        }
        match number(body).map(|number| self.exposed.find(number)) {
            Some(Numbered::Present(offered)) => Called::Found(offered),
            Some(Numbered::Ended) => Called::Ended,
            Some(Numbered::Unknown) | None => Called::Guessed,
        }
    }

    /// Whether callers may have a reason to bind it.
    pub(super) fn is_offered(&self, id: &ServiceId) -> bool {
        self.offers.load().contains_key(id) || id.name.as_str() == EXPOSED
    }

    /// An offer of this node.
    pub(crate) fn offer(&self, id: &ServiceId) -> Option<Arc<dyn Offered>> {
        self.offers.load().get(id).map(|entry| Arc::clone(&entry.offered))
    }

    fn offering(&self) -> MutexGuard<'_, Offering> {
        self.offering.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_revoked(tls: &Tls, connection: &dyn Connection) -> bool {
    let peer = connection.peer();
    let (Some(name), Some(leaf)) = (&peer.name, peer.chain.first()) else { return false };
    let certificate = CertificateSummary::from_certificate(leaf);
    certificate.is_ok_and(|certificate| tls.is_revoked(&name.node, &certificate))
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(services) = self.services.upgrade() else { return };
        let mut inbound = services.inbound();
        let Some(incoming) = inbound.open.remove(&self.number) else { return };
        services.left.notify_waiters();
        inbound.clients -= usize::from(matches!(incoming.name, CallerName::Client(_)));
        if let Some(own) = inbound.by_caller.get_mut(&incoming.name) {
            *own -= 1;
            if *own == 0 {
                inbound.by_caller.remove(&incoming.name);
            }
        }
    }
}
