//! The frames of a stream that belongs to one call.
//!
//! A stream carries what does not fit on a lane: a long question or answer, many messages for one call, or plain bytes.
//! A frame is its length (a varint), its kind (one byte), its head and its body, as on a lane.
//!
//! ```text
//!   caller                                  callee
//!   Open, Item (the question) ------------>
//!                              <----------- Item (the answer), End        call
//!                              <----------- Begun, Item.., End            server stream
//!   Item.., End -------------->             Begun, Item (the answer), End client stream
//!   bytes <--------------------Begun------> bytes                         duplex
//!                              <----------- Refuse                        at any time instead
//!                              <----------- Answer, Item                  for a call on the lane
//! ```
//!
//! The caller keeps its half open until it has all that it waits for. If the half ends earlier, the caller has given
//! up. So a call is cancelled in the same way whether its caller drops it or dies.
//!
//! Once the handler has begun, no refusal says that the call has not run ([`Beginning`]).

mod beginning;

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};

pub use self::beginning::Beginning;

use super::{
    ServiceId, ServiceName,
    frame::{BadFrame, Code, Fields, HEAD_MAX, Head, length},
    identity::Tag,
};

/// The longest body of a question, an answer or an item that any configuration allows, in bytes.
pub const BODY_MAX: usize = 16 << 20;
/// Streams that one caller may have open at once on one connection.
pub const STREAMS_PER_PEER: usize = 128;
/// The rest of a chunk is copied if the chunk has so many times as many bytes: it would keep the memory of all of them.
const CHUNK_PER_REST: usize = 4;

/// How long a body of so many bytes may take on its way, from its first byte to its last.
#[must_use]
pub const fn body_time(bytes: usize) -> Duration {
    let bytes = bytes as u64;
    Duration::from_secs(BODY_TIME_MIN.as_secs() + bytes.div_ceil(BODY_BYTES_PER_SECOND_MIN))
}

/// The time that any body may take, however slow the path is.
const BODY_TIME_MIN: Duration = Duration::from_secs(10);
/// The least rate of a body beyond that.
const BODY_BYTES_PER_SECOND_MIN: u64 = 64 << 10;

/// One frame of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamFrame {
    /// The first frame of the caller.
    Open(Open),
    /// The callee's handler has begun.
    Begun,
    /// A question, an item, or an answer.
    Item(Bytes),
    /// This end sends nothing more. Of the callee: the call has succeeded.
    End {
        /// How full the service is, if the callee says it: 0 is idle, 255 is full.
        load: u8,
    },
    /// The last frame of the callee: there is no answer.
    Refuse {
        /// Why.
        code: Code,
        /// When it makes sense to ask again, in milliseconds; 0 if the node does not say.
        retry_after_ms: u32,
        /// The reason for people. It proves nothing.
        words: String,
    },
    /// The first frame of a stream of the callee: the one item behind it is an answer that is too long for the lane.
    Answer {
        /// The request on the lane.
        id: u64,
        /// How full the service is.
        load: u8,
    },
}

/// What a stream is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The service.
    pub service: ServiceId,
    /// The method.
    pub method: u16,
    /// What is left until the deadline, in milliseconds. A call has to be answered by then; anything else has to begin.
    pub left_ms: u32,
    /// What travels beside the question.
    pub tag: Tag,
}

const OPEN: u8 = 32;
const BEGUN: u8 = 33;
const ITEM: u8 = 34;
const END: u8 = 35;
const REFUSE: u8 = 36;
const ANSWER: u8 = 37;

impl StreamFrame {
    /// Appends the frame to `to`.
    pub fn encode(&self, to: &mut BytesMut) {
        self.encode_head(to);
        to.extend_from_slice(self.body());
    }

    /// The frame in one or two pieces, whose second one is the body without a copy.
    #[must_use]
    pub fn pieces(self) -> [Bytes; 2] {
        let mut head = BytesMut::new();
        self.encode_head(&mut head);
        let body = match self {
            Self::Item(body) => body,
            _ => Bytes::new(),
        };
        [head.freeze(), body]
    }

    fn encode_head(&self, to: &mut BytesMut) {
        let start = to.len();
        let mut head = Head(to);
        match self {
            Self::Open(Open { service, method, left_ms, tag }) => {
                head.byte(OPEN).text(service.name.as_str()).number(service.major.into());
                head.number((*method).into()).number((*left_ms).into()).tag(tag);
            }
            Self::Begun => _ = head.byte(BEGUN),
            Self::Item(_) => _ = head.byte(ITEM),
            Self::End { load } => _ = head.byte(END).byte(*load),
            Self::Refuse { code, retry_after_ms, words } => {
                head.byte(REFUSE).refusal(*code, *retry_after_ms, words);
            }
            Self::Answer { id, load } => _ = head.byte(ANSWER).number(*id).byte(*load),
        }
        let head = to.len() - start;
        Head(to).number((head + self.body().len()) as u64);
        to[start..].rotate_left(head);
    }

