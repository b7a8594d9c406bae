//! The messages between nodes, and the only code that encodes and decodes them.
//!
//! A frame on a stream is four bytes of length (big endian, of what follows), one byte of kind, one
//! byte of version of that kind, and the message in bincode's standard encoding (variable-length
//! little-endian integers). A datagram is the same without the length. The length is checked before
//! anything is allocated, the decoder may not allocate more than [`DECODE_BYTES_MAX`], a list with a
//! limit of its own is refused by its count, and bytes left over after decoding are an error.
//!
//! The encoding cannot skip fields, so a message changes by a new version of its kind, whose decoder
//! ships one release before its encoder. The major version of all is in the ALPN.

use super::{
    delta::Delta,
    digest::Digest,
    gossip::Gossip,
    id::{ClusterId, Generation, NodeId},
    list::few,
    revocation::Revocation,
    sketch::{CELLS_MAX, Cells},
    wire::{self, Decode, DecodeError, Decoder, Encode, fields, variants},
};

/// Most bytes of one frame after its length: a delta budget, or a batch that must not be split.
pub const FRAME_BYTES_MAX: usize = 8 << 20;
/// Most bytes of a frame before a peer has introduced itself.
pub const HELLO_BYTES_MAX: usize = 4 << 10;
/// Most memory that decoding one frame may take: small entries take up to four times their bytes.
pub const DECODE_BYTES_MAX: usize = 4 * FRAME_BYTES_MAX;
/// Bytes of the length before a frame.
pub const LENGTH_BYTES: usize = 4;
/// The major version of the wire, in the ALPN.
pub const WIRE_MAJOR: u16 = 1;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The dialer introduces itself.
    Hello(Hello),
    /// The accepter introduces itself too; only then are the two connected.
    Welcome(Hello),
    /// Opens an exchange: the sender's digest.
    Syn {
        /// How far the sender's copies reach.
        digest: Digest,
    },
    /// Answers: the lines of what the responder lacks, and the delta that the initiator lacks.
    SynAck {
        /// The lines of the receiver's digest in which the sender is behind.
        wants: Digest,
        /// The delta that the receiver lacks.
        delta: Delta,
    },
    /// Closes: the delta that the responder wants.
    Ack {
        /// The delta that the responder wants.
        delta: Delta,
    },
    /// Unasked, on the stream for it.
    Gossip(Gossip),
    /// Opens an exchange, or continues the opening: the sketch of the sender's digest.
    Cells(Cells),
    /// Asks for more cells.
    Further {
        /// How many.
        cells: u32,
    },
    /// Answers cells: the difference.
    Differ {
        /// The sender's lines of those that differ.
        lines: Digest,
        /// The symbols of the lines that only the receiver knows.
        unknown: Vec<u32>,
    },
    /// Answers cells: the two differ so much that the digest costs less.
    Full,
    /// Requests everything that did not fit into a delta: see [`bulk`](super::bulk).
    Pull {
        /// How far the sender's copies reach; `None`: it gets the rest from another node.
        digest: Option<Digest>,
        /// The lines are all that the sender knows, not only some that are in question.
        all: bool,
    },
    /// A part of the requested state.
    More {
        /// The delta that the receiver lacks.
        delta: Delta,
    },
}

/// The sender's name, generation and capabilities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The cluster; no state is exchanged before both ends agree on it.
    pub cluster: ClusterId,
    /// The sender; its certificate must name the same.
    pub node: NodeId,
    /// The sender's present generation.
    pub generation: Generation,
    /// The latest generation of the receiver that the sender knows; zero if none.
    pub known: Generation,
    /// The sender's capabilities beyond the wire's major version, a bit each. Unknown bits are ignored.
    pub features: u64,
}

fields!(Hello { cluster, node, generation, known, features });

/// A sign of life, as a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The sender's present generation.
    pub generation: Generation,
    /// Counts the sender's heartbeats in this generation; an echo repeats the number of the probe.
    pub sequence: u64,
    /// How the receiver is to answer.
    pub call: Call,
    /// How slow the sender considers itself: see [`HEALTH_MAX`](super::liveness::HEALTH_MAX).
    pub health: u8,
}

