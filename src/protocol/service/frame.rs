//! The frames of a lane: one long-lived stream that carries all small calls of one node to another.
//!
//! A frame is its length (a varint), its kind (one byte), its head and its body. Heads are ten to fourteen bytes. The
//! reader of a lane decodes heads only; the body goes to the handler as it came.

use bincode::config::{Configuration, standard};
use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{
    ServiceId, ServiceName,
    identity::{TRACE_BYTES, Tag, TraceContext},
};
use crate::protocol::id::{ClusterId, Generation, NodeId};

/// Longest body on a lane, in bytes. A longer one has a stream of its own: it would hold up the others, and above this
/// length a lane saves nothing.
pub const LANE_BODY_MAX: usize = 16 << 10;
/// Longest head, in bytes: two names, or the words of a refusal.
pub const HEAD_MAX: usize = 512;
/// Longest frame, in bytes, without its length.
pub const LANE_FRAME_MAX: usize = LANE_BODY_MAX + HEAD_MAX;
/// Most words of a refusal that travel, in bytes.
pub const WORDS_MAX: usize = 200;
/// The bytes of the longest length.
const LENGTH_MAX: usize = 5;
/// The bytes of the longest number.
const NUMBER_MAX: usize = 9;
/// The bytes of the head of a request, an answer, or a message, and some more.
const SHORT_HEAD: usize = 32;

/// One frame of a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The first frame of the end that has dialed: who it is, and whom it expects.
    Hello(Hello),
    /// The first frame of a client, which is not a member: whom it expects. Its certificate says who it is.
    ClientHello(ClientHello),
    /// The first frame of the other end: it is of the expected generation.
    Welcome,
    /// Gives a service a number on this lane.
    Bind {
        /// The number: the next one, from 0 on.
        index: u32,
        /// The service.
        service: ServiceId,
    },
    /// A question with one answer.
    Request(Request),
    /// A message without an answer.
    Cast(Cast),
    /// The caller does not wait any more.
    Cancel {
        /// The request.
        id: u64,
    },
    /// An answer.
    Reply {
        /// The request.
        id: u64,
        /// How full the service is: 0 is idle, 255 is full.
        load: u8,
        /// The encoded answer.
        body: Bytes,
    },
    /// The node takes no new requests: it answers those that were sent, and then the caller closes the lane.
    Drain,
    /// There is no answer.
    Refuse {
        /// The request.
        id: u64,
        /// Why.
        code: Code,
        /// When it makes sense to ask again, in milliseconds; 0 if the node does not say.
        retry_after_ms: u32,
        /// The reason for people: at most [`WORDS_MAX`] bytes. It proves nothing.
        words: String,
    },
}

/// Who opens a lane, and whom it expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its name; its certificate must name the same.
    pub node: NodeId,
    /// Its generation.
    pub generation: Generation,
    /// The generation of the other end that it calls. A later process must not answer in its place.
    pub expected: Generation,
    /// Its capabilities beyond the protocol's major version, a bit each. Unknown bits are ignored.
    pub features: u64,
}

/// Whom a client expects that opens a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// The generation of the other end that it calls; zero if it knows none yet, and calls whatever process is there.
    pub expected: Generation,
    /// Its capabilities beyond the protocol's major version, a bit each. Unknown bits are ignored.
    pub features: u64,
}

/// A question with one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The number of the service on this lane.
    pub index: u32,
    /// The number of the request on this lane.
    pub id: u64,
    /// The method.
    pub method: u16,
    /// What is left of its deadline, in milliseconds.
    pub left_ms: u32,
    /// What travels beside it.
    pub tag: Tag,
    /// The encoded question.
    pub body: Bytes,
}

/// A message without an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cast {
    /// The number of the service on this lane.
    pub index: u32,
    /// The method.
    pub method: u16,
    /// What travels beside it.
    pub tag: Tag,
    /// The encoded message.
    pub body: Bytes,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $label:literal;)*) => {
        /// Why a request has no answer. The number is part of the wire, the label is for metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// All codes.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> u8 {
                match self { $(Self::$name => $code,)* }
            }

            /// The code with this number, if there is one.
            #[must_use]
            pub const fn of(number: u8) -> Option<Self> {
                match number { $($code => Some(Self::$name),)* _ => None }
            }

            /// A stable name for counting.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

