//! The checks of a node's configuration.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    Config,
    address::{check_address, check_listen},
    error::ConfigError,
};
use crate::{
    net::limits::QuicLimits,
    protocol::{
        digest::PEERS_MAX,
        entry::KEY_BYTES_MAX,
        record,
        service::{
            limits::{DEADLINE_MAX, ServiceLimits},
            stream::BODY_MAX,
        },
    },
};

impl Config {
    /// Checks every value, as spawning does.
    ///
    /// # Errors
    /// [`ConfigError`] names the first key out of range, its value, and what is allowed.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_gossip()?;
        self.check_sizes()?;
        self.check_addresses()?;
        quic(&self.quic)?;
        services(&self.services)
    }

    fn check_gossip(&self) -> Result<(), ConfigError> {
        duration("gossip_interval", self.gossip_interval, MILLI * 10..=MINUTE)?;
        number("gossip_fanout", self.gossip_fanout, 1..=32)?;
        if !(0.5..=50.0).contains(&self.dead_peer_phi) {
            let allowed = "0.5 to 50 is allowed".to_owned();
            let value = self.dead_peer_phi.to_string();
            return Err(ConfigError { key: "dead_peer_phi", value, allowed });
        }
        number("minimum_live_peers", self.minimum_live_peers, 0..=1_000)?;
        // If a tombstone or a dead peer is dropped before the others have heard of it, they re-introduce it.
        let round = self.gossip_interval;
        duration("tombstone_grace", self.tombstone_grace, round..=DAY * 30)?;
        duration("forget_after", self.forget_after, round * FORGET_ROUNDS_MIN..=DAY * 366)
    }

    fn check_sizes(&self) -> Result<(), ConfigError> {
        number("max_deltas_per_gossip", self.max_deltas_per_gossip, 1..=1_000_000)?;
        number("max_delta_bytes", self.max_delta_bytes, 1_024..=4 << 20)?;
        number("limits.key_bytes", self.limits.key_bytes, 1..=KEY_BYTES_MAX)?;
        number("limits.value_bytes", self.limits.value_bytes, 1..=VALUE_BYTES_MAX)?;
        number("limits.keys", self.limits.keys, 1..=10_000_000)?;
        number("limits.state_bytes", self.limits.state_bytes, 1..=16 << 30)?;
        number("peers_max", self.peers_max, 1..=PEERS_MAX)?;
        number("event_queue", self.event_queue, 1..=1 << 20)?;
        number("write_queue_bytes", self.write_queue_bytes, 8 << 20..=4 << 30)?;
        number("push_bytes_per_second", self.push_bytes_per_second, BUDGET_MIN..=BUDGET_MAX)?;
        number("wan_bytes_per_second", self.wan_bytes_per_second, BUDGET_MIN..=BUDGET_MAX)?;
        number("restarts.most", self.restarts.most, 0..=1_000)?;
        duration("restarts.window", self.restarts.window, MILLI..=DAY)?;
        duration("restarts.back_off", self.restarts.back_off, Duration::ZERO..=MINUTE)
    }

    fn check_addresses(&self) -> Result<(), ConfigError> {
        record::check_tags(&self.tags).map_err(|error| ConfigError {
            key: "tags",
            value: format!("{} tags", self.tags.len()),
            allowed: error.to_string(),
        })?;
        number("listen", self.listen.len(), 1..=8)?;
        check_listen("listen", &self.listen)?;
        number("seeds", self.seeds.len(), 0..=1_000)?;
        number("advertise", self.advertise.len(), 0..=record::ADDRESSES_MAX)?;
        let named = [("advertise", &self.advertise), ("seeds", &self.seeds)];
        for (key, addresses) in named {
            addresses.iter().try_for_each(|address| check_address(key, address))?;
        }
        let unspecified = self.listen.iter().find(|address| address.ip().is_unspecified());
        match unspecified {
            Some(address) if self.advertise.is_empty() => Err(ConfigError {
                key: "listen",
                value: address.to_string(),
                allowed: "nobody can dial an unspecified address: set advertise (--advertise) to \
                          the address or name by which others reach this node"
                    .to_owned(),
            }),
            _ => Ok(()),
        }
    }
}

