//! One connection per peer: which there is, which of two stays, who is being dialed.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use quinn::Connection;
use tokio::sync::{Notify, watch};

use super::{
    close::Close,
    conduct::Conduct,
    expiry::Proof,
    frames::Room,
    life::{RENEWALS, frames_received},
};
use crate::{
    protocol::{
        gossip::Gossip,
        id::{Generation, NodeId},
        overlay,
        revocation::{Revocations, date},
        route::{Counter, Sign},
        time::Time,
    },
    tls::{Rejection, Tls},
    transport::{
        Met, NodeLink,
        gossip::{self, Outbox},
        quic::peer,
        share::Share,
    },
};

/// A connection to a peer that has introduced itself.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) connection: Connection,
    node: NodeId,
    generation: AtomicU64,
    pub(super) dialed: bool,
    pub(super) proof: Proof,
    pub(super) room: Room,
    /// What the peer may use up, over all of its connections.
    pub(super) share: Arc<Share>,
    conduct: Arc<Conduct>,
    pub(super) outbox: Outbox,
    /// Frames received when that was last asked for.
    received: AtomicU64,
    /// A heartbeat of ours may not have been acknowledged yet.
    expecting: AtomicBool,
    /// When the first of those was sent, in microseconds since the origin; 0 if there is none.
    unanswered: AtomicU64,
    /// When the last heartbeat came, in microseconds since the origin, and what was told of that.
    beaten: AtomicU64,
    beaten_told: AtomicU64,
    /// How slow the peer finds itself.
    health: AtomicU8,
    /// Packets sent and lost when that was last asked for, and the part that was lost, in millionths.
    packets: [AtomicU64; 2],
    loss: AtomicU64,
    /// The generation of this node that the peer was told, and how often it is still to be told.
    told: AtomicU64,
    renewals: AtomicU32,
    /// Exchanges under way on this connection, and the end of the last one.
    exchanges: AtomicU32,
    idle: Notify,
}

/// An exchange under way; over when dropped.
#[derive(Debug)]
pub(super) struct Underway(Arc<Link>);

