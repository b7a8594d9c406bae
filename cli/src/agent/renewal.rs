//! Renews the agent's certificate while it runs: from an issuer, after two thirds of its lifetime, with a new key. It
//! becomes active without a dropped connection.
//!
//! The agent renews only a certificate in the directory's own files. If the configuration names other files, another
//! program renews them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use gossipmonger::{
    issuer::{self, ClaimError},
    pki::Existing,
    tls::CertificateSummary,
    unstable::{date, lifetime},
};
use rand::{RngExt, seq::SliceRandom};
use tokio::{runtime::Runtime, sync::Mutex};

use super::{
    CREDENTIALS,
    directory::Lock,
    issuing::Issuing,
    offload::{FILE_TIMEOUT, FILES, offload},
    reload::Reloader,
    server::Agent,
    settings::{Flags, Settings},
};
use crate::{
    admin::{CertificateView, Renewed},
    clock::Clock,
    error::{CliError, Exit},
};

/// Renews, one renewal at a time.
#[derive(Debug)]
pub(super) struct Renewal {
    dir: PathBuf,
    /// The issuer of this process, if it has one.
    own: Option<String>,
    one_at_a_time: Mutex<()>,
}

impl Renewal {
    pub(super) fn new(dir: &Path, issuing: Option<&Issuing>) -> Self {
        let own = issuing.and_then(Issuing::own).map(str::to_owned);
        Self { dir: dir.to_owned(), own, one_at_a_time: Mutex::new(()) }
    }

    /// Renews now, and activates the new certificate.
    pub(super) async fn renew(&self, reloader: &Reloader) -> Result<Renewed, CliError> {
        let _one_at_a_time = self.one_at_a_time.lock().await;
        let settings = reloader.settings().await?;
        let certificate = renew(&self.dir, &settings, self.issuers(&settings)).await?;
        reloader.renew().await?;
        Ok(Renewed { certificate })
    }

    fn issuers(&self, settings: &Settings) -> Vec<String> {
        settings.issuers().iter().chain(&self.own).cloned().collect()
    }

    /// Whether the agent has what it needs to renew.
    fn is_possible(&self, settings: &Settings) -> bool {
        !settings.has_other_files() && !self.issuers(settings).is_empty()
    }
}

/// Renews whenever it is due, until it is aborted.
pub(super) async fn keep(agent: Arc<Agent>) {
    let (mut received, mut told) = (None, None);
    loop {
        let certificate = agent.reloader.certificate();
        let begin = match &received {
            Some((fingerprint, at)) if *fingerprint == certificate.fingerprint => *at,
            _ => certificate.not_before,
        };
        let due = due(&certificate, begin);
        await_wall(&agent, due, &certificate).await;
        if agent.reloader.certificate().fingerprint != certificate.fingerprint {
            // Another renewal was faster.
            continue;
        }
        match attempt(&agent).await {
            Ok(()) => {
                let (new, now) = (agent.reloader.certificate(), Clock::wall());
                if let Some(flaw) = flaw(&certificate, &new, now) {
                    if told != Some(new.expires) {
                        tracing::warn!(until = date(new.expires), "{flaw}");
                        told = Some(new.expires);
                    }
                    tokio::time::sleep(pause(&certificate)).await;
                }
                received = Some((new.fingerprint, now));
            }
            Err(pause) => tokio::time::sleep(pause).await,
        }
    }
}

/// Waits for a time of the wall clock, which may be set or stand still meanwhile, or for another certificate.
async fn await_wall(agent: &Agent, due: SystemTime, certificate: &CertificateSummary) {
    while let Ok(remaining) = due.duration_since(Clock::wall()) {
        tokio::time::sleep(remaining.min(LOOK_AGAIN)).await;
        if agent.reloader.certificate().fingerprint != certificate.fingerprint {
            return;
        }
    }
}

/// Tries once; `Err`: the pause before the next attempt.
async fn attempt(agent: &Agent) -> Result<(), Duration> {
    let certificate = agent.reloader.certificate();
    match agent.reloader.settings().await {
        Ok(settings) if agent.renewal.is_possible(&settings) => {}
        // A missing issuer need not be reported each time, and a broken configuration is reported when it is used.
        _ => return Err(LOOK_AGAIN),
    }
    match agent.renewal.renew(&agent.reloader).await {
        Ok(Renewed { certificate }) => {
            tracing::info!(until = %certificate.not_after, "certificate renewed");
            Ok(())
        }
        Err(error) => {
            let pause = pause(&certificate);
            let again = humantime::format_duration(Duration::from_secs(pause.as_secs().max(1)));
            tracing::warn!(
                until = date(certificate.not_after),
                "the certificate could not be renewed, the next attempt is in {again}: {error}"
            );
            Err(pause)
        }
    }
}

