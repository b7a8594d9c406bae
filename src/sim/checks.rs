//! The rules that hold for every cluster, and for one in which nothing happens any more.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::world::World;
use crate::protocol::{
    digest::DigestEntry,
    entry::Content,
    id::{NodeId, Version},
    liveness::DEFIANCE,
    map::NodeMap,
    record::Status,
    state::PeerState,
};

impl World {
    /// Whether all who run hold the same maps of all who run, and think them live.
    pub fn converged(&self) -> Result<(), String> {
        let running = self.running();
        for &reader in &running {
            for &owner in running.iter().filter(|owner| **owner != reader) {
                self.holds(reader, owner)?;
                self.thinks_live(reader, owner)?;
            }
            self.thinks_no_ghost_live(reader)?;
            self.agrees_with_itself(reader)?;
            let unreachable = self.node(reader).scheduler.unreachable();
            if !unreachable.is_empty() {
                return Err(format!("n{reader} cannot reach {unreachable:?}"));
            }
        }
        self.agree_on_the_gone()
    }

    /// Whether all who run hold the same maps of all who run, whatever they think of them.
    pub fn holds_all(&self) -> Result<(), String> {
        let running = self.running();
        for &reader in &running {
            for &owner in running.iter().filter(|owner| **owner != reader) {
                self.holds(reader, owner)?;
            }
        }
        Ok(())
    }

    pub(super) fn holds(&self, reader: usize, owner: usize) -> Result<(), String> {
        let name = &self.slots[owner].name;
        let own = self.node(owner).replica.own();
        let who = format!("{} of {name}", self.slots[reader].name);
        let Some(copy) = self.node(reader).replica.copy(name) else {
            return Err(format!("{who}: nothing is known"));
        };
        let line = |map: &NodeMap| map.digest_entry(name.clone());
        if line(copy) != line(own) {
            return Err(format!("{who}: {:?}, own {:?}", line(copy), line(own)));
        }
        if contents(copy) != contents(own) || copy.record() != own.record() {
            self.fail(format!("{who}: differs at the same version"));
        }
        Ok(())
    }

    pub(super) fn thinks_live(&self, reader: usize, owner: usize) -> Result<(), String> {
        let name = &self.slots[owner].name;
        let record = self.node(owner).replica.own().record().ok_or("a node without a record")?;
        let life = self.node(reader).liveness.life(name).map(|life| life.state);
        let right = match record.status {
            Status::Left => life == Some(PeerState::Left),
            _ => matches!(life, Some(PeerState::Live | PeerState::Suspect)),
        };
        if right { Ok(()) } else { Err(format!("n{reader} thinks {name} {life:?}")) }
    }

    /// The detector and the storage of a process agree on who there is and in which life.
    pub(super) fn agrees_with_itself(&self, reader: usize) -> Result<(), String> {
        let node = self.node(reader);
        let stored: Vec<_> =
            node.replica.peers().map(|(peer, copy)| (peer, copy.generation())).collect();
        let judged: Vec<_> =
            node.liveness.lives().map(|(peer, life)| (peer, life.generation)).collect();
        if stored == judged {
            return Ok(());
        }
        Err(format!("n{reader} holds copies of {stored:?} and judges {judged:?}"))
    }

    /// No peer stays suspect for longer than a suspicion may last: the peer refutes it, or is dead.
    pub(super) fn suspicions_end(&self) -> Result<(), String> {
        for reader in self.running().into_iter().filter(|slot| self.frozen(*slot).is_none()) {
            let now = self.local(reader);
            let suspects = self.node(reader).liveness.lives();
            for (peer, life) in suspects.filter(|(_, life)| life.state == PeerState::Suspect) {
                let age = now.since(life.since);
                if age > self.settings.suspicion() * DEFIANCE + self.settings.gossip_interval {
                    return Err(format!("n{reader} suspects {peer} for {age:?}"));
                }
            }
        }
        Ok(())
    }

