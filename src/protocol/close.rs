//! Why one end closes a connection: application close codes and the words that go with them. Both are part of the
//! wire.
//!
//! Whether the close proves anything is not decided here. Before the end of the handshake anybody can close a
//! connection with any code and words, so a transport reads the close of a peer only if the peer has proved its
//! name before.

use super::{
    id::Generation,
    revocation::{Revocation, date},
    session::Unwelcome,
};

/// The generation follows; part of the wire.
const OUTLIVED: &str = "a later life of you is known: generation ";

/// A close code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Close {
    /// The node ends.
    Shutdown = 0,
    /// The peer is not who it should be, or not of this cluster.
    Unwelcome = 1,
    /// Another connection between the two stays.
    Duplicate = 2,
    /// The peer has started anew since.
    OldGeneration = 3,
    /// The peer sent bytes that are no message, or broke the order of the protocol.
    Misbehaviour = 4,
    /// The peer's certificate has expired.
    Expired = 5,
    /// The peer was forgotten.
    Forgotten = 6,
    /// The peer did not introduce itself in time.
    Timeout = 7,
    /// The node has dialed its own address.
    Ourselves = 8,
    /// Neither end needs the connection any more, or one has too many.
    Unneeded = 9,
    /// The peer's certificate was revoked.
    Revoked = 10,
    /// More connections than are allowed at once.
    Busy = 11,
    /// The peer calls another process of this node than the present one.
    Restarted = 12,
}

/// How a connection is closed: the code and the words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// The code.
    pub code: Close,
    /// For the peer's operator; some codes carry data in it.
    pub words: Vec<u8>,
}

/// How a peer that has proved its name closed a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed<'a> {
    /// The code; codes of later versions are unknown here.
    pub code: u64,
    /// What the peer says.
    pub words: &'a [u8],
}

impl Close {
    /// How connections end every day.
    const ORDINARY: [Self; 6] = [
        Self::Shutdown,
        Self::Duplicate,
        Self::OldGeneration,
        Self::Forgotten,
        Self::Ourselves,
        Self::Unneeded,
    ];

    /// With these words.
    #[must_use]
    pub fn with(self, words: impl Into<Vec<u8>>) -> Closing {
        Closing { code: self, words: words.into() }
    }

    /// Closes a connection of an earlier generation than the known one. The words carry the known one, since
    /// what else is on its way is dropped with the connection.
    #[must_use]
    pub fn outlived(known: Generation) -> Closing {
        Self::OldGeneration.with(format!("{OUTLIVED}{}", known.0))
    }

    /// Closes a connection with a peer whose certificate was revoked. The words are for people, and end with a
    /// zero; the statement follows, so that an honest peer learns of it.
    #[must_use]
    pub fn revoked(cutoff: u64, statement: Option<&Revocation>) -> Closing {
        let mut words =
            format!("your certificates of until {} are revoked", date(cutoff)).into_bytes();
        words.push(0);
        words.extend(statement.into_iter().flat_map(Revocation::encode));
        Self::Revoked.with(words)
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

impl Closed<'_> {
    /// Whether the peer closed the connection with this code.
    #[must_use]
    pub const fn is(&self, code: Close) -> bool {
        self.code == code as u64
    }

    /// Whether connections end like this every day.
    #[must_use]
    pub fn is_ordinary(&self) -> bool {
        Close::ORDINARY.iter().any(|code| self.is(*code))
    }

    /// The later generation of this node that the peer knows, if it closed the connection for that.
    #[must_use]
    pub fn later_generation(&self) -> Option<Generation> {
        let digits = self.words.strip_prefix(OUTLIVED.as_bytes())?;
        let generation = std::str::from_utf8(digits).ok()?.parse().ok()?;
        self.is(Close::OldGeneration).then_some(Generation(generation))
    }

    /// The statement by which the peer has closed the connection, if there is one.
    #[must_use]
    pub fn revocation(&self) -> Option<Revocation> {
        let end = self.words.iter().position(|byte| *byte == 0)?;
        let statement = Revocation::decode(&self.words[end + 1..]).ok();
        statement.filter(|_| self.is(Close::Revoked))
    }

    /// The label for counting and the words for people, if the peer has rejected this node; `None` if the
    /// connection ended for another reason.
    #[must_use]
    pub fn rejection(&self) -> Option<(&'static str, &[u8])> {
        let labels = [
            (Close::Unwelcome, "unwelcome"),
            (Close::Misbehaviour, "misbehaviour"),
            (Close::Expired, "expired"),
            (Close::Timeout, "timeout"),
            (Close::Revoked, "revoked"),
        ];
        let (_, label) = labels.into_iter().find(|(code, _)| self.is(*code))?;
        Some((label, self.words.split(|byte| *byte == 0).next().unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(closing: &Closing) -> Closed<'_> {
        Closed { code: closing.code as u64, words: &closing.words }
    }

    #[test]
    fn no_later_generation_is_read_out_of_another_code() {
        let outlived = Close::outlived(Generation(17));
        assert_eq!(closed(&outlived).later_generation(), Some(Generation(17)));
        let words = outlived.words;
        assert_eq!(closed(&Close::Unwelcome.with(words)).later_generation(), None);
        let bad = Close::OldGeneration.with("a later life of you is known: generation soon");
        assert_eq!(closed(&bad).later_generation(), None);
    }

    #[test]
    fn only_a_rejection_has_a_label() {
        let closing = Close::Expired.with("renew it");
        assert_eq!(closed(&closing).rejection(), Some(("expired", &b"renew it"[..])));
        assert!(!closed(&closing).is_ordinary());
        let closing = Close::Duplicate.with("");
        assert_eq!(closed(&closing).rejection(), None);
        assert!(closed(&closing).is_ordinary());
        assert!(!Closed { code: 4_711, words: b"" }.is_ordinary());
    }
}
