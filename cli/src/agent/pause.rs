//! Pauses after failures to accept a connection. Most failures persist, such as a lack of file descriptors: retries
//! without a pause would fill a core and the log.

use std::{io, time::Duration};

/// The pause after the first failure; each further one doubles it.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The next pause. Start with a new one after each success.
#[derive(Debug)]
pub(super) struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(PAUSE_MIN)
    }
}

impl Pause {
    /// Logs that `what` cannot accept, and waits.
    pub(super) async fn after(&mut self, what: &str, error: &io::Error) {
        tracing::warn!("{what} cannot accept, the next attempt is in {:?}: {error}", self.0);
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failures_that_last_are_tried_less_and_less_often() {
        let (mut pause, mut failures) = (Pause::default(), 0);
        let error = io::Error::from(io::ErrorKind::OutOfMemory);
        let trying = async {
            loop {
                pause.after("the socket", &error).await;
                failures += 1;
            }
        };
        let minute = Duration::from_secs(60);
        assert!(tokio::time::timeout(minute, trying).await.is_err());
        assert!((10..20).contains(&failures), "{failures} attempts in a minute");
    }
}
