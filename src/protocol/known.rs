//! What each peer is known to have, and which peers are still to be sent a note.
//!
//! For each owner whose news has been told lately this keeps how far each linked peer reaches: what came from
//! the peer and what was sent to it. News that a peer has need not be sent. This is a hint and no proof: roots,
//! exchanges, requests and their answers never look at it, and what it does not contain is unknown. What a peer says
//! of itself counts for that peer alone, and leaves half of the room to what this node has seen.
//!
//! News that a peer may lack and was not sent is due to it as a note, until the note was sent there.

use std::{collections::BTreeMap, time::Duration};

use super::{
    id::{Generation, NodeId, Version},
    time::Time,
};

/// Most owners of whom anything is kept: for others news is sent or noted at once.
pub const KNOWN_OWNERS_MAX: usize = 4_096;
/// An owner that only a peer has named is kept while there are fewer than this.
pub const NAMED_OWNERS_MAX: usize = KNOWN_OWNERS_MAX / 2;
/// An owner without news for this long is dropped.
pub const KNOWN_FOR: Duration = Duration::from_secs(10);

/// Owners of whom a note is due to a peer, each with how far the peer is known to reach.
pub type Notes = Vec<(NodeId, (Generation, Version))>;

/// How far the linked peers reach.
#[derive(Debug, Default)]
pub struct Known {
    /// The number of each linked peer.
    links: BTreeMap<NodeId, u16>,
    owners: BTreeMap<NodeId, Owner>,
    swept: Time,
}

/// What is known about the copies of one owner's map.
#[derive(Debug)]
struct Owner {
    at: Time,
    /// Its news travels along trees: a note of it was due to some peer.
    noted: bool,
    /// By the number of the link.
    copies: Vec<Held>,
}

/// The copy of one peer.
#[derive(Clone, Copy, Debug)]
struct Held {
    link: u16,
    /// It has everything of this generation up to this version.
    upto: (Generation, Version),
    /// A note is due to it.
    due: bool,
}

impl Known {
    /// A link to a peer was opened or closed. Of a new one nothing is known: notes of all that others were
    /// noted are due to it.
    pub fn linked(&mut self, peer: &NodeId, up: bool) {
        if let Some(link) = self.links.remove(peer) {
            self.owners.values_mut().for_each(|owner| owner.drop(link));
        }
        if up && let Some(link) = self.free() {
            self.links.insert(peer.clone(), link);
            let noted = self.owners.values_mut().filter(|owner| owner.noted);
            noted.for_each(|owner| owner.copy(link).due = true);
        }
    }

    /// A peer reaches this far at least: it has sent it, or was sent it.
    pub fn raise(&mut self, now: Time, peer: &NodeId, owner: &NodeId, head: (Generation, Version)) {
        self.keep(now, peer, owner, KNOWN_OWNERS_MAX, |copy| copy.upto = copy.upto.max(head));
    }

    /// A peer says how far it reaches, or asks from there on.
    pub fn set(&mut self, now: Time, peer: &NodeId, owner: &NodeId, head: (Generation, Version)) {
        self.keep(now, peer, owner, NAMED_OWNERS_MAX, |copy| copy.upto = head);
    }

    /// News of an owner for a peer was dropped, or kept for later.
    pub fn forget(&mut self, peer: &NodeId, owner: &NodeId) {
        let link = self.links.get(peer).copied();
        if let Some((link, owner)) = link.zip(self.owners.get_mut(owner)) {
            owner.copy(link).upto = NOTHING;
        }
    }

    /// Whether a peer is known to reach this far.
    #[must_use]
    pub fn has(&self, peer: &NodeId, owner: &NodeId, head: (Generation, Version)) -> bool {
        let both = self.links.get(peer).zip(self.owners.get(owner));
        both.and_then(|(link, owner)| Some(owner.copies[owner.find(*link).ok()?].upto))
            .is_some_and(|upto| upto >= head)
    }

    /// A note of an owner's news is due to a peer. Says whether it is kept: else it has to be sent at once.
    #[must_use]
    pub fn note(&mut self, now: Time, peer: &NodeId, owner: &NodeId) -> bool {
        let mut kept = false;
        self.keep(now, peer, owner, KNOWN_OWNERS_MAX, |copy| {
            copy.due = true;
            kept = true;
        });
        if kept && let Some(owner) = self.owners.get_mut(owner) {
            owner.noted = true;
        }
        kept
    }

