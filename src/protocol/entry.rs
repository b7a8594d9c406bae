//! A versioned value, or the tombstone of one.

use std::{borrow::Borrow, fmt, ops::Deref, sync::Arc};

use super::{
    id::Version,
    list::SHARED_BYTES,
    time::Time,
    wire::{Decode, DecodeError, Decoder, encode_fields},
};

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 512;

/// Keys that begin with it belong to the node itself.
pub(crate) const RESERVED_PREFIX: char = '~';

/// A key: UTF-8 text, cheap to clone. Its length is checked where it enters (see
/// [`MapLimits`](super::map::MapLimits)).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether only the node itself writes it: keys that begin with `~`.
    #[must_use]
    pub(crate) fn is_reserved(&self) -> bool {
        self.0.starts_with(RESERVED_PREFIX)
    }
}

impl From<&str> for Key {
    fn from(key: &str) -> Self {
        Self(key.into())
    }
}

impl From<String> for Key {
    fn from(key: String) -> Self {
        Self(key.into())
    }
}

impl From<&String> for Key {
    fn from(key: &String) -> Self {
        Self(key.as_str().into())
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// A value: bytes, cheap to clone.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Value(Arc<[u8]>);

impl Value {
    /// The value as text, if it is UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl Deref for Value {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self(text.into_bytes().into())
    }
}

impl<const N: usize> From<&[u8; N]> for Value {
    fn from(bytes: &[u8; N]) -> Self {
        Self(bytes.as_slice().into())
    }
}

impl fmt::Debug for Value {
    /// The text if it is short text, otherwise the length: a value may be a mebibyte long, or secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_str() {
            Some(text) if text.len() <= 64 => fmt::Debug::fmt(text, f),
            _ => write!(f, "{} bytes", self.len()),
        }
    }
}

encode_fields!(Key { 0 });
encode_fields!(Value { 0 });

impl Decode<'_> for Key {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let text = <&str>::decode(from)?;
        from.claim(SHARED_BYTES)?;
        Ok(Self::from(text))
    }
}

impl Decode<'_> for Value {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let bytes = <&[u8]>::decode(from)?;
        from.claim(SHARED_BYTES)?;
        Ok(Self::from(bytes))
    }
}

/// The owner's last write of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it was written, in the owner's order.
    pub version: Version,
    /// The content of the write.
    pub content: Content,
}

/// A value, or a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A value.
    Value {
        /// Its bytes.
        value: Value,
        /// The time, on this node's clock, from which the value is hidden; `None`: never.
        expires: Option<Time>,
    },
    /// The key was deleted.
    Tombstone,
}

impl Entry {
    /// The value, if there is one and it has not expired at `now`.
    #[must_use]
    pub fn visible(&self, now: Time) -> Option<&Value> {
        match &self.content {
            Content::Value { value, expires } if expires.is_none_or(|at| now < at) => Some(value),
            _ => None,
        }
    }

    /// Whether the key was deleted.
    #[must_use]
    pub const fn is_tombstone(&self) -> bool {
        matches!(self.content, Content::Tombstone)
    }

    /// Bytes of the value; a tombstone has none.
    #[must_use]
    pub fn value_len(&self) -> usize {
        match &self.content {
            Content::Value { value, .. } => value.len(),
            Content::Tombstone => 0,
        }
    }
}