    fn body(&self) -> &[u8] {
        match self {
            Self::Item(body) => body,
            _ => &[],
        }
    }

    fn decode(mut from: Bytes) -> Result<Self, BadFrame> {
        let kind = if from.has_remaining() { from.get_u8() } else { 0 };
        let mut head = Fields { from, kind };
        Ok(match kind {
            OPEN => Self::Open(Open {
                service: ServiceId { name: head.label(ServiceName::new)?, major: head.number()? },
                method: head.number()?,
                left_ms: head.number()?,
                tag: head.tag()?,
            }),
            BEGUN => Self::Begun,
            ITEM => Self::Item(head.from),
            END => Self::End { load: head.byte()? },
            REFUSE => {
                let (code, retry_after_ms, words) = head.refusal()?;
                Self::Refuse { code, retry_after_ms, words }
            }
            ANSWER => Self::Answer { id: head.number()?, load: head.byte()? },
            kind => return Err(BadFrame::Kind(kind)),
        })
        // A later version may append fields to the heads without a body.
    }
}

/// Reads frames from the chunks of a stream.
#[derive(Debug)]
pub struct StreamFrames {
    body_max: usize,
    /// What has arrived: at most one chunk beyond the frame that is awaited.
    part: BytesMut,
    whole: Bytes,
    /// The length of the chunk that `whole` is a part of.
    chunk: usize,
}

impl StreamFrames {
    /// `body_max`: the longest body that is accepted, in bytes.
    #[must_use]
    pub fn new(body_max: usize) -> Self {
        Self { body_max, part: BytesMut::new(), whole: Bytes::new(), chunk: 0 }
    }

    /// Takes the next chunk of the stream.
    pub fn push(&mut self, chunk: Bytes) {
        if self.whole.is_empty() && self.part.is_empty() {
            self.chunk = chunk.len();
            self.whole = chunk;
        } else {
            if !self.whole.is_empty() {
                self.part.extend_from_slice(&std::mem::take(&mut self.whole));
            }
            self.part.extend_from_slice(&chunk);
        }
    }

    /// The bytes of the frame that arrives, if its length has arrived.
    ///
    /// # Errors
    /// [`BadFrame::TooLong`] if it is longer than allowed.
    pub fn wants(&self) -> Result<Option<usize>, BadFrame> {
        Ok(self.head()?.map(|(bytes, _)| bytes))
    }

    fn head(&self) -> Result<Option<(usize, usize)>, BadFrame> {
        let arrived: &[u8] = if self.part.is_empty() { &self.whole } else { &self.part };
        length(arrived, self.body_max + HEAD_MAX)
    }

    /// The next whole frame; `None` if it has not arrived yet.
    ///
    /// # Errors
    /// [`BadFrame`]: the stream cannot be read on.
    pub fn take(&mut self) -> Result<Option<StreamFrame>, BadFrame> {
        let Some((length, used)) = self.head()? else {
            self.keep_rest();
            return Ok(None);
        };
        if self.part.is_empty() {
            if self.whole.len() < used + length {
                self.keep_rest();
                return Ok(None);
            }
            self.whole.advance(used);
            return StreamFrame::decode(self.whole.split_to(length)).map(Some);
        }
        if self.part.len() < used + length {
            // One allocation for a long body, which is limited.
            let missing = used + length - self.part.len();
            self.part.reserve(missing);
            return Ok(None);
        }
        self.part.advance(used);
        let frame = self.part.split_to(length).freeze();
        self.chunk = used + length + self.part.len();
        self.whole = self.part.split().freeze();
        self.part = BytesMut::new();
        self.keep_rest();
        StreamFrame::decode(frame).map(Some)
    }

    /// Copies what is left of a chunk that is much longer.
    fn keep_rest(&mut self) {
        let rest = self.whole.len();
        if rest > 0 && self.chunk / rest >= CHUNK_PER_REST {
            (self.whole, self.chunk) = (Bytes::copy_from_slice(&self.whole), rest);
        }
    }

