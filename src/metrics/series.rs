//! The list of all series of a node: name, kind, labels and meaning.

use std::sync::LazyLock;

use crate::protocol::{counter::Counter, timing::Timing};

/// The kind of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// It only grows, and begins at zero with the process.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Durations by class, in seconds.
    Histogram,
}

impl Kind {
    /// Its name in Prometheus's text format.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What one name measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Series {
    /// The name, with the unit.
    pub name: &'static str,
    /// The kind.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it measures, in one line.
    pub help: &'static str,
}

/// All series that a [`Meter`](super::Meter) can read, sorted by name.
#[must_use]
pub fn series() -> &'static [Series] {
    static ALL: LazyLock<Vec<Series>> = LazyLock::new(|| {
        let counters = Counter::ALL.into_iter().map(|counter| Series {
            name: counter.metric(),
            kind: Kind::Counter,
            labels: &[],
            help: match counter {
                // The counter has another unit.
                Counter::RepairMicros => REPAIR,
                counter => counter.help(),
            },
        });
        let timings = Timing::ALL.into_iter().map(|timing| Series {
            name: timing.metric(),
            kind: Kind::Histogram,
            labels: &[],
            help: timing.help(),
        });
        let others = OTHERS.into_iter().map(|(name, kind, labels, help)| Series {
            name,
            kind,
            labels,
            help,
        });
        let mut all: Vec<_> = counters.chain(timings).chain(others).collect();
        all.sort_by_key(|series| series.name);
        all
    });
    &ALL
}

const REPAIR: &str =
    "Seconds that storage has spent on exchanges, which repair what did not arrive by itself.";

const BY_PATH: &[&str] = &["datacenter", "protocol"];
const BY_METHOD: &[&str] = &["end", "service", "method"];

type Row = (&'static str, Kind, &'static [&'static str], &'static str);

/// Those beside [`Counter`] and [`Timing`].
#[rustfmt::skip]
const OTHERS: [Row; 31] = [
    ("gossipmonger_refusals_total", Kind::Counter, &["reason"],
        "Connections refused, by either side, by the reason."),
    ("gossipmonger_spread_unconfirmed_total", Kind::Counter, &[],
        "Writes of which gossipmonger_spread_duration_seconds has no time, because a live node did not confirm them within 30 s."),
    // The network
    ("gossipmonger_connections", Kind::Gauge, BY_PATH,
        "Open connections, by the peer's datacenter."),
    ("gossipmonger_network_sent_bytes_total", Kind::Counter, BY_PATH,
        "Bytes sent in UDP datagrams, without the headers of IP and UDP, by the peer's datacenter."),
    ("gossipmonger_network_received_bytes_total", Kind::Counter, BY_PATH,
        "Bytes received in UDP datagrams, without the headers of IP and UDP, by the peer's datacenter."),
    ("gossipmonger_network_sent_packets_total", Kind::Counter, BY_PATH,
        "QUIC packets sent, by the peer's datacenter."),
    ("gossipmonger_network_received_datagrams_total", Kind::Counter, BY_PATH,
        "UDP datagrams received on connections, by the peer's datacenter."),
    ("gossipmonger_network_lost_packets_total", Kind::Counter, BY_PATH,
        "QUIC packets sent that were declared lost, by the peer's datacenter."),
    ("gossipmonger_round_trip_seconds", Kind::Histogram, &["datacenter"],
        "The smoothed round-trip time of each open connection for gossip, sampled once a second, by the peer's datacenter."),
    // The cluster as this node sees it
    ("gossipmonger_members", Kind::Gauge, &["state", "datacenter"],
        "Members that this node knows, itself included."),
    ("gossipmonger_phi_max", Kind::Gauge, &[],
        "The highest suspicion level (phi) that this node has of a peer."),
    ("gossipmonger_certificates_expiring", Kind::Gauge, &[],
        "Members whose certificates expire soon."),
    ("gossipmonger_certificate_expires_in_seconds_min", Kind::Gauge, &[],
        "Seconds until the certificate of a member that expires first expires; negative once it has."),
    // This node
    ("gossipmonger_certificate_expires_in_seconds", Kind::Gauge, &[],
        "Seconds until the first certificate in this node's chain expires; negative once it has."),
    ("gossipmonger_certificate_not_after_seconds", Kind::Gauge, &[],
        "When the first certificate in this node's chain expires, in seconds since 1970."),
    ("gossipmonger_health", Kind::Gauge, &[],
        "How slow this node finds itself: 0 is healthy."),
    ("gossipmonger_lag_seconds", Kind::Gauge, &[],
        "How late this node is served: the longest wait for a turn in the last 200 ms."),
    ("gossipmonger_keys", Kind::Gauge, &[],
        "Keys that this node publishes, deleted ones included."),
    ("gossipmonger_generation", Kind::Gauge, &[],
        "The generation of this node's present life."),
    ("gossipmonger_version", Kind::Gauge, &[],
        "The version of this node's last write."),
    // Queues
    ("gossipmonger_outbound_queue_frames", Kind::Gauge, &[],
        "Frames of gossip that wait for a connection with a member."),
    ("gossipmonger_outbound_queue_bytes", Kind::Gauge, &[],
        "Bytes of the frames of gossip that wait for a connection with a member."),
    ("gossipmonger_write_queue_bytes", Kind::Gauge, &[],
        "Bytes of this node's own writes that wait for storage and the store, in units of 1 KiB."),
    ("gossipmonger_store_queue_changes", Kind::Gauge, &[],
        "Changes that wait for the next commit of the store."),
    // Calls
    ("gossipmonger_service_calls_total", Kind::Counter, &["end", "service", "method", "outcome"],
        "Calls and casts that have ended, by how they ended."),
    ("gossipmonger_service_latency_seconds", Kind::Histogram, BY_METHOD,
        "At the caller the time of answered calls, at the provider that of all that ran."),
    ("gossipmonger_service_in_flight", Kind::Gauge, BY_METHOD,
        "Calls and casts that have begun and not ended."),
    ("gossipmonger_service_retries_total", Kind::Counter, BY_METHOD,
        "Attempts of calls after the first one."),
    ("gossipmonger_service_connections", Kind::Gauge, &["dialed"],
        "Connections for calls, by the end that has dialed."),
    ("gossipmonger_service_lane_queue_bytes", Kind::Gauge, &[],
        "Bytes of questions and messages that wait to be sent."),
    ("gossipmonger_storage_step_seconds_max", Kind::Gauge, &[],
        "The longest time since the start that storage was busy with one message."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_series_has_one_name_of_its_own_in_base_units_and_a_help_text() {
        for pair in series().windows(2) {
            assert!(pair[0].name < pair[1].name, "{} is there twice", pair[0].name);
        }
        for Series { name, kind, help, .. } in series() {
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert_eq!(
                name.ends_with("_seconds"),
                *kind == Kind::Histogram || name.ends_with("_seconds")
            );
            assert!(name.starts_with("gossipmonger_") && help.ends_with('.'), "{name}: {help}");
            let other_units = ["_us_", "_ms_", "_ms", "_us", "_kib", "_millis"];
            assert!(!other_units.iter().any(|unit| name.ends_with(unit)), "{name}");
        }
    }
}
