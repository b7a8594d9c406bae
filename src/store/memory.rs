//! The default store: in memory, so it survives the restart of an actor, but not of the process.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use super::{Change, Store, StoreError, Stored};

/// A [`Store`] that lives as long as the process.
#[derive(Default)]
pub struct MemoryStore(Mutex<Stored>);

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl fmt::Debug for MemoryStore {
    /// Omits the content, which may be a gibibyte, or secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryStore(..)")
    }
}

impl Store for MemoryStore {
    fn load(&self) -> Result<Stored, StoreError> {
        // A commit cannot panic half way, so the state behind a poisoned lock is complete.
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn is_instant(&self) -> bool {
        true
    }

    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        let mut stored = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        changes.iter().for_each(|change| stored.apply(change));
        Ok(())
    }
}
