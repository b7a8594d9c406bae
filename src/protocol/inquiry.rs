//! One suspicion poll among the observers of a peer: how many have to agree before it is suspected.
//!
//! A single observer is wrong whenever its own path is bad. So a node does not accuse alone while there are
//! others to be asked. What counts is how many different observers agree, not how often one repeats it
//! (Dadgar, Phillips and Currey, "Lifeguard", DSN-W 2018, section IV-B; Rapid, section 4.1, also calls them
//! observers).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{id::NodeId, time::Time};

/// Most observers that have to agree.
pub const QUORUM_MAX: usize = 5;

/// How many of this many observers have to agree.
#[must_use]
pub fn quorum(observers: usize) -> usize {
    (observers / 2 + 1).min(QUORUM_MAX)
}

/// A question about one peer, and the answers.
#[derive(Debug)]
pub struct Inquiry {
    begun: Time,
    observers: Option<Arc<[NodeId]>>,
    answers: BTreeMap<NodeId, bool>,
}

/// The asker itself, when a question is to be decided.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// Its name.
    pub node: &'a NodeId,
    /// It has a voice, and is convinced.
    pub convinced: bool,
    /// More than half of the peers that it observes fell silent together: the asker itself may be cut off.
    pub isolated: bool,
    /// How often a heartbeat is expected.
    pub interval: Duration,
}

/// The result of the answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Nothing yet.
    Open,
    /// These agree that it is not heard.
    Silent(Arc<[NodeId]>),
    /// The asker does not hear it, and no observer has answered.
    Alone,
    /// Others hear it.
    Heard,
}

impl Inquiry {
    /// It was asked just now.
    #[must_use]
    pub const fn new(begun: Time) -> Self {
        Self { begun, observers: None, answers: BTreeMap::new() }
    }

    /// When it was asked.
    #[must_use]
    pub const fn begun(&self) -> Time {
        self.begun
    }

    /// Excludes time from the waiting: this process itself stood still, and could read no answer.
    pub fn excuse(&mut self, stalled: Duration, now: Time) {
        self.begun = (self.begun + stalled).min(now);
    }

    /// The nodes to ask, the asker included if it has a vote.
    pub fn expect(&mut self, observers: Option<Arc<[NodeId]>>) {
        self.observers = observers;
    }

    /// One of them answers.
    pub fn answer(&mut self, observer: NodeId, hears: bool) {
        // A later answer replaces the earlier one, and one node has one vote.
        if self.answers.len() < ANSWERS_MAX || self.answers.contains_key(&observer) {
            self.answers.insert(observer, hears);
        }
    }

    /// The result so far. `missing`: the peers that the asker misses as well.
    #[must_use]
    pub fn finding(
        &self,
        now: Time,
        asker: Asker<'_>,
        missing: impl Fn(&NodeId) -> bool,
    ) -> Finding {
        let hear = self.answers.values().filter(|hears| **hears).count();
        let silent = self.answers.len() - hear + usize::from(asker.convinced);
        let age = now.since(self.begun);
        if let Some(observers) = &self.observers {
            if silent >= quorum(observers.len()) {
                return self.silent(asker);
            }
            if hear > observers.len() / 2 {
                return Finding::Heard;
            }
            // An observer that died together with it does not answer. That alone proves nothing: an asker
            // that is cut off misses all nodes. But here another observer agrees.
            let present = observers.iter().filter(|observer| !missing(observer)).count();
            if silent >= quorum(present).max(2) {
                return self.silent(asker);
            }
        }
        // Dead observers do not answer either: those that have not answered by now are not waited for, unless
        // no observer has.
        let late = match silent {
            0 | 1 => age >= asker.interval * ALONE_INTERVALS,
            _ => age >= asker.interval / ANSWERS_PER_INTERVAL,
        };
        match (silent, hear) {
            _ if !late => Finding::Open,
            (0, 0) => Finding::Open,
            (silent, hear) if hear >= silent => Finding::Heard,
            (1, 0) if asker.convinced => {
                if asker.isolated && age < asker.interval * ISOLATED_INTERVALS {
                    Finding::Open
                } else {
                    Finding::Alone
                }
            }
            _ => self.silent(asker),
        }
    }

    fn silent(&self, asker: Asker<'_>) -> Finding {
        let others = self.answers.iter().filter(|(_, hears)| !**hears).map(|(node, _)| node);
        let mut agreed: Vec<_> = others.cloned().collect();
        if asker.convinced {
            agreed.push(asker.node.clone());
        }
        agreed.sort_unstable();
        if agreed.len() == 1 && asker.convinced {
            Finding::Alone
        } else {
            Finding::Silent(agreed.into())
        }
    }
}

