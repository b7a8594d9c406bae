//! How writes and verdicts spread: what a run records of them.

use super::{
    slot::number,
    watched::{Sighting, Watched},
    world::World,
};
use crate::protocol::{gossip::Gossip, id::NodeId, write::Write};

impl World {
    /// Records from now on the states of the nodes as seen by each other.
    pub fn watch_verdicts(&mut self) {
        self.said.sightings = Some(Vec::new());
    }

    /// The records.
    #[must_use]
    pub fn sightings(&self) -> &[Sighting] {
        self.said.sightings.as_deref().unwrap_or_default()
    }

    /// Writes a batch on a node that runs, and records from now on which nodes have it.
    pub fn write_watched(&mut self, node: usize, batch: Vec<Write>) {
        self.watch(node);
        self.write(node, batch);
    }

    /// Records from now on which nodes have the next write of a node.
    pub fn watch(&mut self, node: usize) {
        let begun = self.queue.now();
        let Some(version) = self.slots[node].node.as_ref().map(|n| n.replica.own().next_version())
        else {
            return;
        };
        let mut reached = vec![None; self.slots.len()];
        reached[node] = Some(0);
        let left = self.running().len().saturating_sub(1);
        self.watched.push(Watched { owner: node, version, begun, reached, left });
    }

    /// Whether all running nodes have all watched writes.
    #[must_use]
    pub fn is_everywhere(&self) -> bool {
        self.watched.iter().all(|watched| watched.left == 0)
    }

    /// For each watched write, after how many microseconds each running node except the writer had it.
    /// Watching ends.
    pub fn arrivals(&mut self) -> Vec<Vec<Option<u64>>> {
        let (watched, running) = (std::mem::take(&mut self.watched), self.running());
        let of = |w: &Watched| {
            let others = running.iter().filter(|node| **node != w.owner);
            others.map(|node| w.reached[*node]).collect()
        };
        watched.iter().map(of).collect()
    }

    pub(super) fn note_arrivals(&mut self, node: usize) {
        self.note_tracked(node);
        let now = self.queue.now();
        let Some(at) = &self.slots[node].node else { return };
        for watched in &mut self.watched {
            if watched.left == 0 || watched.reached[node].is_some() {
                continue;
            }
            let copy = at.replica.copy(&self.slots[watched.owner].name);
            if copy.is_some_and(|copy| copy.max_version() >= watched.version) {
                watched.reached[node] = Some(now - watched.begun);
                watched.left -= 1;
            }
        }
    }

    /// Whether a frame is about a watched write.
    pub(super) fn is_watched(&self, gossip: &Gossip) -> bool {
        let watched = |name: &NodeId| {
            number(name).is_some_and(|n| self.watched.iter().any(|watched| watched.owner == n))
        };
        match gossip {
            Gossip::Push(delta) | Gossip::Tree(delta) => {
                delta.nodes.iter().any(|delta| watched(&delta.node))
            }
            Gossip::Have(owners) => owners.iter().any(|have| watched(&have.node)),
            Gossip::Graft(owners) => owners.iter().any(|entry| watched(&entry.node)),
            Gossip::Prune(owners) => owners.iter().any(watched),
            Gossip::Root(_)
            | Gossip::Wave(_)
            | Gossip::Echo(_)
            | Gossip::Ask(_)
            | Gossip::Answer(_)
            | Gossip::Accusation(_)
            | Gossip::Removal(_)
            | Gossip::Equivocation(_)
            | Gossip::RevocationSum(_)
            | Gossip::Revocations(_) => false,
        }
    }
}
