//! How late a node is served, for its tasks: the lag, and patience that does not run while the node is late.

use std::{
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::{
    clock::Clock,
    protocol::{
        lag::{GRAIN, TICK},
        served::Patience,
    },
};

/// How late one node is served. A client has one as well, which is never late.
#[derive(Debug, Default)]
pub(crate) struct Lateness {
    lag: AtomicU64,
    late: AtomicU64,
}

/// The patience is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLate;

impl Lateness {
    /// The node is this late now, and was this late since its start in all.
    pub(crate) fn note(&self, lag: Duration, late: Duration) {
        self.lag.store(micros(lag), Ordering::Relaxed);
        self.late.store(micros(late), Ordering::Relaxed);
    }

    /// How late the node is served now.
    pub(crate) fn lag(&self) -> Duration {
        Duration::from_micros(self.lag.load(Ordering::Relaxed))
    }

    /// How late it was since its start, in all.
    fn late(&self) -> Duration {
        Duration::from_micros(self.late.load(Ordering::Relaxed))
    }

    /// Waits for `work` for this long on the served clock, and for at most `most` in plain time.
    ///
    /// # Errors
    /// [`TooLate`] if it takes longer; then it is dropped.
    pub(crate) async fn within<T>(
        &self,
        served: Duration,
        most: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, TooLate> {
        let (clock, before) = (Clock::start(), self.late());
        let patience = Patience::new(clock.now(), Duration::ZERO, served, most);
        let mut overslept = Duration::ZERO;
        let mut work = pin!(work);
        loop {
            let now = clock.now();
            let late = self.late().saturating_sub(before).max(overslept);
            let Some(left) = patience.left(now, late) else { return Err(TooLate) };
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                () = tokio::time::sleep(left) => {}
            }
            let late = clock.now().since(now + left);
            if late > GRAIN {
                overslept += late;
                // The task that measures how late the node is may be served after this one.
                tokio::select! {
                    biased;
                    done = &mut work => return Ok(done),
                    () = tokio::time::sleep(TICK) => {}
                }
            }
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn patience_does_not_run_while_the_node_is_late_but_has_a_cap() {
        let lateness = Lateness::default();
        let clock = Clock::start();
        let begun = clock.now();
        let never = std::future::pending::<()>;
        assert_eq!(lateness.within(SECOND, 8 * SECOND, never()).await, Err(TooLate));
        assert_eq!(clock.now().since(begun).as_secs(), 1);
        // Half of the time it is late.
        let late = async {
            for tenths in 1_u32.. {
                tokio::time::sleep(SECOND / 10).await;
                lateness.note(Duration::ZERO, SECOND / 20 * tenths);
            }
        };
        let begun = clock.now();
        tokio::select! {
            () = late => {}
            given_up = lateness.within(SECOND, 8 * SECOND, never()) => assert_eq!(given_up, Err(TooLate)),
        }
        let passed = clock.now().since(begun);
        assert!((1_800..=2_000).contains(&passed.as_millis()), "{passed:?}");
        // All of the time.
        let late = async {
            for halves in 1_u32.. {
                lateness.note(Duration::ZERO, 2 * SECOND + SECOND / 2 * halves);
                tokio::time::sleep(SECOND / 2).await;
            }
        };
        let begun = clock.now();
        tokio::select! {
            () = late => {}
            given_up = lateness.within(SECOND, 8 * SECOND, never()) => assert_eq!(given_up, Err(TooLate)),
        }
        assert_eq!(clock.now().since(begun).as_secs(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_done_in_time_is_returned() {
        let work = async {
            tokio::time::sleep(SECOND / 2).await;
            7
        };
        assert_eq!(Lateness::default().within(SECOND, SECOND, work).await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_of_the_whole_process_is_no_loss_of_patience() {
        let lateness = Lateness::default();
        let work = async {
            // Nothing is served meanwhile. The lateness is measured a little after that.
            tokio::time::advance(10 * SECOND).await;
            tokio::time::sleep(SECOND / 100).await;
            lateness.note(Duration::ZERO, 10 * SECOND);
            tokio::time::sleep(SECOND / 2).await;
        };
        assert_eq!(lateness.within(SECOND, 80 * SECOND, work).await, Ok(()));
    }
}
