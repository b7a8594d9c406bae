//! What a process knows of the nodes: maps and verdicts, which arrive when they like.

use std::collections::BTreeSet;

use super::{
    event::{Event, Map},
    settings::Mutation,
    state::{Process, View},
    world::World,
};
use crate::protocol::{
    hash,
    id::{Generation, NodeId},
    service::{
        ServiceVersion,
        balance::{Bounds, by_key},
        clients::Clients,
        directory::{Directory, DirectoryOutput, Gone, Listing, Listings, Provider, Seen},
        link_end::LinkEnd,
        manifest::{Manifest, Offered},
    },
    state::PeerState,
};

/// Above so many nodes only a few of all checks are made, and only providers are known to others.
pub(super) const FEW: usize = 20;
/// Keys whose owners are compared.
const KEYS: u64 = 16;

impl World {
    /// A process has changed its map: all learn of it.
    pub(super) fn publish(&mut self, process: usize) {
        self.nodes[self.processes[process].node].stamp += 1;
        let (node, map) = self.map_of(process);
        self.learn(process, node, map.clone());
        if self.settings.nodes > FEW && node >= self.settings.providers {
            return;
        }
        for other in 0..self.processes.len() {
            if other != process && self.is_told(other) {
                let pause = self.within(self.settings.spread);
                self.after(pause, Event::Learn { process: other, node, map: map.clone() });
            }
        }
    }

    /// The map of a process.
    pub(super) fn map_of(&self, process: usize) -> (usize, Map) {
        let Process { node, generation, leaves, drain, ref offers, .. } = self.processes[process];
        let offers = offers.keys().map(|service| Offered {
            name: self.services[*service].name.clone(),
            version: ServiceVersion::new(self.services[*service].major, 0),
            weight: 1,
            clients: admitted(*service),
            epoch: 1,
        });
        let draining = drain != super::state::Drain::No;
        let manifest = Manifest { draining, offers: offers.collect() };
        let stamp = self.nodes[node].stamp;
        (node, Map { stamp, generation, manifest: manifest.encode().into(), left: leaves })
    }

    /// The detectors of all others come to a verdict, each at its own time after `pause`.
    pub(super) fn verdicts(&mut self, node: usize, state: PeerState, pause: u64) {
        if self.settings.nodes > FEW && node >= self.settings.providers {
            return;
        }
        let generation = Generation(self.nodes[node].generation);
        for process in 0..self.processes.len() {
            if self.is_told(process) && self.processes[process].node != node {
                let pause = pause + self.within(self.settings.spread);
                self.after(pause, Event::Judge { process, node, generation, state });
            }
        }
    }

    /// Whether a process is a member that runs: nobody else hears of changes by itself.
    fn is_told(&self, process: usize) -> bool {
        let Process { alive, node, .. } = self.processes[process];
        alive && !self.is_client(node)
    }

    /// A process learns of the map of a node.
    pub(super) fn learn(&mut self, process: usize, node: usize, map: Map) {
        let own = self.processes[process].node == node;
        let view = self.processes[process].views.entry(node).or_insert_with(|| View {
            stamp: 0,
            generation: Generation(0),
            manifest: None,
            verdict: (Generation(0), PeerState::Unheard),
        });
        if map.stamp <= view.stamp {
            return;
        }
        (view.stamp, view.generation, view.manifest) =
            (map.stamp, map.generation, Some(map.manifest));
        if own || map.left {
            let state = if map.left { PeerState::Left } else { PeerState::Live };
            view.verdict = (map.generation, state);
        }
        self.update(process, node);
    }

    /// The detector of a process judges a node.
    pub(super) fn judge(
        &mut self,
        process: usize,
        node: usize,
        generation: Generation,
        state: PeerState,
    ) {
        let Some(view) = self.processes[process].views.get_mut(&node) else {
            // It has no map of it yet.
            if state == PeerState::Live {
                let pause = self.within(self.settings.spread) + 1;
                self.after(pause, Event::Judge { process, node, generation, state });
            }
            return;
        };
        let (before, is_left) = (view.verdict.0, view.verdict.1 == PeerState::Left);
        if generation < before || generation == before && is_left {
            return;
        }
        view.verdict = (generation, state);
        self.update(process, node);
        if state == PeerState::Dead {
            self.figures.found_dead(self.queue.now(), process, (node, generation));
        }
    }

    /// A process forgets a node.
    pub(super) fn forget(&mut self, process: usize, node: usize) {
        let views = &mut self.processes[process].views;
        let is_dead = |view: &View| view.verdict == (view.generation, PeerState::Dead);
        if views.get(&node).is_some_and(is_dead) {
            views.remove(&node);
            self.update(process, node);
        }
    }

    /// Feeds the directory with what is known of a node now.
    pub(super) fn update(&mut self, process: usize, node: usize) {
        if self.strikes(Mutation::LoseUpdates) {
            return;
        }
        let before = self.processes[process].directory.listings();
        let known = self.processes[process].views.get(&node);
        let known = known.map(|view| (view.generation, state(view)));
        self.note(format_args!("process {process} knows of {node}: {known:?}"));
        let (mut out, Process { directory, views, .. }) =
            (Vec::new(), &mut self.processes[process]);
        let held = &self.nodes[node];
        let seen = views.get(&node).map(|view| seen(view, &held.datacenter));
        directory.update(&held.id, seen, &mut out);
        self.apply(process, node, out);
        self.show(process, node);
        self.hedge_suspected(process, node);
        // A client judges by more than its directory.
        if let Some((generation, state)) = known
            && !self.is_client(self.processes[process].node)
        {
            self.check_pending(process, node, generation, Some(state));
        }
        if self.settings.nodes <= FEW {
            self.check_directory(process);
            self.check_keys(process, node, &before);
        }
    }

