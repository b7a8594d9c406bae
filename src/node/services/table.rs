//! The connections for calls, and the offers of one node.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::{
    caller::CallerName,
    lane::Lane,
    link::Link,
    offered::{Entry, Offered, Offers},
    watched::Watched,
};
use crate::{
    clock::Clock,
    net::Connection,
    protocol::{
        id::{Generation, NodeId},
        service::{
            ServiceId,
            back_off::BackOff,
            calls::LaneLimits,
            directory::Gone,
            frame::Frame,
            introduction::Reuse,
            limits::ServiceLimits,
            link_end::LinkEnd,
            manifest::{self, Manifest, OFFERS_MAX},
        },
        time::Time,
    },
    slot::Slot,
    tls::{CertificateSummary, Tls},
};

/// What one node offers and calls.
#[derive(Debug)]
pub(crate) struct Services {
    limits: ServiceLimits,
    /// Who offers what.
    pub(crate) watched: Watched,
    offers: ArcSwap<Offers>,
    offering: Mutex<Offering>,
    /// How many changes of the offers are announced.
    announced: Slot<Announced>,
    /// One announcement at a time.
    pub(crate) announcing: tokio::sync::Mutex<()>,
    out: Mutex<Out>,
    inbound: Mutex<Inbound>,
    /// A connection that another node has dialed has ended.
    left: Notify,
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
    draining: bool,
    /// How often each service was offered.
    epochs: BTreeMap<ServiceId, u32>,
    /// How often the offers have changed.
    changes: u64,
}

/// The connections that this node has dialed, or dials.
#[derive(Debug, Default)]
struct Out {
    links: BTreeMap<NodeId, Arc<Link>>,
    back_off: BackOff,
}

/// The connections that others have dialed.
#[derive(Debug, Default)]
struct Inbound {
    next: u64,
    open: BTreeMap<u64, Guest>,
    by_caller: BTreeMap<CallerName, usize>,
    /// This node drains: it admits no further caller.
    closed: bool,
}

/// A connection that another node or a client has dialed.
#[derive(Debug)]
struct Guest {
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

/// A link, and whether it must be dialed.
pub(crate) enum Found {
    Open(Arc<Link>),
    ToDial(Arc<Link>),
}

/// Why a service is not offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotOffered {
    /// This node offers it already.
    Taken,
    /// It offers as many as it may.
    TooMany,
    /// It takes no new requests any more.
    Draining,
}

/// Why there is no link.
#[derive(Debug)]
pub(crate) enum NoLink {
    /// The last dials have failed, and it is too early for the next one.
    BackOff(String),
    /// As many connections as allowed are in use.
    TooMany,
}

impl Services {
    pub(crate) fn new(limits: ServiceLimits) -> Self {
        Self {
            limits,
            watched: Watched::default(),
            offers: ArcSwap::default(),
            offering: Mutex::default(),
            announced: Slot::default(),
            announcing: tokio::sync::Mutex::default(),
            out: Mutex::default(),
            inbound: Mutex::default(),
            left: Notify::new(),
        }
    }

    pub(crate) const fn limits(&self) -> &ServiceLimits {
        &self.limits
    }

