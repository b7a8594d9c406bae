//! Which other datacenters are reachable from ours, according to the ends of the bridges.
//!
//! A node's death is detected in its own datacenter. Other datacenters can detect only that no node of a
//! datacenter is heard any more. If an end of bridges has heard none of its neighbours there, nor any other
//! node that it then tried, for [`UNREACHABLE_AFTER`] rounds, it publishes that in its own record, and
//! withdraws it once any node answers. A datacenter is unreachable from ours while all healthy ends of the
//! bridges to it say so; as records reach all nodes, all nodes of ours agree. A datacenter without bridges to
//! ours is unreachable if no chain of working bridges leads there.
//!
//! This does not decide whether a node there is dead: a node that is cut off may be well.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{
    id::{Datacenter, NodeId},
    overlay::{DatacenterIndex, Overlay, Site, bridges},
    time::Time,
};

/// Rounds without any node of a datacenter being heard until an end reports lost contact: 5 s by default.
pub const UNREACHABLE_AFTER: u32 = 5;

/// One node's knowledge of the ways to other datacenters.
#[derive(Debug)]
pub struct Datacenters {
    interval: Duration,
    /// Those to which this node has bridges.
    bridged: BTreeMap<Datacenter, Bridged>,
    /// Those with which it has reported lost contact.
    told: BTreeSet<Datacenter>,
    /// The reports of peers, without those that have contact with all.
    severed: BTreeMap<NodeId, BTreeSet<Datacenter>>,
    unreachable: Arc<BTreeSet<Datacenter>>,
}

/// A datacenter to which this node has bridges.
#[derive(Debug)]
struct Bridged {
    /// The time since which no node there has been heard, if that is so.
    silent: Option<Time>,
    /// When to begin to try other nodes than the neighbours there.
    try_others: Time,
    severed: bool,
}

