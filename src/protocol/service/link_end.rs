//! Why the connection for calls to a node has ended, or why there is none.

use super::directory::Gone;

/// Why a link has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEnd {
    /// The node has ended, by what membership knows.
    Gone(Gone),
    /// No connection could be opened.
    NotConnected(String),
    /// The connection has ended.
    Connection(String),
    /// The certificate of the node was revoked.
    Revoked,
    /// The node takes no new requests, and has answered all that were sent.
    Drained,
    /// This node has ended.
    Stopped,
    /// Nothing was called for long.
    Idle,
}

impl std::fmt::Display for LinkEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gone(gone) => gone.fmt(f),
            Self::NotConnected(why) | Self::Connection(why) => f.write_str(why),
            Self::Revoked => f.write_str("the certificate of the node was revoked"),
            Self::Drained => f.write_str("the node is about to stop"),
            Self::Stopped => f.write_str("this node has ended"),
            Self::Idle => f.write_str("the connection was closed because it was idle"),
        }
    }
}
