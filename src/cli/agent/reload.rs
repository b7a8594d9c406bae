//! What can be changed while the agent runs: certificate, key and roots, tags of the file, log level.
//! Everything is read and checked before any of it is put in force.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwapOption;
use tokio::sync::Mutex;

use super::{
    journal,
    logs::{self, Logs},
    offload::{FILE_TIMEOUT, offload},
    read_credentials,
    settings::{Flags, Settings},
};
use crate::{
    actors::clock::Clock,
    cli::{admin::Reloaded, error::CliError},
    config::ConfigFile,
    node::Gossipmonger,
    protocol::{record, route::Counter},
    tls::{CertificateSummary, Roots, date},
    transport::quic::QuicTransport,
};

/// Reloads, one at a time, and changes tags, one change at a time.
#[derive(Debug)]
pub(super) struct Reloader {
    dir: PathBuf,
    flags: Flags,
    transport: Arc<QuicTransport>,
    logs: Logs,
    node: Gossipmonger,
    /// What the node was started with.
    started: ConfigFile,
    current: Mutex<Current>,
    /// Why what is in the files of certificate, key and roots is not in force.
    problem: ArcSwapOption<String>,
}

/// What is in force.
#[derive(Debug)]
struct Current {
    settings: Settings,
    roots: BTreeSet<String>,
}

impl Reloader {
    pub(super) fn new(
        dir: &Path,
        flags: Flags,
        settings: Settings,
        roots: BTreeSet<String>,
        transport: Arc<QuicTransport>,
        logs: Logs,
        node: Gossipmonger,
    ) -> Self {
        let started = settings.file.clone();
        let current = Mutex::new(Current { settings, roots });
        let (dir, problem) = (dir.to_owned(), ArcSwapOption::empty());
        Self { dir, flags, transport, logs, node, started, current, problem }
    }

    /// Reads everything again. After an error all is as before.
    pub(super) async fn reload(&self) -> Result<Reloaded, CliError> {
        let reloaded = self.try_reload().await;
        match &reloaded {
            Ok(Reloaded { applied, restart_needed }) => {
                tracing::info!(applied = applied.join(", "), "reloaded");
                if !restart_needed.is_empty() {
                    let keys = restart_needed.join(", ");
                    tracing::warn!("changed, but in force only after a restart: {keys}");
                }
            }
            Err(error) => tracing::error!("nothing reloaded: {error}"),
        }
        reloaded
    }

    /// Where certificate, key and roots are.
    pub(super) async fn credential_files(&self) -> [PathBuf; 3] {
        self.current.lock().await.settings.credential_files(&self.dir)
    }

    /// Puts certificate, key and roots in force as they are in their files now, if they have changed. After
    /// an error all is as before.
    pub(super) async fn renew(&self) -> Result<(), CliError> {
        let mut current = self.current.lock().await;
        let (_, credentials) = read_credentials(&self.dir, current.settings.clone()).await;
        let (identity, roots) = credentials?;
        let roots_now = fingerprints(&roots);
        let same = self.certificate().fingerprint == identity.certificate().fingerprint;
        if !same || current.roots != roots_now {
            // Peers have the same roots, or will have them.
            roots.check(&identity, Clock::wall()).map_err(|refusal| {
                CliError::failed(format!("its own roots refuse the certificate: {refusal}"))
            })?;
            self.transport.reload(identity, roots).map_err(CliError::failed)?;
            let names =
                |file: &BTreeSet<String>| file.iter().cloned().collect::<Vec<_>>().join(", ");
            tracing::info!(
                not_after = date(self.certificate().not_after),
                fingerprint = self.certificate().fingerprint,
                roots = names(&roots_now),
                "certificate, key or roots were replaced; connections stay"
            );
            current.roots = roots_now;
            self.node.counters().add(Counter::CertificatesReplaced, 1);
        }
        self.problem.store(None);
        Ok(())
    }

