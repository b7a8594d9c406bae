//! The state of a peer.

use super::{id::Generation, time::Time};

/// The state of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum PeerState {
    /// Known by name, not heard yet.
    Unheard,
    /// Heard, and not missed.
    Live,
    /// Missed for longer than usual.
    Suspect,
    /// Neither live nor dead: no node of its datacenter is heard, so its state is unknown. The detector
    /// itself never reports this state ([`datacenters`](super::datacenters)).
    Unreachable,
    /// Missed for too long.
    Dead,
    /// Gone on purpose.
    Left,
}

impl PeerState {
    /// Whether the peer may be counted on: live, or missed only for a moment.
    #[must_use]
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Live | Self::Suspect)
    }
}

/// The state of a peer, and why.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PeerLife {
    /// The state.
    pub state: PeerState,
    /// Since when.
    pub since: Time,
    /// The generation that this is about.
    pub generation: Generation,
}
