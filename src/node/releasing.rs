//! Releases what a node holds when it has ended, or when its runtime ends first.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinHandle;

use super::{
    ending::{Ending, shut},
    shared::Shared,
};
use crate::net::Endpoint;

/// Releases everything once the root has ended (`running`).
pub(super) fn release_at_end(
    shared: Arc<Shared>,
    endpoint: Arc<dyn Endpoint>,
    running: JoinHandle<()>,
) {
    let unfinished = Unfinished { shared, endpoint };
    tokio::spawn(async move {
        let Unfinished { shared, endpoint } = &unfinished;
        // In every case of the root's end: stopped, failed or killed.
        let _ = running.await;
        shared.end.begin(Ending::Asked);
        shut(&**endpoint).await;
        if tokio::time::timeout(STORE_TIMEOUT, shared.writer.close()).await.is_err() {
            tracing::error!("{STORE_BUSY}");
        }
        shared.end.complete();
    });
}

/// Releases what a node holds if its runtime ends first: then no task is left to do it.
struct Unfinished {
    shared: Arc<Shared>,
    endpoint: Arc<dyn Endpoint>,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.shared.end.is_complete() {
            return;
        }
        self.shared.end.begin(Ending::Asked);
        self.endpoint.release();
        let shared = Arc::clone(&self.shared);
        // The store may take a while, and must not delay the end of the runtime.
        let give_back = std::thread::Builder::new().name("gossipmonger-end".to_owned());
        let begun = give_back.spawn(move || {
            if !shared.writer.close_within(STORE_TIMEOUT) {
                tracing::error!("{STORE_BUSY}");
            }
            shared.end.complete();
        });
        if begun.is_err() {
            self.shared.writer.close_within(Duration::ZERO);
            self.shared.end.complete();
        }
    }
}

/// The log line about a store that does not close.
const STORE_BUSY: &str = "the store is still busy: it is not given back";
/// How long the end of a node waits for a busy store.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);
