//! What happened in a run, with its virtual times.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Most lines of a trace; the oldest ones are dropped.
const LINES_MAX: usize = 100_000;

#[derive(Debug, Default)]
pub(super) struct Trace(Mutex<VecDeque<(Duration, String)>>);

impl Trace {
    pub(super) fn note(&self, at: Duration, line: String) {
        let mut lines = self.lock();
        if lines.len() >= LINES_MAX {
            lines.pop_front();
        }
        lines.push_back((at, line));
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.lock().iter().map(|(at, line)| format!("{:.3} {line}", at.as_secs_f64())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Duration, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
