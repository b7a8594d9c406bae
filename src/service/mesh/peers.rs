//! Who dials whom in a mesh, and when: a machine without clock or sockets.
//!
//! Of two nodes the one with the greater name dials, as `ractor_cluster` prefers it, so two sessions of one pair never
//! compete. It never dials while a session is open. A session that has failed is dialed again after [`REDIAL_MIN`],
//! then after twice as long each time, up to [`REDIAL_MAX`].

use std::{collections::BTreeMap, time::Duration};

use crate::protocol::id::{Generation, NodeId};

/// Most nodes with which one node of a mesh has sessions.
pub const MESH_MAX: usize = 64;
/// The pause after a session that has ended, or a first dial that has failed.
pub const REDIAL_MIN: Duration = Duration::from_millis(50);
/// The longest pause between two dials of one node.
pub const REDIAL_MAX: Duration = Duration::from_secs(5);
/// The pause after a node has refused a session: it is in another group, or has [`MESH_MAX`] sessions.
pub const REFUSED_PAUSE: Duration = Duration::from_secs(30);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Nothing,
    /// Dial it now.
    Dial,
    /// Call [`Peers::redial`] after this long.
    Later(Duration),
}

/// Why a session that a peer has opened is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// This node has as many sessions as it may have.
    Full,
    /// The session is of an earlier life of the peer than is known.
    Past,
    /// This node is the one that dials.
    Direction,
}

#[derive(Debug)]
pub(super) struct Peers {
    own: NodeId,
    peers: BTreeMap<NodeId, Peer>,
}

#[derive(Debug)]
struct Peer {
    generation: Generation,
    /// It offers the mesh, as far as this node knows.
    offers: bool,
    phase: Phase,
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It dials, or there is a pause.
    Waits,
    Dials,
    Session,
}

impl Peers {
    pub(super) fn new(own: NodeId) -> Self {
        Self { own, peers: BTreeMap::new() }
    }

    /// A node offers the mesh in this life.
    pub(super) fn joined(&mut self, node: &NodeId, generation: Generation) -> Next {
        if *node == self.own {
            return Next::Nothing;
        }
        let known = self.peers.get(node).is_some_and(|peer| peer.generation >= generation);
        let later = self.peers.get(node).is_some_and(|peer| peer.generation > generation);
        if later {
            return Next::Nothing;
        }
        if !known {
            let peer = Peer { generation, offers: true, phase: Phase::Waits, failures: 0 };
            self.peers.insert(node.clone(), peer);
        }
        self.peers.entry(node.clone()).and_modify(|peer| peer.offers = true);
        self.redial(node)
    }

    /// A node does not offer it any more, in no life up to this one. The session ends with its stream.
    pub(super) fn left(&mut self, node: &NodeId, generation: Generation) {
        if self.peers.get(node).is_some_and(|peer| peer.generation <= generation) {
            let session = |peer: &mut Peer| {
                peer.offers = false;
                peer.phase == Phase::Session
            };
            if !self.peers.get_mut(node).is_some_and(session) {
                self.peers.remove(node);
            }
        }
    }

    /// A pause is over, or a node is new.
    pub(super) fn redial(&mut self, node: &NodeId) -> Next {
        let sessions = self.sessions();
        let Some(peer) = self.peers.get_mut(node) else { return Next::Nothing };
        if *node >= self.own || !peer.offers || peer.phase != Phase::Waits {
            return Next::Nothing;
        }
        if sessions >= MESH_MAX {
            return Next::Later(REFUSED_PAUSE);
        }
        peer.phase = Phase::Dials;
        Next::Dial
    }

    /// A dial has ended: with a session or without one, or the peer has refused it.
    pub(super) fn dialed(&mut self, node: &NodeId, generation: Generation, end: Dialed) -> Next {
        let Some(peer) = self.peers.get_mut(node) else { return Next::Nothing };
        if peer.generation != generation || peer.phase != Phase::Dials {
            return Next::Nothing;
        }
        peer.phase = if end == Dialed::Session { Phase::Session } else { Phase::Waits };
        match end {
            Dialed::Session => Next::Nothing,
            Dialed::Refused => Next::Later(REFUSED_PAUSE),
            Dialed::Failed => peer.pause(),
        }
    }