    fn out(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inbound(&self) -> MutexGuard<'_, Inbound> {
        self.inbound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The link to a node in a generation.
    pub(crate) fn link(
        &self,
        peer: &NodeId,
        generation: Generation,
        clock: Clock,
    ) -> Result<Found, NoLink> {
        let mut out = self.out();
        if let Some(link) = out.links.get(peer).filter(|link| !link.has_ended()) {
            match Reuse::of(link.generation, generation) {
                Reuse::Yes => return Ok(Found::Open(Arc::clone(link))),
                Reuse::No => {}
                Reuse::Restarted => return Err(NoLink::BackOff(Gone::Restarted.to_string())),
            }
        }
        let now = clock.now();
        if let Some(why) = out.back_off.refuses(now, peer) {
            return Err(NoLink::BackOff(why.to_owned()));
        }
        if out.links.len() >= self.limits.connections_out && !out.make_room() {
            return Err(NoLink::TooMany);
        }
        let limits = LaneLimits {
            calls: self.limits.calls_per_link,
            queue_bytes: self.limits.lane_queue_bytes,
        };
        let link = Arc::new(Link::new(peer.clone(), generation, limits, clock));
        let before = out.links.insert(peer.clone(), Arc::clone(&link));
        drop(out);
        if let Some(before) = before {
            before.end(LinkEnd::Gone(Gone::Restarted));
        }
        // A verdict since the caller has picked the node has not found the link.
        if let Some(why) = self.watched.ended(peer, generation) {
            link.end(LinkEnd::Gone(why));
            self.remove(&link);
            return Ok(Found::Open(link));
        }
        Ok(Found::ToDial(link))
    }

    /// The node was reached, or not.
    pub(super) fn dialed(&self, link: &Link, now: Time, failed: Option<&str>) {
        let mut out = self.out();
        match failed {
            Some(why) => out.back_off.failed(now, &link.peer, why),
            None => out.back_off.forget(&link.peer),
        }
    }

    /// A sign of life of a node: the next call dials it at once.
    pub(super) fn forget_failures(&self, peer: &NodeId) {
        self.out().back_off.forget(peer);
    }

    /// Removes an ended link.
    pub(super) fn remove(&self, link: &Arc<Link>) {
        let mut out = self.out();
        if out.links.get(&link.peer).is_some_and(|present| Arc::ptr_eq(present, link)) {
            out.links.remove(&link.peer);
        }
    }

    /// A node serves no call of this or an earlier generation any more.
    pub(super) fn end_peer(&self, peer: &NodeId, generation: Generation, why: &LinkEnd) {
        let link = self.out().links.get(peer).cloned();
        if let Some(link) = link.filter(|link| link.generation <= generation) {
            link.end(why.clone());
        }
        let name = CallerName::Node(peer.clone());
        let inbound = self.inbound();
        let of_it = |guest: &&Guest| guest.name == name && guest.generation <= generation;
        let lanes = inbound.open.values().filter(of_it).map(|guest| Arc::clone(&guest.lane));
        let lanes: Vec<_> = lanes.collect();
        drop(inbound);
        lanes.iter().for_each(|lane| lane.end());
    }

    /// Ends the link to a node; returns whether there was one.
    pub(super) fn disconnect(&self, peer: &NodeId, why: &LinkEnd) -> bool {
        let link = self.out().links.remove(peer);
        link.inspect(|link| link.end(why.clone())).is_some()
    }

    /// Ends everything: this node ends.
    pub(crate) fn end_all(&self) {
        let links = std::mem::take(&mut self.out().links);
        links.into_values().for_each(|link| link.end(LinkEnd::Stopped));
        let guests = std::mem::take(&mut self.inbound().open);
        guests.into_values().for_each(|guest| guest.lane.end());
    }

    /// Ends the connections with nodes whose certificates were revoked, and all calls over them.
    pub(crate) fn close_revoked(&self, tls: &Tls) {
        let links: Vec<_> = self.out().links.values().cloned().collect();
        for link in links {
            let connection = link.connection();
            if connection.is_some_and(|connection| is_revoked(tls, connection.as_ref())) {
                link.end(LinkEnd::Revoked);
            }
        }
        let guests: Vec<_> = {
            let inbound = self.inbound();
            let guests = inbound.open.values();
            guests.map(|guest| (Arc::clone(&guest.connection), Arc::clone(&guest.lane))).collect()
        };
        for (connection, lane) in guests {
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
        if inbound.closed
            || own >= self.limits.connections_per_peer
            || inbound.open.len() >= self.limits.connections_in
        {
            return None;
        }
        inbound.by_caller.insert(name.clone(), own + 1);
        let number = inbound.next;
        inbound.next += 1;
        let (connection, lane) = (Arc::clone(connection), Arc::clone(lane));
        inbound.open.insert(number, Guest { name, generation, connection, lane });
        Some(Place { services: Arc::downgrade(self), number })
    }

    /// Admits no caller from now on, and asks those that are there to close their connections once all that they have
    /// sent is answered.
    pub(super) fn close_lanes(&self) {
        let mut inbound = self.inbound();
        inbound.closed = true;
        inbound.open.values().for_each(|guest| guest.lane.say(&Frame::Drain));
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
        offering.changes += 1;
        let offers = self.offers.load();
        (offering.changes, offers.values().map(|entry| Arc::clone(&entry.offered)).collect())
    }

    /// Whether nothing is offered.
    pub(crate) fn offers_nothing(&self) -> bool {
        self.offers.load().is_empty()
    }

    /// What is announced now, and the number of the last change in it.
    pub(crate) fn manifest(&self) -> (u64, Manifest) {
        let offering = self.offering();
        let offers = self.offers.load();
        let offers: Vec<_> = offers.values().map(|entry| entry.announced.clone()).collect();
        let draining = offering.draining && !offers.is_empty();
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

    /// An offer of this node.
    pub(crate) fn offer(&self, id: &ServiceId) -> Option<Arc<dyn Offered>> {
        self.offers.load().get(id).map(|entry| Arc::clone(&entry.offered))
    }

    fn offering(&self) -> MutexGuard<'_, Offering> {
        self.offering.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Out {
    /// Ends the link that has been idle for longest; returns whether there is one.
    fn make_room(&mut self) -> bool {
        let idle = self.links.values().filter_map(|link| Some((link.idle_since()?, link)));
        let Some(link) = idle.min_by_key(|(since, _)| *since).map(|(_, link)| Arc::clone(link))
        else {
            return false;
        };
        self.links.remove(&link.peer);
        link.end(LinkEnd::Idle);
        true
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
        let Some(guest) = inbound.open.remove(&self.number) else { return };
        services.left.notify_waiters();
        if let Some(own) = inbound.by_caller.get_mut(&guest.name) {
            *own -= 1;
            if *own == 0 {
                inbound.by_caller.remove(&guest.name);
            }
        }
    }
}
