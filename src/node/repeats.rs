//! Recent log lines: a line that repeats often is noise, and hides other lines.
//!
//! A line is identified by its kind and its peer, never by its words: those contain times, ports and
//! counts, so that no two would be the same.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::protocol::time::Time;

/// Remembers lines for a while.
#[derive(Debug, Default)]
pub struct Repeats(Mutex<HashMap<(&'static str, String), Time>>);

impl Repeats {
    /// Whether no line of this kind was logged about this peer lately.
    pub fn is_new(&self, kind: &'static str, peer: &str, now: Time) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, at| now.since(*at) < LATELY);
        let line = (kind, peer.to_owned());
        if told.contains_key(&line) {
            return false;
        }
        // With so many different lines, repeating some is harmless.
        if told.len() >= LINES_MAX {
            told.clear();
        }
        told.insert(line, now);
        true
    }
}

/// A line is not repeated within this time.
const LATELY: Duration = Duration::from_secs(600);
/// This many different lines are remembered.
const LINES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_line_again_after_a_while_only() {
        let repeats = Repeats::default();
        let at = |seconds| Time::from_origin(Duration::from_secs(seconds));
        assert!(repeats.is_new("expired", "10.0.0.1:7101", at(1)));
        assert!(!repeats.is_new("expired", "10.0.0.1:7101", at(4)));
        assert!(repeats.is_new("revoked", "10.0.0.1:7101", at(4)), "another kind");
        assert!(repeats.is_new("expired", "10.0.0.2:7101", at(4)), "another peer");
        assert!(repeats.is_new("expired", "10.0.0.1:7101", at(601)));
    }

    #[test]
    fn remembers_no_more_than_its_limit() {
        let repeats = Repeats::default();
        for line in 0..10 * LINES_MAX {
            assert!(repeats.is_new("expired", &line.to_string(), Time::from_origin(LATELY)));
        }
        assert!(repeats.0.lock().unwrap().len() <= LINES_MAX);
    }
}
