//! The state of a peer.

use std::fmt;

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

    /// Its name in lower case, as the program prints it; a peer that was not heard yet is `joining`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unheard => "joining",
            Self::Live => "live",
            Self::Suspect => "suspect",
            Self::Unreachable => "unreachable",
            Self::Dead => "dead",
            Self::Left => "left",
        }
    }
}

impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
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