    /// The owners of whom a note is due to a peer, each with how far the peer is known to reach. None is due then.
    pub fn take_notes(&mut self, peer: &NodeId) -> Notes {
        let Some(link) = self.links.get(peer) else { return Vec::new() };
        let mut notes = Vec::new();
        for (name, owner) in &mut self.owners {
            let Ok(at) = owner.find(*link) else { continue };
            if std::mem::take(&mut owner.copies[at].due) {
                notes.push((name.clone(), owner.copies[at].upto));
            }
        }
        notes
    }

    /// How many owners are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.owners.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    fn keep(
        &mut self,
        now: Time,
        peer: &NodeId,
        name: &NodeId,
        most: usize,
        change: impl FnOnce(&mut Held),
    ) {
        self.sweep(now);
        let Some(link) = self.links.get(peer).copied() else { return };
        if self.owners.len() >= most && !self.owners.contains_key(name) {
            return;
        }
        let fresh = || Owner { at: now, noted: false, copies: Vec::new() };
        let owner = self.owners.entry(name.clone()).or_insert_with(fresh);
        owner.at = now;
        change(owner.copy(link));
    }

    /// Drops the owners that have been quiet, now and then.
    fn sweep(&mut self, now: Time) {
        if now.since(self.swept) >= SWEEP_INTERVAL {
            self.swept = now;
            self.owners.retain(|_, owner| now.since(owner.at) < KNOWN_FOR);
        }
    }

    /// A number that no link has.
    fn free(&self) -> Option<u16> {
        let mut used: Vec<_> = self.links.values().copied().collect();
        used.sort_unstable();
        (0..=u16::MAX)
            .zip(used.iter().map(Some).chain(std::iter::repeat(None)))
            .find(|(number, used)| used.is_none_or(|used| used != number))
            .map(|(number, _)| number)
    }
}

impl Owner {
    fn find(&self, link: u16) -> Result<usize, usize> {
        self.copies.binary_search_by_key(&link, |copy| copy.link)
    }

    fn copy(&mut self, link: u16) -> &mut Held {
        let at = self.find(link).unwrap_or_else(|at| {
            self.copies.insert(at, Held { link, upto: NOTHING, due: false });
            at
        });
        &mut self.copies[at]
    }

    fn drop(&mut self, link: u16) {
        if let Ok(at) = self.find(link) {
            self.copies.remove(at);
        }
    }
}

