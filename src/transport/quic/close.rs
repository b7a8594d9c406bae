//! Why one end closes a connection: application close codes and the words that go with them.
//!
//! Who may say it is not looked at here. Before the end of the handshake anybody can close a connection
//! with any code and words (quinn takes an application close in an Initial packet, which RFC 9000,
//! section 12.5 forbids), so only the close of a peer that has proved that it is a node is read: see
//! [`Introduction::Ended`](super::introduce::Introduction::Ended).

use quinn::{Connection, ConnectionError, VarInt};

use crate::{
    foreign::Foreign,
    protocol::{
        id::Generation,
        revocation::{Revocation, date},
    },
    transport::Unwelcome,
};

/// Longest explanation of a peer that is shown to an operator, in characters.
const WORDS_MAX: usize = 200;
/// The generation follows; part of the wire.
const OUTLIVED: &str = "a later life of you is known: generation ";

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
    /// The peer is this node itself, which dialed its own address.
    Ourselves = 8,
    /// Neither end needs it any more, or one has too many.
    Unneeded = 9,
    /// The peer's certificate was revoked.
    Revoked = 10,
    /// A client more than are allowed at once.
    Busy = 11,
}

/// Why a stream is reset; only for those who read traces.
pub(super) const STREAM_SHED: VarInt = VarInt::from_u32(1);
/// See [`STREAM_SHED`]: the exchange broke off.
pub(super) const STREAM_BROKEN: VarInt = VarInt::from_u32(2);

impl Close {
    pub(super) fn connection(self, connection: &Connection, words: &str) {
        connection.close(VarInt::from_u32(self as u32), words.as_bytes());
    }

    /// Whether the peer closed the connection for this.
    pub(super) fn is_told(self, error: &ConnectionError) -> bool {
        matches!(error, ConnectionError::ApplicationClosed(closed)
            if closed.error_code == VarInt::from_u32(self as u32))
    }

    /// Whether this is how connections end every day.
    pub(super) fn is_ordinary(error: &ConnectionError) -> bool {
        let ordinary = [
            Self::Shutdown,
            Self::Duplicate,
            Self::OldGeneration,
            Self::Forgotten,
            Self::Ourselves,
            Self::Unneeded,
        ];
        match error {
            ConnectionError::ApplicationClosed(_) => {
                ordinary.iter().any(|code| code.is_told(error))
            }
            ConnectionError::LocallyClosed | ConnectionError::Reset => true,
            _ => false,
        }
    }

    /// Whether the end was found at this end, and not told by the other one.
    pub(super) const fn is_our_end(error: &ConnectionError) -> bool {
        !matches!(
            error,
            ConnectionError::ApplicationClosed(_) | ConnectionError::ConnectionClosed(_)
        )
    }

    /// Closes a connection of an earlier life than the one known. The words carry that life, since
    /// what else was on its way is dropped with the connection.
    pub(super) fn outlived(connection: &Connection, known: Generation) {
        Self::OldGeneration.connection(connection, &format!("{OUTLIVED}{}", known.0));
    }

    /// The later life of ours that a peer knows of, if that is why it closed the connection.
    pub(super) fn later_life(error: &ConnectionError) -> Option<Generation> {
        let ConnectionError::ApplicationClosed(closed) = error else { return None };
        let digits = closed.reason.strip_prefix(OUTLIVED.as_bytes())?;
        let old = closed.error_code == VarInt::from_u32(Self::OldGeneration as u32);
        let generation = std::str::from_utf8(digits).ok()?.parse().ok()?;
        old.then_some(Generation(generation))
    }

    /// Closes a connection with one whose certificate was revoked. The words are for people, and end
    /// with a zero; the statement follows, if it fits, so that an honest peer learns of it.
    pub(super) fn revoked(connection: &Connection, cutoff: u64, statement: Option<&Revocation>) {
        let words = format!("your certificates of until {} are revoked", date(cutoff));
        let mut reason = words.into_bytes();
        reason.push(0);
        reason.extend(statement.into_iter().flat_map(Revocation::encode));
        connection.close(VarInt::from_u32(Self::Revoked as u32), &reason);
    }

    /// The statement by which a peer has closed the connection, if there is one.
    pub(super) fn revocation(error: &ConnectionError) -> Option<Revocation> {
        let ConnectionError::ApplicationClosed(closed) = error else { return None };
        let end = closed.reason.iter().position(|byte| *byte == 0)?;
        let statement = Revocation::decode(&closed.reason[end + 1..]).ok();
        statement.filter(|_| Self::Revoked.is_told(error))
    }

    /// The label and the words of a peer that turned us away; `None` if that is not what happened.
    pub(super) fn told(error: &ConnectionError) -> Option<(&'static str, String)> {
        let ConnectionError::ApplicationClosed(closed) = error else { return None };
        let labels = [
            (Self::Unwelcome, "unwelcome"),
            (Self::Misbehaviour, "misbehaviour"),
            (Self::Expired, "expired"),
            (Self::Timeout, "timeout"),
            (Self::Revoked, "revoked"),
        ];
        let (_, label) = labels.into_iter().find(|(code, _)| code.is_told(error))?;
        let words = closed.reason.split(|byte| *byte == 0).next().unwrap_or_default();
        let words = Foreign::lossy(words).cut(WORDS_MAX);
        Some((label, format!("the peer turned us away; it says: {words}")))
    }
}

impl From<&Unwelcome> for Close {
    fn from(unwelcome: &Unwelcome) -> Self {
        match unwelcome {
            Unwelcome::Ourselves => Self::Ourselves,
            _ => Self::Unwelcome,
        }
    }
}
