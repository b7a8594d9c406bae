//! What is thought of a peer.

use super::{id::Generation, time::Time};

/// What is thought of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum PeerState {
    /// Known by name, not heard yet.
    Unheard,
    /// Heard, and not missed.
    Live,
    /// Missed for longer than usual.
    Suspect,
    /// Neither live nor dead, as far as anybody can tell: nobody of its datacenter is heard. The
    /// detector itself never says so ([`datacenters`](super::datacenters)).
    Unreachable,
    /// Missed for too long.
    Dead,
    /// Gone on purpose.
    Left,
}

impl PeerState {
    /// Whether the peer may be counted on: live, or missed for a moment only.
    #[must_use]
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Live | Self::Suspect)
    }
}

/// What is thought of a peer, and why.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PeerLife {
    /// What is thought of it.
    pub state: PeerState,
    /// Since when.
    pub since: Time,
    /// The generation that this is about.
    pub generation: Generation,
}
