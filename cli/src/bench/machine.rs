//! The system's figures for this process and its network: from /proc, without root.
//!
//! A figure that the system does not provide is zero.

use std::fs;

use rustix::{
    param::page_size,
    time::{ClockId, clock_gettime},
};

/// CPU time of this process, all threads, user and system.
pub(crate) fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// CPU time of the calling thread.
pub(super) fn thread_cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Memory held by this process.
pub(crate) fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * page_size() as u64
}

/// The traffic over the loopback of this network namespace.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wire {
    /// With all headers, including the link's 14 bytes.
    pub(super) bytes: u64,
    pub(super) packets: u64,
}

impl Wire {
    pub(super) const fn since(&self, earlier: &Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(earlier.bytes),
            packets: self.packets.saturating_sub(earlier.packets),
        }
    }
}

/// What loopback has received so far. `/sys/class/net` would show another namespace's.
pub(super) fn loopback() -> Wire {
    let devices = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let Some(line) = devices.lines().find_map(|line| line.trim().strip_prefix("lo:")) else {
        return Wire::default();
    };
    let mut numbers = line.split_whitespace().map(|number| number.parse().unwrap_or(0));
    Wire { bytes: numbers.next().unwrap_or(0), packets: numbers.next().unwrap_or(0) }
}

/// Datagrams lost so far because a socket's buffer was full.
pub(super) fn udp_receive_errors() -> u64 {
    let counters = fs::read_to_string("/proc/self/net/snmp").unwrap_or_default();
    let mut lines = counters.lines().filter_map(|line| line.strip_prefix("Udp:"));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return 0 };
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    let value = pairs.find(|(name, _)| *name == "RcvbufErrors");
    value.and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}

/// The load of the machine, in the system's notation.
pub(super) fn load() -> String {
    fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned()
}
