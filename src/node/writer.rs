//! The thread that owns the store (unless the store never blocks), so that a slow disk delays only its waiters.
//!
//! Changes that arrive while a commit runs are merged into the next commit. Changes that a commit
//! failed to keep are retried with the next one, and after [`RETRY_AFTER`] in any case. The queue
//! is bounded: only the last change of a key is kept, and callers hold permits.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{oneshot, watch};

use crate::{
    clock::Clock,
    counters::Counters,
    protocol::{entry::Key, id::NodeId, revocation::Revocation, route::Counter, timing::Timing},
    store::{Change, Store, StoreError, Stored},
};

/// Called when the changes are durable.
pub(crate) type Ack = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// Called with an error of the store.
pub(crate) type OnFailure = Box<dyn Fn(&StoreError) + Send>;

/// Passes changes to the store: to its thread, or at once to one that never blocks. Both end when
/// this is closed or dropped, after the queued work.
#[derive(Debug)]
pub(crate) enum Writer {
    Thread {
        inbox: Arc<Inbox>,
        /// Closed once the thread has released the store.
        over: watch::Receiver<()>,
    },
    Instant(Mutex<Option<Keeper>>),
}

/// Drives the store.
pub(crate) struct Keeper {
    store: Arc<dyn Store>,
    counters: Arc<Counters>,
    on_failure: OnFailure,
    /// The changes that the last commit failed to keep.
    unkept: BTreeMap<Place, Change>,
}

#[derive(Debug, Default)]
pub(crate) struct Inbox {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Default)]
struct Waiting {
    changes: BTreeMap<Place, Change>,
    acks: Vec<Ack>,
    loads: Vec<oneshot::Sender<Result<Stored, StoreError>>>,
    closed: bool,
    /// The thread has released the store.
    over: bool,
}

/// The place that a change is about: a later change of the same place replaces the earlier.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Identity,
    Head,
    Tags,
    Left,
    EndpointKeys,
    Key(Key),
    Peer(NodeId),
    Revocation(Box<Revocation>),
}

impl Writer {
    /// Starts the thread, if one is needed.
    ///
    /// # Errors
    /// The system's error if it has no thread left.
    pub(crate) fn start(
        store: Arc<dyn Store>,
        counters: Arc<Counters>,
        on_failure: OnFailure,
    ) -> std::io::Result<Self> {
        let instant = store.is_instant();
        let mut keeper = Keeper { store, counters, on_failure, unkept: BTreeMap::new() };
        if instant {
            return Ok(Self::Instant(Mutex::new(Some(keeper))));
        }
        let inbox = Arc::new(Inbox::default());
        let theirs = Arc::clone(&inbox);
        let (running, over) = watch::channel(());
        std::thread::Builder::new().name("gossipmonger-store".to_owned()).spawn(move || {
            while let Some(work) = theirs.take(!keeper.unkept.is_empty()) {
                keeper.serve(work);
            }
            drop(keeper);
            theirs.end();
            drop(running);
        })?;
        Ok(Self::Thread { inbox, over })
    }

    /// Ends it after the queued work, and waits until the store is released.
    pub(crate) async fn close(&self) {
        match self {
            Self::Thread { inbox, over } => {
                inbox.close();
                let mut over = over.clone();
                while over.changed().await.is_ok() {}
            }
            Self::Instant(keeper) => drop(lock(keeper).take()),
        }
    }

    /// As [`close`](Self::close), for a thread that may block: waits at most `patience`. Returns
    /// whether the store is released.
    pub(crate) fn close_within(&self, patience: Duration) -> bool {
        match self {
            Self::Thread { inbox, .. } => {
                inbox.close();
                inbox.is_over_within(patience)
            }
            Self::Instant(keeper) => {
                drop(lock(keeper).take());
                true
            }
        }
    }

    /// Makes `changes` durable, all or none, and calls `ack`.
    pub(crate) fn write(&self, changes: Vec<Change>, ack: Option<Ack>) {
        let changes = changes.into_iter().map(|change| (place(&change), change)).collect();
        let acks = Vec::from_iter(ack);
        self.hand(Waiting { changes, acks, ..Waiting::default() });
    }