fields!(Heartbeat { generation, sequence, call, health });

/// The answer that a heartbeat asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Call {
    /// No answer: QUIC acknowledges it at some time.
    #[default]
    Beat,
    /// An echo, at once.
    Probe,
    /// It is the echo.
    Echo,
}

variants!(Call { 0 => Beat {}, 1 => Probe {}, 2 => Echo {} });

/// Bytes that do not decode to a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The frame is longer than allowed here.
    #[error("frame of {len} bytes, at most {max} are allowed here")]
    TooLong {
        /// The length that it claims.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// No message of this kind and version is known.
    #[error("unknown message kind {kind} version {version}")]
    Unknown {
        /// The kind.
        kind: u8,
        /// Its version.
        version: u8,
    },
    /// The bytes are not a message of their kind.
    #[error("malformed message: {0}")]
    Malformed(String),
    /// The message is larger than the wire allows.
    #[error("message of {len} bytes cannot be sent, at most {max} are allowed")]
    Unsendable {
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
}

impl Message {
    /// The frame, with its length before it.
    ///
    /// # Errors
    /// [`WireError::Unsendable`] if it would be longer than [`FRAME_BYTES_MAX`].
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        let kind = self.kind();
        match self {
            Self::Hello(hello) | Self::Welcome(hello) => framed(kind, hello),
            Self::Syn { digest } => framed(kind, digest),
            Self::SynAck { wants, delta } => framed(kind, (wants, delta)),
            Self::Ack { delta } => framed(kind, delta),
            Self::Gossip(gossip) => framed(kind, gossip),
            Self::Cells(cells) => framed(kind, cells),
            Self::Further { cells } => framed(kind, cells),
            Self::Differ { lines, unknown } => framed(kind, (lines, unknown)),
            Self::Full => framed(kind, ()),
            Self::Pull { digest, all } => framed(kind, (digest, all)),
            Self::More { delta } => framed(kind, delta),
        }
    }

    /// The message in a frame whose length was read and checked with [`frame_len`].
    ///
    /// # Errors
    /// [`WireError`] names the fault of the bytes. It never panics.
    pub fn decode(frame: &[u8]) -> Result<Self, WireError> {
        let [kind, version, body @ ..] = frame else {
            return Err(WireError::Malformed("shorter than its header".into()));
        };
        let message = match (*kind, *version) {
            (KIND_HELLO, VERSION) => Self::Hello(whole(body)?),
            (KIND_WELCOME, VERSION) => Self::Welcome(whole(body)?),
            (KIND_SYN, VERSION) => Self::Syn { digest: sorted(whole(body)?)? },
            (KIND_SYN_ACK, VERSION) => {
                let (wants, delta): (Digest, Delta) = whole(body)?;
                Self::SynAck { wants: sorted(wants)?, delta }
            }
            (KIND_ACK, VERSION) => Self::Ack { delta: whole(body)? },
            (KIND_GOSSIP, VERSION) => Self::Gossip(checked(whole(body)?)?),
            (KIND_CELLS, VERSION) => Self::Cells(whole(body)?),
            (KIND_FURTHER, VERSION) => Self::Further { cells: whole(body)? },
            (KIND_DIFFER, VERSION) => {
                let Differing { lines, unknown } = whole(body)?;
                Self::Differ { lines: sorted(lines)?, unknown }
            }
            (KIND_FULL, VERSION) => {
                whole::<()>(body)?;
                Self::Full
            }
            (KIND_PULL, VERSION) => {
                let (digest, all): (Option<Digest>, bool) = whole(body)?;
                Self::Pull { digest: digest.map(sorted).transpose()?, all }
            }
            (KIND_MORE, VERSION) => Self::More { delta: whole(body)? },
            (kind, version) => return Err(WireError::Unknown { kind, version }),
        };
        Ok(message)
    }

    const fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => KIND_HELLO,
            Self::Welcome(_) => KIND_WELCOME,
            Self::Syn { .. } => KIND_SYN,
            Self::SynAck { .. } => KIND_SYN_ACK,
            Self::Ack { .. } => KIND_ACK,
            Self::Gossip(_) => KIND_GOSSIP,
            Self::Cells(_) => KIND_CELLS,
            Self::Further { .. } => KIND_FURTHER,
            Self::Differ { .. } => KIND_DIFFER,
            Self::Full => KIND_FULL,
            Self::Pull { .. } => KIND_PULL,
            Self::More { .. } => KIND_MORE,
        }
    }
}

