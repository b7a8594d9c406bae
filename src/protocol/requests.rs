//! Announced news that has not arrived, and whom to ask for it.
//!
//! News that a peer has announced is usually on its way. If it has not come after a while it is asked for: from
//! the announcer that is asked for the least, and after as long again from the next one.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    gossip::{Have, OWNERS_MAX},
    id::{Generation, NodeId, Version},
    time::Time,
};

/// How long announced news may take to arrive by itself, before it is requested.
pub const REQUEST_DELAY: Duration = Duration::from_millis(50);
/// The same if the node that announced it is in another datacenter.
pub const REQUEST_DELAY_ABROAD: Duration = Duration::from_millis(100);
/// The same delay for an unknown node: while many nodes join, their introductions, with certificates in them,
/// are not sent unasked, so the only reason to wait is to ask for several together.
pub const INTRODUCTION_DELAY: Duration = Duration::from_millis(50);
/// How long no other node is asked for an introduction that has been requested.
pub const INTRODUCTION_PATIENCE: Duration = Duration::from_millis(100);
/// Most peers that are remembered as announcers of the same news.
pub const ANNOUNCERS_MAX: usize = 4;
/// Most owners whose announced news is awaited.
pub const AWAITED_MAX: usize = 2 * OWNERS_MAX;
/// News of an owner that is not known here is awaited while less than this is: a peer can make up names.
pub const AWAITED_OF_UNKNOWN_MAX: usize = OWNERS_MAX;

/// The news that this node waits for.
#[derive(Debug, Default)]
pub struct Requests {
    missing: BTreeMap<NodeId, Missing>,
    /// Nodes whose introduction has been requested, and when: no other node is asked for it at once.
    asked: BTreeMap<NodeId, Time>,
}

/// Announced news of one owner.
#[derive(Clone, Debug)]
struct Missing {
    have: Have,
    /// The announcers that have not been asked.
    from: Vec<NodeId>,
    asked: bool,
    wait: Duration,
    due: Time,
}

/// An announcement.
#[derive(Clone, Debug)]
pub struct Announced {
    /// What there is.
    pub have: Have,
    /// Whether this generation of its owner is known.
    pub known: bool,
    /// How long the news may take to arrive by itself.
    pub wait: Duration,
}

impl Requests {
    /// A peer announces news that has not arrived here yet: wait for it, then ask.
    pub fn announced(&mut self, now: Time, from: &NodeId, announced: Announced) {
        let Announced { have, known, wait } = announced;
        let most = if known { AWAITED_MAX } else { AWAITED_OF_UNKNOWN_MAX };
        if self.missing.len() >= most && !self.missing.contains_key(&have.node) {
            return;
        }
        let due = match self.asked.get(&have.node) {
            // The owner has it first.
            _ if *from == have.node => now,
            _ if known => now + wait,
            Some(asked) => (*asked + INTRODUCTION_PATIENCE).max(now),
            None => now + wait.max(INTRODUCTION_DELAY),
        };
        let fresh = || Missing { have: have.clone(), from: Vec::new(), asked: false, wait, due };
        let missing = self.missing.entry(have.node.clone()).or_insert_with(fresh);
        if missing.from.len() < ANNOUNCERS_MAX && !missing.from.contains(from) {
            missing.from.push(from.clone());
        }
        if (have.generation, have.version) > (missing.have.generation, missing.have.version) {
            missing.have = have;
        }
    }

    /// News of an owner has come, up to this version. Returns whether it had been asked for.
    pub fn arrived(&mut self, owner: &NodeId, head: (Generation, Version)) -> bool {
        self.asked.remove(owner);
        let Some(missing) = self.missing.get_mut(owner) else { return false };
        // Once for a request: a peer that announces more than there is must not keep it open.
        let asked = std::mem::take(&mut missing.asked);
        if head >= (missing.have.generation, missing.have.version) {
            self.missing.remove(owner);
        }
        asked
    }

    /// When announced news is to be asked for.
    #[must_use]
    pub fn due(&self) -> Option<Time> {
        self.missing.values().map(|missing| missing.due).min()
    }

    /// The announced news that should have come by now.
    #[must_use]
    pub fn awaited(&self, now: Time) -> Vec<Have> {
        let due = self.missing.values().filter(|missing| missing.due <= now);
        due.map(|missing| missing.have.clone()).collect()
    }

