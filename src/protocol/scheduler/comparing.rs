//! Roots: this node's own one is sent to the neighbours, and where another one differs an exchange begins.

use std::collections::BTreeSet;

use super::{Asked, Scheduler};
use crate::protocol::{
    gate::Kind,
    gossip::Gossip,
    id::NodeId,
    route::{Output, StorageInput, Target, TransportInput},
    time::Time,
};

impl Scheduler {
    pub(super) fn ask(&mut self, what: Asked, out: &mut Vec<Output>) {
        if self.asked.is_none() {
            out.push(Output::Storage(StorageInput::TellRoot));
        }
        self.asked = self.asked.max(Some(what));
    }

    pub(super) fn own_root(&mut self, now: Time, root: u64, out: &mut Vec<Output>) {
        let (mut told, differ) = self.repair.introduce(root);
        self.repair_at_once(now, differ, out);
        if self.asked.take() == Some(Asked::ForRound) {
            let linked = self.links.peers().map(|node| Target::Peer(node.clone()));
            let busy: BTreeSet<_> = linked.filter(|target| !self.is_free(now, target)).collect();
            let free = |node: &NodeId| !busy.contains(&Target::Peer(node.clone()));
            let room = self.repair_room(now, out);
            let moving = usize::from(!self.is_catching_up());
            let (changed, differ) = self.repair.round(root, room, moving, free, &mut self.rng);
            told.extend(changed);
            let differ = differ.into_iter().map(Target::Peer).collect();
            let targets = self.started(now, Kind::Repair, differ);
            self.begin(targets, out);
        }
        if !told.is_empty() {
            let gossip = Gossip::Root(root).into();
            out.push(Output::Transport(TransportInput::Gossip { to: told, gossip }));
        }
    }

    /// Whether an exchange is under way that may bring the state in which others differ: from two at once
    /// much of it would come twice.
    fn is_catching_up(&self) -> bool {
        self.targets.in_flight().any(|target| match target {
            Target::Peer(node) => self.links.has(node),
            Target::Address(_) => !self.links.is_empty(),
        })
    }

    /// New neighbours with other state than ours.
    pub(super) fn repair_at_once(&mut self, now: Time, differ: Vec<NodeId>, out: &mut Vec<Output>) {
        if differ.is_empty() || self.is_catching_up() {
            return;
        }
        let room = self.repair_room(now, out).min(self.rounds.at_once());
        let targets = differ.into_iter().map(Target::Peer);
        let free = targets.filter(|target| self.is_free(now, target));
        let targets: Vec<_> = free.take(room).collect();
        self.rounds.compared(targets.len());
        let targets = self.started(now, Kind::Repair, targets);
        self.begin(targets, out);
    }
}
