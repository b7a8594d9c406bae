//! What a node knows at one moment, read without a message.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    node::views::{Estimates, Histories, Lives, Maps},
    protocol::{
        entry::{Key, Value},
        id::{Datacenter, Generation, NodeId, Version},
        reason::History,
        record::{NodeRecord, Status},
        state::PeerState,
        time::Time,
        view::NodeView,
    },
};

/// Everything that one node knows: immutable, cheap to take and to clone. Expired keys are left out.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(crate) local: NodeId,
    pub(crate) now: Time,
    pub(crate) maps: Arc<Maps>,
    pub(crate) lives: Arc<Lives>,
    pub(crate) histories: Arc<Histories>,
    pub(crate) estimates: Arc<Estimates>,
    pub(crate) unreachable: Arc<BTreeSet<Datacenter>>,
}

/// One node of the cluster, as this node sees it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Member {
    /// Its name.
    pub node: NodeId,
    /// Its datacenter.
    pub datacenter: Datacenter,
    /// The addresses at which it can be dialed, best first.
    pub addresses: Vec<String>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Its liveness state.
    pub state: PeerState,
    /// How improbable its silence is, on the scale of `dead_peer_phi`; 0 for this node itself, and for
    /// peers that it does not observe itself.
    pub phi: f64,
    /// Its present generation.
    pub generation: Generation,
    /// Its last write that is known here.
    pub version: Version,
    /// The number of its keys known here, including expired ones.
    pub keys: usize,
    /// The start of its certificate's validity, as it reports; `None` if it has none.
    pub not_before: Option<SystemTime>,
    /// The end of its certificate's validity, as it reports; `None` if it has none.
    pub not_after: Option<SystemTime>,
    /// Whether this is the node that took the snapshot.
    pub local: bool,
}

/// A key that a node has set, in [`Snapshot::entries`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry<'a> {
    /// The node that owns it.
    pub node: &'a NodeId,
    /// The key.
    pub key: &'a Key,
    /// Its value.
    pub value: &'a Value,
    /// The generation of the owner's process.
    pub generation: Generation,
    /// The version of the write that set it.
    pub version: Version,
}

impl Snapshot {
    /// An empty snapshot without members, for tests of code that takes one.
    #[cfg(feature = "sim")]
    #[must_use]
    pub fn empty(local: NodeId, now: Time) -> Self {
        Self {
            local,
            now,
            maps: Arc::default(),
            lives: Arc::default(),
            histories: Arc::default(),
            estimates: Arc::default(),
            unreachable: Arc::default(),
        }
    }

    /// The node that took it.
    #[must_use]
    pub const fn local(&self) -> &NodeId {
        &self.local
    }

    /// When it was taken, on the monotonic clock of this node, like the times in [`Snapshot::why`].
    #[must_use]
    pub const fn now(&self) -> Time {
        self.now
    }

    /// All known nodes, including this one, by name.
    pub fn members(&self) -> impl Iterator<Item = Member> {
        self.maps.iter().filter_map(|(node, map)| self.describe(node, map))
    }

    /// One node.
    #[must_use]
    pub fn member(&self, node: &NodeId) -> Option<Member> {
        self.describe(node, self.maps.get(node)?)
    }

    /// All known nodes but this one.
    pub fn peers(&self) -> impl Iterator<Item = Member> {
        self.members().filter(|member| !member.local)
    }

    /// The names of the nodes that are live or suspect, this node's own included; cheaper than to
    /// describe them all.
    pub fn live(&self) -> impl Iterator<Item = &NodeId> {
        self.maps.iter().filter(|(node, map)| self.is_live(node, map)).map(|(node, _)| node)
    }

    /// Why a peer is in its present state: the latest state transitions, oldest first, each with the
    /// evidence for it. `None` if the state has not changed since the peer became known. For the age
    /// of each see [`Snapshot::now`].
    #[must_use]
    pub fn why(&self, peer: &NodeId) -> Option<&History> {
        self.histories.get(peer).map(Arc::as_ref)
    }

    /// The datacenters that cannot be reached from this one.
    #[must_use]
    pub fn unreachable_datacenters(&self) -> &BTreeSet<Datacenter> {
        &self.unreachable
    }

    /// The value of a node's key.
    #[must_use]
    pub fn get(&self, node: &NodeId, key: &str) -> Option<&Value> {
        self.maps.get(node)?.entries.get(key)?.visible(self.now)
    }

