//! What can be changed while the agent runs: certificate, key and roots, tags of the file, log level. Everything is
//! read and checked before any of it becomes active.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwapOption;
use gossipmonger::{
    Error, Foreign, Gossipmonger,
    net::quic::QuicNetwork,
    protocol::route::Counter,
    tls::{CertificateSummary, Identity, Roots, Tls},
    unstable::date,
};
use tokio::sync::Mutex;

use super::{
    effective, journal,
    logs::Logs,
    monitor::Monitors,
    offload::{FILE_TIMEOUT, FILES, offload},
    read_credentials,
    settings::{Credentials, Flags, Settings},
};
use crate::{admin::Reloaded, config::ConfigFile, effective::ConfigRow, error::CliError};

/// Reloads, one at a time, and changes tags, one change at a time.
#[derive(Debug)]
pub(super) struct Reloader {
    dir: PathBuf,
    flags: Flags,
    transport: Arc<QuicNetwork>,
    logs: Logs,
    node: Gossipmonger,
    /// The configuration at the start of the node.
    started: ConfigFile,
    /// Never held across a call to the node: the task that watches the files needs it.
    current: Mutex<Current>,
    /// Held during a reload and while tags change.
    turns: Mutex<()>,
    /// Why the certificate, key and roots in the files are not active.
    problem: ArcSwapOption<String>,
}

/// What is active.
#[derive(Debug)]
struct Current {
    settings: Settings,
    roots: BTreeSet<String>,
    /// How often certificate, key and roots were activated since the start.
    changes: u64,
}

impl Reloader {
    pub(super) fn new(
        dir: &Path,
        flags: Flags,
        settings: Settings,
        roots: BTreeSet<String>,
        transport: Arc<QuicNetwork>,
        logs: Logs,
        node: Gossipmonger,
    ) -> Self {
        let started = settings.file.clone();
        let (current, turns) =
            (Mutex::new(Current { settings, roots, changes: 0 }), Mutex::default());
        let (dir, problem) = (dir.to_owned(), ArcSwapOption::empty());
        Self { dir, flags, transport, logs, node, started, current, turns, problem }
    }

    /// Reads everything again. After an error nothing has changed, unless the error says what has.
    pub(super) async fn reload(&self) -> Result<Reloaded, CliError> {
        let mut applied = Vec::new();
        match self.try_reload(&mut applied).await {
            Ok(restart_needed) => {
                tracing::info!(applied = applied.join(", "), "reloaded");
                if !restart_needed.is_empty() {
                    let keys = restart_needed.join(", ");
                    tracing::warn!("changed, but in force only after a restart: {keys}");
                }
                Ok(Reloaded { applied, restart_needed })
            }
            Err(error) if applied.is_empty() => {
                tracing::error!("nothing reloaded: {error}");
                Err(error)
            }
            Err(error) => {
                let partly = format!("nothing reloaded but {}: {error}", applied.join(", "));
                tracing::error!("{partly}");
                Err(CliError::new(error.exit(), partly))
            }
        }
    }

    /// The TLS of the node.
    pub(super) fn tls(&self) -> Tls {
        self.transport.tls()
    }

    /// The readers of the log with a level of their own.
    pub(super) const fn monitors(&self) -> &Monitors {
        self.logs.monitors()
    }

    /// The last lines of the log.
    pub(super) fn log_tail(&self) -> Vec<Foreign> {
        self.logs.tail().lines()
    }

    /// The configuration in force.
    pub(super) async fn configuration(&self) -> Vec<ConfigRow> {
        let settings = self.current.lock().await.settings.clone();
        effective::rows(&self.started, &settings, &self.node, &self.dir)
    }

    /// The paths of certificate, key and roots.
    pub(super) async fn credential_files(&self) -> [PathBuf; 3] {
        self.current.lock().await.settings.credential_files(&self.dir)
    }

    /// Activates certificate, key and roots as they are in their files now, if they have changed. After an error
    /// nothing has changed.
    pub(super) async fn renew(&self) -> Result<(), CliError> {
        let mut current = self.current.lock().await;
        let new = self.judged(&current, current.settings.clone()).await?;
        if new.is_other() {
            let (roots, roots_now) = (new.roots_now.clone(), self.put_in_force(new)?);
            tracing::info!(
                not_after = date(self.certificate().expires),
                fingerprint = self.certificate().fingerprint,
                roots = roots.into_iter().collect::<Vec<_>>().join(", "),
                "certificate, key or roots were replaced; connections stay"
            );
            current.roots = roots_now;
            current.changes += 1;
        }
        self.problem.store(None);
        Ok(())
    }

