//! Whether a handler runs where its request arrives, or as a task of its own.
//!
//! A task costs more than most of a small call: it is allocated, queued, and wakes the writer of the lane by itself. A
//! handler that has ended at its first poll so many times in a row, in a short time, needs none. One that waits or takes
//! long is given a task at once or from the next time on, so it does not hold up the requests behind it.
//!
//! Only what the reader of a lane hands over runs there. A request of a handler to another service of its node, and one
//! that has waited for room, get a task. So no handler runs within another one.

use std::{
    pin::Pin,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    task::{Context, Poll, Waker},
    time::Duration,
};

use crate::clock::Clock;

/// After so many short runs in a row, the next one runs where its request arrives.
const SHORT_RUNS_MIN: u32 = 64;
/// The longest time of a short run. A hundred requests that arrive together hold up the next one by 1 ms at most.
const SHORT: Duration = Duration::from_micros(10);
/// One of so many runs is timed, once they are known to be short.
const TIMED: u32 = 16;
/// How the runs of one handler have gone.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// How many were short, in a row.
    short: AtomicU32,
}

impl Runs {
    /// Runs a handler here if that is known to be short; returns what is left of it otherwise, for a task.
    pub(super) fn here<F: Future<Output = ()> + Send>(
        &self,
        clock: Clock,
        handler: F,
    ) -> Result<(), Pin<Box<F>>> {
        let mut handler = Box::pin(handler);
        let short = self.short.load(Relaxed);
        if short < SHORT_RUNS_MIN {
            return Err(handler);
        }
        let begun = short.is_multiple_of(TIMED).then(|| clock.now());
        // If it waits, its task polls it again.
        let polled = handler.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let took = begun.map_or(Duration::ZERO, |begun| clock.now().since(begun));
        self.ran(polled.is_ready(), took);
        if polled.is_ready() { Ok(()) } else { Err(handler) }
    }

    /// The rest of a handler in a task of its own, which finds out whether it is short.
    pub(super) async fn there<F: Future<Output = ()>>(
        &self,
        clock: Clock,
        mut handler: Pin<Box<F>>,
    ) {
        let begun = clock.now();
        let first = std::future::poll_fn(|context| Poll::Ready(handler.as_mut().poll(context)));
        let first = first.await.is_ready();
        self.ran(first, clock.now().since(begun));
        if !first {
            handler.await;
        }
    }

    /// A run has ended at its first poll, or not, and the poll took so long.
    fn ran(&self, at_once: bool, took: Duration) {
        if at_once && took <= SHORT {
            // It need not be exact.
            let short = self.short.load(Relaxed);
            let next = if short >= SHORT_RUNS_MIN + TIMED { SHORT_RUNS_MIN + 1 } else { short + 1 };
            self.short.store(next, Relaxed);
        } else {
            self.short.store(0, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Runs {
        let runs = Runs::default();
        (0..SHORT_RUNS_MIN).for_each(|_| runs.ran(true, SHORT));
        runs
    }

    #[test]
    fn a_handler_runs_here_only_after_many_short_runs_in_a_row() {
        let (runs, clock) = (Runs::default(), Clock::start());
        for _ in 0..SHORT_RUNS_MIN {
            assert!(runs.here(clock, async {}).is_err());
            runs.ran(true, SHORT);
        }
        assert!(runs.here(clock, async {}).is_ok());
        runs.ran(true, SHORT * 2);
        assert!(runs.here(clock, async {}).is_err());
    }

    #[test]
    fn a_handler_that_waits_gets_a_task_at_once_and_the_next_ones_too() {
        let (runs, clock) = (known(), Clock::start());
        assert!(runs.here(clock, std::future::pending()).is_err());
        assert!(runs.here(clock, async {}).is_err());
    }

    #[tokio::test]
    async fn a_task_counts_the_first_poll() {
        let (runs, clock) = (Runs::default(), Clock::start());
        runs.there(clock, Box::pin(async {})).await;
        // The first poll may have been slow on a busy machine.
        assert!(runs.short.load(Relaxed) <= 1);
        runs.there(clock, Box::pin(tokio::task::yield_now())).await;
        assert_eq!(runs.short.load(Relaxed), 0);
    }
}