    /// The value of `key` at each live node that has it, by the node's name, this node included:
    /// which nodes offer a service, and where. Nodes that are dead, have left or cannot be reached
    /// are left out; [`get`](Self::get) still shows their keys until they are forgotten.
    pub fn live_with<'a>(&'a self, key: &'a str) -> impl Iterator<Item = (&'a NodeId, &'a Value)> {
        self.live().filter_map(move |node| Some((node, self.get(node, key)?)))
    }

    /// A node's keys that begin with `prefix`, in order, with their values. An empty prefix is all.
    pub fn prefix<'a>(
        &'a self,
        node: &NodeId,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a Key, &'a Value)> {
        let map = self.maps.get(node);
        map.into_iter()
            .flat_map(move |map| map.entries.range(Key::from(prefix)..))
            .take_while(move |(key, _)| key.as_str().starts_with(prefix))
            .filter_map(|(key, entry)| Some((key, entry.visible(self.now)?)))
    }

    /// The visible entries of all nodes whose keys begin with `prefix`, by node and key, with the version of each.
    pub fn entries<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = Entry<'a>> {
        self.maps.iter().flat_map(move |(node, map)| {
            map.entries
                .range(Key::from(prefix)..)
                .take_while(move |(key, _)| key.as_str().starts_with(prefix))
                .filter_map(move |(key, entry)| {
                    let value = entry.visible(self.now)?;
                    Some(Entry {
                        node,
                        key,
                        value,
                        generation: map.generation,
                        version: entry.version,
                    })
                })
        })
    }

    /// When this node last heard a peer, on the clock of [`now`](Self::now). `None` if it does not observe the peer.
    #[must_use]
    pub fn last_heard(&self, peer: &NodeId) -> Option<Time> {
        Some(self.estimates.get(peer)?.last_heard)
    }

    /// The number of visible keys of a node, zero if it is unknown. The call counts them.
    #[must_use]
    pub fn len(&self, node: &NodeId) -> usize {
        self.prefix(node, "").count()
    }

    /// The latest version of a node that is known here.
    #[must_use]
    pub fn version(&self, node: &NodeId) -> Option<(Generation, Version)> {
        self.maps.get(node).map(|map| (map.generation, map.max_version))
    }

    /// The number of keys of a node held here, including expired ones but not deleted ones.
    #[must_use]
    #[doc(hidden)]
    pub fn held_keys(&self, node: &NodeId) -> usize {
        self.maps.get(node).map_or(0, |map| map.live_keys)
    }

    /// The number of tombstones of a node held here.
    #[must_use]
    #[doc(hidden)]
    pub fn tombstones(&self, node: &NodeId) -> Option<usize> {
        self.maps.get(node).map(|map| map.entries.len() - map.live_keys)
    }

    /// The validity at `now` of the certificates of all nodes that are not dead or gone, as far as they report it.
    #[must_use]
    pub fn certificates(&self, now: SystemTime) -> Certificates {
        let mut certificates = Certificates::default();
        for (node, map) in &*self.maps {
            let Some((_, record)) = &map.record else { continue };
            let here = !matches!(self.state(node, record), PeerState::Dead | PeerState::Left);
            let Some(until) = record.not_after.and_then(date).filter(|_| here) else { continue };
            certificates.first = Some(certificates.first.map_or(until, |first| first.min(until)));
            if is_to_be_renewed(record.not_before.and_then(date), Some(until), now) {
                certificates.expiring += 1;
            }
        }
        certificates
    }

    fn describe(&self, node: &NodeId, map: &NodeView) -> Option<Member> {
        let (_, record) = map.record.as_ref()?;
        let local = *node == self.local;
        Some(Member {
            node: node.clone(),
            datacenter: record.datacenter.clone(),
            addresses: record.addresses.clone(),
            tags: record.tags.clone(),
            state: self.state(node, record),
            phi: self.estimates.get(node).map_or(0.0, |estimate| estimate.phi(self.now)),
            generation: map.generation,
            version: map.max_version,
            keys: map.live_keys,
            not_before: record.not_before.and_then(date),
            not_after: record.not_after.and_then(date),
            local,
        })
    }

    pub(crate) fn is_live(&self, node: &NodeId, map: &NodeView) -> bool {
        map.record.as_ref().is_some_and(|(_, record)| self.state(node, record).is_live())
    }

    fn state(&self, node: &NodeId, record: &NodeRecord) -> PeerState {
        match self.life(node, record) {
            gone @ (PeerState::Dead | PeerState::Left) => gone,
            _ if self.unreachable.contains(&record.datacenter) => PeerState::Unreachable,
            life => life,
        }
    }

    /// A node's state before its datacenter became unreachable, if it is.
    pub(crate) fn life(&self, node: &NodeId, record: &NodeRecord) -> PeerState {
        let local = *node == self.local;
        match self.lives.get(node) {
            _ if local && record.status == Status::Up => PeerState::Live,
            _ if local => PeerState::Left,
            Some(life) => life.state,
            None => PeerState::Unheard,
        }
    }
}

impl Member {
    /// Whether it counts as live: it is live or suspect.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        self.state.is_live()
    }

    /// Whether its certificate should be renewed: a third of its lifetime is left, or less.
    /// Automatic renewal happens at this moment at the latest.
    #[must_use]
    pub fn expires_soon(&self, now: SystemTime) -> bool {
        is_to_be_renewed(self.not_before, self.not_after, now)
    }
}

/// The validity of the certificates of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Certificates {
    /// The number of nodes that should renew theirs: see [`Member::expires_soon`].
    pub expiring: usize,
    /// When the first of all expires; `None` if no node has one.
    pub first: Option<SystemTime>,
}

fn is_to_be_renewed(from: Option<SystemTime>, until: Option<SystemTime>, now: SystemTime) -> bool {
    let (Some(from), Some(until)) = (from, until) else { return false };
    let lifetime = until.duration_since(from).unwrap_or_default();
    until.duration_since(now).unwrap_or_default() <= lifetime / WARNING_PART
}

/// A date that a node reports; `None` if no clock can show it.
fn date(seconds: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).filter(|_| seconds <= DATE_MAX)
}

/// The part of a certificate's lifetime that is left when it should have been renewed.
const WARNING_PART: u32 = 3;
/// The end of the year 9999, the last year a certificate can contain (RFC 5280 section 4.1.2.5).
const DATE_MAX: u64 = 253_402_300_799;
