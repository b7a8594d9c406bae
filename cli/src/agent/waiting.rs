//! The start of an agent whose certificate does not exist yet.
//!
//! The program that writes certificate, key and roots may start after the agent, or renew them after the machine was
//! off for longer than a certificate's lifetime. With `wait_for_certificate` the agent looks at the files once a second
//! until they can be used, as a running agent does. It still refuses a wrong configuration: at once at the start, and
//! after some looks if the configuration becomes wrong later. Waiting does not help there: only its author can correct
//! it.

use std::{path::Path, time::Duration};

use gossipmonger::{issuer::Issuer, protocol::time::Time};
use sd_notify::NotifyState;
use tokio::signal::unix::Signal;

use super::{
    CREDENTIALS, NOTIFY_TIMEOUT,
    files::FAILURES,
    issuing,
    logs::Logs,
    offload::{FILE_TIMEOUT, FILES, SYSTEMD, offload},
    settings::{Credentials, Flags, Settings},
};
use crate::{
    clock::Clock,
    error::{CliError, Exit},
};

/// What an agent starts with, judged.
pub(super) struct Ready {
    pub(super) credentials: Credentials,
    /// If the agent is an issuer.
    pub(super) issuer: Option<Issuer>,
}

/// Loads what the agent starts with. The future may be dropped at any moment.
pub(super) async fn ready(
    dir: &Path,
    flags: &Flags,
    mut settings: Settings,
    logs: &Logs,
    hangup: &mut Signal,
) -> Result<(Settings, Ready), CliError> {
    let (clock, mut told, mut status) =
        (Clock::start(), Told::new(TELL_AGAIN), Told::new(STATUS_AGAIN));
    let (mut again, mut refused, mut refusals) = (false, None, Refusals::default());
    loop {
        let (what, mut error) = match refused.take() {
            Some(error) => ("a configuration", error),
            None => match load(dir, settings.clone()).await {
                Ok(ready) => return Ok((settings, ready)),
                Err(error) => ("a certificate, key and roots", error),
            },
        };
        let may_pass = match error.exit() {
            Exit::Credentials => {
                refusals = Refusals::default();
                true
            }
            Exit::Usage if again => {
                let may_pass = refusals.may_pass(&error);
                if !may_pass {
                    error =
                        CliError::usage(format!("{error} (refused so {FAILURES} times in a row)"));
                }
                may_pass
            }
            _ => false,
        };
        if !may_pass || !settings.waits_for_certificate() {
            return Err(error);
        }
        let reason = error.to_string();
        if told.is_to_be_told(&reason, clock.now()) {
            // The rest is for a terminal.
            let line = reason.lines().next().unwrap_or_default();
            tracing::warn!("waiting for {what} that can be used: {line}");
        }
        if status.is_to_be_told(&reason, clock.now()) {
            let line = reason.lines().next().unwrap_or_default();
            let what = what.split(',').next().unwrap_or_default();
            tell_systemd(format!("waiting for {what}: {line}")).await;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            _ = hangup.recv() => {}
        }
        again = true;
        // The directory, and the configuration in it, may have been created together with the files.
        let (here, these) = (dir.to_owned(), flags.clone());
        let read = move || {
            let read = Settings::read(&here, &these)?;
            Ok((read.log_filter()?, read))
        };
        match offload(&FILES, "reading the configuration", FILE_TIMEOUT, read).await {
            Ok((filter, read)) => {
                if read.log() != settings.log() {
                    logs.set(filter);
                }
                settings = read;
            }
            Err(error) => refused = Some(error),
        }
    }
}

/// Loads and judges certificate, key and roots, and the CA if this agent is an issuer.
async fn load(dir: &Path, settings: Settings) -> Result<Ready, CliError> {
    let dir = dir.to_owned();
    let load = move || {
        let credentials =
            settings.credentials(&dir).map_err(|error| match settings.advice(&dir) {
                Some(advice) => CliError::new(error.exit(), format!("{error}\n{advice}")),
                None => error,
            })?;
        let issuer = issuing::open(&settings, &dir, credentials.identity.name().clone())?;
        Ok(Ready { credentials, issuer })
    };
    offload(&FILES, CREDENTIALS, FILE_TIMEOUT, load).await
}

/// Refusals of a configuration that is read again: one that is being written is refused for another reason a moment
/// later, or not at all.
#[derive(Debug, Default)]
struct Refusals {
    last: String,
    times: u32,
}

impl Refusals {
    /// Whether the configuration may still be in the middle of being written.
    fn may_pass(&mut self, error: &CliError) -> bool {
        let error = error.to_string();
        self.times = if self.last == error { self.times + 1 } else { 1 };
        self.last = error;
        self.times < FAILURES
    }
}

/// Reports what the agent waits for, and asks for more time.
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

/// What was reported of the wait: each reason once, and again after a while.
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

/// How often the agent looks at the files.
const LOOK: Duration = Duration::from_secs(1);
/// The agent asks systemd for this much more time with each message.
const EXTENSION_USEC: u32 = 30_000_000;
/// The agent sends systemd the same reason again after this long, well before that time is over.
const STATUS_AGAIN: Duration = Duration::from_secs(10);
/// The faults of files that are being written change quickly: at most one line in this time.
const TELL_MIN: Duration = Duration::from_secs(10);
/// The same reason is logged again after this long.
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