/// Checks the limits of calls.
///
/// # Errors
/// As [`Config::check`].
pub(crate) fn services(services: &ServiceLimits) -> Result<(), ConfigError> {
    duration("services.deadline", services.deadline, MILLI..=DEADLINE_MAX)?;
    number("services.calls_in_flight", services.calls_in_flight, 1..=1_000_000)?;
    number("services.calls_per_link", services.calls_per_link, 1..=65_536)?;
    number("services.lane_queue_bytes", services.lane_queue_bytes, 16 << 10..=64 << 20)?;
    number("services.request_bytes", services.request_bytes, 1..=BODY_MAX)?;
    number("services.reply_bytes", services.reply_bytes, 1..=BODY_MAX)?;
    let longest = services.request_bytes.max(services.reply_bytes);
    number("services.room_bytes", services.room_bytes, longest..=1 << 30)?;
    number("services.window_bytes", services.window_bytes, 8 << 20..=64 << 30)?;
    number("services.connections_out", services.connections_out, 1..=65_536)?;
    number("services.connections_in", services.connections_in, 1..=65_536)?;
    number("services.client_connections_in", services.client_connections_in, 0..=65_536)?;
    number("services.connections_per_peer", services.connections_per_peer, 1..=64)?;
    // A body has to go on at 64 KiB a second, also beside others.
    let rates = 1 << 20..=BUDGET_MAX;
    number("services.bytes_per_second", services.rates.bytes_per_second, rates.clone())?;
    number("services.wan_bytes_per_second", services.rates.wan_bytes_per_second, rates)?;
    if let Some(most) = services.rates.calls_per_second {
        number("services.calls_per_second", most, 1..=1_000_000_000)?;
    }
    duration("services.idle", services.idle, MILLI * 100..=MINUTE * 60)?;
    duration("services.drain", services.drain, Duration::ZERO..=MINUTE * 10)
}

/// Checks the limits of the transport.
///
/// # Errors
/// As [`Config::check`].
pub(crate) fn quic(quic: &QuicLimits) -> Result<(), ConfigError> {
    duration("quic.handshake_timeout", quic.handshake_timeout, MILLI * 100..=MINUTE)?;
    duration("quic.exchange_timeout", quic.exchange_timeout, MILLI * 100..=MINUTE * 10)?;
    duration("quic.idle_timeout", quic.idle_timeout, MILLI * 100..=MINUTE * 10)?;
    number("quic.handshakes", quic.handshakes, 1..=65_536)?;
    number("quic.retry_above", quic.retry_above, 0..=65_536)?;
    number("quic.handshakes_per_source", quic.handshakes_per_source as usize, 1..=1 << 20)?;
    number("quic.connections", quic.connections, 1..=100_000)?;
    number("quic.exchanges", quic.exchanges, 1..=65_536)?;
    number("quic.exchanges_per_peer", quic.exchanges_per_peer as usize, 1..=1 << 20)?;
    duration("quic.bar", quic.bar, Duration::ZERO..=MINUTE * 60)?;
    number("quic.socket_buffer", quic.socket_buffer, 0..=1 << 30)
}

/// Checks an address that is dialed.
///
/// # Errors
/// As [`Config::check`].
pub(crate) fn address(key: &'static str, address: &str) -> Result<(), ConfigError> {
    check_address(key, address)
}

fn number(
    key: &'static str,
    value: usize,
    range: RangeInclusive<usize>,
) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    let allowed = format!("{} to {} is allowed", range.start(), range.end());
    Err(ConfigError { key, value: value.to_string(), allowed })
}

fn duration(
    key: &'static str,
    value: Duration,
    range: RangeInclusive<Duration>,
) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    let shown = |d: Duration| humantime::format_duration(d).to_string();
    let allowed = format!("{} to {} is allowed", shown(*range.start()), shown(*range.end()));
    Err(ConfigError { key, value: shown(value), allowed })
}

/// A value is one version, so it has to fit into a frame together with its surroundings.
const VALUE_BYTES_MAX: usize = 4 << 20;
/// Minimum and maximum of a budget, in bytes per second.
const BUDGET_MIN: usize = 64 << 10;
const BUDGET_MAX: usize = 16 << 30;
/// A dead peer is kept for at least this many rounds.
const FORGET_ROUNDS_MIN: u32 = 10;
const MILLI: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
