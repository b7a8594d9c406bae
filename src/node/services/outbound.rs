//! How one process calls nodes: who offers what, and the connections that it has dialed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Semaphore;

use super::{
    caller::CallerName,
    figures::Figures,
    link::Link,
    pace::Abroad,
    paths::Paths,
    room::{Arriving, Rooms},
    tags::Tags,
    watched::Watched,
    window::Budget,
};
use crate::{
    ambient::Ambient,
    clock::Clock,
    net::Connection,
    protocol::{
        id::{Datacenter, Generation, NodeId},
        service::{
            back_off::BackOff,
            calls::LaneLimits,
            directory::Gone,
            introduction::{NoProcess, Purpose, Reuse},
            limits::ServiceLimits,
            link_end::LinkEnd,
        },
    },
};

/// What a process needs to call nodes.
#[derive(Debug)]
pub(crate) struct Outbound {
    limits: ServiceLimits,
    clock: Clock,
    /// The wall clock, and random numbers.
    pub(crate) ambient: Ambient,
    /// Who offers what.
    pub(crate) watched: Watched,
    /// How far other datacenters are.
    pub(crate) paths: Paths,
    /// What is counted of calls, at both ends.
    pub(crate) figures: Figures,
    /// Places for calls without an answer.
    pub(crate) in_flight: Semaphore,
    /// What it sends to other datacenters.
    pub(crate) abroad: Arc<Abroad>,
    /// What travels beside questions.
    pub(crate) tags: Tags,
    out: Mutex<Out>,
    /// Room for long answers.
    answers: Arriving,
    /// The receive windows of all connections for calls, inbound ones as well.
    windows: Arc<Budget>,
}

/// The connections that this process has dialed, or dials.
#[derive(Debug, Default)]
struct Out {
    /// By purpose.
    links: [BTreeMap<NodeId, Arc<Link>>; 2],
    /// By purpose as well: a node can have room for one connection and none for the other one.
    back_off: [BackOff; 2],
}

/// A link, and whether it must be dialed.
pub(crate) enum Found {
    Open(Arc<Link>),
    ToDial(Arc<Link>),
}

/// Why there is no link.
#[derive(Debug)]
pub(crate) enum NoLink {
    /// The node has no such process, by what membership knows.
    NoProcess(NoProcess),
    /// The last dials have failed, and it is too early for the next one.
    BackOff(String),
    /// As many connections as allowed are in use.
    TooMany,
}

impl Outbound {
    /// `home`: the datacenter of this node; `None` for a client.
    pub(crate) fn new(
        limits: ServiceLimits,
        (clock, ambient): (Clock, Ambient),
        tags: Tags,
        home: Option<Datacenter>,
    ) -> Self {
        let abroad = Abroad::new(home, clock, limits.rates.wan_bytes_per_second as u64);
        Self {
            in_flight: Semaphore::new(limits.calls_in_flight),
            abroad: Arc::new(abroad),
            limits,
            clock,
            ambient,
            watched: Watched::default(),
            figures: Figures::default(),
            paths: Paths::default(),
            tags,
            out: Mutex::default(),
            answers: Arriving::new(limits.room_bytes, limits.reply_bytes),
            windows: Budget::new(&limits),
        }
    }

    /// Room for the long answers of a node.
    pub(crate) fn answers(&self, of: &NodeId) -> Rooms {
        self.answers.of(CallerName::Node(of.clone()))
    }

    pub(crate) const fn windows(&self) -> &Arc<Budget> {
        &self.windows
    }

    pub(crate) const fn limits(&self) -> &ServiceLimits {
        &self.limits
    }

    pub(crate) const fn clock(&self) -> Clock {
        self.clock
    }