    /// The content of the files, if it may become active. Only this function decides that, so the watcher of the files
    /// and `reload` accept and refuse the same.
    async fn judged(&self, current: &Current, settings: Settings) -> Result<New, CliError> {
        let credentials = read_credentials(&self.dir, settings).await?;
        let shown = self.transport.identity();
        let (certificate, roots_now) =
            (!is_same(&shown, &credentials.identity), fingerprints(&credentials.roots));
        let new = New { certificate, roots: current.roots != roots_now, roots_now, credentials };
        let summary = new.credentials.identity.certificate();
        if new.credentials.standing.early && certificate {
            return Err(CliError::credentials(format!(
                "the certificate is valid from {} only: look at the clock of this host, and of the \
                 authority's",
                date(summary.not_before)
            )));
        }
        let (ours, theirs) = (shown.name(), new.credentials.identity.name());
        if ours != theirs {
            return Err(CliError::credentials(format!(
                "the new certificate is of {theirs}, this node is {ours}; put its own certificate back, \
                 or restart the node under its new name"
            )));
        }
        Ok(new)
    }

    /// Activates what was judged; returns the roots.
    fn put_in_force(&self, new: New) -> Result<BTreeSet<String>, CliError> {
        if new.is_other() {
            journal::warn_of(&new.credentials);
            self.node.counters().add(Counter::CertificatesReplaced, 1);
        }
        let Credentials { identity, roots, .. } = new.credentials;
        self.transport.reload(identity, roots).map_err(CliError::credentials)?;
        Ok(new.roots_now)
    }

    /// Reports, once, that the content of the files cannot become active.
    pub(super) fn refuse(&self, error: &CliError) {
        let problem = format!("{error}; the one in force stays");
        if self.problem.load().as_deref() != Some(&problem) {
            tracing::error!("new certificate, key or roots are refused: {problem}");
            self.node.counters().add(Counter::CertificatesRefused, 1);
            self.problem.store(Some(Arc::new(problem)));
        }
    }

    /// Why the content of the files is not active.
    pub(super) fn problem(&self) -> Option<String> {
        self.problem.load().as_deref().cloned()
    }

    /// The configuration as it is now.
    pub(super) async fn settings(&self) -> Result<Settings, CliError> {
        let (dir, flags) = (self.dir.clone(), self.flags.clone());
        let read = move || Settings::read(&dir, &flags);
        offload(&FILES, "reading the configuration", FILE_TIMEOUT, read).await
    }

    /// Lines of the log that were dropped.
    pub(super) fn log_lines_dropped(&self) -> u64 {
        self.logs.spool().dropped()
    }

    /// Bytes of lines of the log that wait for standard error.
    pub(super) fn log_queue_bytes(&self) -> usize {
        self.logs.spool().waiting()
    }

    /// The certificate shown to peers, and when its chain expires.
    pub(super) fn certificate(&self) -> CertificateSummary {
        self.transport.tls().certificate()
    }

    /// Changes some tags; returns all of them.
    pub(super) async fn change_tags(
        &self,
        set: BTreeMap<String, String>,
        delete: &[String],
    ) -> Result<BTreeMap<String, String>, CliError> {
        let _one_at_a_time = self.turns.lock().await;
        let mut tags = own_tags(&self.node);
        for name in delete {
            if tags.remove(name).is_none() {
                return Err(CliError::not_found(format!("this node has no tag {name:?}")));
            }
        }
        tags.extend(set);
        self.node.set_tags(tags.clone()).await?;
        Ok(tags)
    }