    /// Tells, once, that what is in the files cannot be put in force.
    pub(super) fn refuse(&self, error: &CliError) {
        let problem = format!("{error}; the one in force stays");
        if self.problem.load().as_deref() != Some(&problem) {
            tracing::error!("new certificate, key or roots are refused: {problem}");
            self.node.counters().add(Counter::CertificatesRefused, 1);
            self.problem.store(Some(Arc::new(problem)));
        }
    }

    /// Why what is in the files is not in force.
    pub(super) fn problem(&self) -> Option<String> {
        self.problem.load().as_deref().cloned()
    }

    /// The configuration as it is now.
    pub(super) async fn settings(&self) -> Result<Settings, CliError> {
        let (dir, flags) = (self.dir.clone(), self.flags.clone());
        let read = move || Settings::read(&dir, &flags);
        offload("reading the configuration", FILE_TIMEOUT, read).await
    }

    /// Lines of the log that were dropped.
    pub(super) fn log_lines_dropped(&self) -> u64 {
        self.logs.spool().dropped()
    }

    /// The certificate shown to peers.
    pub(super) fn certificate(&self) -> CertificateSummary {
        self.transport.identity().certificate().clone()
    }

    /// Changes some tags; returns all of them.
    pub(super) async fn change_tags(
        &self,
        set: BTreeMap<String, String>,
        delete: &[String],
    ) -> Result<BTreeMap<String, String>, CliError> {
        let _one_at_a_time = self.current.lock().await;
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

    async fn try_reload(&self) -> Result<Reloaded, CliError> {
        let mut current = self.current.lock().await;
        let settings = self.settings().await?;
        let (settings, credentials) = read_credentials(&self.dir, settings).await;
        let (identity, roots) = credentials?;
        let filter = logs::filter(settings.log())?;
        record::check_tags(&settings.tags()).map_err(CliError::usage)?;
        journal::check_identity(&identity, &roots);

        let mut applied = Vec::new();
        let mut put = |name: &str, changed: bool| {
            applied.extend(changed.then(|| name.to_owned()));
            changed
        };
        let roots_now = fingerprints(&roots);
        let renewed = put(
            "certificate",
            self.certificate().fingerprint != identity.certificate().fingerprint,
        );
        let replaced = put("roots", current.roots != roots_now) || renewed;
        self.transport.reload(identity, roots).map_err(CliError::failed)?;
        self.node.counters().add(Counter::CertificatesReplaced, u64::from(replaced));
        self.problem.store(None);
        if put("clients", current.settings.clients() != settings.clients()) {
            self.transport.set_roles(settings.clients());
        }
        current.roots = roots_now;
        if put("log", current.settings.log() != settings.log()) {
            self.logs.set(filter);
        }
        let tags = settings.tags();
        if put("tags", current.settings.tags() != tags) {
            self.node.set_tags(tags).await?;
        }
        let restart_needed = differing(&self.started, &settings.file);
        current.settings = settings;
        Ok(Reloaded { applied, restart_needed })
    }
}

pub(super) fn own_tags(node: &Gossipmonger) -> BTreeMap<String, String> {
    node.snapshot().member(node.node()).map(|member| member.tags).unwrap_or_default()
}

pub(super) fn fingerprints(roots: &Roots) -> BTreeSet<String> {
    roots.certificates().iter().map(|root| root.fingerprint.clone()).collect()
}

/// The keys that differ, of those that need a restart.
fn differing(old: &ConfigFile, new: &ConfigFile) -> Vec<String> {
    let mut keys = Vec::new();
    macro_rules! compare {
        ($($key:ident),*) => {
            $(if old.$key != new.$key { keys.push(stringify!($key).to_owned()); })*
        };
    }
    compare!(preset, store, metrics, log_format, listen, advertise, seeds, gossip_interval);
    compare!(gossip_fanout, dead_peer_phi, max_deltas_per_gossip, max_delta_bytes);
    compare!(minimum_live_peers, signing, peers_max, tombstone_grace, forget_after, event_queue);
    compare!(write_queue_bytes, push_bytes_per_second, wan_bytes_per_second);
    compare!(limits, restarts, quic, issuer, issuer_listen, issuer_validity);
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
    }
}
