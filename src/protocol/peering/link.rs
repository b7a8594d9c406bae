//! What the machine keeps of one connection.

use std::sync::Arc;

use super::{
    super::{
        budget::Allowance,
        id::{Generation, NodeId},
        outbox::Outbox,
        session::Met,
    },
    ConnectionId, Introduced,
    life::Life,
    loss::Loss,
};

/// A later generation of this node is sent in so many datagrams, one a look, since some may be lost.
const RENEWALS: u32 = 8;

/// One connection to a peer that has introduced itself.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) connection: ConnectionId,
    pub(super) peer: NodeId,
    /// The latest generation that the peer has shown on this connection.
    pub(super) generation: Generation,
    /// What the peer can do.
    pub(super) features: u64,
    /// Whether this end dialed it.
    pub(super) dialed: bool,
    /// With what the two ends have proved who they are.
    pub(super) proof: Arc<str>,
    pub(super) outbox: Outbox,
    pub(super) allowance: Allowance,
    pub(super) life: Life,
    pub(super) loss: Loss,
    /// Datagrams that were no heartbeats.
    pub(super) malformed: u32,
    announced: Announced,
}

/// Which generation of this node the peer was sent, and how often it is still to be sent.
#[derive(Debug)]
struct Announced {
    own: Generation,
    left: u32,
}

impl Link {
    pub(super) fn new(introduced: Introduced, allowance: Allowance) -> Self {
        let Introduced { connection, met, own, dialed, proof, .. } = introduced;
        Self {
            connection,
            peer: met.node,
            generation: met.generation,
            features: met.features,
            dialed,
            proof,
            outbox: Outbox::default(),
            allowance,
            life: Life::default(),
            loss: Loss::default(),
            malformed: 0,
            announced: Announced { own, left: 0 },
        }
    }

    pub(super) fn met(&self) -> Met {
        let (node, generation) = (self.peer.clone(), self.generation);
        Met { node, generation, features: self.features }
    }

    /// Takes the generation that the peer shows; says whether it is a later one.
    pub(super) fn raise(&mut self, generation: Generation) -> bool {
        let later = self.generation < generation;
        self.generation = self.generation.max(generation);
        later
    }

    /// Whether this generation of ours is to be sent to the peer (once more).
    pub(super) fn announces(&mut self, own: Generation) -> bool {
        if self.announced.own != own {
            self.announced = Announced { own, left: RENEWALS };
        }
        let announces = self.announced.left > 0;
        self.announced.left = self.announced.left.saturating_sub(1);
        announces
    }
}
