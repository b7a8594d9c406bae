//! Why addresses could not be reached when they were last dialed, to answer why a peer or a seed is not
//! connected.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};

use crate::{foreign, protocol::time::Time};

/// Maximum number of addresses with failures; beyond that the oldest is dropped.
pub(crate) const DIALED_ADDRESSES_MAX: usize = 1_024;

/// Why one path to an address failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DialFailure {
    /// When, on the monotonic clock of this node.
    pub at: Time,
    /// The address as it was configured or advertised.
    pub address: String,
    /// The address that it resolved to; `None` if it did not resolve.
    pub to: Option<SocketAddr>,
    /// The address of this node that it was dialed from; `None` if this node listens on no address
    /// of that family.
    pub from: Option<SocketAddr>,
    /// What happened, for an operator.
    pub reason: String,
}

impl fmt::Display for DialFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", foreign::escaped(&self.address))?;
        if let Some(to) = self.to.filter(|to| to.to_string() != self.address) {
            write!(f, " ({to})")?;
        }
        if let Some(from) = self.from {
            write!(f, " from {from}")?;
        }
        // A peer that closes a connection gives the reason in its own words.
        write!(f, ": {}", foreign::escaped(&self.reason))
    }
}

/// The failures of the last attempt at each address.
#[derive(Debug, Default)]
pub(crate) struct DialFailures(Mutex<BTreeMap<String, Vec<DialFailure>>>);

impl DialFailures {
    /// Records the failures of a dial of these addresses; an address without a failure is cleared.
    pub(crate) fn note(&self, addresses: &[String], failures: Vec<DialFailure>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.iter().for_each(|address| drop(kept.remove(address)));
        for failure in failures {
            if kept.len() >= DIALED_ADDRESSES_MAX && !kept.contains_key(&failure.address) {
                let age = |failures: &Vec<DialFailure>| failures.iter().map(|f| f.at).max();
                let oldest = kept.iter().min_by_key(|(_, failures)| age(failures));
                let oldest = oldest.map(|(address, _)| address.clone());
                oldest.and_then(|oldest| kept.remove(&oldest));
            }
            kept.entry(failure.address.clone()).or_default().push(failure);
        }
    }

    pub(crate) fn get(&self, address: &str) -> Vec<DialFailure> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(address).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn failure(n: usize) -> DialFailure {
        DialFailure {
            at: Time::from_origin(Duration::from_secs(n as u64)),
            address: format!("n{n}:1"),
            to: None,
            from: None,
            reason: "the name does not resolve".to_owned(),
        }
    }

    #[test]
    fn keeps_no_more_than_so_many_and_the_last_attempt_at_each() {
        let failures = DialFailures::default();
        let note = |n| failures.note(&[format!("n{n}:1")], vec![failure(n)]);
        (0..DIALED_ADDRESSES_MAX + 10).for_each(note);
        assert_eq!(failures.get("n9:1"), []);
        assert_eq!(failures.get("n10:1"), [failure(10)]);
        note(10);
        assert_eq!(failures.get("n10:1"), [failure(10)]);
        failures.note(&["n10:1".to_owned()], Vec::new());
        assert_eq!(failures.get("n10:1"), []);
        assert_eq!(failures.0.lock().unwrap().len(), DIALED_ADDRESSES_MAX - 1);
    }

    #[test]
    fn says_which_way_failed_and_why() {
        let (to, from) = ("10.0.0.2:7101".parse().ok(), "10.0.0.1:7101".parse().ok());
        let reason = "no answer within 5s".to_owned();
        let at = Time::from_origin(Duration::ZERO);
        let failure = DialFailure { at, address: "b:7101".to_owned(), to, from, reason };
        let words = "b:7101 (10.0.0.2:7101) from 10.0.0.1:7101: no answer within 5s";
        assert_eq!(failure.to_string(), words);
    }
}