    /// What has arrived beyond the last frame: the stream carries plain bytes from there on.
    #[must_use]
    pub fn rest(&mut self) -> Bytes {
        if self.part.is_empty() {
            std::mem::take(&mut self.whole)
        } else {
            std::mem::take(&mut self.part).freeze()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<StreamFrame> {
        let service = ServiceId { name: ServiceName::new("stock").unwrap(), major: 2 };
        vec![
            StreamFrame::Open(Open { service, method: 7, left_ms: 5_000, tag: Tag::default() }),
            StreamFrame::Begun,
            StreamFrame::Item(Bytes::from_static(b"question")),
            StreamFrame::Item(Bytes::new()),
            StreamFrame::End { load: 9 },
            StreamFrame::Refuse { code: Code::Draining, retry_after_ms: 3, words: "so".into() },
            StreamFrame::Answer { id: 1 << 40, load: 255 },
            StreamFrame::Item(Bytes::from(vec![7; 40_000])),
        ]
    }

    fn encoded(frames: &[StreamFrame]) -> Bytes {
        let mut to = BytesMut::new();
        frames.iter().for_each(|frame| frame.encode(&mut to));
        to.freeze()
    }

    fn read(reader: &mut StreamFrames) -> Vec<StreamFrame> {
        std::iter::from_fn(|| reader.take().unwrap()).collect()
    }

    #[test]
    fn a_body_beyond_the_limit_is_refused_before_it_is_read() {
        let long = encoded(&[StreamFrame::Item(Bytes::from(vec![0; 2_000]))]);
        let mut reader = StreamFrames::new(1_000);
        reader.push(long.slice(..8));
        assert_eq!(reader.wants(), Err(BadFrame::TooLong(2_001)));
        assert_eq!(reader.take(), Err(BadFrame::TooLong(2_001)));
    }

    #[test]
    fn unknown_kinds_and_codes_and_short_heads_are_refused() {
        let refused = |bytes: &'static [u8]| {
            let mut reader = StreamFrames::new(100);
            reader.push(Bytes::from_static(bytes));
            reader.take().unwrap_err()
        };
        assert_eq!(refused(&[0]), BadFrame::Kind(0));
        assert_eq!(refused(&[1, 99]), BadFrame::Kind(99));
        assert!(matches!(refused(&[1, END]), BadFrame::Head { kind: END, .. }));
        assert!(matches!(refused(&[1, OPEN]), BadFrame::Head { kind: OPEN, .. }));
        assert_eq!(refused(&[4, REFUSE, 200, 0, 0]), BadFrame::Code(200));
    }

    #[test]
    fn frames_arrive_whole_however_the_stream_is_cut() {
        let (frames, bytes) = (frames(), encoded(&frames()));
        for size in [1, 2, 3, 7, 1_000, bytes.len()] {
            let mut reader = StreamFrames::new(40_000);
            let mut found = Vec::new();
            for at in (0..bytes.len()).step_by(size) {
                reader.push(bytes.slice(at..bytes.len().min(at + size)));
                found.extend(read(&mut reader));
            }
            assert_eq!(found, frames, "{size}");
            assert_eq!((reader.wants(), reader.rest()), (Ok(None), Bytes::new()));
        }
    }

    #[test]
    fn a_short_rest_of_a_long_chunk_does_not_keep_its_memory() {
        let long = StreamFrame::Item(Bytes::from(vec![7; 40_000]));
        let bytes = encoded(&[long.clone(), StreamFrame::Item(Bytes::from_static(b"next"))]);
        let (rest, next) = (bytes.slice(bytes.len() - 6..bytes.len() - 1), bytes.len() - 1);
        for at in [0, 20_000] {
            let mut reader = StreamFrames::new(40_000);
            let chunk = Bytes::copy_from_slice(&bytes[at..next]);
            if at > 0 {
                reader.push(bytes.slice(..at));
                assert_eq!(reader.take(), Ok(None));
            }
            reader.push(chunk.clone());
            assert_eq!(reader.take(), Ok(Some(long.clone())));
            assert_eq!(reader.take(), Ok(None));
            assert_eq!(reader.whole, rest);
            assert!(chunk.is_unique(), "{at}");
            assert!(reader.whole.is_unique(), "{at}");
            reader.push(bytes.slice(next..));
            let last = reader.take().unwrap();
            assert_eq!(last, Some(StreamFrame::Item(Bytes::from_static(b"next"))));
        }
    }

    #[test]
    fn a_body_has_one_time_by_its_length() {
        assert_eq!(body_time(17_000), Duration::from_secs(11));
        assert_eq!(body_time(1 << 20), Duration::from_secs(26));
    }

    #[test]
    fn pieces_are_the_same_bytes() {
        for frame in frames() {
            let mut joined = BytesMut::new();
            frame.clone().pieces().iter().for_each(|piece| joined.extend_from_slice(piece));
            assert_eq!(joined.freeze(), encoded(&[frame]));
        }
    }

    #[test]
    fn plain_bytes_behind_the_last_frame_are_not_lost() {
        let mut bytes = BytesMut::from(&encoded(&[StreamFrame::Begun])[..]);
        bytes.extend_from_slice(b"plain");
        for size in [1, 3, bytes.len()] {
            let mut reader = StreamFrames::new(100);
            let mut chunks = bytes.chunks(size).map(Bytes::copy_from_slice);
            while reader.take().unwrap().is_none() {
                reader.push(chunks.next().unwrap());
            }
            let mut rest = reader.rest().to_vec();
            chunks.for_each(|chunk| rest.extend_from_slice(&chunk));
            assert_eq!(rest, b"plain", "{size}");
        }
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(
            encoded(&frames()[..6])[..],
            [
                &[14, OPEN, 5][..],
                b"stock",
                &[2, 7, 251, 0x88, 0x13, 0, 0],
                &[1, BEGUN],
                &[9, ITEM],
                b"question",
                &[1, ITEM],
                &[2, END, 9],
                &[6, REFUSE, 6, 3, 2],
                b"so",
            ]
            .concat()
        );
    }
}
