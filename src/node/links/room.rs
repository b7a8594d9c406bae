//! Memory for long frames.
//!
//! Frames of up to [`SHORT_BYTES`], which covers all but long values and batches, are limited only by the number of
//! exchanges. Longer ones share [`LONG_BYTES_MAX`] in each direction, one at a time for each peer: a peer that lies
//! about a length or stalls delays itself first. Room is taken once per frame, before its first byte and never for a
//! second frame while one is held. So no task waits for room while it holds room that another task needs.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::share::Share;

/// Frames up to this length need no room.
const SHORT_BYTES: usize = 512 << 10;
/// Maximum bytes of longer frames in flight in one direction, over all peers of one node.
const LONG_BYTES_MAX: usize = 64 << 20;
/// The unit in which room is counted, in bytes.
const UNIT: usize = 1 << 10;

/// Room for long frames, both ways.
#[derive(Clone, Debug)]
pub(super) struct Room {
    pub(super) inbound: Way,
    pub(super) outbound: Way,
}

/// Room in one direction: the shared room, and the turn of one peer.
#[derive(Clone, Debug)]
pub(super) struct Way {
    shared: Arc<Semaphore>,
    turn: Arc<Semaphore>,
}

/// Room taken; given back when dropped.
#[derive(Debug)]
pub(super) struct Taken {
    _shared: OwnedSemaphorePermit,
    _turn: OwnedSemaphorePermit,
}

impl Default for Room {
    fn default() -> Self {
        let way = || Way {
            shared: Arc::new(Semaphore::new(LONG_BYTES_MAX / UNIT)),
            turn: Arc::new(Semaphore::new(1)),
        };
        Self { inbound: way(), outbound: way() }
    }
}

impl Room {
    /// The same room, with the turns of another peer.
    pub(super) fn for_peer(&self, share: &Share) -> Self {
        let way = |way: &Way, turn: &Arc<Semaphore>| Way { turn: Arc::clone(turn), ..way.clone() };
        Self {
            inbound: way(&self.inbound, &share.inbound),
            outbound: way(&self.outbound, &share.outbound),
        }
    }
}

impl Way {
    /// Waits for room. It waits for the peer's own turn first, without holding any room.
    pub(super) async fn take(&self, bytes: usize) -> Option<Taken> {
        if bytes <= SHORT_BYTES {
            return None;
        }
        let units = u32::try_from(bytes / UNIT + 1).unwrap_or(u32::MAX);
        let turn = Arc::clone(&self.turn).acquire_owned().await.expect(NEVER_CLOSED);
        let shared = Arc::clone(&self.shared).acquire_many_owned(units).await.expect(NEVER_CLOSED);
        Some(Taken { _shared: shared, _turn: turn })
    }
}

const NEVER_CLOSED: &str = "the semaphore is never closed";
