//! What is counted of a mesh.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of a mesh, since it was started.
#[derive(Debug, Default)]
pub struct MeshFigures {
    sessions: AtomicU64,
    refused: AtomicU64,
    misnamed: AtomicU64,
    oversized: AtomicU64,
    disordered: AtomicU64,
    stalled: AtomicU64,
}

impl MeshFigures {
    /// Sessions that were opened.
    #[must_use]
    pub fn sessions(&self) -> u64 {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Dials that a node has refused: it is in another group, or has [`MESH_MAX`](super::MESH_MAX) sessions.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Sessions ended since a peer gave another name than its certificate.
    #[must_use]
    pub fn misnamed(&self) -> u64 {
        self.misnamed.load(Ordering::Relaxed)
    }

    /// Sessions ended by a frame above [`FRAME_BYTES_MAX`](super::FRAME_BYTES_MAX).
    #[must_use]
    pub fn oversized(&self) -> u64 {
        self.oversized.load(Ordering::Relaxed)
    }

    /// Sessions ended since what came first could not be read.
    #[must_use]
    pub fn disordered(&self) -> u64 {
        self.disordered.load(Ordering::Relaxed)
    }

    /// Sessions ended since their peer took nothing for [`STALL`](super::STALL).
    #[must_use]
    pub fn stalls(&self) -> u64 {
        self.stalled.load(Ordering::Relaxed)
    }

    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn open(&self) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn misname(&self) {
        self.misnamed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn oversize(&self) {
        self.oversized.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn disorder(&self) {
        self.disordered.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stall(&self) {
        self.stalled.fetch_add(1, Ordering::Relaxed);
    }
}