    /// Adds what it has activated to `applied`. Returns what needs a restart.
    async fn try_reload(&self, applied: &mut Vec<String>) -> Result<Vec<String>, CliError> {
        let _one_at_a_time = self.turns.lock().await;
        let current = self.current.lock().await;
        let mut settings = self.settings().await?;
        let new = self.judged(&current, settings.clone()).await?;
        let filter = settings.log_filter()?;
        let (tags, old) = (settings.checked_tags()?, current.settings.tags());
        let judged_at = current.changes;
        drop(current);

        // First, since the node may still refuse the tags.
        if tags != old {
            if !self.set_tags(tags).await? {
                // The next reload sets them again.
                settings.file.tags = Some(old);
            }
            applied.push("tags".to_owned());
        }
        let mut current = self.current.lock().await;
        current.settings.file.tags.clone_from(&settings.file.tags);
        let mut more = Vec::new();
        let mut put = |name: &str, changed: bool| {
            more.extend(changed.then(|| name.to_owned()));
            changed
        };
        put("certificate", new.certificate);
        put("roots", new.roots);
        // Otherwise the watcher of the files was faster, and what it activated is newer.
        if current.changes == judged_at {
            current.roots = self.put_in_force(new)?;
            current.changes += 1;
            self.problem.store(None);
        }
        if put("clients", current.settings.clients() != settings.clients()) {
            self.transport.set_roles(settings.clients());
        }
        if put("log", current.settings.log() != settings.log()) {
            self.logs.set(filter);
        }
        let restart_needed = differing(&self.started, &settings.file);
        current.settings = settings;
        applied.splice(0..0, more);
        Ok(restart_needed)
    }

    /// Returns whether the tags are certainly set.
    async fn set_tags(&self, tags: BTreeMap<String, String>) -> Result<bool, CliError> {
        match self.node.set_tags(tags).await {
            Ok(_) => Ok(true),
            Err(error @ (Error::NotDurable(_) | Error::Timeout(_))) => {
                tracing::warn!("the tags of the configuration: {error}");
                Ok(matches!(error, Error::NotDurable(_)))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The content of the files.
struct New {
    credentials: Credentials,
    /// Whether the certificates differ from the active ones.
    certificate: bool,
    /// Whether the roots do.
    roots: bool,
    roots_now: BTreeSet<String>,
}

impl New {
    const fn is_other(&self) -> bool {
        self.certificate || self.roots
    }
}

/// Whether two identities have the same chain: an intermediate is renewed without the leaf.
fn is_same(one: &Identity, other: &Identity) -> bool {
    one.chain() == other.chain()
}

pub(super) fn own_tags(node: &Gossipmonger) -> BTreeMap<String, String> {
    node.snapshot().member(node.node()).map(|member| member.tags).unwrap_or_default()
}

pub(super) fn fingerprints(roots: &Roots) -> BTreeSet<String> {
    roots.certificates().iter().map(|root| root.fingerprint.clone()).collect()
}

/// The keys that differ, among those that need a restart.
pub(super) fn differing(old: &ConfigFile, new: &ConfigFile) -> Vec<String> {
    let mut keys = Vec::new();
    macro_rules! compare {
        ($($key:ident),*) => {
            $(if old.$key != new.$key { keys.push(stringify!($key).to_owned()); })*
        };
    }
    compare!(
        preset,
        store,
        metrics,
        http,
        http_tls,
        http_tokens,
        http_metrics_public,
        log_format,
        listen,
        advertise,
        seeds,
        gossip_interval
    );
    compare!(gossip_fanout, dead_peer_phi, max_deltas_per_gossip, max_delta_bytes);
    compare!(minimum_live_peers, signing, peers_max, tombstone_grace, forget_after, event_queue);
    compare!(write_queue_bytes, push_bytes_per_second, wan_bytes_per_second);
    compare!(limits, restarts, quic, services, issuer, issuer_listen, issuer_validity);
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_needs_a_restart() {
        let file = |text| ConfigFile::parse(text, "gossipmonger.toml", []).unwrap();
        let (old, new) = (file("log = \"info\"\n"), file("log = \"warn\"\ngossip_fanout = 5\n"));
        assert_eq!(differing(&old, &new), ["gossip_fanout"]);
        assert!(differing(&old, &file("[tags]\nrole = \"db\"\n")).is_empty());
        assert_eq!(differing(&old, &file("[limits]\nkeys = 7\n")), ["limits"]);
        assert_eq!(differing(&old, &file("[services]\nidle = \"9s\"\n")), ["services"]);
    }
}
