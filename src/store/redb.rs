//! A store in one embedded file: its commits survive kill -9, a power cut or a torn write.
//!
//! It keeps the file and verifies it; it knows nothing of gossip, and it never returns data that it
//! cannot verify. It keeps one record per key, so that a commit costs as much as the change, not as
//! the whole state.
//!
//! There are four checks, one behind the other. redb's page checksums are verified on every open, not only after a
//! crash. While the file is open, each block read must equal the block written. Each record carries a CRC-32 of its
//! kind, key and bytes. A summary, changed by the same transaction as the records, holds their number and the sum of
//! their checksums, so that a missing record, or an older one of the same key, is detected as well.
//!
//! # The state after a crash
//! A commit is found completely or not at all. If it was acknowledged it is found, unless the disk lost
//! or changed data that it had reported as written: then the store opens with the previous commit, if
//! that is still complete, or refuses. A new file is created under another name (its own name, `.new-`
//! and a number) and renamed when it is complete: a crash before that leaves no store, the next open
//! creates one, and an empty or half-written file is therefore always damage, never a new store.

use std::{
    fmt,
    fs::File,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use ::redb::{
    Builder, Database, DatabaseError, Durability, ReadableDatabase, WriteTransaction,
    backends::FileBackend,
};

use super::{Change, Store, StoreError, Stored};
use batch::{Batch, Undo};
use disk::Watched;
use fault::{Fault, guard};

mod batch;
mod disk;
mod fault;
mod file;
mod read;
mod record;
#[cfg(test)]
mod tests;

/// A [`Store`] in one file, for one process at a time.
///
/// After an error the file is closed, and the next call opens and checks it again: a full disk need
/// not end the process. A commit that failed after it had reached the disk is undone then, so that a
/// later [`load`](Store::load) does not return it. The next process can find a failed commit,
/// complete, only if this one ends before that call.
pub struct RedbStore {
    path: PathBuf,
    opener: Opener,
    session: Mutex<Session>,
}

/// Opens a database in a file; tests insert a failing disk here.
type Opener = fn(File) -> Result<Database, DatabaseError>;

/// The open database, and the undo of a commit in doubt.
#[derive(Default)]
struct Session {
    /// `None` after an error, until the next call.
    database: Option<Database>,
    /// Undoes a failed commit that may have reached the disk.
    doubt: Option<Undo>,
}

impl RedbStore {
    /// Opens the store at `path`, or creates an empty one that only its owner can read (mode 0600).
    ///
    /// It reads and checks the whole file: some tenths of a second for a million keys in the page cache.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if the file is open already, here or in another process;
    /// [`StoreError::Damaged`] if a check fails; [`StoreError::Io`] if it cannot be read or written, if
    /// others than its owner may read it (it holds the endpoint's secrets), or if a later version of
    /// this program wrote it.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Self::open_with(path.into(), database)
    }

    fn open_with(path: PathBuf, opener: Opener) -> Result<Self, StoreError> {
        guard(&path, || match path.try_exists()? {
            true => Ok(()),
            false => file::create(&path, |file| write_empty(opener(file)?)),
        })?;
        let store = Self { path, opener, session: Mutex::default() };
        store.with_database(|_, _| Ok(()))?;
        Ok(store)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Does `work` on the open database, opening it if an error had closed it.
    fn with_database<T>(
        &self,
        work: impl FnOnce(&Database, &mut Option<Undo>) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        // A panic under the lock is caught under it, so the state behind a poisoned lock is complete.
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let Session { database, doubt } = &mut *session;
        let result = guard(&self.path, || {
            if database.is_none() {
                let opened = (self.opener)(file::open(&self.path)?)?;
                settle(database.insert(opened), doubt)?;
            }
            work(database.as_ref().expect("was opened above"), doubt)
        });
        if result.is_err() {
            self.close(database);
        }
        result
    }

    /// Closing writes, so it can fail like any other call; commits are safe by then.
    fn close(&self, database: &mut Option<Database>) {
        let _ = guard(&self.path, || Ok(database.take().map_or(Ok(()), Database::close)?));
    }
}

impl Store for RedbStore {
    fn load(&self) -> Result<Stored, StoreError> {
        self.with_database(|database, _| read::load(&database.begin_read()?))
    }

    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.with_database(|database, doubt| {
            let batch = Batch::of(changes);
            let transaction = begin(database)?;
            *doubt = Some(batch.write(&transaction)?);
            transaction.commit()?;
            *doubt = None;
            Ok(())
        })
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        self.close(&mut session.database);
    }
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedbStore({:?})", self.path)
    }
}

/// Opens or fills `file`.
fn database(file: File) -> Result<Database, DatabaseError> {
    builder().create_with_backend(Watched::new(FileBackend::new(file)?))
}

/// Verifies the whole file, every time.
fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

fn begin(database: &Database) -> Result<WriteTransaction, Fault> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    Ok(transaction)
}

fn write_empty(database: Database) -> Result<(), Fault> {
    let transaction = begin(&database)?;
    Batch::format().write(&transaction)?;
    transaction.commit()?;
    Ok(database.close()?)
}

/// Checks that the file has this version's format, and undoes a failed commit.
fn settle(database: &Database, doubt: &mut Option<Undo>) -> Result<(), Fault> {
    let summary = read::summary(&database.begin_read()?)?;
    if let Some(undo) = doubt.as_ref().filter(|undo| undo.commit == summary.commit) {
        let transaction = begin(database)?;
        undo.write(&transaction)?;
        transaction.commit()?;
    }
    *doubt = None;
    Ok(())
}

/// Memory for pages, written and read ones together. The state is in memory already, so pages are
/// rarely read; four times this made a commit of 100,000 keys no faster.
const CACHE_BYTES: usize = 32 << 20;