    /// Two who sum up the same hold the same.
    pub(super) fn equal_sums_are_of_equal_copies(&self) -> Result<(), String> {
        let mut holders: BTreeMap<u64, usize> = BTreeMap::new();
        for reader in self.running() {
            let (sum, twins) = (self.node(reader).replica.root(), self.twins);
            let first = *holders.entry(sum).or_insert(reader);
            if first == reader || twins || !self.hooks.liars.is_empty() {
                continue;
            }
            for (owner, copy) in self.node(reader).replica.peers() {
                let Some(other) = self.node(first).replica.copy(owner) else { continue };
                let same =
                    copy.generation() == other.generation() && contents(copy) == contents(other);
                let part = |copy: &NodeMap| {
                    copy.is_told_anew() || copy.digest_entry(owner.clone()).is_part()
                };
                // If a copy is being replaced, the sum has the replacement. Parts and copies that are about
                // to be forgotten are in no sum.
                let is_summed = |slot: usize| {
                    let replica = &self.node(slot).replica;
                    replica.lists(owner) && !replica.copy(owner).is_none_or(part)
                };
                let same = same || !is_summed(first) || !is_summed(reader);
                if !same {
                    let [one, two] = [copy, other].map(|copy| {
                        let line = copy.digest_entry(owner.clone());
                        format!("{line:?} {:?}", contents(copy))
                    });
                    let who = format!("n{first} and n{reader} have one sum");
                    return Err(format!("{who} and hold of {owner}: {two} and {one}"));
                }
            }
        }
        Ok(())
    }

    pub(super) fn thinks_no_ghost_live(&self, reader: usize) -> Result<(), String> {
        let names: BTreeSet<_> = self.running().iter().map(|&n| &self.slots[n].name).collect();
        for (peer, life) in self.node(reader).liveness.lives() {
            let gone = matches!(life.state, PeerState::Dead | PeerState::Left);
            if !gone && !names.contains(peer) {
                return Err(format!("n{reader} thinks {peer} {:?}, which is gone", life.state));
            }
        }
        Ok(())
    }

    /// All nodes that still know a node which is gone hold the same copy of it, unless it is being forgotten. A part is
    /// excused if no whole copy reaches as far as what it is a part of: no node can complete it.
    pub(super) fn agree_on_the_gone(&self) -> Result<(), String> {
        if self.settings.forget_after < Duration::from_secs(1_000) {
            return Ok(());
        }
        let running = self.running();
        let names: BTreeSet<_> = running.iter().map(|&n| &self.slots[n].name).collect();
        let mut held: BTreeMap<NodeId, Vec<_>> = BTreeMap::new();
        for &reader in &running {
            let peers = self.node(reader).replica.peers();
            for (peer, copy) in peers.filter(|(peer, _)| !names.contains(peer)) {
                let line = copy.digest_entry(peer.clone());
                held.entry(peer.clone()).or_default().push((line, contents(copy)));
            }
        }
        for (peer, copies) in held {
            let whole = copies.iter().filter(|(line, _)| !line.is_part());
            let first = whole.clone().max_by_key(|(line, _)| (line.generation, line.max_version));
            let Some(first) = first else { continue };
            let reach = (first.0.generation, first.0.max_version);
            let excused =
                |line: &DigestEntry| line.is_part() && (line.generation, line.horizon) > reach;
            let other = copies.iter().find(|copy| *copy != first && !excused(&copy.0));
            if let Some(other) = other {
                return Err(format!("of {peer}, which is gone, are held {first:?} and {other:?}"));
            }
        }
        Ok(())
    }
}

/// Everything but the time at which values expire, which each node tells by its own clock.
type Contents = Vec<(String, Version, Option<Vec<u8>>)>;

fn contents(map: &NodeMap) -> Contents {
    map.entries()
        .iter()
        .map(|(key, entry)| {
            let value = match &entry.content {
                Content::Value { value, .. } => Some(value.to_vec()),
                Content::Tombstone => None,
            };
            (key.to_string(), entry.version, value)
        })
        .collect()
}