codes! {
    /// Nothing of that name and major version is offered here any more. The request has not run.
    NoSuchService = 1, "no_such_service";
    /// The service has no such method. The request has not run.
    NoSuchMethod = 2, "no_such_method";
    /// The caller may not call it. The request has not run.
    Forbidden = 3, "forbidden";
    /// The service has no room for more. The request has not run.
    Overloaded = 4, "overloaded";
    /// This caller has used its part of the room. The request has not run.
    PeerOverloaded = 5, "peer_overloaded";
    /// The service or the node takes no new requests. The request has not run.
    Draining = 6, "draining";
    /// The body is longer than the service allows. The request has not run.
    TooLarge = 7, "too_large";
    /// The body is not a question of this method. The request has not run.
    Malformed = 8, "malformed";
    /// The deadline had passed before the request began. The request has not run.
    Deadline = 9, "deadline";
    /// The key of the question belongs to another node: the words are its name. The request has not run.
    NotOwner = 10, "not_owner";
    /// The handler panicked.
    Panicked = 32, "panicked";
    /// The handler ended without an answer.
    NoAnswer = 33, "no_answer";
    /// The actor that answers has ended.
    ActorEnded = 34, "actor_ended";
    /// The answer is longer than the service allows.
    ReplyTooLarge = 35, "reply_too_large";
}

impl Code {
    /// Whether the request has certainly not run.
    #[must_use]
    pub const fn has_not_run(self) -> bool {
        self.number() < 32
    }
}

/// Bytes that are no frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadFrame {
    /// It is longer than any frame.
    #[error("a frame of {0} bytes, longer than allowed")]
    TooLong(u64),
    /// Its kind is unknown.
    #[error("a frame of the unknown kind {0}")]
    Kind(u8),
    /// Its code is unknown.
    #[error("a refusal of the unknown code {0}")]
    Code(u8),
    /// Its head ends too early, or has bytes left.
    #[error("a frame of kind {kind} whose head is malformed: {why}")]
    Head {
        /// The kind.
        kind: u8,
        /// What is wrong.
        why: String,
    },
}

const HELLO: u8 = 1;
const WELCOME: u8 = 2;
const BIND: u8 = 3;
const REQUEST: u8 = 4;
const CAST: u8 = 5;
const CANCEL: u8 = 6;
const CLIENT_HELLO: u8 = 7;
const REPLY: u8 = 17;
const REFUSE: u8 = 18;
const DRAIN: u8 = 20;

impl Frame {
    /// Appends the frame to `to`.
    pub fn encode(&self, to: &mut BytesMut) {
        let start = to.len();
        to.reserve(LENGTH_MAX + SHORT_HEAD + self.body_len());
        let mut head = Head(to);
        let body: &[u8] = match self {
            Self::Hello(hello) => {
                head.byte(HELLO).text(hello.cluster.as_str()).text(hello.node.as_str());
                head.number(hello.generation.0).number(hello.expected.0).number(hello.features);
                &[]
            }
            Self::ClientHello(hello) => {
                head.byte(CLIENT_HELLO).number(hello.expected.0).number(hello.features);
                &[]
            }
            Self::Welcome => {
                head.byte(WELCOME);
                &[]
            }
            Self::Bind { index, service } => {
                head.byte(BIND).number((*index).into()).text(service.name.as_str());
                head.number(service.major.into());
                &[]
            }
            Self::Request(request) => {
                head.byte(REQUEST).number(request.index.into()).number(request.id);
                head.number(request.method.into()).number(request.left_ms.into());
                head.tag(&request.tag);
                &request.body
            }
            Self::Cast(cast) => {
                head.byte(CAST).number(cast.index.into()).number(cast.method.into());
                head.tag(&cast.tag);
                &cast.body
            }
            Self::Cancel { id } => {
                head.byte(CANCEL).number(*id);
                &[]
            }
            Self::Drain => {
                head.byte(DRAIN);
                &[]
            }
            Self::Reply { id, load, body } => {
                head.byte(REPLY).number(*id).byte(*load);
                body
            }
            Self::Refuse { id, code, retry_after_ms, words } => {
                head.byte(REFUSE).number(*id).refusal(*code, *retry_after_ms, words);
                &[]
            }
        };
        // The length of a head is known only now. It is short, so moving it costs less than writing it twice.
        let head = to.len() - start;
        Head(to).number((head + body.len()) as u64);
        to[start..].rotate_left(head);
        to.extend_from_slice(body);
    }

