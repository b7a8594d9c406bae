//! Ends of nodes that are busy. A deadlock stops every thread of a runtime, so each test runs a runtime
//! of its own and is watched from outside it.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::{Context, Waker},
    time::Duration,
};

use gossipmonger::{Error, Gossipmonger};

use crate::harness::{Lab, PATIENCE};

/// Writes that are under way when a node ends.
const WRITES: usize = 1_000;

/// Runs `work` on a runtime with worker threads, and fails if it has not returned in time. The threads of a
/// runtime that hangs are left behind.
fn watched<F: Future<Output = ()>>(work: impl FnOnce() -> F + Send + 'static) {
    let (done, finished) = mpsc::channel();
    let running = std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.unwrap().block_on(work());
        // Nobody listens any more if it took too long.
        let _ = done.send(());
    });
    match finished.recv_timeout(PATIENCE) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the process hangs"),
        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => running.join().unwrap(),
    }
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
