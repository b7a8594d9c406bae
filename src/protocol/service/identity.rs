//! What travels beside a question: the number of the call at its caller, and what traces follow.

use std::{fmt, str::FromStr};

use bytes::Bytes;

/// What travels beside a question or a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    /// The number of the call at its caller, the same in every attempt; 0 for a message.
    pub number: u64,
    /// The trace that it belongs to.
    pub trace: Option<TraceContext>,
}

/// A question or a message, and what travels beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The method.
    pub method: u16,
    /// The encoded question.
    pub body: Bytes,
    /// What travels beside it.
    pub tag: Tag,
}

impl From<(u16, Bytes)> for Question {
    fn from((method, body): (u16, Bytes)) -> Self {
        Self { method, body, tag: Tag::default() }
    }
}

/// Which trace a call belongs to, as the W3C recommendation "Trace Context" defines it, version 00. Its text is that of
/// the header `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The span of the caller.
    pub parent_id: [u8; 8],
    /// Bit 0: the caller may have recorded it.
    pub flags: u8,
}

/// A text that is no trace context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no trace context: it looks like 00-<32 hexadecimal digits>-<16 digits>-<2 digits>, none of them all zeros"
)]
pub struct BadTraceContext;

/// Bytes of a trace context on the wire.
pub const TRACE_BYTES: usize = 25;

impl TraceContext {
    /// The 25 bytes that travel.
    #[must_use]
    pub fn to_bytes(self) -> [u8; TRACE_BYTES] {
        let mut bytes = [0; TRACE_BYTES];
        bytes[..16].copy_from_slice(&self.trace_id);
        bytes[16..24].copy_from_slice(&self.parent_id);
        bytes[24] = self.flags;
        bytes
    }

    /// The context of these bytes; `None` if they are not as many, or one of the ids is zero.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (trace_id, rest) = bytes.split_first_chunk()?;
        let (parent_id, flags) = rest.split_first_chunk()?;
        let &[flags] = flags else { return None };
        let is_valid = *trace_id != [0; 16] && *parent_id != [0; 8];
        is_valid.then_some(Self { trace_id: *trace_id, parent_id: *parent_id, flags })
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |f: &mut fmt::Formatter<'_>, bytes: &[u8]| {
            bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
        };
        f.write_str("00-")?;
        hex(f, &self.trace_id)?;
        f.write_str("-")?;
        hex(f, &self.parent_id)?;
        write!(f, "-{:02x}", self.flags)
    }
}

impl FromStr for TraceContext {
    type Err = BadTraceContext;

    fn from_str(text: &str) -> Result<Self, BadTraceContext> {
        let mut parts = text.split('-');
        let mut hex = |bytes: &mut [u8]| {
            let part = parts.next().filter(|part| part.len() == 2 * bytes.len())?;
            for (byte, pair) in bytes.iter_mut().zip(part.as_bytes().chunks(2)) {
                let pair = std::str::from_utf8(pair).ok()?;
                let lower = pair.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
                *byte = u8::from_str_radix(pair, 16).ok().filter(|_| lower)?;
            }
            Some(())
        };
        let mut read = || {
            let (mut version, mut flags) = ([0], [0]);
            let mut context = Self { trace_id: [0; 16], parent_id: [0; 8], flags: 0 };
            hex(&mut version).filter(|()| version == [0])?;
            hex(&mut context.trace_id).filter(|()| context.trace_id != [0; 16])?;
            hex(&mut context.parent_id).filter(|()| context.parent_id != [0; 8])?;
            hex(&mut flags)?;
            context.flags = flags[0];
            Some(context)
        };
        let context = read().ok_or(BadTraceContext)?;
        parts.next().is_none().then_some(context).ok_or(BadTraceContext)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_trace_context_is_refused() {
        for text in [
            "",
            "00",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-02",
            "00-4bf92f3577b34da6a3ce929d0e0e47-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473\u{e9}-00f067aa0ba902b7-01",
        ] {
            assert_eq!(text.parse::<TraceContext>(), Err(BadTraceContext), "{text}");
        }
    }

    #[test]
    fn a_trace_context_is_the_text_of_the_header() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context: TraceContext = text.parse().unwrap();
        assert_eq!((context.parent_id[1], context.flags), (0xf0, 1));
        assert_eq!(context.to_string(), text);
        assert_eq!(TraceContext::from_bytes(&context.to_bytes()), Some(context));
        for absent in [
            TraceContext { trace_id: [0; 16], ..context },
            TraceContext { parent_id: [0; 8], ..context },
        ] {
            assert_eq!(TraceContext::from_bytes(&absent.to_bytes()), None);
        }
    }
}