    /// The bytes of its body, which are those that count against a limit on bodies.
    #[must_use]
    pub fn body_len(&self) -> usize {
        match self {
            Self::Request(Request { body, .. })
            | Self::Cast(Cast { body, .. })
            | Self::Reply { body, .. } => body.len(),
            _ => 0,
        }
    }

    fn decode(mut from: Bytes) -> Result<Self, BadFrame> {
        let kind = if from.has_remaining() { from.get_u8() } else { 0 };
        let mut head = Fields { from, kind };
        let frame = match kind {
            HELLO => Self::Hello(Hello {
                cluster: head.label(ClusterId::new)?,
                node: head.label(NodeId::new)?,
                generation: Generation(head.number()?),
                expected: Generation(head.number()?),
                features: head.number()?,
            }),
            CLIENT_HELLO => Self::ClientHello(ClientHello {
                expected: Generation(head.number()?),
                features: head.number()?,
            }),
            WELCOME => Self::Welcome,
            DRAIN => Self::Drain,
            BIND => Self::Bind {
                index: head.number()?,
                service: ServiceId { name: head.label(ServiceName::new)?, major: head.number()? },
            },
            REQUEST => {
                return Ok(Self::Request(Request {
                    index: head.number()?,
                    id: head.number()?,
                    method: head.number()?,
                    left_ms: head.number()?,
                    tag: head.tag()?,
                    body: head.from,
                }));
            }
            CAST => {
                return Ok(Self::Cast(Cast {
                    index: head.number()?,
                    method: head.number()?,
                    tag: head.tag()?,
                    body: head.from,
                }));
            }
            CANCEL => Self::Cancel { id: head.number()? },
            REPLY => {
                return Ok(Self::Reply { id: head.number()?, load: head.byte()?, body: head.from });
            }
            REFUSE => {
                let id = head.number()?;
                let (code, retry_after_ms, words) = head.refusal()?;
                Self::Refuse { id, code, retry_after_ms, words }
            }
            kind => return Err(BadFrame::Kind(kind)),
        };
        // A later version may append fields to these heads.
        Ok(frame)
    }
}

/// Cuts words to their limit, between two characters.
fn cut(words: &str) -> &str {
    let fits = |end: &usize| words.is_char_boundary(*end);
    &words[..(0..=WORDS_MAX.min(words.len())).rev().find(fits).unwrap_or(0)]
}

/// Reads frames from the chunks of a stream. A frame that lies in one chunk is a part of it; only one that lies in several
/// is copied.
#[derive(Debug, Default)]
pub struct Frames {
    /// The beginning of a frame.
    part: BytesMut,
    /// The bytes behind it.
    rest: Bytes,
}

impl Frames {
    /// Takes the next chunk of the stream.
    pub fn push(&mut self, chunk: Bytes) {
        if !self.rest.is_empty() {
            self.part.extend_from_slice(&self.rest);
        }
        self.rest = chunk;
    }

    /// The next whole frame; `None` if it has not arrived yet.
    ///
    /// # Errors
    /// [`BadFrame`]: the stream cannot be read on.
    pub fn take(&mut self) -> Result<Option<Frame>, BadFrame> {
        if !self.part.is_empty() {
            return self.take_joined();
        }
        let Some((length, used)) = length(&self.rest, LANE_FRAME_MAX)? else { return Ok(None) };
        if self.rest.len() < used + length {
            return Ok(None);
        }
        self.rest.advance(used);
        Frame::decode(self.rest.split_to(length)).map(Some)
    }

    /// The frame that begins in an earlier chunk.
    fn take_joined(&mut self) -> Result<Option<Frame>, BadFrame> {
        loop {
            let missing = match length(&self.part, LANE_FRAME_MAX)? {
                Some((length, used)) if self.part.len() >= used + length => {
                    self.part.advance(used);
                    return Frame::decode(self.part.split().freeze()).map(Some);
                }
                Some((length, used)) => used + length - self.part.len(),
                // Byte by byte: what is behind the length may be another frame.
                None => 1,
            };
            if self.rest.is_empty() {
                return Ok(None);
            }
            let next = self.rest.split_to(missing.min(self.rest.len()));
            self.part.extend_from_slice(&next);
        }
    }
}

