//! How a connection is closed, and what the peer meant by closing it.

use crate::{
    foreign::Foreign,
    net::{Connection, Ended},
    protocol::close::{Close, Closed, Closing},
};

/// Longest explanation of a peer that is shown to the operator, in characters.
const WORDS_MAX: usize = 200;

/// Closes a connection.
pub(super) fn close(connection: &dyn Connection, closing: &Closing) {
    connection.close(closing.code as u32, &closing.words);
}

/// Closes a connection, with words for the log of the peer.
pub(crate) fn close_with(connection: &dyn Connection, code: Close, words: &str) {
    connection.close(code as u32, words.as_bytes());
}

/// How a peer that has proved its name closed a connection, if it did.
pub(super) fn closed(ended: &Ended) -> Option<Closed<'_>> {
    match ended {
        Ended::Closed { code, words } => Some(Closed { code: *code, words }),
        _ => None,
    }
}

/// The label for the counter and the words for the operator, if a peer with a proved name has rejected this node.
pub(super) fn rejection(ended: &Ended) -> Option<(&'static str, String)> {
    let closed = closed(ended)?;
    let (label, words) = closed.rejection()?;
    let words = Foreign::lossy(words).cut(WORDS_MAX);
    Some((label, format!("the peer turned us away; it says: {words}")))
}

/// Whether this end of a connection is normal in operation.
pub(super) fn is_ordinary(ended: &Ended) -> bool {
    match ended {
        Ended::Here | Ended::Reset => true,
        ended => closed(ended).is_some_and(|closed| closed.is_ordinary()),
    }
}