/// How far a peer reaches of whom nothing is known.
const NOTHING: (Generation, Version) = (Generation::ZERO, Version::ZERO);
/// How often quiet owners are looked for, at most.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Generation = Generation(7);

    fn id(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn linked(peers: &[&str]) -> Known {
        let mut known = Known::default();
        peers.iter().for_each(|peer| known.linked(&id(peer), true));
        known
    }

    fn notes(known: &mut Known, peer: &str, version: u64) -> Vec<String> {
        let notes = known.take_notes(&id(peer)).into_iter();
        let lacks = notes.filter(|(_, has)| *has < (LIFE, Version(version)));
        lacks.map(|(owner, _)| owner.to_string()).collect()
    }

    #[test]
    fn what_is_not_there_is_unknown() {
        let mut known = linked(&["a", "b"]);
        known.raise(Time::ZERO, &id("a"), &id("o"), (LIFE, Version(3)));
        assert!(known.has(&id("a"), &id("o"), (LIFE, Version(3))));
        for (peer, owner, head) in [
            ("a", "o", (LIFE, Version(4))),
            ("a", "o", (Generation(8), Version(1))),
            ("a", "x", (LIFE, Version(1))),
            ("b", "o", (LIFE, Version(1))),
            ("c", "o", (LIFE, Version(1))),
        ] {
            assert!(!known.has(&id(peer), &id(owner), head), "{peer} {owner}");
        }
    }

    #[test]
    fn a_later_generation_makes_what_was_known_void_and_an_earlier_one_nothing() {
        let mut known = linked(&["a", "b"]);
        known.raise(Time::ZERO, &id("a"), &id("o"), (LIFE, Version(3)));
        known.raise(Time::ZERO, &id("b"), &id("o"), (Generation(8), Version(1)));
        known.raise(Time::ZERO, &id("a"), &id("o"), (LIFE, Version(9)));
        assert!(!known.has(&id("a"), &id("o"), (Generation(8), Version(1))));
        assert!(known.has(&id("b"), &id("o"), (Generation(8), Version(1))));
    }

    #[test]
    fn a_link_that_goes_takes_with_it_what_was_known_and_a_new_one_is_noted_everything() {
        let mut known = linked(&["a", "b"]);
        let head = (LIFE, Version(3));
        known.raise(Time::ZERO, &id("a"), &id("o"), head);
        known.raise(Time::ZERO, &id("b"), &id("o"), head);
        known.raise(Time::ZERO, &id("b"), &id("flooded"), head);
        assert!(known.note(Time::ZERO, &id("a"), &id("o")));
        known.linked(&id("a"), false);
        known.linked(&id("c"), true);
        known.linked(&id("a"), true);
        assert!(!known.has(&id("a"), &id("o"), head) && !known.has(&id("c"), &id("o"), head));
        assert!(known.has(&id("b"), &id("o"), head));
        assert_eq!(notes(&mut known, "a", 3), ["o"]);
        assert_eq!(notes(&mut known, "a", 3), [""; 0]);
        assert_eq!(notes(&mut known, "b", 3), [""; 0]);
        known.forget(&id("b"), &id("o"));
        assert!(!known.has(&id("b"), &id("o"), head));
    }

    #[test]
    fn a_note_is_due_until_it_was_taken_unless_the_peer_has_the_news_by_then() {
        let mut known = linked(&["a", "b"]);
        assert!(known.note(Time::ZERO, &id("a"), &id("o")));
        assert!(known.note(Time::ZERO, &id("b"), &id("o")));
        known.raise(Time::ZERO, &id("a"), &id("o"), (LIFE, Version(3)));
        assert_eq!(notes(&mut known, "a", 3), [""; 0]);
        assert_eq!(notes(&mut known, "b", 3), ["o"]);
        assert!(!known.note(Time::ZERO, &id("stranger"), &id("o")));
    }

    #[test]
    fn a_peer_that_says_less_than_was_believed_is_believed() {
        let mut known = linked(&["a"]);
        known.raise(Time::ZERO, &id("a"), &id("o"), (LIFE, Version(3)));
        known.set(Time::ZERO, &id("a"), &id("o"), (LIFE, Version(2)));
        assert!(!known.has(&id("a"), &id("o"), (LIFE, Version(3))));
        known.forget(&id("a"), &id("o"));
        assert!(!known.has(&id("a"), &id("o"), (LIFE, Version(1))));
    }

    #[test]
    fn what_a_peer_says_of_itself_changes_nothing_for_others() {
        let mut known = linked(&["a", "liar"]);
        let head = (LIFE, Version(3));
        known.raise(Time::ZERO, &id("a"), &id("o"), head);
        known.set(Time::ZERO, &id("liar"), &id("o"), (Generation(u64::MAX), Version(1)));
        assert!(known.has(&id("a"), &id("o"), head), "of another peer");
        let next = (LIFE, Version(4));
        known.raise(Time::ZERO, &id("a"), &id("o"), next);
        assert!(known.has(&id("a"), &id("o"), next));
        for n in 0..2 * KNOWN_OWNERS_MAX {
            known.set(Time::ZERO, &id("liar"), &id(&format!("made-up-{n}")), head);
        }
        assert_eq!(known.len(), NAMED_OWNERS_MAX);
        assert!(known.note(Time::ZERO, &id("a"), &id("new")), "there is room for what was seen");
    }

    #[test]
    fn quiet_owners_are_dropped_and_no_more_are_kept_than_allowed() {
        let mut known = linked(&["a"]);
        for n in 0..2 * KNOWN_OWNERS_MAX {
            let kept = known.note(Time::ZERO, &id("a"), &id(&format!("o{n}")));
            assert_eq!(kept, n < KNOWN_OWNERS_MAX);
        }
        assert_eq!(known.len(), KNOWN_OWNERS_MAX);
        let later = Time::ZERO + KNOWN_FOR;
        assert!(known.note(later, &id("a"), &id("o")));
        assert_eq!(known.len(), 1);
    }
}