impl Drop for Underway {
    fn drop(&mut self) {
        if self.0.exchanges.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

impl Link {
    /// `own`: the generation that this node has introduced itself with.
    pub(super) fn new(
        node: &NodeLink,
        connection: Connection,
        met: Met,
        own: Generation,
        dialed: bool,
        (room, share, conduct): (Room, Arc<Share>, Arc<Conduct>),
        proof: Proof,
    ) -> Self {
        Self {
            connection,
            generation: AtomicU64::new(met.generation.0),
            dialed,
            room,
            share,
            conduct,
            outbox: Outbox::new(node, met.node.clone(), &proof.datacenter(node, &met.node)),
            node: met.node,
            proof,
            received: AtomicU64::new(0),
            expecting: AtomicBool::new(false),
            unanswered: AtomicU64::new(0),
            beaten: AtomicU64::new(0),
            beaten_told: AtomicU64::new(0),
            health: AtomicU8::new(0),
            packets: [AtomicU64::new(0), AtomicU64::new(0)],
            loss: AtomicU64::new(0),
            told: AtomicU64::new(own.0),
            renewals: AtomicU32::new(0),
            exchanges: AtomicU32::new(0),
            idle: Notify::new(),
        }
    }

    pub(super) const fn node(&self) -> &NodeId {
        &self.node
    }

    pub(super) fn met(&self) -> Met {
        let generation = Generation(self.generation.load(Ordering::Relaxed));
        Met { node: self.node.clone(), generation }
    }

    /// What generation the peer has taken on this connection; says whether it is a later one.
    pub(super) fn raise(&self, generation: Generation) -> bool {
        self.generation.fetch_max(generation.0, Ordering::Relaxed) < generation.0
    }

    /// A heartbeat came.
    pub(super) fn beaten(&self, at: Time) {
        self.beaten.store(micros(at), Ordering::Relaxed);
    }

    /// Whether the peer finds itself slower or faster than it said before.
    pub(super) fn takes_health(&self, health: u8) -> bool {
        self.health.swap(health, Ordering::Relaxed) != health
    }

    /// A heartbeat of ours is on its way: the acknowledgement is to be looked for.
    pub(super) fn expect(&self, now: Time) {
        let received = frames_received(&self.connection.stats());
        if self.received.swap(received, Ordering::Relaxed) != received {
            self.unanswered.store(0, Ordering::Relaxed);
        }
        self.expecting.store(true, Ordering::Relaxed);
        let first = |at| (at == 0).then(|| micros(now).max(1));
        let _ = self.unanswered.fetch_update(Ordering::Relaxed, Ordering::Relaxed, first);
    }

    /// Whether heartbeats of ours have waited for an answer for so long that a new connection is
    /// likely to give one sooner.
    pub(super) fn is_stale(&self, node: &NodeLink) -> bool {
        let since = self.unanswered.load(Ordering::Relaxed);
        // What has come since the connections were last looked at counts as well.
        since > 0
            && node.now().since(Time::from_origin(Duration::from_micros(since)))
                >= node.config().gossip_interval * STALE_INTERVALS
            && frames_received(&self.connection.stats()) == self.received.load(Ordering::Relaxed)
    }

    /// What was received since the last call, and when. The connection itself is asked only if an
    /// acknowledgement is due or no heartbeat has come for an interval, or if `all` are: that costs
    /// more than all else here.
    pub(super) fn progress(
        &self,
        now: Time,
        interval: Duration,
        all: bool,
    ) -> Option<(Sign, Time)> {
        let mut progressed = false;
        let beaten = Time::from_origin(Duration::from_micros(self.beaten.load(Ordering::Relaxed)));
        let due = self.expecting.load(Ordering::Relaxed)
            || (!self.dialed && now.since(beaten) >= interval);
        if all || due {
            let received = frames_received(&self.connection.stats());
            progressed = self.received.swap(received, Ordering::Relaxed) != received;
            if progressed {
                self.expecting.store(false, Ordering::Relaxed);
                self.unanswered.store(0, Ordering::Relaxed);
            }
        }
        let beaten = self.beaten.load(Ordering::Relaxed);
        if self.beaten_told.swap(beaten, Ordering::Relaxed) != beaten {
            return Some((Sign::Heartbeat, Time::from_origin(Duration::from_micros(beaten))));
        }
        progressed.then_some((Sign::Traffic, now))
    }

    /// The part of our packets that was lost lately, if it is not what it was when last asked for.
    pub(super) fn measure_loss(&self) -> Option<f64> {
        let path = self.connection.stats().path;
        let since = |at: usize, count: u64| {
            count - self.packets[at].swap(count, Ordering::Relaxed).min(count)
        };
        let (sent, lost) = (since(0, path.sent_packets), since(1, path.lost_packets));
        if sent == 0 {
            return None;
        }
        let before = self.loss.load(Ordering::Relaxed) as f64 / 1e6;
        let weight = (sent as f64 / LOSS_PACKETS).min(1.0);
        let after = before + ((lost as f64 / sent as f64).min(1.0) - before) * weight;
        self.loss.store((after * 1e6) as u64, Ordering::Relaxed);
        ((after - before).abs() > LOSS_STEP).then_some(after)
    }

    /// Whether the peer is to be told this generation of ours (once more).
    pub(super) fn is_to_be_told(&self, own: Generation) -> bool {
        if self.told.swap(own.0, Ordering::Relaxed) != own.0 {
            self.renewals.store(RENEWALS, Ordering::Relaxed);
        }
        let left = self.renewals.load(Ordering::Relaxed);
        self.renewals.store(left.saturating_sub(1), Ordering::Relaxed);
        left > 0
    }

    /// An exchange begins: the connection is not to be closed in the middle of it.
    pub(super) fn begin(self: &Arc<Self>) -> Underway {
        self.exchanges.fetch_add(1, Ordering::AcqRel);
        Underway(Arc::clone(self))
    }

    /// Waits until no exchange is under way.
    pub(super) async fn idle(&self) {
        loop {
            let mut ended = pin!(self.idle.notified());
            ended.as_mut().enable();
            if self.exchanges.load(Ordering::Acquire) == 0 {
                return;
            }
            ended.await;
        }
    }

    /// Ends the connection with a peer that does not keep to the protocol, and turns it away for a
    /// while.
    pub(super) fn cut_off(&self, node: &NodeLink, why: &impl fmt::Display) {
        let why = why.to_string();
        if !self.is_open() {
            // Several streams may say so at once.
            return;
        }
        node.cut(&self.node, false, "misbehaviour", format!("cut off: {why}"));
        self.conduct.bar(&self.node, node.now(), node.config().quic.bar, &why);
        node.cut_off(&self.node, &why);
        Close::Misbehaviour.connection(&self.connection, &why);
    }

    /// Something of the peer was dropped, since it was beyond a limit; who goes on is cut off.
    pub(super) fn throttle(&self, node: &NodeLink, what: &str) {
        node.count(Counter::FramesThrottled);
        self.hold_against(node, 1, what);
    }

    /// The peer has used up so much of what may be dropped of it; who has used up all is cut off.
    pub(super) fn hold_against(&self, node: &NodeLink, price: u32, what: &str) {
        if self.conduct.throttled(&self.node, node.now(), price) {
            self.cut_off(node, &format!("{what}, again and again"));
        }
    }

    /// Closes the connection if the certificate that the peer has shown was revoked since; says whether.
    /// The statement goes with the close, since what else was on its way is dropped with it.
    pub(super) fn close_if_revoked(
        &self,
        node: &NodeLink,
        tls: &Tls,
        revoked: &Revocations,
    ) -> bool {
        let Some(cutoff) = revoked.cutoff(&self.node) else { return false };
        let certificate = peer::peer_certificate(&self.connection);
        if !certificate.is_ok_and(|certificate| tls.is_revoked(&self.node, &certificate)) {
            return false;
        }
        if self.is_open() {
            let statement = revoked.of(&self.node).max_by_key(|statement| statement.cutoff);
            Close::revoked(&self.connection, cutoff, statement);
            let reason = format!("cut off: its certificates of until {} are revoked", date(cutoff));
            node.cut(&self.node, false, Rejection::Revoked.as_str(), reason);
        }
        true
    }

    fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        self.connection.stable_id() == other.connection.stable_id()
    }
}

/// The connections of one node, by peer. It outlives the transport's actor.
#[derive(Debug, Default)]
pub(super) struct Table {
    inner: Mutex<Inner>,
    /// Changes with every connection that comes or goes.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    links: BTreeMap<NodeId, Arc<Link>>,
    /// Who is being dialed, and by what the one who does so is told to begin anew.
    dialing: BTreeMap<NodeId, Arc<Notify>>,
    /// Those that were renewed, as long as they are open: of each peer the last one.
    retired: BTreeMap<NodeId, Weak<Link>>,
}

/// What came of a connection that has just been introduced.
#[derive(Debug)]
pub(super) enum Registered {
    /// It is the connection to this peer from now on.
    Kept(Arc<Link>),
    /// It takes the place of the second, which has carried the same two until now, with certificates
    /// that are not the present ones. What is on its way on that one is not lost.
    Renewed(Arc<Link>, Arc<Link>),
    /// There was one already, which stays.
    Duplicate(Arc<Link>),
    /// The peer is of a life that has ended.
    Stale,
    /// The connection has ended already; whatever there is stays.
    Ended,
}

impl Table {
    pub(super) fn link(&self, peer: &NodeId) -> Option<Arc<Link>> {
        self.lock().links.get(peer).filter(|link| link.is_open()).cloned()
    }

