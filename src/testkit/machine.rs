//! One machine of a kit: what outlives the node on it, and the node.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::task::JoinHandle;

use super::process::Process;
use crate::{
    ambient::Given,
    node::{Gossipmonger, config::Config},
    store::Store,
};

/// What all wall clocks show at the start: 2026-01-01T00:00:00Z.
pub(super) fn midnight() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600)
}

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) config: Config,
    pub(super) given: Arc<Given>,
    pub(super) store: Arc<dyn Store>,
    pub(super) running: Option<Running>,
}

/// A node that runs.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) process: Process,
    /// Completes when it has released everything.
    pub(super) ended: JoinHandle<()>,
    /// Writes its events into the trace.
    pub(super) recorder: JoinHandle<()>,
}

impl Running {
    pub(super) const fn node(&self) -> &Gossipmonger {
        self.process.node()
    }

    /// Ends everything at once. The network does not report it to the peers.
    pub(super) async fn kill(self) {
        self.process.end();
        self.node().cell().kill();
        self.over().await;
    }

    /// Leaves first.
    pub(super) async fn stop(self) {
        // It may have ended already.
        let _ = self.node().leave_for_now().await;
        self.process.end();
        self.over().await;
    }

    async fn over(self) {
        let _ = self.ended.await;
        self.recorder.abort();
        let _ = self.recorder.await;
    }
}