    /// A peer has opened a session.
    ///
    /// # Errors
    /// Why it is not taken.
    pub(super) fn arrived(&mut self, node: &NodeId, generation: Generation) -> Result<(), Refused> {
        if *node <= self.own {
            return Err(Refused::Direction);
        }
        let sessions = self.sessions();
        let peer = self.peers.get(node);
        if peer.is_some_and(|peer| peer.generation > generation) {
            return Err(Refused::Past);
        }
        if peer.is_none_or(|peer| peer.phase != Phase::Session) && sessions >= MESH_MAX {
            return Err(Refused::Full);
        }
        let offers = peer.is_none_or(|peer| peer.offers || peer.generation < generation);
        let peer = Peer { generation, offers, phase: Phase::Session, failures: 0 };
        self.peers.insert(node.clone(), peer);
        Ok(())
    }

    /// Whether a stream with this life of a node may become a session: it was dialed or taken, and the node has not
    /// left or begun another life since.
    pub(super) fn has_session(&self, node: &NodeId, generation: Generation) -> bool {
        self.peers.get(node).is_some_and(|peer| {
            peer.generation == generation && peer.phase == Phase::Session && peer.offers
        })
    }

    /// A session was used: the next pause is a short one.
    pub(super) fn ready(&mut self, node: &NodeId, generation: Generation) {
        if let Some(peer) = self.peers.get_mut(node).filter(|peer| peer.generation == generation) {
            peer.failures = 0;
        }
    }

    /// A session has ended, and no other one of this life has taken its place.
    pub(super) fn ended(&mut self, node: &NodeId, generation: Generation) -> Next {
        let Some(peer) = self.peers.get_mut(node) else { return Next::Nothing };
        if peer.generation != generation || peer.phase != Phase::Session {
            return Next::Nothing;
        }
        peer.phase = Phase::Waits;
        if !peer.offers {
            self.peers.remove(node);
            return Next::Nothing;
        }
        if *node < self.own { peer.pause() } else { Next::Nothing }
    }

    fn sessions(&self) -> usize {
        self.peers.values().filter(|peer| peer.phase != Phase::Waits).count()
    }
}

/// How a dial has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialed {
    Session,
    Refused,
    Failed,
}

impl Peer {
    fn pause(&mut self) -> Next {
        let pause = REDIAL_MIN * 2_u32.pow(self.failures.min(DOUBLINGS));
        self.failures += 1;
        Next::Later(pause.min(REDIAL_MAX))
    }
}