    fn out(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The link to a node in a generation.
    pub(crate) fn link(
        &self,
        peer: &NodeId,
        purpose: Purpose,
        generation: Generation,
    ) -> Result<Found, NoLink> {
        let mut out = self.out();
        let links = &out.links[purpose as usize];
        let open = links.get(peer).filter(|link| !link.has_ended());
        // Under the lock: a verdict ends the links that it finds, and no other one is added after it.
        let known = || self.watched.standing(peer, generation);
        match (Reuse::of(open.map(|link| link.generation), generation, known), open) {
            (Reuse::Keep, Some(link)) => return Ok(Found::Open(Arc::clone(link))),
            (Reuse::Refuse(why), _) => return Err(NoLink::NoProcess(why)),
            (Reuse::Keep | Reuse::Replace, _) => {}
        }
        let now = self.clock.now();
        if let Some(why) = out.back_off[purpose as usize].refuses(now, peer) {
            return Err(NoLink::BackOff(why.to_owned()));
        }
        if out.count() >= self.limits.connections_out && !out.make_room() {
            return Err(NoLink::TooMany);
        }
        let limits = LaneLimits {
            calls: self.limits.calls_per_link,
            queue_bytes: self.limits.lane_queue_bytes,
        };
        let to = (peer.clone(), purpose, generation);
        let link = Arc::new(Link::new(
            to,
            limits,
            (self.answers(peer), Arc::clone(&self.abroad)),
            (self.clock, self.ambient.clone()),
        ));
        let before = out.links[purpose as usize].insert(peer.clone(), Arc::clone(&link));
        drop(out);
        if let Some(before) = before {
            before.end(LinkEnd::Gone(Gone::Restarted));
        }
        Ok(Found::ToDial(link))
    }

    /// There is a connection to a node.
    pub(crate) fn connected(&self, connection: &Arc<dyn Connection>) {
        if let Some(datacenter) = &connection.peer().datacenter {
            self.paths.add(datacenter, connection);
        }
    }

    /// The node was not reached.
    pub(super) fn not_reached(&self, link: &Link, why: &str) {
        let now = self.clock.now();
        self.out().back_off[link.purpose as usize].failed(now, &link.peer, why);
    }

    /// A connection to the node has ended. One that was never admitted counts as a dial that has failed: a node that
    /// has no window left answers the dial, and will refuse the next one too.
    pub(super) fn ended(&self, link: &Link, why: &LinkEnd) {
        match why {
            LinkEnd::NotConnected(_) | LinkEnd::Connection(_) if !link.is_admitted() => {
                self.not_reached(link, &why.to_string());
            }
            _ => self.out().back_off[link.purpose as usize].forget(&link.peer),
        }
    }

    /// A sign of life of a node: the next call dials it at once.
    pub(crate) fn forget_failures(&self, peer: &NodeId) {
        self.out().back_off.iter_mut().for_each(|back_off| back_off.forget(peer));
    }

    /// Removes an ended link.
    pub(super) fn remove(&self, link: &Arc<Link>) {
        let mut out = self.out();
        let links = &mut out.links[link.purpose as usize];
        if links.get(&link.peer).is_some_and(|present| Arc::ptr_eq(present, link)) {
            links.remove(&link.peer);
        }
    }

    /// A node serves no call of this or an earlier generation any more.
    pub(crate) fn end_peer(&self, peer: &NodeId, generation: Generation, why: &LinkEnd) {
        let links = {
            let out = self.out();
            out.links.each_ref().map(|links| links.get(peer).cloned())
        };
        for link in links.iter().flatten().filter(|link| link.generation <= generation) {
            link.end(why.clone());
        }
    }

    /// Ends the links to a node; returns whether there was one.
    pub(super) fn disconnect(&self, peer: &NodeId, why: &LinkEnd) -> bool {
        let links = self.out().links.each_mut().map(|links| links.remove(peer));
        links.iter().flatten().for_each(|link| link.end(why.clone()));
        links.iter().any(Option::is_some)
    }

    /// Whether there is a connection to a node, and why the last dial failed if the pause after it is not over.
    pub(crate) fn state(&self, peer: &NodeId) -> (bool, Option<String>) {
        let out = self.out();
        let links = out.links.iter().filter_map(|links| links.get(peer));
        let connected = links.into_iter().any(|link| link.connection().is_some());
        let now = self.clock.now();
        let refused = out.back_off.iter().find_map(|back_off| back_off.refuses(now, peer));
        (connected, refused.map(str::to_owned))
    }

    /// The links, and the bytes that wait to be sent over them.
    pub(crate) fn usage(&self) -> (usize, usize) {
        let links: Vec<_> = self.out().links.iter().flat_map(BTreeMap::values).cloned().collect();
        (links.len(), links.iter().map(|link| link.waiting_bytes()).sum())
    }

    /// Ends all links: this process calls no node any more.
    pub(crate) fn end_all(&self) {
        let links = std::mem::take(&mut self.out().links);
        links
            .into_iter()
            .flat_map(BTreeMap::into_values)
            .for_each(|link| link.end(LinkEnd::Stopped));
    }

    /// Ends the links to nodes whose certificates were revoked.
    pub(super) fn end_revoked(&self, is_revoked: impl Fn(&dyn Connection) -> bool) {
        let links: Vec<_> = {
            let out = self.out();
            out.links.iter().flat_map(BTreeMap::values).cloned().collect()
        };
        for link in links {
            let connection = link.connection();
            if connection.is_some_and(|connection| is_revoked(connection.as_ref())) {
                link.end(LinkEnd::Revoked);
            }
        }
    }
}

impl Out {
    fn count(&self) -> usize {
        self.links.iter().map(BTreeMap::len).sum()
    }

    /// Ends the link that has been idle for longest; returns whether there is one.
    fn make_room(&mut self) -> bool {
        let links = self.links.iter().flat_map(BTreeMap::values);
        let idle = links.filter_map(|link| Some((link.idle_since()?, link)));
        let Some(link) = idle.min_by_key(|(since, _)| *since).map(|(_, link)| Arc::clone(link))
        else {
            return false;
        };
        self.links[link.purpose as usize].remove(&link.peer);
        link.end(LinkEnd::Idle);
        true
    }
}
