//! Reads the figures of one node.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    calls,
    sample::{Histogram, Sample},
    spread,
};
pub use crate::net::ledger::DATACENTERS_MAX;
use crate::{
    net::{
        Protocol,
        ledger::{Ledger, Row},
    },
    node::{Gossipmonger, snapshot::Snapshot},
    protocol::{
        counter::Counter,
        id::Datacenter,
        state::PeerState,
        timing::{self, BOUNDS_US, Timing},
    },
};

/// Reads the figures of one node. Keep one: a series that has ended continues as zero, and so that the histogram of
/// round trips grows, somebody has to run [`keep`](Self::keep).
#[derive(Debug)]
pub struct Meter {
    node: Gossipmonger,
    seen: Mutex<Seen>,
    round_trips: Mutex<BTreeMap<Option<Datacenter>, Times>>,
    /// Writes that were not confirmed in time.
    unconfirmed: AtomicU64,
}

/// The labels that existed once.
#[derive(Debug, Default)]
struct Seen {
    datacenters: BTreeSet<String>,
    groups: BTreeSet<(&'static str, String)>,
}

#[derive(Debug, Default)]
struct Times {
    classes: [u64; BOUNDS_US.len() + 1],
    sum: Duration,
}

impl Meter {
    /// A meter of this node.
    #[must_use]
    pub fn new(node: Gossipmonger) -> Self {
        let (seen, round_trips) = (Mutex::default(), Mutex::default());
        Self { node, seen, round_trips, unconfirmed: AtomicU64::new(0) }
    }

    /// Takes samples until the node has ended: of the round trips of the connections once a second, and of few writes how
    /// long each takes to reach all live nodes.
    pub async fn keep(&self) {
        let round_trips = async {
            let mut ticks = tokio::time::interval(SAMPLED_EVERY);
            loop {
                ticks.tick().await;
                self.sample_round_trips();
            }
        };
        let unconfirmed = || {
            self.unconfirmed.fetch_add(1, Ordering::Relaxed);
        };
        tokio::select! {
            () = round_trips => {}
            () = spread::measure(&self.node, unconfirmed) => {}
            _ = self.node.ended() => {}
        }
    }

    /// The present values of all series of [`series`](super::series) that have one, those of one name together.
    #[must_use]
    pub fn read(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        self.read_counters(&mut samples);
        self.read_network(&mut samples);
        let snapshot = self.node.snapshot();
        self.read_members(&snapshot, &mut samples);
        self.read_certificates(&snapshot, &mut samples);
        self.read_node(&snapshot, &mut samples);
        calls::read(&self.node.service_figures(), &mut samples);
        samples.sort_by_key(|sample| sample.name);
        samples
    }

    fn read_counters(&self, samples: &mut Vec<Sample>) {
        let counters = self.node.counters();
        for counter in Counter::ALL {
            let times = counters.get(counter) as f64;
            let value = if counter == Counter::RepairMicros { times / 1e6 } else { times };
            samples.push(Sample::plain(counter.metric(), value));
        }
        for timing in Timing::ALL {
            let (classes, sum) = counters.times(timing);
            let histogram = Histogram::new(&BOUNDS_US, &classes, sum);
            samples.push(Sample::histogram(timing.metric(), Vec::new(), histogram));
        }
        for (reason, times) in counters.refusals() {
            let labels = vec![("reason", reason.to_owned())];
            samples.push(Sample::new("gossipmonger_refusals_total", labels, times as f64));
        }
        let unconfirmed = self.unconfirmed.load(Ordering::Relaxed) as f64;
        samples.push(Sample::plain("gossipmonger_spread_unconfirmed_total", unconfirmed));
    }

    fn read_network(&self, samples: &mut Vec<Sample>) {
        for Row { datacenter, protocol, open, traffic, .. } in self.ledger().rows() {
            let mut add = |name, number| {
                let labels = vec![
                    ("datacenter", label(datacenter.as_ref())),
                    ("protocol", protocol_label(protocol).to_owned()),
                ];
                samples.push(Sample::new(name, labels, number));
            };
            add("gossipmonger_connections", open as f64);
            add("gossipmonger_network_sent_bytes_total", traffic.bytes_sent as f64);
            add("gossipmonger_network_received_bytes_total", traffic.bytes_received as f64);
            add("gossipmonger_network_sent_packets_total", traffic.packets_sent as f64);
            add("gossipmonger_network_received_datagrams_total", traffic.packets_received as f64);
            add("gossipmonger_network_lost_packets_total", traffic.packets_lost as f64);
        }
        for (datacenter, times) in &*lock(&self.round_trips) {
            let labels = vec![("datacenter", label(datacenter.as_ref()))];
            let histogram = Histogram::new(&BOUNDS_US, &times.classes, times.sum);
            samples.push(Sample::histogram("gossipmonger_round_trip_seconds", labels, histogram));
        }
    }