    /// Does what changes of the directory ask for.
    pub(super) fn apply(&mut self, process: usize, node: usize, out: Vec<DirectoryOutput>) {
        for output in out {
            match output {
                DirectoryOutput::Ended { generation, why, .. } => {
                    self.end_peer(process, node, generation, why);
                }
                DirectoryOutput::Joined(_, provider) | DirectoryOutput::Changed(_, provider) => {
                    if !provider.suspect {
                        self.processes[process].back_off.forget(&provider.node);
                    }
                }
                DirectoryOutput::BadManifest { error, .. } => {
                    self.oracle.found(8, format_args!("{error}"));
                }
                DirectoryOutput::Left { .. } | DirectoryOutput::Returned { .. } => {}
            }
        }
    }

    /// A node serves no call of this or an earlier generation any more.
    pub(super) fn end_peer(
        &mut self,
        process: usize,
        node: usize,
        generation: Generation,
        why: Gone,
    ) {
        if why == Gone::Restarted && self.mutates(Mutation::IgnoreRestart)
            || why == Gone::NodeDead && self.mutates(Mutation::IgnoreDeath)
        {
            return;
        }
        let link = self.processes[process].links.get(&node).copied();
        if let Some(link) = link.filter(|at| self.connections[*at].generation <= generation) {
            self.end_link(link, LinkEnd::Gone(why));
        }
        self.end_streams(process, node, generation, &LinkEnd::Gone(why));
        let of_it = |at: &usize| {
            let lane = self.connections[*at].lane.as_ref();
            lane.is_some_and(|lane| lane.caller == node && lane.generation <= generation)
        };
        let lanes: Vec<_> = self.processes[process].lanes.iter().copied().filter(of_it).collect();
        for lane in lanes {
            // A caller that sleeps may hear of the end of this process before that of its connection.
            self.connections[lane].broken = true;
            self.end_lane(lane);
        }
    }

    /// After a verdict, or the news of a later generation, nothing waits for what has ended.
    pub(super) fn check_pending(
        &mut self,
        process: usize,
        node: usize,
        generation: Generation,
        state: Option<PeerState>,
    ) {
        let ended = matches!(state, None | Some(PeerState::Dead | PeerState::Left));
        let last = if ended { generation } else { Generation(generation.0.saturating_sub(1)) };
        if let Some(call) = self.waits_for(process, (node, last)) {
            let what = format_args!("call {call} waits for {node}@{last}, which has ended");
            self.oracle.found(4, what);
        }
    }

    /// The directory is what follows from all that is known.
    pub(super) fn check_directory(&mut self, process: usize) {
        let Process { alive, directory, views, .. } = &self.processes[process];
        if !alive {
            return;
        }
        let mut fresh = Directory::default();
        for (node, view) in views {
            let held = &self.nodes[*node];
            fresh.update(&held.id, Some(seen(view, &held.datacenter)), &mut Vec::new());
        }
        if !directory.listings().iter().eq(fresh.listings().iter()) {
            let what = format_args!("process {process} has another directory than it should have");
            self.oracle.found(8, what);
        }
    }

    /// A node that is gone loses its keys, and no other key moves.
    fn check_keys(&mut self, process: usize, node: usize, before: &Listings) {
        let after = self.processes[process].directory.listings();
        let by_place = self.mutates(Mutation::KeysByPlace);
        let owners = |listing: &Listing| -> Vec<Option<NodeId>> {
            let usable: Vec<&Provider> = listing.iter().filter(|found| !found.draining).collect();
            (0..KEYS)
                .map(|key| match by_place {
                    true => {
                        usable.get(key as usize % usable.len().max(1)).map(|at| at.node.clone())
                    }
                    false => by_key(listing, None, Bounds::default(), hash::mix(key))
                        .map(|at| at.node.clone()),
                })
                .collect()
        };
        let names = |listing: &Listing| -> BTreeSet<NodeId> {
            listing.iter().map(|provider| provider.node.clone()).collect()
        };
        let gone = &self.nodes[node].id;
        for (service, listing) in before.iter() {
            let Some(rest) = after.get(service) else { continue };
            let (mut was, is) = (names(listing), names(rest));
            if !was.remove(gone) || was != is {
                continue;
            }
            let pairs = owners(listing).into_iter().zip(owners(rest));
            let moved = pairs.filter(|(was, is)| was != is && was.as_ref() != Some(gone)).count();
            if moved > 0 {
                let what = format_args!("{moved} keys of others move when {gone} is gone");
                self.oracle.found(9, what);
            }
        }
    }
}

/// The clients that a service admits: every third one none.
pub(super) fn admitted(service: usize) -> Clients {
    if service % 3 == 1 { Clients::default() } else { Clients::all() }
}

/// What a view says of a node.
pub(super) fn state(view: &View) -> PeerState {
    // The verdict on another generation says nothing about this one.
    if view.verdict.0 == view.generation { view.verdict.1 } else { PeerState::Unheard }
}

pub(super) fn seen<'a>(
    view: &'a View,
    datacenter: &'a crate::protocol::id::Datacenter,
) -> Seen<'a> {
    Seen {
        generation: view.generation,
        datacenter,
        state: state(view),
        manifest: view.manifest.as_ref(),
    }
}