    /// The content of the store, after all earlier writes.
    pub(crate) async fn load(&self) -> Result<Stored, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.hand(Waiting { loads: vec![reply], ..Waiting::default() });
        answer.await.unwrap_or_else(|_| Err(failure(ENDED)))
    }

    /// How many changes wait for the next commit.
    pub(crate) fn waiting(&self) -> usize {
        match self {
            Self::Thread { inbox, .. } => inbox.lock().changes.len(),
            Self::Instant(_) => 0,
        }
    }

    /// Waits until all earlier writes are durable, or have failed once.
    pub(crate) async fn flush(&self) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.write(Vec::new(), Some(Box::new(move |result| drop(reply.send(result)))));
        answer.await.unwrap_or_else(|_| Err(failure(ENDED)))
    }

    fn hand(&self, work: Waiting) {
        let late = match self {
            Self::Thread { inbox, .. } => inbox.put(work),
            Self::Instant(keeper) => match &mut *lock(keeper) {
                Some(keeper) => {
                    keeper.serve(work);
                    None
                }
                None => Some(work),
            },
        };
        let acks = late.into_iter().flat_map(|late| late.acks);
        acks.for_each(|ack| ack(Err(failure(ENDED))));
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Self::Thread { inbox, .. } = self {
            inbox.close();
        }
    }
}

impl Keeper {
    fn serve(&mut self, mut work: Waiting) {
        self.unkept.append(&mut work.changes);
        let result = self.commit();
        self.counters.note_store(result.is_err());
        if let Err(error) = &result {
            self.counters.add(Counter::StoreFailures, 1);
            (self.on_failure)(error);
        }
        work.acks.into_iter().for_each(|ack| ack(result.clone()));
        for load in work.loads {
            // The actor that asked may have ended meanwhile.
            let _ = load.send(self.load());
        }
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        if self.unkept.is_empty() {
            return Ok(());
        }
        let batch: Vec<Change> = self.unkept.values().cloned().collect();
        let clock = Clock::start();
        let begun = clock.now();
        let committed = guarded(|| self.store.commit(&batch));
        self.counters.took(Timing::StoreCommit, clock.now().since(begun));
        committed?;
        self.unkept.clear();
        Ok(())
    }

    fn load(&self) -> Result<Stored, StoreError> {
        let mut stored = guarded(|| self.store.load())?;
        self.unkept.values().for_each(|change| stored.apply(change));
        Ok(stored)
    }
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Inbox {
    fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
    }

    fn end(&self) {
        self.lock().over = true;
        self.arrived.notify_all();
    }

    fn is_over_within(&self, patience: Duration) -> bool {
        let waits = |waiting: &mut Waiting| !waiting.over;
        let waited = self.arrived.wait_timeout_while(self.lock(), patience, waits);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Queues work for the thread; returns it if the thread has ended.
    fn put(&self, mut work: Waiting) -> Option<Waiting> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Some(work);
        }
        waiting.changes.append(&mut work.changes);
        waiting.acks.append(&mut work.acks);
        waiting.loads.append(&mut work.loads);
        self.arrived.notify_one();
        None
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.waiting)
    }

    /// Waits for work; takes all of it. `None`: the writer has ended.
    fn take(&self, failed: bool) -> Option<Waiting> {
        let mut waiting = self.lock();
        loop {
            if waiting.has_work() {
                let empty = Waiting { closed: waiting.closed, ..Waiting::default() };
                return Some(std::mem::replace(&mut *waiting, empty));
            }
            if waiting.closed {
                return None;
            }
            if failed {
                let (back, timeout) = self
                    .arrived
                    .wait_timeout(waiting, RETRY_AFTER)
                    .unwrap_or_else(PoisonError::into_inner);
                waiting = back;
                if timeout.timed_out() {
                    return Some(Waiting::default());
                }
            } else {
                waiting = self.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

impl Waiting {
    fn has_work(&self) -> bool {
        !(self.changes.is_empty() && self.acks.is_empty() && self.loads.is_empty())
    }
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting")
            .field("changes", &self.changes.len())
            .field("acks", &self.acks.len())
            .finish_non_exhaustive()
    }
}

/// A store that panics counts as failed, like one that returns an error: the thread continues, and no caller hangs.
fn guarded<T>(call: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| Err(failure("it panicked")))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Code under the locks does not panic half way: calls of the store are guarded.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failure(reason: &str) -> StoreError {
    StoreError::Io { location: "of this node".to_owned(), reason: reason.to_owned() }
}

fn place(change: &Change) -> Place {
    match change {
        Change::Identity { .. } => Place::Identity,
        Change::Head(_) => Place::Head,
        Change::Tags(_) => Place::Tags,
        Change::Left(_) => Place::Left,
        Change::EndpointKeys(_) => Place::EndpointKeys,
        Change::Put { key, .. } | Change::Remove(key) => Place::Key(key.clone()),
        Change::Peer(peer) => Place::Peer(peer.node.clone()),
        Change::ForgetPeer(node) => Place::Peer(node.clone()),
        Change::Revocation(statement) | Change::DropRevocation(statement) => {
            Place::Revocation(Box::new(statement.clone()))
        }
    }
}

/// The error of a write that comes too late.
const ENDED: &str = "the node has ended";
/// When a failed commit is retried if no new change arrives.
const RETRY_AFTER: Duration = Duration::from_secs(1);