    fn read_members(&self, snapshot: &Snapshot, samples: &mut Vec<Sample>) {
        let (mut seen, mut phi) = (lock(&self.seen), 0.0_f64);
        let mut groups = BTreeMap::<_, usize>::new();
        for member in snapshot.members() {
            phi = phi.max(member.phi);
            let group = (state_label(member.state), seen.label(member.datacenter.as_str()));
            *groups.entry(group).or_default() += 1;
        }
        seen.groups.extend(groups.keys().cloned());
        for group @ (state, datacenter) in &seen.groups {
            let labels = vec![("state", (*state).to_owned()), ("datacenter", datacenter.clone())];
            let number = groups.get(group).copied().unwrap_or(0);
            samples.push(Sample::new("gossipmonger_members", labels, number as f64));
        }
        samples.push(Sample::plain("gossipmonger_phi_max", phi));
    }

    fn read_certificates(&self, snapshot: &Snapshot, samples: &mut Vec<Sample>) {
        let now = self.node.shared.ambient.wall();
        let certificates = snapshot.certificates(now);
        let expiring = certificates.expiring as f64;
        samples.push(Sample::plain("gossipmonger_certificates_expiring", expiring));
        if let Some(first) = certificates.first {
            let name = "gossipmonger_certificate_expires_in_seconds_min";
            samples.push(Sample::plain(name, left(first, now)));
        }
        let endpoint = self.node.shared.endpoint.upgrade();
        let tls = endpoint.as_ref().and_then(|endpoint| endpoint.tls());
        if let Some((_, not_after)) = tls.map(|tls| tls.validity()) {
            let until = UNIX_EPOCH + Duration::from_secs(not_after);
            let name = "gossipmonger_certificate_expires_in_seconds";
            samples.push(Sample::plain(name, left(until, now)));
            let name = "gossipmonger_certificate_not_after_seconds";
            samples.push(Sample::plain(name, not_after as f64));
        }
    }

    fn read_node(&self, snapshot: &Snapshot, samples: &mut Vec<Sample>) {
        let (node, shared) = (&self.node, &self.node.shared);
        let (generation, version) = snapshot.version(node.node()).unwrap_or_default();
        let outboxes = shared.diagnostics.outboxes.get().and_then(|outboxes| outboxes.upgrade());
        let (frames, bytes) = outboxes.map_or((0, 0), |outboxes| outboxes.waiting());
        let counters = node.counters();
        samples.extend(
            [
                ("gossipmonger_health", f64::from(node.health())),
                ("gossipmonger_lag_seconds", counters.lag().as_secs_f64()),
                (
                    "gossipmonger_storage_step_seconds_max",
                    counters.longest_storage_step().as_secs_f64(),
                ),
                ("gossipmonger_keys", snapshot.held_keys(node.node()) as f64),
                ("gossipmonger_generation", generation.0 as f64),
                ("gossipmonger_version", version.0 as f64),
                ("gossipmonger_outbound_queue_frames", frames as f64),
                ("gossipmonger_outbound_queue_bytes", bytes as f64),
                ("gossipmonger_write_queue_bytes", shared.write_room.used() as f64),
                ("gossipmonger_store_queue_changes", shared.writer.waiting() as f64),
            ]
            .map(|(name, number)| Sample::plain(name, number)),
        );
    }

    fn sample_round_trips(&self) {
        let rows = self.ledger().rows();
        let mut round_trips = lock(&self.round_trips);
        for row in rows.into_iter().filter(|row| row.protocol == Protocol::Gossip) {
            let times = round_trips.entry(row.datacenter).or_default();
            for round_trip in row.round_trips {
                times.classes[timing::class(round_trip)] += 1;
                times.sum += round_trip;
            }
        }
    }

    fn ledger(&self) -> &Ledger {
        &self.node.shared.diagnostics.ledger
    }
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

fn label(datacenter: Option<&Datacenter>) -> String {
    datacenter.map_or(OTHER, |datacenter| datacenter.as_str()).to_owned()
}

const fn protocol_label(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Gossip => "gossip",
        Protocol::Clients => "clients",
        Protocol::Services => "services",
    }
}

/// The names of the states in the program's output.
const fn state_label(state: PeerState) -> &'static str {
    match state {
        PeerState::Unheard => "joining",
        PeerState::Live => "live",
        PeerState::Suspect => "suspect",
        PeerState::Unreachable => "unreachable",
        PeerState::Dead => "dead",
        PeerState::Left => "left",
    }
}

