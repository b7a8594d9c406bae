//! Marks of the generations that were forgotten or removed, so that updates of others do not bring them back.
//!
//! A mark outlives the node's keys by far, since a host may sleep for days and then send the state of a node
//! that is dead. Only a later generation, or a later incarnation of the same generation, is newer than a
//! mark: both are written by the node itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::protocol::{
    digest::Digest,
    id::{Generation, Incarnation, NodeId},
    time::Time,
};

/// How long a mark is kept. A host that sleeps for longer, or a relay that has kept an old generation for
/// longer, can bring it back as a new node once more, until it is found silent.
pub const MARK_MAX: Duration = Duration::from_secs(30 * 86_400);
/// Most marks that are kept, 100 to 200 bytes each; beyond that the oldest one is dropped, and
/// counted.
pub const MARKS_MAX: usize = 65_536;

/// A node was forgotten or removed: up to this generation and incarnation its state is old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) generation: Generation,
    pub(super) incarnation: Incarnation,
    since: Time,
}

/// The marks of all forgotten nodes, by name and by age.
#[derive(Debug, Default)]
pub(super) struct Marks {
    by_node: BTreeMap<NodeId, Mark>,
    by_age: BTreeSet<(Time, NodeId)>,
}

impl Marks {
    /// Marks a generation as gone. Returns how many older marks were dropped to make room.
    pub(super) fn insert(
        &mut self,
        now: Time,
        node: &NodeId,
        (generation, incarnation): (Generation, Incarnation),
    ) -> u64 {
        self.remove(node);
        self.by_node.insert(node.clone(), Mark { generation, incarnation, since: now });
        self.by_age.insert((now, node.clone()));
        let mut dropped = 0;
        while self.by_node.len() > MARKS_MAX {
            let Some((_, oldest)) = self.by_age.pop_first() else { break };
            self.by_node.remove(&oldest);
            dropped += 1;
        }
        dropped
    }

    pub(super) fn remove(&mut self, node: &NodeId) {
        if let Some(mark) = self.by_node.remove(node) {
            self.by_age.remove(&(mark.since, node.clone()));
        }
    }

    /// Drops the marks whose time is over.
    pub(super) fn expire(&mut self, now: Time) {
        while self.by_age.first().is_some_and(|(since, _)| now >= *since + MARK_MAX) {
            let Some((_, node)) = self.by_age.pop_first() else { break };
            self.by_node.remove(&node);
        }
    }

    /// When the time of the next one is over.
    pub(super) fn next_expiry(&self) -> Option<Time> {
        self.by_age.first().map(|(since, _)| *since + MARK_MAX)
    }

    /// The mark that says that this generation of the node, as in the line of `from`, is gone.
    ///
    /// A node that sends its own line in an earlier generation than the marked one is another process than
    /// the forgotten one: its store was lost and its clock is behind.
    pub(super) fn against(
        &self,
        from: &NodeId,
        node: &NodeId,
        life: (Generation, Incarnation),
    ) -> Option<Mark> {
        let mark = self.by_node.get(node)?;
        let is_old = life <= (mark.generation, mark.incarnation);
        let speaks_anew = from == node && life.0 < mark.generation;
        (is_old && !speaks_anew).then_some(*mark)
    }

    /// The lines in a digest of `from` about nodes that are marked as gone.
    pub(super) fn named_in<'a>(
        &self,
        from: &NodeId,
        digest: &'a Digest,
    ) -> Vec<(&'a NodeId, Mark)> {
        let lines: Vec<_> = if self.by_node.len() < digest.entries.len() {
            self.by_node.keys().filter_map(|node| digest.get(node)).collect()
        } else {
            digest.entries.iter().filter(|line| self.by_node.contains_key(&line.node)).collect()
        };
        let marked = lines.into_iter().filter_map(|line| {
            let life = (line.generation, line.verdict.incarnation);
            self.against(from, &line.node, life).map(|mark| (&line.node, mark))
        });
        marked.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: usize) -> NodeId {
        NodeId::new(&format!("n{n}")).expect("a label")
    }

    fn at(seconds: u64) -> Time {
        Time::from_origin(Duration::from_secs(seconds))
    }

    fn life(generation: u64, incarnation: u64) -> (Generation, Incarnation) {
        (Generation(generation), Incarnation(incarnation))
    }

    #[test]
    fn refuses_an_old_life_from_anybody_and_no_later_one() {
        let mut marks = Marks::default();
        marks.insert(at(1), &node(1), life(5, 2));
        for from in [node(1), node(2)] {
            assert!(marks.against(&from, &node(1), life(5, 2)).is_some());
            assert!(marks.against(&from, &node(1), life(5, 1)).is_some());
            assert!(marks.against(&from, &node(1), life(5, 3)).is_none());
            assert!(marks.against(&from, &node(1), life(6, 0)).is_none());
        }
        assert!(marks.against(&node(2), &node(1), life(4, 0)).is_some());
        assert!(marks.against(&node(1), &node(1), life(4, 0)).is_none(), "it speaks for itself");
    }

    #[test]
    fn keeps_no_more_than_so_many_and_drops_the_oldest() {
        let mut marks = Marks::default();
        let dropped: u64 =
            (0..MARKS_MAX + 3).map(|n| marks.insert(at(n as u64), &node(n), life(1, 0))).sum();
        assert_eq!(dropped, 3);
        assert!(marks.against(&node(0), &node(2), life(1, 0)).is_none());
        assert!(marks.against(&node(0), &node(3), life(1, 0)).is_some());
        assert_eq!((marks.by_node.len(), marks.by_age.len()), (MARKS_MAX, MARKS_MAX));
    }

    #[test]
    fn keeps_none_for_longer_than_so_long() {
        let mut marks = Marks::default();
        marks.insert(at(1), &node(1), life(1, 0));
        marks.insert(at(9), &node(1), life(2, 0));
        assert_eq!(marks.next_expiry(), Some(at(9) + MARK_MAX));
        marks.expire(at(8) + MARK_MAX);
        assert!(marks.against(&node(0), &node(1), life(2, 0)).is_some());
        marks.expire(at(9) + MARK_MAX);
        assert!(marks.against(&node(0), &node(1), life(2, 0)).is_none());
        assert_eq!((marks.by_node.len(), marks.by_age.len()), (0, 0));
    }
}