/// After two thirds of the lifetime from `begin` on, and a little later, by an amount that differs on each node. A
/// certificate is backdated; if this process got it, the time of issue is known.
fn due(certificate: &CertificateSummary, begin: SystemTime) -> SystemTime {
    let lifetime = certificate.expires.duration_since(begin).unwrap_or_default();
    let spread = lifetime / SPREAD_PARTS;
    begin + lifetime * 2 / 3 + spread.mul_f64(rand::rng().random_range(0.0..1.0))
}

/// Why the agent should pause before it requests the next certificate.
fn flaw(
    old: &CertificateSummary,
    new: &CertificateSummary,
    now: SystemTime,
) -> Option<&'static str> {
    if new.expires <= old.expires {
        Some(
            "the new certificate lasts no longer than the one before: the issuer's authority ends then; \
             make a new authority there with `gossipmonger ca rotate --dir PKI-DIR`",
        )
    } else if new.expires <= now {
        Some(
            "the new certificate has expired already: look at the clock of this host, and of the \
             issuer's",
        )
    } else {
        None
    }
}

/// About twenty attempts in the remaining lifetime.
fn pause(certificate: &CertificateSummary) -> Duration {
    let part = (lifetime(certificate) / PAUSE_PARTS).clamp(PAUSE_MIN, PAUSE_MAX);
    part.mul_f64(rand::rng().random_range(0.5..1.5))
}

/// Renews the certificate of a directory in which no agent runs.
pub(crate) fn renew_alone(dir: &Path) -> Result<CertificateView, CliError> {
    super::directory::check(dir)?;
    let settings = Settings::read(dir, &Flags::default())?;
    // Before the lock, which must remain only in a node's directory.
    settings.files(dir)?;
    let _lock = Lock::take(dir)?;
    let issuers = settings.issuers().to_vec();
    Runtime::new()?.block_on(renew(dir, &settings, issuers))
}

/// Requests a new certificate, and replaces the one in the directory.
async fn renew(
    dir: &Path,
    settings: &Settings,
    mut issuers: Vec<String>,
) -> Result<CertificateView, CliError> {
    if settings.has_other_files() {
        return Err(CliError::usage(
            "`certificate` or `key` in the configuration names files of somebody else's: renew them \
             there",
        ));
    }
    issuers.shuffle(&mut rand::rng());
    let (here, these) = (dir.to_owned(), settings.clone());
    let read = move || these.files(&here);
    let (identity, roots) = offload(&FILES, CREDENTIALS, FILE_TIMEOUT, read).await?;
    let key = identity.key_kind();
    let issued = issuer::renew(identity, &roots, &issuers, key).await?;
    let dir = dir.to_owned();
    let save = move || {
        issued.save(&dir, Existing::Replace)?;
        Ok(CertificateView::from(&issued.certificate))
    };
    offload(&FILES, "writing the new certificate", FILE_TIMEOUT, save).await
}

impl From<ClaimError> for CliError {
    fn from(error: ClaimError) -> Self {
        match &error {
            ClaimError::Nobody => Self::usage(error),
            _ if error.is_refusal() => Self::new(Exit::Unwelcome, error),
            _ => Self::failed(error),
        }
    }
}

/// The agent looks at the configuration and the clock again at least this often.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// Nodes that got their certificates together spread their renewals over this part of the lifetime.
const SPREAD_PARTS: u32 = 30;
/// The pause between attempts is this part of the lifetime, within the two limits.
const PAUSE_PARTS: u32 = 60;
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;
    use gossipmonger::{
        pki::{Authority, AuthorityOptions, LeafOptions},
        tls::PeerName,
    };

    #[test]
    fn a_certificate_that_gains_nothing_is_no_reason_to_ask_again_at_once() {
        let cluster = "demo".parse().unwrap();
        let authority = Authority::create(cluster, &AuthorityOptions::default()).unwrap();
        let name = PeerName::from_uri("spiffe://demo/eu/a").unwrap();
        let hour = Duration::from_secs(3_600);
        let old = authority.issue_with(&LeafOptions::new(&name, hour)).unwrap().certificate;
        let now = Clock::wall();
        let until = |expires| {
            let mut new = old.clone();
            new.expires = expires;
            new
        };
        assert!(flaw(&old, &old, now).unwrap().contains("ca rotate"));
        assert_eq!(flaw(&old, &until(old.expires + hour), now), None);
        let late = old.expires + 2 * hour;
        assert!(flaw(&old, &until(old.expires + hour), late).unwrap().contains("clock"));
        // Half an hour before the CA expires, two thirds of the backdated lifetime are over.
        let short = until(now + hour / 2);
        assert!(due(&short, now) > now + hour / 4);
    }
}
