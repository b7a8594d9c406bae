//! Reads along what a peer of a mesh sends to ractor's session: the name that the peer gives itself, and the lengths of
//! its frames.
//!
//! A frame of `ractor_cluster` 0.16 is its length (u64, big endian) and a protobuf message: `auth = 1`, `node = 2` or
//! `control = 3`. Of the messages `auth` the first one of the end that dials (`name = 1`) and the challenge of the other
//! end (`server_challenge = 4`) state a name, in their field 1. Upstream believes it; here it has to be the one
//! that the peer's certificate proves. What does not pass never reaches the session.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    sync::oneshot,
};

use super::figures::MeshFigures;
use crate::protocol::id::NodeId;

/// Largest frame that a session takes; a larger one ends it.
pub const FRAME_BYTES_MAX: u64 = 4 << 20;
/// Largest frame until the peer has named itself.
const AUTH_BYTES_MAX: u64 = 4 << 10;

/// What a peer did that ends its session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Offence {
    #[error(
        "a frame of {0} B, where at most {FRAME_BYTES_MAX} are taken: send large values over a stream"
    )]
    Oversized(u64),
    #[error("its session says {0:?}, its certificate and generation {1:?}")]
    Misnamed(String, String),
    #[error("it sends messages before its name, or a frame that cannot be read")]
    Disorder,
}

/// What is known of the frames so far.
#[derive(Debug)]
pub(super) struct Frames {
    expected: String,
    length: Vec<u8>,
    /// How much of the present frame is still to come.
    left: u64,
    /// The present frame, while the peer has not named itself.
    frame: Vec<u8>,
    named: bool,
}

impl Frames {
    pub(super) const fn new(expected: String) -> Self {
        Self { expected, length: Vec::new(), left: 0, frame: Vec::new(), named: false }
    }