impl Datacenters {
    /// There are no bridges, and no reports.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            bridged: BTreeMap::new(),
            told: BTreeSet::new(),
            severed: BTreeMap::new(),
            unreachable: Arc::default(),
        }
    }

    /// Takes over the state of an earlier machine.
    pub fn restore(&mut self, unreachable: Arc<BTreeSet<Datacenter>>, told: BTreeSet<Datacenter>) {
        (self.unreachable, self.told) = (unreachable, told);
    }

    /// The neighbours to which this node keeps connections, and whether it hears any node there by them.
    pub fn bridged(&mut self, now: Time, heard: &BTreeMap<Datacenter, bool>) {
        self.bridged.retain(|datacenter, _| heard.contains_key(datacenter));
        for (datacenter, heard) in heard {
            match self.bridged.get_mut(datacenter) {
                Some(bridged) if *heard => *bridged = Bridged::heard(now),
                Some(bridged) => {
                    if bridged.silent.is_none() {
                        (bridged.silent, bridged.try_others) = (Some(now), now);
                    }
                }
                None if *heard => {
                    self.bridged.insert(datacenter.clone(), Bridged::heard(now));
                }
                None => {
                    // Its neighbours there are being dialed.
                    let try_others = now + self.interval * DIAL_PATIENCE;
                    let bridged = Bridged { silent: Some(now), try_others, severed: false };
                    self.bridged.insert(datacenter.clone(), bridged);
                }
            }
        }
    }

    /// A node there has answered, any one.
    pub fn answered(&mut self, now: Time, datacenter: &Datacenter) {
        if let Some(bridged) = self.bridged.get_mut(datacenter)
            && bridged.silent.is_some()
        {
            (bridged.silent, bridged.severed) = (Some(now), false);
        }
    }

    /// A peer's record says that it has lost contact with these.
    pub fn said(&mut self, peer: NodeId, severed: BTreeSet<Datacenter>) {
        if severed.is_empty() {
            self.severed.remove(&peer);
        } else {
            self.severed.insert(peer, severed);
        }
    }

    /// A peer is known no longer.
    pub fn forgotten(&mut self, peer: &NodeId) {
        self.severed.remove(peer);
    }

    /// Does the work that is due: this node's report, if it has changed. `is_judged`: a datacenter with so
    /// few nodes is asked which of them are dead, not whether it is cut off.
    pub fn tick(
        &mut self,
        now: Time,
        is_judged: impl Fn(&Datacenter) -> bool,
    ) -> Option<BTreeSet<Datacenter>> {
        let after = self.interval * UNREACHABLE_AFTER;
        for (datacenter, bridged) in &mut self.bridged {
            let long = bridged.silent.is_some_and(|since| now.since(since) >= after);
            match bridged.silent {
                Some(_) if !long || bridged.severed => {}
                // Asked again later: there may be more nodes by then.
                Some(_) if is_judged(datacenter) => bridged.silent = Some(now),
                Some(_) => bridged.severed = true,
                None => {}
            }
        }
        let severed = self.bridged.iter().filter(|(_, bridged)| bridged.severed);
        let severed: BTreeSet<_> = severed.map(|(datacenter, _)| datacenter.clone()).collect();
        (severed != self.told).then(|| {
            self.told.clone_from(&severed);
            severed
        })
    }

    /// This node's report.
    #[must_use]
    pub const fn told(&self) -> &BTreeSet<Datacenter> {
        &self.told
    }

    /// When to be called next without further input.
    #[must_use]
    pub fn due(&self) -> Option<Time> {
        let after = self.interval * UNREACHABLE_AFTER;
        let waits = self.bridged.values().filter(|bridged| !bridged.severed);
        waits.filter_map(|bridged| Some(bridged.silent? + after)).min()
    }

    /// Those where other nodes than the neighbours are to be tried now.
    pub fn doubted(&self, now: Time) -> impl Iterator<Item = &Datacenter> {
        let doubted =
            move |bridged: &Bridged| bridged.silent.is_some() && bridged.try_others <= now;
        self.bridged.iter().filter(move |(_, bridged)| doubted(bridged)).map(|(name, _)| name)
    }

    /// Whether all nodes to which this node keeps connections abroad are heard, and there are no reports.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.bridged.values().all(|bridged| bridged.silent.is_none()) && self.is_whole()
    }

    /// Whether no node has lost contact with a datacenter, and none had at the last assessment.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.told.is_empty() && self.severed.is_empty() && self.unreachable.is_empty()
    }

    /// Those that are unreachable.
    #[must_use]
    pub const fn unreachable(&self) -> &Arc<BTreeSet<Datacenter>> {
        &self.unreachable
    }

    /// Assesses again which datacenters are unreachable, given all other members. Returns those that have
    /// become unreachable, and those that are reachable again or have no nodes left.
    pub fn assess<'a>(
        &mut self,
        overlay: &Overlay,
        others: impl Iterator<Item = (&'a NodeId, Site)>,
    ) -> (Vec<Datacenter>, Vec<Datacenter>) {
        let next = if self.told.is_empty() && self.severed.is_empty() {
            BTreeSet::new()
        } else {
            self.cut_off(overlay, others)
        };
        let lost = next.difference(&self.unreachable).cloned().collect();
        let found = self.unreachable.difference(&next).cloned().collect();
        if next != *self.unreachable {
            self.unreachable = Arc::new(next);
        }
        (lost, found)
    }

    fn cut_off<'a>(
        &self,
        overlay: &Overlay,
        others: impl Iterator<Item = (&'a NodeId, Site)>,
    ) -> BTreeSet<Datacenter> {
        let tally = self.tally(others);
        let direct = overlay.partners(Overlay::HOME);
        let gone = |from, to| tally.is_cut(overlay, from, to);
        let (gone, mut open): (Vec<_>, Vec<_>) =
            direct.iter().partition(|to| gone(Overlay::HOME, **to));
        let mut unreachable: BTreeSet<_> =
            gone.into_iter().map(|lost| overlay.name(lost).clone()).collect();
        // Datacenters without bridges to ours are reached by those of others.
        let mut seen: BTreeSet<_> = direct.into_iter().chain([Overlay::HOME]).collect();
        while let Some(next) = open.pop() {
            for to in overlay.partners(next) {
                if !seen.contains(&to) && !tally.is_cut(overlay, next, to) {
                    seen.insert(to);
                    open.push(to);
                }
            }
        }
        let far = overlay.inhabited().filter(|far| !seen.contains(far));
        unreachable.extend(far.map(|far| overlay.name(far).clone()));
        unreachable
    }

    /// Counts the healthy nodes, and their reports.
    fn tally<'a>(&self, others: impl Iterator<Item = (&'a NodeId, Site)>) -> Tally<'_> {
        let mut tally = Tally::default();
        tally.count(Overlay::HOME, Some(&self.told));
        for (node, site) in others.filter(|(_, site)| site.healthy) {
            tally.count(site.datacenter, self.severed.get(node));
        }
        tally
    }
}

/// How many healthy nodes each datacenter has, and how many of them have lost contact with which.
#[derive(Debug, Default)]
struct Tally<'a> {
    healthy: BTreeMap<DatacenterIndex, usize>,
    severed: BTreeMap<(DatacenterIndex, &'a Datacenter), usize>,
}

impl<'a> Tally<'a> {
    fn count(&mut self, at: DatacenterIndex, severed: Option<&'a BTreeSet<Datacenter>>) {
        *self.healthy.entry(at).or_default() += 1;
        for from in severed.into_iter().flatten() {
            *self.severed.entry((at, from)).or_default() += 1;
        }
    }

    /// Whether as many nodes of one datacenter have lost contact with the other as it has ends of bridges to
    /// it.
    fn is_cut(&self, overlay: &Overlay, from: DatacenterIndex, to: DatacenterIndex) -> bool {
        let cut = self.severed.get(&(from, overlay.name(to))).copied().unwrap_or(0);
        let healthy = self.healthy.get(&from).copied().unwrap_or(0);
        let larger = overlay.members(from).max(overlay.members(to));
        let ends = if overlay.is_full() { healthy } else { bridges(larger).min(healthy) };
        cut > 0 && cut >= ends
    }
}

impl Bridged {
    const fn heard(now: Time) -> Self {
        Self { silent: None, try_others: now, severed: false }
    }
}

/// Rounds for new neighbours abroad to be connected, before others are tried.
const DIAL_PATIENCE: u32 = 2;