    /// Whom to ask for what, now. `lacked`: the owners whose news has not come. `takes`: whether a peer has a link
    /// that is not congested.
    pub fn overdue(
        &mut self,
        now: Time,
        lacked: &BTreeSet<NodeId>,
        takes: impl Fn(&NodeId) -> bool,
    ) -> BTreeMap<NodeId, Vec<NodeId>> {
        if self.due().is_none_or(|due| now < due) {
            return BTreeMap::new();
        }
        self.asked.retain(|_, at| now.since(*at) < INTRODUCTION_PATIENCE);
        let mut requests: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
        let Self { missing, asked } = self;
        missing.retain(|owner, missing| {
            if missing.due > now {
                return true;
            }
            if !lacked.contains(owner) {
                return false;
            }
            missing.from.retain(&takes);
            let load = |at: &usize| requests.get(&missing.from[*at]).map_or(0, Vec::len);
            let Some(least) = (0..missing.from.len()).min_by_key(load) else { return false };
            requests.entry(missing.from.remove(least)).or_default().push(owner.clone());
            if asked.len() < OWNERS_MAX {
                asked.insert(owner.clone(), now);
            }
            (missing.asked, missing.due) = (true, now + missing.wait);
            true
        });
        requests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn have(owner: &str, version: u64) -> Announced {
        let (generation, version) = (Generation(1), Version(version));
        let have = Have { node: id(owner), generation, version };
        Announced { have, known: true, wait: REQUEST_DELAY }
    }

    fn asks(requests: &mut Requests, now: Time) -> Vec<(String, Vec<String>)> {
        let lacked = requests.awaited(now).into_iter().map(|have| have.node).collect();
        let asks = requests.overdue(now, &lacked, |_| true);
        let names = |owners: Vec<NodeId>| owners.iter().map(ToString::to_string).collect();
        asks.into_iter().map(|(peer, owners)| (peer.to_string(), names(owners))).collect()
    }

    fn one(peer: &str, owner: &str) -> Vec<(String, Vec<String>)> {
        vec![(peer.to_owned(), vec![owner.to_owned()])]
    }

    #[test]
    fn asks_one_announcer_after_the_other_and_none_twice() {
        let (mut requests, start) = (Requests::default(), Time::ZERO);
        for peer in ["a", "b", "a"] {
            requests.announced(start, &id(peer), have("o", 3));
        }
        let at = |n: u32| start + REQUEST_DELAY * n;
        assert_eq!(requests.due(), Some(at(1)));
        assert!(asks(&mut requests, start).is_empty());
        assert_eq!(asks(&mut requests, at(1)), one("a", "o"));
        assert!(asks(&mut requests, at(1)).is_empty());
        assert_eq!(asks(&mut requests, at(2)), one("b", "o"));
        assert!(asks(&mut requests, at(3)).is_empty());
        assert_eq!(requests.due(), None);
    }

    #[test]
    fn spreads_what_is_missing_over_the_announcers() {
        let (mut requests, start) = (Requests::default(), Time::ZERO);
        for owner in ["o1", "o2", "o3", "o4"] {
            for peer in ["a", "b"] {
                requests.announced(start, &id(peer), have(owner, 3));
            }
        }
        let asks = asks(&mut requests, start + REQUEST_DELAY);
        assert_eq!(asks.iter().map(|(_, owners)| owners.len()).collect::<Vec<_>>(), [2, 2]);
    }

    #[test]
    fn does_not_ask_for_what_has_come_nor_whom_no_link_leads_to() {
        let (mut requests, start) = (Requests::default(), Time::ZERO);
        let due = start + REQUEST_DELAY;
        requests.announced(start, &id("a"), have("o", 3));
        assert!(!requests.arrived(&id("o"), (Generation(1), Version(3))));
        assert_eq!(requests.due(), None);
        requests.announced(start, &id("a"), have("o", 3));
        assert!(!requests.arrived(&id("o"), (Generation(1), Version(2))), "not all of it");
        assert!(
            requests.overdue(due, &BTreeSet::from([id("o")]), |peer| *peer != id("a")).is_empty()
        );
        requests.announced(start, &id("a"), have("o", 3));
        assert!(requests.overdue(due, &BTreeSet::new(), |_| true).is_empty());
        assert_eq!(requests.due(), None);
    }

    #[test]
    fn says_of_what_arrives_whether_it_was_asked_for() {
        let (mut requests, start) = (Requests::default(), Time::ZERO);
        requests.announced(start, &id("a"), have("o", 3));
        assert_eq!(asks(&mut requests, start + REQUEST_DELAY), one("a", "o"));
        assert!(requests.arrived(&id("o"), (Generation(1), Version(3))));
        assert!(!requests.arrived(&id("o"), (Generation(1), Version(4))));
        // Of what there never will be.
        requests.announced(start, &id("a"), have("o", u64::MAX));
        assert_eq!(asks(&mut requests, start + REQUEST_DELAY), one("a", "o"));
        assert!(requests.arrived(&id("o"), (Generation(1), Version(5))));
        assert!(!requests.arrived(&id("o"), (Generation(1), Version(6))), "one request");
    }

    #[test]
    fn asks_the_owner_of_the_news_at_once() {
        let mut requests = Requests::default();
        requests.announced(Time::ZERO, &id("o"), have("o", 3));
        assert_eq!(asks(&mut requests, Time::ZERO), one("o", "o"));
    }

    #[test]
    fn remembers_a_few_announcers_and_owners_only() {
        let mut requests = Requests::default();
        for n in 0..2 * AWAITED_MAX {
            let made_up = Announced { known: false, ..have(&format!("x{n}"), 3) };
            requests.announced(Time::ZERO, &id("liar"), made_up);
        }
        assert_eq!(requests.missing.len(), AWAITED_OF_UNKNOWN_MAX);
        for n in 0..2 * AWAITED_MAX {
            requests.announced(Time::ZERO, &id("a"), have(&format!("o{n}"), 3));
        }
        assert_eq!(requests.missing.len(), AWAITED_MAX);
        for n in 0..2 * ANNOUNCERS_MAX {
            requests.announced(Time::ZERO, &id(&format!("a{n}")), have("o1", 3));
        }
        assert_eq!(requests.missing[&id("o1")].from.len(), ANNOUNCERS_MAX);
    }
}
