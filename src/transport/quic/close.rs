//! Why one end closes a connection: application close codes and the words that go with them.

use quinn::{Connection, ConnectionError, VarInt};

use crate::transport::Unwelcome;

/// Longest explanation of a peer that is shown to an operator, in characters.
const WORDS_MAX: usize = 200;

/// A close code; the numbers are part of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Close {
    /// The node ends.
    Shutdown = 0,
    /// The peer is not who it should be, or not of this cluster.
    Unwelcome = 1,
    /// There is another connection between the two that stays.
    Duplicate = 2,
    /// The peer has started anew since.
    OldGeneration = 3,
    /// The peer sent what is no message, or broke the order of the protocol.
    Misbehaviour = 4,
    /// The peer's certificate has expired.
    Expired = 5,
    /// The peer was forgotten.
    Forgotten = 6,
    /// The peer did not introduce itself in time.
    Timeout = 7,
}

impl Close {
    pub(super) fn connection(self, connection: &Connection, words: &str) {
        connection.close(VarInt::from_u32(self as u32), words.as_bytes());
    }

    /// Whether this is how connections end every day.
    pub(super) fn is_ordinary(error: &ConnectionError) -> bool {
        let ordinary = [Self::Shutdown, Self::Duplicate, Self::OldGeneration, Self::Forgotten];
        match error {
            ConnectionError::ApplicationClosed(closed) => {
                ordinary.iter().any(|code| closed.error_code == VarInt::from_u32(*code as u32))
            }
            ConnectionError::LocallyClosed | ConnectionError::Reset => true,
            _ => false,
        }
    }

    /// The label and the words of a peer that turned us away; `None` if that is not what happened.
    pub(super) fn told(error: &ConnectionError) -> Option<(&'static str, String)> {
        let ConnectionError::ApplicationClosed(closed) = error else { return None };
        let label = if closed.error_code == VarInt::from_u32(Self::Unwelcome as u32) {
            "unwelcome"
        } else if closed.error_code == VarInt::from_u32(Self::Misbehaviour as u32) {
            "misbehaviour"
        } else if closed.error_code == VarInt::from_u32(Self::Expired as u32) {
            "expired"
        } else {
            return None;
        };
        let words = String::from_utf8_lossy(&closed.reason);
        let words = words.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect::<String>();
        Some((label, format!("the peer turned us away; it says: {words}")))
    }
}

impl From<&Unwelcome> for Close {
    fn from(unwelcome: &Unwelcome) -> Self {
        match unwelcome {
            Unwelcome::Ourselves => Self::Duplicate,
            _ => Self::Unwelcome,
        }
    }
}
