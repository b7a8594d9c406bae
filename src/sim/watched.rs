//! What a run records of itself: connections, verdicts, and how writes spread.

use std::time::Duration;

use super::shake::Handshakes;
use crate::protocol::{
    event::Event,
    id::{NodeId, Version},
};

/// What became of the connections of a run, and what was sent.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Connections ever made.
    pub connected: u64,
    /// Connections that took the place of one with older certificates, at one end.
    pub renewed: u64,
    /// Connections that were refused since there was one, at one end.
    pub duplicates: u64,
    /// Handshakes begun anew and silent connections replaced, since others said that the peer lives.
    pub hurried: u64,
    /// How often storage was told that a connection is congested.
    pub congestions: u64,
    /// How often news waited for its budget.
    pub waits: u64,
    /// How often bulk broke off, at one end.
    pub bulk_broken: u64,
    /// Peers that were disconnected for misbehaviour: when, and by which machine.
    pub disconnected: Vec<(Duration, usize, NodeId)>,
    /// Dials begun.
    pub dials: u64,
    /// What became of handshakes; begun ones only if there are processors.
    pub handshakes: Handshakes,
    /// How often a node has taken other neighbours.
    pub settlements: u64,
    /// News of an owner that came in a frame of gossip, also what was known.
    pub received: u64,
    /// Exchanges of digests begun.
    pub exchanges: u64,
    /// Frames between datacenters with a watched write, or that steer its spreading.
    pub wan_messages: u64,
    /// Notes of updates that were sent.
    pub notes: u64,
    /// Updates of single nodes that came unasked or on request, also those that were there already.
    pub news: u64,
    /// Frames with a watched write, anywhere.
    pub payloads: u64,
    /// The bytes of these frames.
    pub payload_bytes: u64,
}

/// What nodes have said of each other.
#[derive(Debug, Default)]
pub struct Said {
    /// Deaths, and datacenters that came and went: when, and by which machine.
    pub told: Vec<(Duration, usize, Event)>,
    /// Suspicions: when, and by which machine.
    pub suspected: Vec<(Duration, usize, NodeId)>,
    /// Which machine has said of which node that it has signed two states as one.
    pub equivocations: Vec<(usize, NodeId)>,
    /// The states of the nodes as seen by each other, if they are wanted.
    pub(super) sightings: Option<Vec<Sighting>>,
}

/// A node changed its mind about another.
#[derive(Clone, Copy, Debug)]
pub struct Sighting {
    pub at: u64,
    pub observer: usize,
    pub subject: usize,
    pub seen: Seen,
}

/// The state of a node as seen by another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Live,
    Suspect,
    /// Dead, or gone on purpose.
    Dead,
}

/// A write whose spreading is watched.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) owner: usize,
    pub(super) version: Version,
    pub(super) begun: u64,
    /// After how many microseconds each node had it.
    pub(super) reached: Vec<Option<u64>>,
    pub(super) left: usize,
}