/// Seconds until a date; negative once it has passed.
fn left(until: SystemTime, now: SystemTime) -> f64 {
    match until.duration_since(now) {
        Ok(left) => left.as_secs_f64(),
        Err(past) => -past.duration().as_secs_f64(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Code under the locks does not panic half way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Far more often than any scraper asks.
const SAMPLED_EVERY: Duration = Duration::from_secs(1);
/// The label of all datacenters beyond the limit, and of clients; no datacenter has this name, since a name has no
/// parentheses.
const OTHER: &str = "(other)";

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use super::*;
    use crate::{
        Config,
        metrics::{Kind, Value, series},
        net::memory::MemoryNetwork,
        protocol::id::{ClusterId, NodeId},
        tls::PeerName,
    };

    /// Far longer than anything here takes, in virtual time.
    const PATIENCE: Duration = Duration::from_secs(600);

    async fn spawn(network: &MemoryNetwork, node: &str, seed: Option<&str>) -> Gossipmonger {
        let id = |name: &str| NodeId::new(name).unwrap();
        let cluster = ClusterId::new("test").unwrap();
        let datacenter = Datacenter::new("eu").unwrap();
        let mut config = Config::new(&PeerName { cluster, datacenter, node: id(node) });
        config.seeds.extend(seed.map(|seed| MemoryNetwork::address(&id(seed))));
        Gossipmonger::spawn(config, network.place()).await.unwrap().0
    }

    /// The number of one series with these values of its labels.
    fn number(samples: &[Sample], name: &str, values: &[&str]) -> Option<f64> {
        let found = samples.iter().find(|sample| {
            sample.name == name
                && sample.labels.iter().map(|(_, value)| value.as_str()).eq(values.iter().copied())
        });
        match &found?.value {
            Value::Number(number) => Some(*number),
            Value::Histogram(histogram) => Some(histogram.count() as f64),
        }
    }

    fn is_listed(sample: &Sample) -> bool {
        let series = series().iter().find(|series| series.name == sample.name);
        series.is_some_and(|series| {
            let labels = sample.labels.iter().map(|(label, _)| *label);
            let is_histogram = matches!(sample.value, Value::Histogram(_));
            labels.eq(series.labels.iter().copied())
                && is_histogram == (series.kind == Kind::Histogram)
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_is_timed_until_all_live_nodes_have_it() {
        let network = MemoryNetwork::default();
        let a = spawn(&network, "a", None).await;
        let b = spawn(&network, "b", Some("a")).await;
        let meter = Meter::new(a.clone());
        let told = |name: &str, values: &[&str]| number(&meter.read(), name, values).unwrap();
        let confirmed = async {
            while told("gossipmonger_spread_duration_seconds", &[]) == 0.0 {
                a.set("key", format!("{:?}", a.shared.clock.now())).await.unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, async {
            tokio::select! {
                () = meter.keep() => panic!("the node has ended"),
                () = confirmed => {}
            }
        })
        .await
        .unwrap();
        assert_eq!(told("gossipmonger_spread_unconfirmed_total", &[]), 0.0);
        assert_eq!(told("gossipmonger_connections", &["eu", "gossip"]), 1.0);
        assert_eq!(told("gossipmonger_members", &["live", "eu"]), 2.0);
        assert!(told("gossipmonger_store_commit_duration_seconds", &[]) > 0.0);
        let samples = meter.read();
        let unlisted: Vec<_> = samples.iter().filter(|sample| !is_listed(sample)).collect();
        assert!(unlisted.is_empty(), "{unlisted:#?}");
        let exchanges = |node: &Gossipmonger| {
            let meter = Meter::new(node.clone());
            number(&meter.read(), "gossipmonger_exchange_duration_seconds", &[]).unwrap()
        };
        assert!(exchanges(&a) + exchanges(&b) > 0.0, "nobody has timed an exchange");
        b.shutdown().await;
        a.shutdown().await;
        tokio::time::timeout(PATIENCE, meter.keep()).await.expect("it ends with its node");
    }

    /// Microseconds of CPU that this thread has spent; `None` where the system does not say.
    fn cpu() -> Option<u64> {
        let said = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        said.split(' ').next()?.parse().ok().map(|nanos: u64| nanos / 1_000)
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_members_in_as_many_datacenters_make_no_more_series_than_allowed() {
        const MEMBERS: usize = 1_000;
        let network = MemoryNetwork::default();
        let a = spawn(&network, "a", None).await;
        let own = a.shared.published.maps.load().get(a.node()).cloned().unwrap();
        let mut maps = (**a.shared.published.maps.load()).clone();
        let (version, record) = own.record.clone().unwrap();
        for n in 0..MEMBERS {
            let mut record = (*record).clone();
            record.datacenter = Datacenter::new(&format!("d{n}")).unwrap();
            let mut view = (*own).clone();
            view.record = Some((version, Arc::new(record)));
            maps.insert(NodeId::new(&format!("n{n}")).unwrap(), Arc::new(view));
        }
        a.shared.published.maps.store(Arc::new(maps));
        let meter = Meter::new(a.clone());
        let before = cpu();
        let samples = meter.read();
        if let Some((before, after)) = before.zip(cpu()) {
            println!(
                "{} samples of {MEMBERS} members: {} us of CPU",
                samples.len(),
                after - before
            );
        }
        let states: usize = samples
            .iter()
            .filter(|sample| sample.name == "gossipmonger_members")
            .inspect(|sample| assert!(is_listed(sample), "{sample:?}"))
            .count();
        // This node is live; the made-up ones have not been heard.
        assert!(states <= 2 * (DATACENTERS_MAX + 1), "{states}");
        let other = number(&samples, "gossipmonger_members", &["joining", OTHER]).unwrap();
        assert!(other > 0.0);
        assert!(samples.len() <= series().len() + 2 * (DATACENTERS_MAX + 1), "{}", samples.len());
        a.shutdown().await;
    }

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