/// The length of the next frame, which may have this many bytes, and the bytes that say so.
pub(super) fn length(from: &[u8], most: usize) -> Result<Option<(usize, usize)>, BadFrame> {
    match bincode::decode_from_slice::<u64, _>(from, CONFIG) {
        Ok((length, _)) if length > most as u64 => Err(BadFrame::TooLong(length)),
        Ok((length, used)) => Ok(Some((length as usize, used))),
        Err(_) if from.len() < LENGTH_MAX => Ok(None),
        Err(_) => Err(BadFrame::TooLong(u64::MAX)),
    }
}

const CONFIG: Configuration = standard();

/// A head while it is encoded: appended to these bytes.
#[derive(Debug)]
pub(super) struct Head<'a>(pub(super) &'a mut BytesMut);

impl Head<'_> {
    pub(super) fn byte(&mut self, byte: u8) -> &mut Self {
        self.0.put_u8(byte);
        self
    }

    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        let mut bytes = [0; NUMBER_MAX];
        let used = bincode::encode_into_slice(number, &mut bytes, CONFIG).expect("a number fits");
        self.0.extend_from_slice(&bytes[..used]);
        self
    }

    /// As bincode encodes a text: its length and its bytes.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    /// Why there is no answer, and when it makes sense to ask again.
    pub(super) fn refusal(&mut self, code: Code, retry_after_ms: u32, words: &str) -> &mut Self {
        self.byte(code.number()).number(retry_after_ms.into()).text(cut(words))
    }

    /// A number, and the bytes of a trace behind their length, which is 0 if there is none.
    pub(super) fn tag(&mut self, tag: &Tag) -> &mut Self {
        self.number(tag.number);
        match &tag.trace {
            None => self.byte(0),
            Some(trace) => {
                let bytes = trace.to_bytes();
                self.byte(bytes.len() as u8);
                self.0.extend_from_slice(&bytes);
                self
            }
        }
    }
}

/// A head while it is decoded.
pub(super) struct Fields {
    pub(super) from: Bytes,
    pub(super) kind: u8,
}

impl Fields {
    fn bad(&self, why: impl ToString) -> BadFrame {
        BadFrame::Head { kind: self.kind, why: why.to_string() }
    }

    pub(super) fn byte(&mut self) -> Result<u8, BadFrame> {
        if self.from.has_remaining() { Ok(self.from.get_u8()) } else { Err(self.bad("too short")) }
    }

    pub(super) fn number<N: TryFrom<u64>>(&mut self) -> Result<N, BadFrame> {
        let (number, used) = bincode::decode_from_slice::<u64, _>(&self.from, CONFIG)
            .map_err(|error| self.bad(error))?;
        self.from.advance(used);
        N::try_from(number).map_err(|_| self.bad(format!("{number} is too large")))
    }

    pub(super) fn tag(&mut self) -> Result<Tag, BadFrame> {
        let (number, length) = (self.number()?, usize::from(self.byte()?));
        if length == 0 {
            return Ok(Tag { number, trace: None });
        }
        if length != TRACE_BYTES || self.from.len() < length {
            return Err(self.bad(format!("a trace of {length} bytes")));
        }
        // One that names nothing is none.
        Ok(Tag { number, trace: TraceContext::from_bytes(&self.from.split_to(length)) })
    }

    /// As [`Head::refusal`].
    pub(super) fn refusal(&mut self) -> Result<(Code, u32, String), BadFrame> {
        let code = self.byte()?;
        let code = Code::of(code).ok_or(BadFrame::Code(code))?;
        let words = |words: &str| Ok::<_, String>(cut(words).to_owned());
        Ok((code, self.number()?, self.label(words)?))
    }

    pub(super) fn label<T, E: ToString>(
        &mut self,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, BadFrame> {
        let bounded = CONFIG.with_limit::<HEAD_MAX>();
        let (text, used) = bincode::borrow_decode_from_slice::<&str, _>(&self.from, bounded)
            .map_err(|error| self.bad(error))?;
        let parsed = parse(text).map_err(|error| self.bad(error));
        self.from.advance(used);
        parsed
    }
}

#[cfg(test)]
mod tests;
