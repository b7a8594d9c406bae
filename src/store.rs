//! The state that survives a restart: the [`Store`] trait, its changes, and the state it loads.
//!
//! A store has one writer. It keeps this node's own keys, not the copies of others: those return by
//! gossip. A `set` is acknowledged when [`Store::commit`] has returned.

use std::fmt;

#[doc(inline)]
pub use crate::protocol::durable::{Change, EndpointKeys, Head, KnownPeer, Stored, StoredEntry};

pub mod memory;
#[cfg(feature = "redb")]
pub mod redb;

/// Keeps the state that a node needs after a restart.
///
/// Both calls may block; they are made from a thread where that is allowed, one at a time. The
/// crate contains [`memory::MemoryStore`] and, with the feature `redb`, `redb::RedbStore`.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// The last committed state; `Stored::default()` for a new store. It may be called again, after
    /// a restart of the actor that uses it.
    ///
    /// # Errors
    /// [`StoreError`] if the state cannot be read or fails its checksum. Never returns damaged data.
    fn load(&self) -> Result<Stored, StoreError>;

    /// Makes `changes` durable, all or none, before it returns.
    ///
    /// # Errors
    /// [`StoreError`]; then a later [`load`](Self::load) of this store must not return any of `changes`.
    /// No disk can promise that for the next process if this one ends at once: it may find all of them.
    fn commit(&self, changes: &[Change]) -> Result<(), StoreError>;

    /// Whether both calls return at once, because the store is only memory. Then they are made in
    /// the calling actor, without a thread, which also suits tests under paused time.
    fn is_instant(&self) -> bool {
        false
    }
}

/// A store failed. The state in memory is not affected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The state exists but is damaged. None of it is used.
    #[error(
        "store {location}: damaged: {reason}; restore it from a copy, or move it away to start empty"
    )]
    Damaged {
        /// The file, or another name of the store.
        location: String,
        /// The fault that was found.
        reason: String,
    },
    /// Reading or writing failed.
    #[error("store {location}: {reason}")]
    Io {
        /// The file, or another name of the store.
        location: String,
        /// The error of the system.
        reason: String,
    },
    /// Another process has the store open.
    #[error("store {location}: in use by another process")]
    InUse {
        /// The file, or another name of the store.
        location: String,
    },
}
