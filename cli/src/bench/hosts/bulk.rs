//! Bulk beside the calls: streams that are read as fast as they come.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use gossipmonger::service::{CallError, Stub};
use serde_json::{Value, json};

use super::{
    ledger::{Ledger, reason},
    service::{Bulk, Measured, Piece},
};
use crate::bench::rounded;

/// What the streams have brought.
#[derive(Debug, Default)]
pub(super) struct Brought {
    /// In each second.
    bytes: Mutex<Vec<u64>>,
    streams: AtomicU64,
    failed: Mutex<BTreeMap<String, u64>>,
}

impl Brought {
    /// Reads one stream after another, until the time is over.
    pub(super) async fn read(&self, stub: &Stub<Measured>, ledger: &Ledger, length: Duration) {
        while let Some(left) = length.checked_sub(ledger.now()).filter(|left| !left.is_zero()) {
            match tokio::time::timeout(left, self.read_one(stub, ledger)).await {
                Ok(Ok(())) => drop(self.streams.fetch_add(1, Ordering::Relaxed)),
                Ok(Err(error)) => {
                    self.fail(&error);
                    tokio::time::sleep(PAUSE).await;
                }
                Err(_) => return,
            }
        }
    }

    async fn read_one(&self, stub: &Stub<Measured>, ledger: &Ledger) -> Result<(), CallError> {
        let mut pieces = stub.stream(Bulk { pieces: PIECES, bytes: PIECE_BYTES }).await?;
        while let Some(Piece(piece)) = pieces.next().await? {
            self.came(ledger.now(), piece.len() as u64);
        }
        Ok(())
    }

    fn came(&self, at: Duration, bytes: u64) {
        let mut seconds = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let second = at.as_secs() as usize;
        if seconds.len() <= second {
            seconds.resize(second + 1, 0);
        }
        seconds[second] += bytes;
    }

    fn fail(&self, error: &CallError) {
        let (kind, why) = reason(error.failure());
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        *failed.entry(format!("{kind}: {why}")).or_default() += 1;
    }

    pub(super) fn bytes(&self) -> u64 {
        self.seconds().iter().sum()
    }

    fn seconds(&self) -> Vec<u64> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn report(&self, length: Duration) -> Value {
        let bytes = self.bytes();
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        json!({
            "bytes": bytes,
            "mib_per_s": rounded(bytes as f64 / MIB / length.as_secs_f64(), 1),
            "bytes_per_second": self.seconds(),
            "streams_ended": self.streams.load(Ordering::Relaxed),
            "failed": failed,
        })
    }
}

/// Of one stream: 16 MiB.
const PIECES: u32 = 256;
const PIECE_BYTES: u32 = 64 << 10;
/// After a failure.
const PAUSE: Duration = Duration::from_millis(100);
const MIB: f64 = 1_048_576.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_without_bytes_is_seen() {
        let brought = Brought::default();
        for (at, bytes) in [(100, 7), (900, 3), (2_500, 5)] {
            brought.came(Duration::from_millis(at), bytes);
        }
        let report = brought.report(Duration::from_secs(3));
        assert_eq!(report["bytes_per_second"], json!([10, 0, 5]), "{report}");
        assert_eq!(report["bytes"], 15, "{report}");
    }
}
