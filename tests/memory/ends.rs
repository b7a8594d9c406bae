//! Ends of nodes that are busy. A deadlock stops every thread of a runtime, so each test runs a runtime
//! of its own and is watched from outside it.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::{Context, Waker},
    time::Duration,
};

use gossipmonger::{
    Audience, Error, Event, Gossipmonger,
    protocol::{event::Problem, id::Version},
    store::{Change, Store, StoreError, Stored, memory::MemoryStore},
    subscription::SubscriptionError,
};
use tokio::runtime::Runtime;

use crate::harness::{Lab, PATIENCE, id};
use crate::start::spawn;

/// Writes that are under way when a node ends.
const WRITES: usize = 1_000;

/// Runs `work` on a runtime with worker threads, and fails if it has not returned in time. The threads of a
/// runtime that hangs are left behind.
fn watched<F: Future<Output = ()>>(work: impl FnOnce() -> F + Send + 'static) {
    let (done, finished) = mpsc::channel();
    let running = std::thread::spawn(move || {
        runtime().block_on(work());
        // Nobody listens any more if it took too long.
        let _ = done.send(());
    });
    match finished.recv_timeout(PATIENCE) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the process hangs"),
        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => running.join().unwrap(),
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

async fn written_or_stopped(node: Gossipmonger, key: String) {
    match node.set(key, "value").await {
        Ok(_) | Err(Error::Stopped { reason: None }) => {}
        // The store is let go of between the two.
        Err(Error::NotDurable(_)) => {}
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn an_end_that_is_asked_for_without_pause_hangs_no_write() {
    watched(|| async {
        let lab = Lab::default();
        let node = lab.spawn("a", &[]).await;
        let over = Arc::new(AtomicBool::new(false));
        let asking = std::thread::spawn({
            let (node, over) = (node.clone(), Arc::clone(&over));
            move || {
                while !over.load(Ordering::Relaxed) {
                    // Asks, and does not wait.
                    let mut end = pin!(node.shutdown());
                    let _ = end.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                }
            }
        });
        for round in 0..20 {
            let write = |i| tokio::spawn(written_or_stopped(node.clone(), format!("{round}-{i}")));
            let writes: Vec<_> = (0..WRITES).map(write).collect();
            for write in writes {
                write.await.unwrap();
            }
        }
        over.store(true, Ordering::Relaxed);
        asking.join().unwrap();
        node.shutdown().await;
    });
}

#[test]
fn an_end_while_writes_are_under_way_returns() {
    watched(|| async {
        for round in 0..30 {
            let lab = Lab::default();
            let node = lab.spawn("a", &[]).await;
            let write = |i| tokio::spawn(written_or_stopped(node.clone(), format!("{i}")));
            let writes: Vec<_> = (0..WRITES).map(write).collect();
            tokio::time::sleep(Duration::from_micros(round * 30)).await;
            node.shutdown().await;
            for write in writes {
                write.await.unwrap();
            }
        }
    });
}

/// A store that says when it is let go of.
#[derive(Debug)]
struct Lent {
    inner: MemoryStore,
    _gone: mpsc::Sender<()>,
}

impl Store for Lent {
    fn load(&self) -> Result<Stored, StoreError> {
        self.inner.load()
    }

    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        self.inner.commit(changes)
    }
}

#[test]
fn a_handle_that_outlives_its_runtime_is_refused_and_the_store_is_given_back() {
    let (sender, gone) = mpsc::channel();
    let (first, lab) = (runtime(), Lab::default());
    let mut config = lab.config("a");
    config.storage = Arc::new(Lent { inner: MemoryStore::new(), _gone: sender });
    let (node, join) = first.block_on(spawn(config)).unwrap();
    let (mut events, mut prefix) = (node.subscribe(), node.watch_prefix(""));
    // A wait that is under way when the runtime goes.
    let waiting = std::thread::spawn({
        let node = node.clone();
        move || runtime().block_on(node.ended())
    });
    drop(first);
    watched(move || async move {
        let stopped = |result: Result<(), Error>| {
            assert!(matches!(result, Err(Error::Stopped { reason: None })), "{result:?}");
        };
        let all = Audience::All;
        stopped(node.set("k", "v").await.map(drop));
        stopped(node.set_tags(BTreeMap::new()).await.map(drop));
        stopped(node.await_propagated(Version(1), all, PATIENCE).await.map(drop));
        stopped(node.peers_behind(Version(1)).await.map(drop));
        stopped(node.remove(&id("b")));
        stopped(node.decommission().await.map(drop));
        // The supervisor may see the end of another actor before its own.
        let restarted =
            |event: &Event| matches!(event, Event::Error(Problem::ActorRestarted { .. }));
        let last = loop {
            match events.next().await {
                Ok(event) => assert!(restarted(&event), "{event:?}"),
                Err(last) => break last,
            }
        };
        assert_eq!(last, SubscriptionError::Ended);
        assert_eq!(prefix.next().await.unwrap_err(), SubscriptionError::Ended);
        assert!(join.await.unwrap_err().is_cancelled());
        node.shutdown().await;
        assert_eq!(node.ended().await, None);
        // The handle is still there.
        assert_eq!(gone.try_recv(), Err(mpsc::TryRecvError::Disconnected), "the store is kept");
    });
    assert_eq!(waiting.join().unwrap(), None);
}

#[test]
fn a_wait_for_the_end_that_is_aborted_ends_nothing() {
    watched(|| async {
        let lab = Lab::default();
        let (node, join) = spawn(lab.config("a")).await.unwrap();
        join.abort();
        assert!(join.await.unwrap_err().is_cancelled());
        node.set("k", "v").await.unwrap();
        node.shutdown().await;
        assert!(matches!(node.set("k", "w").await, Err(Error::Stopped { .. })));
    });
}