impl Gossip {
    /// The frame of [`Message::Gossip`], with its length before it.
    ///
    /// # Errors
    /// [`WireError::Unsendable`] if it would be longer than [`FRAME_BYTES_MAX`].
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        framed(KIND_GOSSIP, self)
    }
}

impl Heartbeat {
    /// The datagram.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut datagram = vec![KIND_HEARTBEAT, VERSION];
        wire::append(self, &mut datagram);
        datagram
    }

    /// The heartbeat in a datagram.
    ///
    /// # Errors
    /// [`WireError`] names the fault of the bytes. It never panics.
    pub fn decode(datagram: &[u8]) -> Result<Self, WireError> {
        match datagram {
            [KIND_HEARTBEAT, VERSION, body @ ..] => whole(body),
            [kind, version, ..] => Err(WireError::Unknown { kind: *kind, version: *version }),
            _ => Err(WireError::Malformed("shorter than its header".into())),
        }
    }
}

/// The length of the frame that follows, checked against the limit that applies here.
///
/// # Errors
/// [`WireError::TooLong`].
pub fn frame_len(length: [u8; LENGTH_BYTES], max: usize) -> Result<usize, WireError> {
    let len = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if len <= max { Ok(len) } else { Err(WireError::TooLong { len, max }) }
}

fn framed(kind: u8, message: impl Encode) -> Result<Vec<u8>, WireError> {
    let mut frame = vec![0; LENGTH_BYTES];
    frame.extend([kind, VERSION]);
    wire::append(&message, &mut frame);
    let len = frame.len() - LENGTH_BYTES;
    match u32::try_from(len) {
        Ok(length) if len <= FRAME_BYTES_MAX => {
            frame[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
            Ok(frame)
        }
        _ => Err(WireError::Unsendable { len, max: FRAME_BYTES_MAX }),
    }
}

fn whole<'a, M: Decode<'a>>(body: &'a [u8]) -> Result<M, WireError> {
    wire::from_slice(body, DECODE_BYTES_MAX)
        .map_err(|error| WireError::Malformed(error.to_string()))
}

fn sorted(digest: Digest) -> Result<Digest, WireError> {
    if digest.is_sorted() {
        Ok(digest)
    } else {
        Err(WireError::Malformed("digest not sorted by node".into()))
    }
}

/// The lines of [`Message::Differ`]. A sketch yields at most as many differences as it may have cells.
struct Differing {
    lines: Digest,
    unknown: Vec<u32>,
}

impl Decode<'_> for Differing {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let lines = Digest { entries: few(from, CELLS_MAX)? };
        let unknown = few(from, CELLS_MAX - lines.entries.len())?;
        Ok(Self { lines, unknown })
    }
}

fn checked(gossip: Gossip) -> Result<Gossip, WireError> {
    if let Gossip::Revocations(told) = &gossip {
        told.statements.iter().try_for_each(Revocation::check).map_err(WireError::Malformed)?;
    }
    Ok(gossip)
}

/// The first bytes of every frame of [`Message::Gossip`].
pub(crate) const GOSSIP_HEADER: [u8; 2] = [KIND_GOSSIP, VERSION];
const VERSION: u8 = 1;
const KIND_HELLO: u8 = 1;
const KIND_WELCOME: u8 = 2;
const KIND_SYN: u8 = 3;
const KIND_SYN_ACK: u8 = 4;
const KIND_ACK: u8 = 5;
const KIND_GOSSIP: u8 = 6;
const KIND_PULL: u8 = 8;
const KIND_MORE: u8 = 9;
const KIND_CELLS: u8 = 10;
const KIND_FURTHER: u8 = 11;
const KIND_DIFFER: u8 = 12;
const KIND_FULL: u8 = 13;
const KIND_HEARTBEAT: u8 = 16;