const DOUBLINGS: u32 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> NodeId {
        NodeId::new(name).expect("a label")
    }

    const FIRST: Generation = Generation(1);
    const SECOND: Generation = Generation(2);

    #[test]
    fn the_greater_name_dials() {
        let mut peers = Peers::new(id("m"));
        assert_eq!(peers.joined(&id("a"), FIRST), Next::Dial);
        assert_eq!(peers.joined(&id("z"), FIRST), Next::Nothing);
        assert_eq!(peers.joined(&id("m"), FIRST), Next::Nothing);
        assert_eq!(peers.arrived(&id("z"), FIRST), Ok(()));
        assert_eq!(peers.arrived(&id("a"), FIRST), Err(Refused::Direction));
    }

    #[test]
    fn nobody_is_dialed_twice() {
        let mut peers = Peers::new(id("m"));
        assert_eq!(peers.joined(&id("a"), FIRST), Next::Dial);
        assert_eq!(peers.joined(&id("a"), FIRST), Next::Nothing);
        assert_eq!(peers.dialed(&id("a"), FIRST, Dialed::Session), Next::Nothing);
        assert_eq!(peers.redial(&id("a")), Next::Nothing);
        assert_eq!(peers.joined(&id("a"), FIRST), Next::Nothing);
    }

    #[test]
    fn pauses_double_up_to_a_limit_until_a_session_is_ready() {
        let (mut peers, a) = (Peers::new(id("m")), id("a"));
        peers.joined(&a, FIRST);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            let Next::Later(pause) = peers.dialed(&a, FIRST, Dialed::Failed) else {
                panic!("no pause after a failed dial")
            };
            pauses.push(pause);
            assert_eq!(peers.redial(&a), Next::Dial);
        }
        assert_eq!((pauses[0], pauses[1]), (REDIAL_MIN, 2 * REDIAL_MIN));
        assert_eq!(pauses.last(), Some(&REDIAL_MAX));
        peers.dialed(&a, FIRST, Dialed::Session);
        peers.ready(&a, FIRST);
        assert_eq!(peers.ended(&a, FIRST), Next::Later(REDIAL_MIN));
    }

    #[test]
    fn a_later_life_is_dialed_whatever_became_of_the_one_before() {
        let (mut peers, a) = (Peers::new(id("m")), id("a"));
        peers.joined(&a, FIRST);
        peers.dialed(&a, FIRST, Dialed::Session);
        assert_eq!(peers.joined(&a, SECOND), Next::Dial);
        // What the first life leaves behind changes nothing.
        assert_eq!(peers.ended(&a, FIRST), Next::Nothing);
        assert_eq!(peers.joined(&a, FIRST), Next::Nothing);
        assert_eq!(peers.dialed(&a, FIRST, Dialed::Failed), Next::Nothing);
        peers.left(&a, FIRST);
        assert_eq!(peers.dialed(&a, SECOND, Dialed::Session), Next::Nothing);
        assert_eq!(peers.ended(&a, SECOND), Next::Later(REDIAL_MIN));
    }

    #[test]
    fn a_session_of_an_earlier_life_is_refused() {
        let (mut peers, z) = (Peers::new(id("m")), id("z"));
        assert_eq!(peers.arrived(&z, SECOND), Ok(()));
        assert_eq!(peers.arrived(&z, FIRST), Err(Refused::Past));
        // A second one of the same life means that the first is over.
        assert_eq!(peers.arrived(&z, SECOND), Ok(()));
    }

    #[test]
    fn there_are_no_more_sessions_than_the_limit() {
        let mut peers = Peers::new(id("m"));
        for n in 0..MESH_MAX {
            assert_eq!(peers.arrived(&id(&format!("z{n:03}")), FIRST), Ok(()));
        }
        assert_eq!(peers.arrived(&id("zz"), FIRST), Err(Refused::Full));
        assert_eq!(peers.joined(&id("a"), FIRST), Next::Later(REFUSED_PAUSE));
        peers.left(&id("z000"), FIRST);
        peers.ended(&id("z000"), FIRST);
        assert_eq!(peers.arrived(&id("zz"), FIRST), Ok(()));
    }

    #[test]
    fn a_dial_that_ends_after_the_node_has_left_or_begun_anew_is_no_session() {
        let (mut peers, a, b) = (Peers::new(id("m")), id("a"), id("b"));
        peers.joined(&a, FIRST);
        peers.joined(&b, FIRST);
        peers.left(&a, FIRST);
        peers.joined(&b, SECOND);
        for node in [a, b] {
            peers.dialed(&node, FIRST, Dialed::Session);
            assert!(!peers.has_session(&node, FIRST), "{node}");
        }
    }

    #[test]
    fn who_has_left_is_not_dialed() {
        let (mut peers, a) = (Peers::new(id("m")), id("a"));
        peers.joined(&a, FIRST);
        peers.dialed(&a, FIRST, Dialed::Session);
        peers.left(&a, FIRST);
        assert_eq!(peers.ended(&a, FIRST), Next::Nothing);
        assert_eq!(peers.redial(&a), Next::Nothing);
    }
}
