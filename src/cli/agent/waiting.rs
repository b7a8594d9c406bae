//! The start of an agent whose certificate is not there yet.
//!
//! What writes certificate, key and roots may start after the agent, or renew them after the machine was
//! off for longer than a certificate lives. An agent that was told to (`wait_for_certificate`) looks at the
//! files once a second until they can be used, as one that runs does. A configuration that is wrong is
//! refused at once all the same: nobody but its author will mend it.

use std::{path::Path, time::Duration};

use sd_notify::NotifyState;
use tokio::signal::unix::Signal;

use super::{
    NOTIFY_TIMEOUT,
    logs::Logs,
    offload::{FILE_TIMEOUT, FILES, SYSTEMD, offload},
    read_credentials,
    settings::{Credentials, Flags, Settings},
};
use crate::{
    cli::error::{CliError, Exit},
    clock::Clock,
    protocol::time::Time,
};

/// Loads what the agent is to start with. It may be dropped at any moment.
pub(super) async fn credentials(
    dir: &Path,
    flags: &Flags,
    mut settings: Settings,
    logs: &Logs,
    hangup: &mut Signal,
) -> Result<(Settings, Credentials), CliError> {
    let (clock, mut told, mut status) =
        (Clock::start(), Told::new(TELL_AGAIN), Told::new(STATUS_AGAIN));
    loop {
        let error = match read_credentials(dir, settings.clone()).await {
            Ok(credentials) => return Ok((settings, credentials)),
            Err(error) => error,
        };
        if error.exit() != Exit::Credentials || !settings.waits_for_certificate() {
            return Err(error);
        }
        let reason = error.to_string();
        if told.is_to_be_told(&reason, clock.now()) {
            tracing::warn!("waiting for a certificate, key and roots that can be used: {reason}");
        }
        if status.is_to_be_told(&reason, clock.now()) {
            let line = reason.lines().next().unwrap_or_default();
            tell_systemd(format!("waiting for a certificate: {line}")).await;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            _ = hangup.recv() => {}
        }
        // The directory, and the configuration in it, may have come with the rest.
        let (here, these) = (dir.to_owned(), flags.clone());
        let read = move || Settings::read(&here, &these);
        let read = offload(&FILES, "reading the configuration", FILE_TIMEOUT, read).await?;
        if read.log() != settings.log() {
            logs.set(read.log_filter()?);
        }
        settings = read;
    }
}

/// Says what is waited for, and asks for more time.
async fn tell_systemd(status: String) {
    let told = move || {
        let state = [NotifyState::Status(&status), NotifyState::ExtendTimeoutUsec(EXTENSION_USEC)];
        let _ = sd_notify::notify(&state);
        Ok(())
    };
    if let Err(error) = offload(&SYSTEMD, "systemd's socket", NOTIFY_TIMEOUT, told).await {
        tracing::warn!("systemd was not told: {error}");
    }
}

/// What was told of the wait: each reason once, and again after a while.
#[derive(Debug)]
struct Told {
    again: Duration,
    last: Option<(String, Time)>,
}

impl Told {
    const fn new(again: Duration) -> Self {
        Self { again, last: None }
    }

    fn is_to_be_told(&mut self, reason: &str, now: Time) -> bool {
        let due = self.last.as_ref().is_none_or(|(told, at)| {
            let since = now.since(*at);
            since >= self.again || (told != reason && since >= TELL_MIN)
        });
        if due {
            self.last = Some((reason.to_owned(), now));
        }
        due
    }
}

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// systemd is asked for so much more time each time that it is told something.
const EXTENSION_USEC: u32 = 30_000_000;
/// systemd is told the same reason again after this long, well before that time is over.
const STATUS_AGAIN: Duration = Duration::from_secs(10);
/// Files that are being written change their faults quickly: no more lines than one in this time.
const TELL_MIN: Duration = Duration::from_secs(10);
/// The same reason is told again after this long.
const TELL_AGAIN: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_reason_once_and_again_after_a_while() {
        let mut told = Told::new(TELL_AGAIN);
        let at = |seconds| Time::from_origin(Duration::from_secs(seconds));
        assert!(told.is_to_be_told("no key", at(1)));
        assert!(!told.is_to_be_told("no key", at(2)));
        assert!(!told.is_to_be_told("mismatch", at(3)), "not a line a second");
        assert!(told.is_to_be_told("mismatch", at(11)));
        assert!(!told.is_to_be_told("mismatch", at(610)));
        assert!(told.is_to_be_told("mismatch", at(611)));
    }
}
