//! Finds the peers whose state differs from this node's: those with which an exchange is worth its bytes.
//!
//! Nodes send their links one number, the root: the sum of all their state. Equal roots cost nothing.
//! Different ones mean little while updates are under way, so a peer has to differ for two rounds before it
//! gets an exchange, and the node with the greater name waits one more. If the roots stand still and differ,
//! something was lost, and every round may repair several peers. If they move, which they always do while a
//! node writes, one peer a round has to suffice. A peer that differs after an exchange as before is asked
//! again only after 2, 4, 8, 16 rounds, or once the roots stand still after a change.

use std::collections::BTreeMap;

use rand::{Rng, seq::SliceRandom};

use super::{id::NodeId, overlay};

/// The roots that linked peers have sent, and the reactions to them.
#[derive(Debug)]
pub struct Repair {
    local: NodeId,
    round: u32,
    /// Our root, and that of the round before.
    own: Option<u64>,
    before: Option<u64>,
    peers: BTreeMap<NodeId, Peer>,
}

#[derive(Debug, Default)]
struct Peer {
    /// The root that it was sent, and in which round.
    told: Option<(u64, u32)>,
    root: Option<u64>,
    /// It has sent another root since the last round.
    moved: bool,
    /// Rounds in a row in which it has differed.
    differs: u32,
    /// Exchanges in a row that did not help, and the first round in which another is allowed.
    fruitless: u32,
    next: u32,
    /// One of the two roots has changed since.
    changed: bool,
    /// This end dialed it, so that the two become neighbours, and has not compared roots yet.
    eager: bool,
}

impl Repair {
    /// No links.
    #[must_use]
    pub const fn new(local: NodeId) -> Self {
        Self { local, round: 0, own: None, before: None, peers: BTreeMap::new() }
    }

    /// There is a link. `eager`: it is a new neighbour, and this end compares at once.
    pub fn up(&mut self, peer: NodeId, eager: bool) {
        self.peers.insert(peer, Peer { eager, ..Peer::default() });
    }

    /// The link is gone.
    pub fn down(&mut self, peer: &NodeId) {
        self.peers.remove(peer);
    }

    /// All links are gone.
    pub fn reset(&mut self) {
        self.peers.clear();
    }

    /// A peer sent its root. Returns whether to run an exchange with it at once.
    pub fn heard(&mut self, peer: &NodeId, root: u64) -> bool {
        let own = self.own;
        let Some(peer) = self.peers.get_mut(peer) else { return false };
        peer.moved |= peer.root != Some(root);
        peer.root = Some(root);
        peer.compare_at_once(own)
    }

    /// This is our root now. Returns the peers to send it to, and those with which to run an exchange at
    /// once: the ones that have been sent no root yet.
    pub fn introduce(&mut self, root: u64) -> (Vec<NodeId>, Vec<NodeId>) {
        self.own = Some(root);
        let round = self.round;
        let (mut told, mut differ) = (Vec::new(), Vec::new());
        for (node, peer) in &mut self.peers {
            if peer.told.is_none() {
                peer.told = Some((root, round));
                told.push(node.clone());
            }
            if peer.compare_at_once(Some(root)) {
                differ.push(node.clone());
            }
        }
        (told, differ)
    }

    /// The same, once a round: returns the peers to send it to, and those with which an exchange is worth
    /// while, of those that are `free`, at most `room`, and of those whose root moves at most `moving_max`.
    pub fn round(
        &mut self,
        root: u64,
        room: usize,
        moving_max: usize,
        free: impl Fn(&NodeId) -> bool,
        rng: &mut impl Rng,
    ) -> (Vec<NodeId>, Vec<NodeId>) {
        self.round += 1;
        let moved = self.own != Some(root);
        let before = self.before.replace(root);
        self.own = Some(root);
        let round = self.round;
        let mut told = Vec::new();
        let (mut lost, mut moving) = (Vec::new(), Vec::new());
        for (node, peer) in &mut self.peers {
            let news = |(known, at): (u64, u32)| known != root || round - at >= REFRESH;
            if peer.told.is_none_or(news) {
                peer.told = Some((root, round));
                told.push(node.clone());
            }
            let moved = std::mem::take(&mut peer.moved) || moved;
            let patience = if overlay::dials(&self.local, node) { PATIENCE } else { PATIENCE + 1 };
            peer.compare(root, before, moved);
            if peer.differs >= patience && round >= peer.next && free(node) {
                if moved { &mut moving } else { &mut lost }.push(node.clone());
            }
        }
        lost.shuffle(rng);
        moving.shuffle(rng);
        moving.truncate(moving_max);
        lost.extend(moving);
        lost.truncate(room);
        for node in &lost {
            self.repaired(node);
        }
        (told, lost)
    }

    /// How many rounds from now on would do nothing if no peer sends anything and our root stays `root`;
    /// `None` if already the next one does something.
    #[must_use]
    pub fn idle_rounds(&self, root: u64) -> Option<u32> {
        let same = Some(root);
        let peaceful = self.own == same
            && self.before == same
            && self.peers.values().all(|peer| peer.is_at_peace(root));
        let told = self.peers.values().filter_map(|peer| peer.told);
        // The round that sends the root once more comes after these.
        let idle = told.map(|(_, at)| (at + REFRESH).saturating_sub(self.round + 1)).min();
        if peaceful { idle } else { None }
    }

    /// A round was left out, since it would have done nothing.
    pub fn skip_round(&mut self) {
        self.round += 1;
    }

    /// An exchange with it begins.
    fn repaired(&mut self, node: &NodeId) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        peer.changed = false;
        peer.fruitless += 1;
        peer.next = self.round + (1 << peer.fruitless.min(DOUBLINGS_MAX));
    }
}

impl Peer {
    fn is_at_peace(&self, root: u64) -> bool {
        self.root == Some(root)
            && self.told.is_some_and(|(told, _)| told == root)
            && (self.differs, self.fruitless, self.next) == (0, 0, 0)
            && !(self.moved || self.changed || self.eager)
    }

    fn compare_at_once(&mut self, own: Option<u64>) -> bool {
        let (Some(own), Some(root)) = (own, self.root) else { return false };
        std::mem::take(&mut self.eager) && own != root
    }

    /// `before`: our root of the round before; a peer with that root is only a little behind.
    fn compare(&mut self, own: u64, before: Option<u64>, moved: bool) {
        let Some(root) = self.root else { return };
        if root == own {
            (self.differs, self.fruitless, self.next) = (0, 0, 0);
        } else if Some(root) == before {
            self.differs = 0;
        } else {
            self.differs += 1;
        }
        // The roots stand still again after a change: an exchange that did not help before may do so now.
        self.changed |= moved;
        if !moved && std::mem::take(&mut self.changed) {
            (self.fruitless, self.next) = (0, 0);
        }
    }
}

/// Rounds for which a peer has to differ.
const PATIENCE: u32 = 2;
/// A root that has not changed is sent again after this many rounds.
const REFRESH: u32 = 30;
/// A peer that differs in spite of exchanges is tried again after at most 16 rounds.
const DOUBLINGS_MAX: u32 = 4;
