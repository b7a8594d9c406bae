//! The edges for news that travels along trees: computed once the member list has come to rest, and only while
//! storage has such news.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::members::Members;
use crate::protocol::{
    edges::{Bridge, Edges, Home},
    id::NodeId,
    overlay::{Overlay, Span},
    spanning::Trees,
    time::Time,
};

/// How long storage is believed to have news along trees after it said so.
const WANTED_FOR: Duration = Duration::from_secs(10);
/// Least time between two computations of the trees.
const TREES_INTERVAL: Duration = Duration::from_secs(1);

/// What the scheduler keeps of the edges.
#[derive(Debug, Default)]
pub(super) struct Leading {
    wanted: Option<Time>,
    /// When the members began to change, and when they last did, since the trees were computed.
    unrest: Option<(Time, Time)>,
    /// The edges inside the datacenter, and when they were computed.
    home: Option<(Home, Time)>,
    /// The ends of edges have changed, or which of them are suspected.
    outdated: bool,
    told: Option<Arc<Edges>>,
}

impl Leading {
    /// The members have changed, or (`healthy`) only which of them are suspected.
    pub(super) fn changed(&mut self, now: Time, members: bool) {
        self.outdated = true;
        if members {
            let since = self.unrest.map_or(now, |(since, _)| since);
            self.unrest = Some((since, now));
        }
    }

    /// Storage has news along trees. `has`: it has edges.
    pub(super) fn wanted(&mut self, now: Time, has: bool) {
        self.wanted = Some(now);
        if !has {
            self.told = None;
        }
    }

    /// When the edges are to be computed. `rest`: when a list that began to change at one time, and last did at
    /// another, counts as settled.
    pub(super) fn due(&self, rest: impl Fn(Time, Time) -> Time) -> Option<Time> {
        let wanted = self.wanted?;
        let at = match &self.home {
            Some((_, at)) if self.told.is_some() && !self.outdated => {
                let (since, last) = self.unrest?;
                rest(since, last).max(*at + TREES_INTERVAL)
            }
            _ => wanted,
        };
        (at < wanted + WANTED_FOR).then_some(at)
    }

    /// The edges, if storage wants them and they have changed. `rest`: as in [`Leading::due`].
    pub(super) fn take(
        &mut self,
        now: Time,
        node: &NodeId,
        members: &Members,
        rest: impl Fn(Time, Time) -> Time + Copy,
    ) -> Option<Arc<Edges>> {
        self.due(rest).filter(|due| *due <= now)?;
        let rested = self.unrest.is_none_or(|(since, last)| rest(since, last) <= now);
        let old = self.home.as_ref().is_none_or(|(_, at)| now.since(*at) >= TREES_INTERVAL);
        if self.home.is_none() || (self.unrest.is_some() && rested && old) {
            self.home = Some((home(node, members), now));
            self.unrest = None;
        }
        self.outdated = false;
        let edges = edges(self.home.as_ref()?.0.clone(), members);
        if self.told.as_deref() == Some(&edges) {
            return None;
        }
        let edges = Arc::new(edges);
        self.told = Some(Arc::clone(&edges));
        Some(edges)
    }
}

fn home(node: &NodeId, members: &Members) -> Home {
    if let Some(all) = members.overlay().all_neighbours() {
        return Home::Star(all.to_vec());
    }
    let here = members
        .iter()
        .filter(|(_, peer)| peer.site().is_some_and(|site| site.datacenter == Overlay::HOME));
    let here: Vec<_> = here.map(|(fellow, _)| fellow.clone()).collect();
    match Trees::of(here.iter().chain([node]).cloned()) {
        Some(trees) => Home::Trees(std::array::from_fn(|tree| trees.neighbours(tree, node))),
        None => Home::Star(here),
    }
}

fn edges(home: Home, members: &Members) -> Edges {
    let overlay = members.overlay();
    let direct = overlay.is_meshed();
    let bridge = |span: Span| Bridge {
        there: overlay.name(span.with).clone(),
        to: span.to,
        place: span.place,
        seed: span.seed,
        direct,
    };
    let bridges = match &home {
        Home::Star(_) if overlay.is_full() => Vec::new(),
        _ => overlay.spans().into_iter().map(bridge).collect(),
    };
    let mut edges = Edges { home, bridges, suspects: BTreeSet::new() };
    let suspected = |end: &&NodeId| members.get(end).is_some_and(|peer| peer.suspected);
    edges.suspects = edges.ends().filter(suspected).cloned().collect();
    edges
}