    /// Whether this is the connection to its peer, and not one that was replaced.
    pub(super) fn is_current(&self, link: &Link) -> bool {
        self.lock().links.get(&link.node).is_some_and(|known| known.is(link))
    }

    /// The connection to a peer, unless it has waited for too long: then another one is better.
    pub(super) fn fresh(&self, node: &NodeLink, peer: &NodeId) -> Option<Arc<Link>> {
        self.link(peer).filter(|link| !link.is_stale(node))
    }

    /// A connection that this node dialed to an address.
    pub(super) fn dialed_at(&self, node: &NodeLink, address: SocketAddr) -> Option<Arc<Link>> {
        let there = |link: &&Arc<Link>| {
            link.dialed
                && link.is_open()
                && link.connection.remote_address() == address
                && !link.is_stale(node)
        };
        self.lock().links.values().find(there).cloned()
    }

    /// Tells of all connections, and gives them: an actor has started anew. Those that ended while
    /// nobody served them are dropped.
    pub(super) fn tell(&self, node: &NodeLink) -> Vec<Arc<Link>> {
        let mut inner = self.lock();
        inner.links.retain(|_, link| {
            let open = link.is_open();
            node.linked(&link.node, open, link.dialed);
            open
        });
        inner.links.values().inspect(|link| link.outbox.tell(node)).cloned().collect()
    }

    /// Tells of the connection to a peer, if there is one; says whether.
    pub(super) fn tell_one(&self, node: &NodeLink, peer: &NodeId) -> bool {
        let inner = self.lock();
        let link = inner.links.get(peer).filter(|link| link.is_open());
        link.inspect(|link| node.linked(peer, true, link.dialed)).is_some()
    }

    /// All connections with introduced peers, those included that another one has taken the place of.
    pub(super) fn all(&self) -> Vec<Arc<Link>> {
        let inner = self.lock();
        let retired = inner.retired.values().filter_map(Weak::upgrade);
        inner.links.values().cloned().chain(retired).collect()
    }

    /// Looks at all connections.
    pub(super) fn for_each(&self, mut look: impl FnMut(&Link)) {
        self.lock().links.values().for_each(|link| look(link));
    }

    /// Tells these peers, as far as they are connected.
    pub(super) fn gossip(&self, node: &NodeLink, to: &[NodeId], gossip: &Gossip) {
        let inner = self.lock();
        let links = to.iter().filter_map(|peer| inner.links.get(peer));
        gossip::tell(node, gossip, links.map(|link| &link.outbox));
    }

