//! An owner's writes, their results, and the reasons to refuse them.

use std::time::Duration;

use super::{
    delta::entry_len_max,
    durable::Change,
    entry::{Key, Value},
    id::Version,
    record::RecordError,
    revocation::RevocationError,
};

/// One write of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Write {
    /// The key.
    pub key: Key,
    /// The value; `None` deletes the key.
    pub value: Option<Value>,
    /// How long the value stays; `None`: until it is overwritten or deleted.
    pub ttl: Option<Duration>,
}

impl Write {
    /// Sets a key.
    pub fn set(key: impl Into<Key>, value: impl Into<Value>) -> Self {
        Self { key: key.into(), value: Some(value.into()), ttl: None }
    }

    /// Deletes a key.
    pub fn delete(key: impl Into<Key>) -> Self {
        Self { key: key.into(), value: None, ttl: None }
    }

    /// An upper bound of its bytes on the wire.
    pub(super) fn encoded_len_max(&self) -> usize {
        entry_len_max(self.key.as_str().len(), self.value.as_ref().map_or(0, |value| value.len()))
    }

    /// The same, gone after `ttl`.
    #[must_use]
    pub fn with_ttl(self, ttl: Duration) -> Self {
        Self { ttl: Some(ttl), ..self }
    }
}

/// The result of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The version of the batch or, if it changed nothing, that of the last write.
    pub version: Version,
    /// Whether it changed anything.
    pub changed: bool,
    /// What the store has to keep before the write is acknowledged.
    pub persist: Vec<Change>,
}

/// A write was refused. Nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The key is empty or too long.
    #[error("key of {len} bytes refused: 1 to {max} are allowed (limit key_bytes)")]
    Key {
        /// Its length, in bytes.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The key belongs to the node itself.
    #[error("key {key:?} refused: keys that begin with ~ are reserved for the node itself")]
    Reserved {
        /// The key.
        key: Key,
    },
    /// The value is too long.
    #[error(
        "value of {len} bytes for key {key:?} refused: at most {max} are allowed (limit value_bytes)"
    )]
    Value {
        /// The key of the value.
        key: Key,
        /// Its length, in bytes.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The node would have too many keys.
    #[error("refused: the node would hold {len} keys, at most {max} are allowed (limit keys)")]
    Keys {
        /// How many it would be.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The node would hold too much.
    #[error(
        "refused: the node would hold {len} bytes, at most {max} are allowed (limit state_bytes)"
    )]
    State {
        /// How many bytes it would be.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The batch is too large to become visible at once.
    #[error("batch of {len} bytes refused: at most {max} are allowed (limit BATCH_BYTES_MAX)")]
    Batch {
        /// Its bytes, frame overhead included.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// A time to live of zero.
    #[error("ttl of zero for key {key:?} refused: delete the key instead")]
    Ttl {
        /// The key.
        key: Key,
    },
    /// Tags or addresses outside their limits.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A revocation that is not valid.
    #[error(transparent)]
    Revocation(#[from] RevocationError),
}
