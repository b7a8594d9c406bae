//! How messages become bytes.

use bytes::{Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};

use self::bounded::Values;

mod bounded;

/// Turns messages of one type into bytes and back. Implemented for a marker type, which a service names.
///
/// ```
/// use bytes::{BufMut, BytesMut};
/// use gossipmonger::service::codec::{Codec, CodecError};
///
/// /// Text with a line break.
/// struct Lines;
///
/// impl Codec<String> for Lines {
///     fn encode(message: &String, to: &mut BytesMut) -> Result<(), CodecError> {
///         to.put_slice(message.as_bytes());
///         to.put_u8(b'\n');
///         Ok(())
///     }
///
///     fn decode(from: bytes::Bytes) -> Result<String, CodecError> {
///         let text = std::str::from_utf8(&from).map_err(CodecError::new)?;
///         text.strip_suffix('\n').map(str::to_owned).ok_or_else(|| CodecError::new("no end of line"))
///     }
/// }
/// ```
pub trait Codec<T> {
    /// Appends the message to `to`.
    ///
    /// # Errors
    /// [`CodecError`] if it cannot be encoded.
    fn encode(message: &T, to: &mut BytesMut) -> Result<(), CodecError>;

    /// Reads a message from all of `from`. The bytes come from another node: no input may cause a panic, or take much more
    /// memory than its length.
    ///
    /// # Errors
    /// [`CodecError`] if it is not such a message.
    fn decode(from: Bytes) -> Result<T, CodecError>;
}

/// A message cannot be encoded, or bytes are not such a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CodecError(String);

impl CodecError {
    /// With this reason.
    pub fn new(why: impl ToString) -> Self {
        Self(why.to_string())
    }
}

/// Types with serde's traits, in a compact binary format without names of fields: the default.
///
/// Both ends need the same type. A field that is added, removed or moved changes the format.
///
/// A message that is nested deeper than 128 levels is refused, and so is one with far more values than bytes: more than
/// eight for each byte and 65,536.
#[derive(Clone, Copy, Debug)]
pub struct Bincode;

/// Most bytes that a message may claim to hold: more than any body has.
const DECODE_MAX: usize = 64 << 20;

impl<T: Serialize + DeserializeOwned> Codec<T> for Bincode {
    fn encode(message: &T, to: &mut BytesMut) -> Result<(), CodecError> {
        struct Writer<'a>(&'a mut BytesMut);
        impl bincode::enc::write::Writer for Writer<'_> {
            fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
                self.0.extend_from_slice(bytes);
                Ok(())
            }
        }
        let config = bincode::config::standard();
        bincode::serde::encode_into_writer(message, Writer(to), config).map_err(CodecError::new)
    }

    fn decode(from: Bytes) -> Result<T, CodecError> {
        let config = bincode::config::standard().with_limit::<DECODE_MAX>();
        let values = Values::of(from.len());
        let decoded = bincode::serde::seed_decode_from_slice(values.message(), &from, config);
        let (message, used) = decoded.map_err(CodecError::new)?;
        if used < from.len() {
            let left = from.len() - used;
            return Err(CodecError::new(format!("{left} bytes are left after the message")));
        }
        Ok(message)
    }
}

/// Messages that are bytes already. Nothing is copied on the way in.
#[derive(Clone, Copy, Debug)]
pub struct Raw;

impl Codec<Bytes> for Raw {
    fn encode(message: &Bytes, to: &mut BytesMut) -> Result<(), CodecError> {
        to.extend_from_slice(message);
        Ok(())
    }

    fn decode(from: Bytes) -> Result<Bytes, CodecError> {
        Ok(from)
    }
}
