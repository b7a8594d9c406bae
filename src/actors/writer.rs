//! The thread that owns the store, so that a slow disk delays nobody but who waits for it.
//!
//! Changes that come while a commit runs are merged and make up the next commit. What a commit
//! failed to keep is tried again with the next one, and after [`RETRY_AFTER`] in any case. What
//! waits is bounded: of one key only the last change is kept, and callers hold permits.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{oneshot, watch};

use crate::{
    counters::Counters,
    protocol::{entry::Key, id::NodeId, route::Counter},
    store::{Change, Store, StoreError, Stored},
};

/// Told when the changes are durable.
pub(crate) type Ack = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// Told what the store failed at.
pub(crate) type OnFailure = Box<dyn Fn(&StoreError) + Send>;

/// Hands changes to the thread. The thread ends when this is closed or dropped, after what is waiting.
#[derive(Debug)]
pub(crate) struct Writer {
    inbox: Arc<Inbox>,
    /// Closed once the thread has let go of the store.
    over: watch::Receiver<()>,
}

#[derive(Debug, Default)]
struct Inbox {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Default)]
struct Waiting {
    changes: BTreeMap<Place, Change>,
    acks: Vec<Ack>,
    loads: Vec<oneshot::Sender<Result<Stored, StoreError>>>,
    closed: bool,
}

/// What a change is about: a later change of the same place takes the place of the earlier.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Identity,
    Head,
    Tags,
    Left,
    EndpointKeys,
    Key(Key),
    Peer(NodeId),
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// What the system says if it has no thread to give.
    pub(crate) fn start(
        store: Arc<dyn Store>,
        counters: Arc<Counters>,
        on_failure: OnFailure,
    ) -> std::io::Result<Self> {
        let inbox = Arc::new(Inbox::default());
        let theirs = Arc::clone(&inbox);
        let (running, over) = watch::channel(());
        std::thread::Builder::new().name("gossipmonger-store".to_owned()).spawn(move || {
            run(&theirs, &*store, &counters, &on_failure);
            drop(store);
            drop(running);
        })?;
        Ok(Self { inbox, over })
    }

    /// Ends the thread after what is waiting, and waits until it has let go of the store.
    pub(crate) async fn close(&self) {
        self.inbox.close();
        let mut over = self.over.clone();
        while over.changed().await.is_ok() {}
    }

    /// Has `changes` made durable, all or none, and tells `ack`.
    pub(crate) fn write(&self, changes: Vec<Change>, ack: Option<Ack>) {
        let mut waiting = self.inbox.lock();
        if waiting.closed {
            drop(waiting);
            return ack.into_iter().for_each(|ack| ack(Err(failure(ENDED))));
        }
        waiting.changes.extend(changes.into_iter().map(|change| (place(&change), change)));
        waiting.acks.extend(ack);
        drop(waiting);
        self.inbox.arrived.notify_one();
    }

    /// What the store holds, once all that was written before is in it.
    pub(crate) async fn load(&self) -> Result<Stored, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.ask(reply);
        answer.await.unwrap_or_else(|_| Err(failure(ENDED)))
    }

    fn ask(&self, reply: oneshot::Sender<Result<Stored, StoreError>>) {
        let mut waiting = self.inbox.lock();
        if !waiting.closed {
            waiting.loads.push(reply);
            self.inbox.arrived.notify_one();
        }
    }

    /// Waits until all that was written before is durable, or has failed once.
    pub(crate) async fn flush(&self) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.write(Vec::new(), Some(Box::new(move |result| drop(reply.send(result)))));
        answer.await.unwrap_or(Ok(()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.inbox.close();
    }
}

impl Inbox {
    fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing under the lock can panic half way.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to do; takes all there is. `None`: it is over.
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

fn run(inbox: &Inbox, store: &dyn Store, counters: &Counters, on_failure: &OnFailure) {
    // What the last commit failed to keep.
    let mut unkept: BTreeMap<Place, Change> = BTreeMap::new();
    while let Some(mut work) = inbox.take(!unkept.is_empty()) {
        unkept.append(&mut work.changes);
        let result = commit(store, &mut unkept);
        if let Err(error) = &result {
            counters.add(Counter::StoreFailures, 1);
            on_failure(error);
        }
        work.acks.into_iter().for_each(|ack| ack(result.clone()));
        for load in work.loads {
            let _ = load.send(load_with(store, &unkept));
        }
    }
}

fn commit(store: &dyn Store, changes: &mut BTreeMap<Place, Change>) -> Result<(), StoreError> {
    if changes.is_empty() {
        return Ok(());
    }
    let batch: Vec<Change> = changes.values().cloned().collect();
    guarded(|| store.commit(&batch))?;
    changes.clear();
    Ok(())
}

fn load_with(store: &dyn Store, unkept: &BTreeMap<Place, Change>) -> Result<Stored, StoreError> {
    let mut stored = guarded(|| store.load())?;
    unkept.values().for_each(|change| stored.apply(change));
    Ok(stored)
}

/// A store that panics has failed, like one that says so: the thread goes on, nobody waits for ever.
fn guarded<T>(call: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| Err(failure("it panicked")))
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
    }
}

/// What a write that comes too late is told.
const ENDED: &str = "the node has ended";
/// How soon a failed commit is tried again when nothing new comes.
const RETRY_AFTER: Duration = Duration::from_secs(1);