/// After this part of an interval the majority of the answers decides: an answer takes a few probes and round
/// trips.
const ANSWERS_PER_INTERVAL: u32 = 2;
/// After this many intervals a node concludes that no observer has answered.
const ALONE_INTERVALS: u32 = 2;
/// After this many intervals even a node that may itself be cut off decides alone.
const ISOLATED_INTERVALS: u32 = 10;
/// Most answers kept; there are not more observers than that.
const ANSWERS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const T: Duration = Duration::from_secs(1);

    fn node(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn at(millis: u64) -> Time {
        Time::from_origin(Duration::from_millis(millis))
    }

    fn finding(inquiry: &Inquiry, millis: u64, convinced: bool, isolated: bool) -> Finding {
        let me = node("me");
        let asker = Asker { node: &me, convinced, isolated, interval: T };
        inquiry.finding(at(millis), asker, |node| node.as_str().starts_with("gone"))
    }

    fn asked(observers: usize) -> Inquiry {
        asked_of((0..observers).map(|n| node(&format!("o{n}"))).collect())
    }

    fn asked_of(observers: Arc<[NodeId]>) -> Inquiry {
        let mut inquiry = Inquiry::new(at(0));
        inquiry.expect(Some(observers));
        inquiry
    }

    #[test]
    fn who_is_missed_as_well_is_not_waited_for_once_somebody_agrees() {
        let observers = ["me", "a", "b", "gone-1", "gone-2", "gone-3", "gone-4", "gone-5"];
        let mut inquiry = asked_of(observers.map(node).into());
        assert_eq!(finding(&inquiry, 100, true, true), Finding::Open);
        inquiry.answer(node("a"), false);
        assert!(
            matches!(finding(&inquiry, 100, true, true), Finding::Silent(who) if who.len() == 2)
        );
        let mut cut_off = asked_of(["me", "gone-1", "gone-2"].map(node).into());
        assert_eq!(finding(&cut_off, 100, true, true), Finding::Open, "it may be the asker");
        cut_off.answer(node("gone-1"), true);
        assert_eq!(finding(&cut_off, 100, true, true), Finding::Open);
    }

    // C67
    #[test]
    fn different_observers_count_and_one_that_repeats_itself_does_not() {
        let mut inquiry = asked(10);
        (0..10).for_each(|_| inquiry.answer(node("a"), false));
        assert_eq!(finding(&inquiry, 100, true, false), Finding::Open);
        ["b", "c", "d"].iter().for_each(|name| inquiry.answer(node(name), false));
        assert!(
            matches!(finding(&inquiry, 100, true, false), Finding::Silent(who) if who.len() == 5)
        );
    }

    #[test]
    fn the_one_who_could_be_asked_has_to_agree() {
        let inquiry = asked(2);
        assert_eq!(finding(&inquiry, 1_999, true, false), Finding::Open);
        assert_eq!(finding(&inquiry, 2_000, true, false), Finding::Alone);
    }

    #[test]
    fn who_is_the_only_observer_decides_at_once() {
        assert_eq!(finding(&asked(1), 0, true, false), Finding::Alone);
        assert_eq!(finding(&asked(1), 0, false, false), Finding::Open);
    }

    #[test]
    fn who_may_be_cut_off_itself_waits() {
        let inquiry = asked(9);
        assert_eq!(finding(&inquiry, 9_999, true, true), Finding::Open);
        assert_eq!(finding(&inquiry, 10_000, true, true), Finding::Alone);
    }

    #[test]
    fn a_majority_that_hears_it_ends_the_question() {
        let mut inquiry = asked(9);
        for name in ["a", "b", "c", "d", "e"] {
            assert_eq!(finding(&inquiry, 100, true, false), Finding::Open);
            inquiry.answer(node(name), true);
        }
        assert_eq!(finding(&inquiry, 100, true, false), Finding::Heard);
    }

    #[test]
    fn of_those_who_answered_late_the_majority_decides() {
        let mut inquiry = asked(10);
        inquiry.answer(node("a"), false);
        inquiry.answer(node("b"), true);
        assert_eq!(finding(&inquiry, 499, true, false), Finding::Open);
        let late = finding(&inquiry, 500, true, false);
        assert!(matches!(late, Finding::Silent(who) if who.len() == 2));
        assert_eq!(finding(&inquiry, 500, false, false), Finding::Open, "one against one");
        assert_eq!(finding(&inquiry, 2_000, false, false), Finding::Heard);
    }
}