    /// Looks at the next bytes.
    ///
    /// # Errors
    /// [`Offence`]: these bytes must not reach the session.
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> Result<(), Offence> {
        while !bytes.is_empty() {
            if self.left == 0 {
                let (next, rest) =
                    bytes.split_at(bytes.len().min(LENGTH_BYTES - self.length.len()));
                self.length.extend_from_slice(next);
                bytes = rest;
                let Ok(length) = <[u8; LENGTH_BYTES]>::try_from(&*self.length) else { continue };
                self.length.clear();
                self.begin(u64::from_be_bytes(length))?;
            } else {
                let most = usize::try_from(self.left).unwrap_or(usize::MAX);
                let (next, rest) = bytes.split_at(bytes.len().min(most));
                if !self.named {
                    self.frame.extend_from_slice(next);
                }
                self.left -= next.len() as u64;
                bytes = rest;
                if self.left == 0 && !self.named {
                    self.named = self.is_named()?;
                    self.frame = Vec::new();
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, length: u64) -> Result<(), Offence> {
        if length > FRAME_BYTES_MAX {
            return Err(Offence::Oversized(length));
        }
        if !self.named && (length > AUTH_BYTES_MAX || length == 0) {
            return Err(Offence::Disorder);
        }
        self.left = length;
        Ok(())
    }

    /// Whether the present frame names the peer.
    fn is_named(&self) -> Result<bool, Offence> {
        let auth = only(&self.frame).filter(|(field, _)| *field == AUTH).map(|(_, auth)| auth);
        let (field, message) = auth.and_then(only).ok_or(Offence::Disorder)?;
        if ![NAME, CHALLENGE].contains(&field) {
            return Ok(false);
        }
        let mut names = Vec::new();
        let mut rest = message;
        while !rest.is_empty() {
            let (found, value, after) = next(rest).ok_or(Offence::Disorder)?;
            if found == NAME_OF {
                names.push(value.ok_or(Offence::Disorder)?);
            }
            rest = after;
        }
        match names[..] {
            [name] if name == self.expected.as_bytes() => Ok(true),
            [name] => {
                let name = String::from_utf8_lossy(name).into_owned();
                Err(Offence::Misnamed(name, self.expected.clone()))
            }
            _ => Err(Offence::Disorder),
        }
    }
}

/// The field of a message that has only this one, and its bytes.
fn only(message: &[u8]) -> Option<(u64, &[u8])> {
    let (field, value, rest) = next(message)?;
    value.filter(|_| rest.is_empty()).map(|value| (field, value))
}

/// A field: its number, its bytes if it has any, and what follows it.
type Field<'a> = (u64, Option<&'a [u8]>, &'a [u8]);

/// The next field of a protobuf message.
fn next(message: &[u8]) -> Option<Field<'_>> {
    let (tag, rest) = varint(message)?;
    let number = tag >> 3;
    match tag & 7 {
        0 => varint(rest).map(|(_, rest)| (number, None, rest)),
        1 => rest.split_at_checked(8).map(|(_, rest)| (number, None, rest)),
        2 => {
            let (length, rest) = varint(rest)?;
            let (value, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            Some((number, Some(value), rest))
        }
        5 => rest.split_at_checked(4).map(|(_, rest)| (number, None, rest)),
        _ => None,
    }
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let end = bytes.iter().take(10).position(|byte| byte & 0x80 == 0)?;
    let (digits, rest) = bytes.split_at(end + 1);
    let value = digits.iter().rev().try_fold(0_u64, |value, byte| {
        let next = value.checked_mul(128)?;
        Some(next | u64::from(byte & 0x7f))
    });
    Some((value?, rest))
}

/// The reading half of a session.
pub(super) struct Guard<R> {
    reader: R,
    frames: Frames,
    node: NodeId,
    figures: Arc<MeshFigures>,
    /// Dropped with this half: others wait for that.
    _held: Vec<oneshot::Sender<()>>,
}

impl<R> Guard<R> {
    pub(super) fn new(
        reader: R,
        frames: Frames,
        node: NodeId,
        figures: Arc<MeshFigures>,
        held: Vec<oneshot::Sender<()>>,
    ) -> Self {
        Self { reader, frames, node, figures, _held: held }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Guard<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.reader).poll_read(context, buffer))?;
        let taken = this.frames.take(&buffer.filled()[before..]);
        Poll::Ready(taken.map_err(|offence| {
            buffer.set_filled(before);
            match &offence {
                Offence::Oversized(_) => this.figures.oversize(),
                Offence::Misnamed(..) => this.figures.misname(),
                Offence::Disorder => this.figures.disorder(),
            }
            tracing::warn!(peer = %this.node, "the session of a mesh ends: {offence}");
            io::Error::new(io::ErrorKind::InvalidData, offence)
        }))
    }
}

const LENGTH_BYTES: usize = 8;
/// `NetworkMessage.auth`.
const AUTH: u64 = 1;
/// `AuthenticationMessage.name`.
const NAME: u64 = 1;
/// `AuthenticationMessage.server_challenge`.
const CHALLENGE: u64 = 4;
/// The name in either of them.
const NAME_OF: u64 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2, u8::try_from(value.len()).expect("short")];
        bytes.extend(value);
        bytes
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        let mut bytes = (message.len() as u64).to_be_bytes().to_vec();
        bytes.extend(message);
        bytes
    }

    fn auth(number: u8, message: &[u8]) -> Vec<u8> {
        framed(&field(1, &field(number, message)))
    }

    /// A name, and a number after it as upstream sends it.
    fn named(name: &str) -> Vec<u8> {
        let mut message = field(1, name.as_bytes());
        message.extend([4 << 3, 0x96, 0x01]);
        message
    }

    fn frames() -> Frames {
        Frames::new("a@1".to_owned())
    }

    #[test]
    fn another_name_is_refused_in_either_message() {
        for number in [1, 4] {
            let offence = frames().take(&auth(number, &named("b@1")));
            assert_eq!(offence, Err(Offence::Misnamed("b@1".into(), "a@1".into())));
        }
    }

    #[test]
    fn nothing_passes_before_the_name() {
        let message = framed(&field(2, b"to an actor"));
        assert_eq!(frames().take(&message), Err(Offence::Disorder));
        let status = auth(2, &[1 << 3, 0]);
        let mut after = frames();
        assert_eq!(after.take(&status), Ok(()));
        assert_eq!(after.take(&message), Err(Offence::Disorder));
    }

    #[test]
    fn a_frame_with_two_messages_or_names_is_refused() {
        let both = [field(1, &field(1, &named("a@1"))), field(2, b"x")].concat();
        assert_eq!(frames().take(&framed(&both)), Err(Offence::Disorder));
        let twice = [named("a@1"), named("b@1")].concat();
        assert_eq!(frames().take(&auth(1, &twice)), Err(Offence::Disorder));
        let nameless = auth(1, &[]);
        assert_eq!(frames().take(&nameless), Err(Offence::Disorder));
    }

    #[test]
    fn long_frames_are_refused_before_they_have_come() {
        let length = |bytes: u64| bytes.to_be_bytes();
        assert_eq!(frames().take(&length(AUTH_BYTES_MAX + 1)), Err(Offence::Disorder));
        let mut named_frames = frames();
        assert_eq!(named_frames.take(&auth(1, &named("a@1"))), Ok(()));
        assert_eq!(named_frames.take(&framed(&vec![0; 5_000])), Ok(()));
        let over = FRAME_BYTES_MAX + 1;
        assert_eq!(named_frames.take(&length(over)), Err(Offence::Oversized(over)));
    }

    #[test]
    fn it_does_not_matter_how_the_bytes_arrive() {
        let mut session = auth(2, &[1 << 3, 0]);
        session.extend(auth(4, &named("a@1")));
        session.extend(framed(&field(2, &[7; 100])));
        session.extend(framed(&field(3, b"control")));
        for size in 1..session.len() {
            let mut frames = frames();
            for part in session.chunks(size) {
                assert_eq!(frames.take(part), Ok(()), "{size}");
            }
            assert!(frames.named && frames.left == 0 && frames.length.is_empty());
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut state = 1_u64;
        for _ in 0..20_000 {
            let mut bytes = Vec::new();
            for _ in 0..24 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                bytes.push((state >> 56) as u8);
            }
            drop(frames().take(&framed(&bytes)));
            drop(frames().take(&framed(&field(1, &bytes))));
        }
    }
}
