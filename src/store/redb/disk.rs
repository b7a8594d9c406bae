//! The file as redb sees it: a block that differs from what was last read or written there is an error.
//!
//! redb verifies a file when it is opened and trusts it from then on; if another process, or the disk,
//! changes it meanwhile, redb panics in places where that ends the process. This module detects the
//! change first. It does not replace any check at opening: it cannot know a block before it first sees
//! it.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

use ::redb::{BackendError, StorageBackend};

/// A file, or its replacement in a test, with a checksum in memory of each block seen: some 50 bytes for
/// 4 KiB.
#[derive(Debug)]
pub(super) struct Watched<B> {
    inner: B,
    seen: Mutex<BTreeMap<u64, u32>>,
}

impl<B: StorageBackend> Watched<B> {
    pub(super) fn new(inner: B) -> Self {
        Self { inner, seen: Mutex::default() }
    }

    /// No call panics while it holds the lock, so the state behind a poisoned one is complete.
    fn seen(&self) -> MutexGuard<'_, BTreeMap<u64, u32>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: StorageBackend> StorageBackend for Watched<B> {
    fn len(&self) -> Result<u64, io::Error> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.inner.read(offset, out)?;
        let mut seen = self.seen();
        for (block, bytes) in whole_blocks(offset, out) {
            let found = crc32fast::hash(bytes);
            if *seen.entry(block).or_insert(found) != found {
                let reason = format!("block {block} is not what was written there");
                return Err(io::Error::new(ErrorKind::InvalidData, reason));
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        // Including the block with the end of the file: its rest is zeros when the file grows again.
        self.seen().split_off(&(len / BLOCK));
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        // A failed write may leave anything, and a write of part of a block changes the block's checksum.
        for block in offset / BLOCK..(offset + data.len() as u64).div_ceil(BLOCK) {
            self.seen().remove(&block);
        }
        self.inner.write(offset, data)?;
        let written = whole_blocks(offset, data);
        self.seen().extend(written.map(|(block, bytes)| (block, crc32fast::hash(bytes))));
        Ok(())
    }

    fn close(&self) -> Result<(), io::Error> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}

/// The blocks that lie completely in `bytes`, and their numbers.
fn whole_blocks(offset: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let first = offset.div_ceil(BLOCK);
    let skipped = usize::try_from(first * BLOCK - offset).unwrap_or(usize::MAX);
    let blocks = bytes.get(skipped..).unwrap_or_default().chunks_exact(BLOCK as usize);
    (first..).zip(blocks)
}

/// redb's page size; its larger pages are several of these.
const BLOCK: u64 = 4096;

#[cfg(test)]
mod tests {
    use ::redb::backends::InMemoryBackend;

    use super::*;

    #[test]
    fn refuses_a_block_that_changed_since_it_was_seen() {
        let disk = Watched::new(InMemoryBackend::new());
        disk.set_len(3 * BLOCK).unwrap();
        disk.write(BLOCK, &[1; 2 * BLOCK as usize]).unwrap();
        let mut all = [0; 3 * BLOCK as usize];
        disk.read(0, &mut all).unwrap();
        for (changed, other) in [(0, 1), (1, 2), (2, 0)] {
            disk.inner.write(changed * BLOCK + 7, &[9]).unwrap();
            let error = disk.read(0, &mut all).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData);
            assert!(disk.read(other * BLOCK, &mut all[..BLOCK as usize]).is_ok());
            disk.inner.write(changed * BLOCK + 7, &[u8::from(changed > 0)]).unwrap();
        }
    }

    #[test]
    fn accepts_what_was_written_in_parts_or_cut_off() {
        let disk = Watched::new(InMemoryBackend::new());
        disk.set_len(2 * BLOCK).unwrap();
        disk.write(0, &[1; 2 * BLOCK as usize]).unwrap();
        disk.write(BLOCK - 1, &[2, 3]).unwrap();
        let mut all = [0; 2 * BLOCK as usize];
        disk.read(0, &mut all).unwrap();
        assert_eq!(all[BLOCK as usize - 2..][..4], [1, 2, 3, 1]);
        disk.set_len(BLOCK + 1).unwrap();
        disk.set_len(2 * BLOCK).unwrap();
        disk.read(0, &mut all).unwrap();
    }
}
