//! The peers that this node observes.

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};

use crate::protocol::{
    id::NodeId,
    overlay,
    time::Time,
    watch::{Scale, TICKS_PER_INTERVAL, Watch},
};

/// The peers that this node observes, and the connections to them.
#[derive(Debug)]
pub(super) struct Ears {
    node: NodeId,
    interval: Duration,
    /// The peers that this node observes; all peers until the scheduler has decided.
    observed: BTreeMap<NodeId, Watch>,
    whom: Option<Whom>,
    /// The connections there are, and which of them this end dialed.
    links: BTreeMap<NodeId, bool>,
    /// Few nodes judge each other here: see [`Scale::few`].
    few: bool,
    /// The number of the last probe.
    probes: u64,
}

/// The peers that this node has to observe.
#[derive(Clone, Debug)]
pub(super) struct Whom {
    pub(super) judged: Arc<[NodeId]>,
    pub(super) witnessed: Arc<[NodeId]>,
}

/// The packets to send: heartbeats to these, and probes to these with their numbers.
#[derive(Debug, Default)]
pub(super) struct Sendings {
    pub(super) beats: Vec<NodeId>,
    pub(super) probes: Vec<(NodeId, u64)>,
}

impl Whom {
    /// All of them, and whether this node has a vote on each.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&NodeId, bool)> {
        let judged = self.judged.iter().map(|node| (node, true));
        judged.chain(self.witnessed.iter().map(|node| (node, false)))
    }
}

impl Ears {
    /// All peers are to be observed, and none is known.
    pub(super) const fn new(node: NodeId, interval: Duration) -> Self {
        Self {
            node,
            interval,
            observed: BTreeMap::new(),
            whom: None,
            links: BTreeMap::new(),
            few: false,
            probes: 0,
        }
    }

    /// No peer is to be observed.
    pub(super) fn close(&mut self) {
        self.whom = Some(Whom { judged: Arc::new([]), witnessed: Arc::new([]) });
        self.observed = BTreeMap::new();
    }

    /// From now on these are observed. Returns the peers that were observed and are not among them.
    pub(super) fn turn_to(&mut self, whom: Whom) -> Vec<NodeId> {
        self.whom = Some(whom);
        self.observed.keys().filter(|node| self.role(node).is_none()).cloned().collect()
    }

    /// Whether this node observes a peer, and if so whether it has a vote on it.
    pub(super) fn role(&self, node: &NodeId) -> Option<bool> {
        match &self.whom {
            None => Some(true),
            Some(whom) if whom.judged.contains(node) => Some(true),
            Some(whom) if whom.witnessed.contains(node) => Some(false),
            Some(_) => None,
        }
    }

    /// How a peer is heard.
    pub(super) fn get(&self, node: &NodeId) -> Option<&Watch> {
        self.observed.get(node)
    }

    pub(super) fn get_mut(&mut self, node: &NodeId) -> Option<&mut Watch> {
        self.observed.get_mut(node)
    }

    pub(super) fn contains(&self, node: &NodeId) -> bool {
        self.observed.contains_key(node)
    }

    /// All observed peers, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&NodeId, &Watch)> {
        self.observed.iter()
    }

    /// From now on a peer is observed, with the state of an earlier detector.
    pub(super) fn insert(&mut self, node: NodeId, watch: Watch) {
        self.observed.insert(node, watch);
    }

    /// From now on a peer is observed.
    pub(super) fn listen(&mut self, now: Time, node: &NodeId, judged: bool) {
        let mut watch = Watch::new(now, self.interval, judged);
        if let Some(dialed) = self.links.get(node) {
            watch.linked(true, *dialed);
        }
        self.observed.insert(node.clone(), watch);
        self.spread();
    }

    /// A peer is not observed any more.
    pub(super) fn remove(&mut self, node: &NodeId) {
        self.observed.remove(node);
    }

    /// A connection was opened or closed.
    pub(super) fn linked(&mut self, node: &NodeId, up: bool, dialed: bool) {
        if up {
            self.links.insert(node.clone(), dialed);
        } else {
            self.links.remove(node);
        }
        if let Some(watch) = self.observed.get_mut(node) {
            watch.linked(up, dialed);
            self.spread();
        }
    }

    /// Spreads the heartbeats that this end sends evenly over the interval, so that a node that falls silent
    /// is soon missed by some neighbour.
    pub(super) fn spread(&mut self) {
        let ours = || self.observed.values().filter(|watch| watch.is_ours_to_beat()).count();
        let count = ours().max(1) as u64;
        self.few = self.observed.values().filter(|watch| watch.is_judged()).count() <= FEW_MAX;
        let ticks = u64::from(TICKS_PER_INTERVAL);
        let first = overlay::offset(&self.node, ticks);
        let ours = self.observed.values_mut().filter(|watch| watch.is_ours_to_beat());
        for (index, watch) in (0..).zip(ours) {
            watch.set_slot((first + index * ticks / count) % ticks);
        }
    }

    /// Whether few nodes judge each other here.
    pub(super) const fn are_few(&self) -> bool {
        self.few
    }

    /// Whether more than half of the peers that this node observes are silent together.
    pub(super) fn is_isolated(&self) -> bool {
        let heard = || self.observed.values().filter(|watch| watch.is_heard());
        let (all, missing) = (heard().count(), heard().filter(|watch| watch.is_missing()).count());
        all > 1 && missing * 2 > all
    }

    /// Whether a peer is missed here.
    pub(super) fn misses(&self, node: &NodeId) -> bool {
        self.observed.get(node).is_some_and(Watch::is_missing)
    }

    /// The missed peers.
    pub(super) fn missed(&self) -> Vec<NodeId> {
        let missed = self.observed.iter().filter(|(_, watch)| watch.is_missing());
        missed.map(|(node, _)| node.clone()).collect()
    }

    /// Checks all observed peers. `asks`: whether to ask about a peer, if it is missed.
    pub(super) fn look(
        &mut self,
        now: Time,
        ticks: &Range<u64>,
        scale: &Scale,
        asks: impl Fn(&NodeId) -> bool,
    ) -> Sendings {
        let mut sendings = Sendings::default();
        for (node, watch) in &mut self.observed {
            // The dead as well: if we are wrong about one because we fell silent ourselves, it would be wrong
            // about us next. But no questions are asked about them.
            let due = watch.tick(now, ticks.clone(), self.probes + 1, scale);
            if due.beat {
                sendings.beats.push(node.clone());
            }
            if due.probe && asks(node) {
                self.probes += 1;
                sendings.probes.push((node.clone(), self.probes));
            }
        }
        sendings
    }

    /// The peers that are heard on behalf of their datacenter and have fallen silent.
    pub(super) fn fall_silent(
        &mut self,
        now: Time,
        scale: &Scale,
    ) -> impl Iterator<Item = &NodeId> {
        let silent =
            move |(node, watch): (_, &mut Watch)| watch.falls_silent(now, scale).then_some(node);
        self.observed.iter_mut().filter_map(silent)
    }

    /// When a peer has to be checked before the next tick.
    pub(super) fn next_look(&self, scale: &Scale) -> Option<Time> {
        self.observed.values().filter_map(|watch| watch.next_look(scale)).min()
    }

    /// Takes time out of all silence.
    pub(super) fn excuse(&mut self, stalled: Duration, now: Time) {
        self.observed.values_mut().for_each(|watch| watch.excuse(stalled, now));
    }
}

/// Up to this many peers both ends of an edge send heartbeats.
const FEW_MAX: usize = 4;
