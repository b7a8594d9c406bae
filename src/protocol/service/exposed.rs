//! Actors that are called by a random number instead of an announced name.
//!
//! On a lane they are all one service, [`EXPOSED`], and the number comes before the question. So they take one of the
//! services that a lane may bind, however many of them are called. A number proves nothing; access is checked as for an
//! offer. It is random so that it does not name another actor after this one has ended, and so that callers cannot guess
//! the numbers of others.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::{ServiceId, ServiceName};
use crate::protocol::time::Time;

/// The service on a lane by which exposed actors are called. No node may offer or announce it.
pub const EXPOSED: &str = "gossipmonger.exposed";
/// Most actors that one node exposes at once.
pub const EXPOSED_MAX: usize = 65_536;
/// Numbers of ended actors that a node remembers, at most. A caller may not have heard of the end.
pub const ENDED_MAX: usize = 65_536;
/// Requests and messages with numbers of no actor, or of one that the node does not remember, that one connection may
/// carry at once. The next one closes it.
pub const WRONG_NUMBERS_MAX: u32 = 256;
/// After this time one more is allowed.
pub const WRONG_NUMBER_EVERY: Duration = Duration::from_millis(100);
/// The bytes of a number.
const NUMBER_BYTES: usize = 8;

/// The id of [`EXPOSED`].
#[must_use]
pub fn exposed() -> ServiceId {
    let name = ServiceName::new(EXPOSED).expect("it is a label");
    ServiceId { name, major: 1 }
}

/// The body of a request or message for the actor of this number.
#[must_use]
pub fn addressed(number: u64, body: &[u8]) -> Bytes {
    let mut to = BytesMut::with_capacity(NUMBER_BYTES + body.len());
    to.put_u64(number);
    to.put_slice(body);
    to.freeze()
}

/// Takes the number from a body; `None` if there is none.
#[must_use]
pub fn number(body: &mut Bytes) -> Option<u64> {
    if body.len() < NUMBER_BYTES {
        return None;
    }
    let number = body.split_to(NUMBER_BYTES);
    number[..].try_into().ok().map(u64::from_be_bytes)
}

/// The wrong numbers that came over one connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct WrongNumbers {
    /// Those that are not forgiven yet.
    used: u32,
    /// When one was forgiven last.
    at: Time,
}

impl WrongNumbers {
    /// A wrong number has come. Returns whether these are too many: the connection is to be closed.
    pub fn one_more(&mut self, now: Time) -> bool {
        let forgiven = now.since(self.at).as_millis() / WRONG_NUMBER_EVERY.as_millis();
        let forgiven = u32::try_from(forgiven).unwrap_or(u32::MAX);
        if forgiven > 0 {
            (self.used, self.at) = (self.used.saturating_sub(forgiven), now);
        }
        self.used += 1;
        self.used > WRONG_NUMBERS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_without_a_number_has_none() {
        for short in [&b""[..], b"1234567"] {
            assert_eq!(number(&mut Bytes::from_static(short)), None);
        }
    }

    #[test]
    fn the_number_comes_before_the_question() {
        let mut body = addressed(0x0102_0304_0506_0708, b"abc");
        assert_eq!(&body[..], b"\x01\x02\x03\x04\x05\x06\x07\x08abc");
        assert_eq!(number(&mut body), Some(0x0102_0304_0506_0708));
        assert_eq!(&body[..], b"abc");
        let mut empty = addressed(u64::MAX, b"");
        assert_eq!((number(&mut empty), empty.len()), (Some(u64::MAX), 0));
    }

    #[test]
    fn who_guesses_is_cut_off_and_who_is_late_is_forgiven() {
        let at = |ms| Time::from_origin(Duration::from_millis(ms));
        let mut wrong = WrongNumbers::default();
        assert!((0..WRONG_NUMBERS_MAX).all(|_| !wrong.one_more(at(50))));
        assert!(wrong.one_more(at(99)));
        let mut slow = WrongNumbers::default();
        assert!((0..10_000).all(|n| !slow.one_more(at(n * 100))));
        let mut long_ago = WrongNumbers::default();
        assert!((0..WRONG_NUMBERS_MAX).all(|_| !long_ago.one_more(at(0))));
        assert!(!long_ago.one_more(at(u64::from(u32::MAX) * 200)));
    }
}
