//! The metrics for Prometheus: all counters of the node, and the cluster as this node sees it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ::metrics::{counter, describe_counter, describe_gauge, gauge, with_local_recorder};
use gossipmonger::protocol::counter::Counter;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use tokio::task::JoinHandle;

use super::{http::MetricsPage, server::Agent, service_metrics};
use crate::{admin::State, clock::Clock};

/// The recorder of the numbers. It is not the process's global recorder.
pub(super) struct Exporter {
    recorder: Arc<PrometheusRecorder>,
    seen: Seen,
    agent: Arc<Agent>,
}

/// Members by state and datacenter.
type Groups = BTreeMap<(State, String), usize>;

/// The series that existed once: a series that ends continues as zero.
#[derive(Debug, Default)]
struct Seen {
    datacenters: BTreeSet<String>,
    groups: BTreeSet<(State, String)>,
}

impl Seen {
    /// The label of a datacenter. If certificates do not name datacenters, a member names its own, so those beyond the
    /// limit share one label.
    fn label(&mut self, datacenter: &str) -> String {
        let known = self.datacenters.contains(datacenter);
        if !known && self.datacenters.len() >= DATACENTERS_MAX {
            return OTHER.to_owned();
        }
        self.datacenters.insert(datacenter.to_owned());
        datacenter.to_owned()
    }
}

impl Exporter {
    pub(super) fn new(agent: &Arc<Agent>) -> Self {
        let recorder = Arc::new(PrometheusBuilder::new().build_recorder());
        let mut seen = Seen::default();
        with_local_recorder(&*recorder, || {
            describe();
            record(agent, &mut seen);
        });
        Self { recorder, seen, agent: Arc::clone(agent) }
    }

    /// Renders the numbers.
    pub(super) fn page(&self) -> MetricsPage {
        let (handle, agent) = (self.recorder.handle(), Arc::clone(&self.agent));
        Arc::new(move || handle.render() + &service_metrics::text(&agent.node.service_figures()))
    }

    /// Updates the numbers until the task is aborted.
    pub(super) fn keep(self) -> JoinHandle<()> {
        let Self { recorder, mut seen, agent } = self;
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(REFRESH);
            loop {
                ticks.tick().await;
                with_local_recorder(&*recorder, || record(&agent, &mut seen));
            }
        })
    }
}

/// Gives each number its help text.
fn describe() {
    for counter in Counter::ALL {
        describe_counter!(format!("gossipmonger_{}_total", counter.as_str()), counter.help());
    }
    for (name, help) in COUNTERS {
        describe_counter!(name, help);
    }
    for (name, help) in GAUGES {
        describe_gauge!(name, help);
    }
}

/// The counters beside [`Counter`].
const COUNTERS: [(&str, &str); 2] = [
    ("gossipmonger_log_lines_dropped_total", "Lines of the log dropped, since nobody took them."),
    ("gossipmonger_refusals_total", "Connections refused, by either side, by the reason."),
];
const GAUGES: [(&str, &str); 10] = [
    ("gossipmonger_members", "Members that this node knows, itself included."),
    (
        "gossipmonger_certificate_expires_in_seconds",
        "Seconds until the first certificate in this node's chain expires; negative once it has.",
    ),
    (
        "gossipmonger_certificate_expires_in_seconds_min",
        "The same of the certificate of a member that expires first.",
    ),
    ("gossipmonger_certificates_expiring", "Members whose certificates expire soon."),
    ("gossipmonger_phi_max", "The highest suspicion level (phi) that this node has of a peer."),
    ("gossipmonger_health", "How slow this node finds itself: 0 is healthy."),
    ("gossipmonger_keys", "Keys that this node publishes, deleted ones included."),
    ("gossipmonger_generation", "The generation of this node's present life."),
    ("gossipmonger_version", "The version of this node's last write."),
    (
        "gossipmonger_certificate_not_after_seconds",
        "When the first certificate in this node's chain expires, in seconds since 1970.",
    ),
];

/// Updates all numbers.
fn record(agent: &Agent, seen: &mut Seen) {
    let node = &agent.node;
    for (name, times) in agent.counters() {
        counter!(format!("gossipmonger_{name}_total")).absolute(times);
    }
    for (reason, times) in node.counters().refusals() {
        counter!("gossipmonger_refusals_total", "reason" => reason).absolute(times);
    }
    let snapshot = node.snapshot();
    let mut groups = Groups::new();
    let mut phi = 0.0_f64;
    for member in snapshot.members() {
        phi = phi.max(member.phi);
        let datacenter = seen.label(member.datacenter.as_str());
        *groups.entry((member.state.into(), datacenter)).or_default() += 1;
    }
    seen.groups.extend(groups.keys().cloned());
    for (state, datacenter) in &seen.groups {
        let number = groups.get(&(*state, datacenter.clone())).copied().unwrap_or(0);
        let labels = [("state", state.as_str().to_owned()), ("datacenter", datacenter.clone())];
        gauge!("gossipmonger_members", &labels).set(number as f64);
    }
    let (generation, version) = snapshot.version(node.node()).unwrap_or_default();
    let (now, certificates) = (Clock::wall(), snapshot.certificates(Clock::wall()));
    let left = |until: SystemTime| match until.duration_since(now) {
        Ok(left) => left.as_secs_f64(),
        Err(past) => -past.duration().as_secs_f64(),
    };
    gauge!("gossipmonger_certificate_expires_in_seconds")
        .set(left(agent.reloader.certificate().expires));
    if let Some(first) = certificates.first {
        gauge!("gossipmonger_certificate_expires_in_seconds_min").set(left(first));
    }
    gauge!("gossipmonger_certificates_expiring").set(certificates.expiring as f64);
    let expiry = agent.reloader.certificate().expires.duration_since(UNIX_EPOCH);
    gauge!("gossipmonger_phi_max").set(phi);
    gauge!("gossipmonger_health").set(f64::from(node.health()));
    gauge!("gossipmonger_keys").set(snapshot.held_keys(node.node()) as f64);
    gauge!("gossipmonger_generation").set(generation.0 as f64);
    gauge!("gossipmonger_version").set(version.0 as f64);
    gauge!("gossipmonger_certificate_not_after_seconds")
        .set(expiry.map_or(0.0, |expiry| expiry.as_secs_f64()));
}

/// Far more often than any scraper asks.
const REFRESH: Duration = Duration::from_secs(1);
/// Most datacenters with a label of their own.
const DATACENTERS_MAX: usize = 256;
/// The label of all others; no datacenter has this name, since a name has no parentheses.
const OTHER: &str = "(other)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_datacenters_share_one_label_beyond_the_limit() {
        let mut seen = Seen::default();
        for n in 0..10 * DATACENTERS_MAX {
            seen.label(&format!("d{n}"));
        }
        assert_eq!(seen.datacenters.len(), DATACENTERS_MAX);
        assert_eq!((seen.label("d0"), seen.label("another")), ("d0".into(), OTHER.into()));
    }
}
