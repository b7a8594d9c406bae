//! How late this process gets the processor: without it, timing figures of a busy machine mean little.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tokio::task::JoinHandle;

use super::statistics::quantiles;
use crate::stopwatch::Stopwatch;

/// A task that sleeps for [`NAP`] in a loop and records how much longer that took.
#[derive(Debug)]
pub(super) struct Lag {
    task: JoinHandle<()>,
    late_ms: Arc<Mutex<Vec<f64>>>,
}

impl Lag {
    pub(super) fn watch() -> Self {
        let late_ms = Arc::<Mutex<Vec<f64>>>::default();
        let noted = Arc::clone(&late_ms);
        let task = tokio::spawn(async move {
            loop {
                let nap = Stopwatch::start();
                tokio::time::sleep(NAP).await;
                let late = nap.elapsed().saturating_sub(NAP);
                noted.lock().unwrap_or_else(PoisonError::into_inner).push(late.as_secs_f64() * 1e3);
            }
        });
        Self { task, late_ms }
    }

    /// Quantiles of the lateness, in milliseconds. A timer of tokio is 1 ms late by itself.
    pub(super) fn end(self) -> Value {
        self.task.abort();
        quantiles(std::mem::take(&mut *self.late_ms.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

const NAP: Duration = Duration::from_millis(10);
