//! What survives a restart: the [`Store`] trait, its changes, and what it gives back.
//!
//! A store is driven by one writer. It keeps this node's own keys, not the copies of others: those
//! come back by gossip. A `set` is acknowledged when [`Store::commit`] has returned.

use std::fmt;

pub use crate::protocol::durable::{Change, EndpointKeys, Head, KnownPeer, Stored, StoredEntry};

pub mod memory;
#[cfg(feature = "redb")]
pub mod redb;

/// Keeps what a node must know again after a restart.
///
/// Both calls may block; they are made from a thread where that is allowed, one at a time.
/// [`memory::MemoryStore`] and, with the feature `redb`, `redb::RedbStore` ship.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// What was last committed; `Stored::default()` for a new store. It may be called again, after a
    /// restart of the actor that uses it.
    ///
    /// # Errors
    /// [`StoreError`] if the state cannot be read or fails its checksum. Never returns damaged data.
    fn load(&self) -> Result<Stored, StoreError>;

    /// Makes `changes` durable, all or none, before it returns.
    ///
    /// # Errors
    /// [`StoreError`]; then none of `changes` may be seen by a later [`load`](Self::load) of this store.
    /// No disk can promise that for the next process if this one ends at once: it may find all of them.
    fn commit(&self, changes: &[Change]) -> Result<(), StoreError>;

    /// Whether both calls return at once, because nothing is behind them but memory. Then they are
    /// made where the change is made, without a thread, which also suits tests under paused time.
    fn is_instant(&self) -> bool {
        false
    }
}

/// A store failed. The state in memory is not affected.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The state is there but damaged. Nothing of it is used.
    #[error(
        "store {location}: damaged: {reason}; restore it from a copy, or move it away to start empty"
    )]
    Damaged {
        /// The file, or what else names the store.
        location: String,
        /// What was found.
        reason: String,
    },
    /// Reading or writing failed.
    #[error("store {location}: {reason}")]
    Io {
        /// The file, or what else names the store.
        location: String,
        /// What the system said.
        reason: String,
    },
    /// Another process has the store open.
    #[error("store {location}: in use by another process")]
    InUse {
        /// The file, or what else names the store.
        location: String,
    },
}
