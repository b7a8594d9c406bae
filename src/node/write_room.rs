//! Room for writes that wait for the store.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The room of one node.
#[derive(Debug)]
pub(crate) struct WriteRoom {
    /// All of it, in units.
    units: usize,
    free: Arc<Semaphore>,
}

impl WriteRoom {
    /// Room for this many bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        let units = bytes / UNIT;
        Self { units, free: Arc::new(Semaphore::new(units)) }
    }

    /// Waits until there is room for a write; a write that is larger than all the room gets all of it.
    pub(crate) async fn take(&self, bytes: usize) -> OwnedSemaphorePermit {
        let units = (bytes / UNIT + 1).min(self.units);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let free = Arc::clone(&self.free);
        free.acquire_many_owned(units).await.expect("the semaphore is never closed")
    }

    /// The bytes of the writes that wait, in units.
    pub(crate) fn used(&self) -> usize {
        self.units.saturating_sub(self.free.available_permits()) * UNIT
    }
}

/// The unit in which room is counted, in bytes.
const UNIT: usize = 1 << 10;