    /// Both ends come to the same choice: the later life of the peer, else the connection dialed by
    /// the lesser name.
    pub(super) fn register(&self, node: &NodeLink, link: Link) -> Registered {
        let link = Arc::new(link);
        let mut inner = self.lock();
        if !link.is_open() {
            // The peer may have closed it in favour of the one we have.
            return Registered::Ended;
        }
        if let Some(old) = inner.links.get(&link.node).filter(|old| old.is_open()) {
            let (new_life, old_life) = (link.met().generation, old.met().generation);
            if new_life < old_life {
                Close::outlived(&link.connection, old_life);
                return Registered::Stale;
            }
            if new_life > old_life {
                // If the earlier life still runs, it is a twin, and has to learn of this one.
                Close::outlived(&old.connection, new_life);
            }
            // On one that is silent what is on its way may well be lost.
            let renewed = old.dialed == link.dialed && old.proof != link.proof;
            if new_life == old_life && renewed && !old.is_stale(node) {
                let old = Arc::clone(old);
                inner.retired.retain(|_, link| link.strong_count() > 0);
                let before = inner.retired.insert(link.node.clone(), Arc::downgrade(&old));
                // A peer that renews again while the one before is on its way to its end gives that up.
                if let Some(before) = before.and_then(|before| before.upgrade()) {
                    Close::Duplicate.connection(&before.connection, REPLACED);
                }
                inner.links.insert(link.node.clone(), Arc::clone(&link));
                drop(inner);
                self.changed.send_modify(|count| *count += 1);
                return Registered::Renewed(link, old);
            }
            let keeps_old =
                overlay::keeps(node.node(), &link.node, old.dialed) && !old.is_stale(node);
            if new_life == old_life && old.dialed != link.dialed && keeps_old {
                Close::Duplicate.connection(&link.connection, "another connection stays");
                return Registered::Duplicate(Arc::clone(old));
            }
            Close::Duplicate.connection(&old.connection, REPLACED);
        }
        let before = inner.links.insert(link.node.clone(), Arc::clone(&link));
        // Under the lock, so that it is told in the order in which it comes about.
        if before.is_some() {
            // What was on its way on the one before is lost.
            node.linked(&link.node, false, link.dialed);
        }
        node.linked(&link.node, true, link.dialed);
        drop(inner);
        tracing::debug!(node = %node.node(), peer = %link.node, dialed = link.dialed, replaced = before.is_some(), "connected");
        self.changed.send_modify(|count| *count += 1);
        Registered::Kept(link)
    }

    /// The connection is gone.
    pub(super) fn remove(&self, node: &NodeLink, link: &Link) {
        let mut inner = self.lock();
        if inner.links.get(&link.node).is_some_and(|known| known.is(link)) {
            inner.links.remove(&link.node);
            node.linked(&link.node, false, link.dialed);
        }
        drop(inner);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Claims the right to dial a peer; `None` if somebody does so already.
    pub(super) fn dialing<'a>(&'a self, peer: &NodeId) -> Option<Dialing<'a>> {
        match self.lock().dialing.entry(peer.clone()) {
            Entry::Occupied(_) => None,
            Entry::Vacant(entry) => {
                let hurry = Arc::clone(entry.insert(Arc::default()));
                Some(Dialing { table: self, peer: peer.clone(), hurry })
            }
        }
    }

    /// Has whoever dials a peer begin anew; says whether somebody does.
    pub(super) fn hurry(&self, peer: &NodeId) -> bool {
        let inner = self.lock();
        inner.dialing.get(peer).inspect(|hurry| hurry.notify_waiters()).is_some()
    }

    /// Waits until nobody dials the peer any more.
    pub(super) async fn dialed(&self, peer: &NodeId) {
        let mut changed = self.changed.subscribe();
        while self.lock().dialing.contains_key(peer) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing under the lock can panic half way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to dial a peer; given back when dropped.
#[derive(Debug)]
pub(super) struct Dialing<'a> {
    table: &'a Table,
    peer: NodeId,
    /// Tells that the peer is known to live, so that a handshake which has waited for an answer is
    /// better begun anew.
    pub(super) hurry: Arc<Notify>,
}

impl Drop for Dialing<'_> {
    fn drop(&mut self) {
        self.table.lock().dialing.remove(&self.peer);
        self.table.changed.send_modify(|count| *count += 1);
    }
}

fn micros(at: Time) -> u64 {
    u64::try_from(at.since_origin().as_micros()).unwrap_or(u64::MAX)
}

/// Why a connection is closed that another one has taken the place of.
pub(super) const REPLACED: &str = "replaced by another connection";
/// A connection on which nothing has come for so many intervals though something was to. QUIC tries
/// less and less often then, and after an outage of ten seconds may be silent for ten more.
const STALE_INTERVALS: u32 = 2;
/// The weight of a look at the loss is its packets in so many: about a minute of heartbeats.
const LOSS_PACKETS: f64 = 120.0;
/// A change of the loss that is worth telling.
const LOSS_STEP: f64 = 0.002;
