//! Exchanges about some lines only: those that differ according to a sketch.

use super::{Replica, SKETCH_LINES_MIN};
use crate::protocol::{
    delta::Delta,
    digest::{Digest, DigestEntry},
    exchange::Summary,
    id::NodeId,
    route::Output,
    sketch::{CELLS_CACHED, Sketch, SketchKey},
    time::Time,
};

impl Replica {
    /// The message to open an exchange with.
    #[must_use]
    pub fn summary(&mut self) -> Summary {
        // One line of our own.
        if self.copies.len() < SKETCH_LINES_MIN + self.forgotten.retired() {
            Summary::Digest(self.digest())
        } else {
            Summary::Sketch(self.sketch())
        }
    }

    /// Hashes with another key from now on: the authorities of the cluster may have changed.
    pub fn set_sketch_key(&mut self, key: SketchKey) {
        if key != self.config.sketch_key {
            self.config.sketch_key = key;
            self.sum_all();
        }
    }

    /// The sums of all lines of the digest except those of parts, so that equal sums mean equal copies. While
    /// a part is being completed the sums of nodes that have more differ from ours; a part of which no node
    /// has more is not compared.
    #[must_use]
    pub fn sketch(&self) -> Sketch {
        self.published.sketch().clone()
    }

    /// Sums all lines again.
    pub(super) fn sum_all(&mut self) {
        let (key, digest) = (self.config.sketch_key, self.digest());
        let whole = digest.entries.iter().filter(|line| !line.is_part());
        let symbols = whole.map(|line| key.symbol(line));
        self.published.set_sketch(Sketch::collect(key, CELLS_CACHED, symbols));
    }

    /// Our lines of these nodes, known or not, and of the nodes with these ids; and the ids of no node in our
    /// digest.
    #[must_use]
    pub fn lines(&self, nodes: &[NodeId], ids: &[u32]) -> (Digest, Vec<u32>) {
        let (found, unknown) = self.told_by(ids);
        let mut entries: Vec<_> = nodes.iter().chain(&found).map(|node| self.line(node)).collect();
        entries.sort_unstable_by(|a, b| a.node.cmp(&b.node));
        entries.dedup_by(|a, b| a.node == b.node);
        (Digest { entries }, unknown)
    }

    /// Answers some lines of a peer's digest: of these nodes, the state that we want and the state that the
    /// peer lacks, and also of the nodes with these ids, which the peer does not know.
    pub fn answer_lines(
        &mut self,
        now: Time,
        from: &NodeId,
        lines: &Digest,
        unknown: &[u32],
        out: &mut Vec<Output>,
    ) -> (Digest, Delta) {
        self.look_for_self(now, from, lines, out);
        self.remind(from, lines, out);
        let wants = self.wants(now, from, lines);
        let (found, _) = self.told_by(unknown);
        let mut about = lines.clone();
        about.entries.retain(|line| !self.forgotten.is_retired(&line.node));
        let unlisted = found.into_iter().filter(|node| lines.get(node).is_none());
        about.entries.extend(unlisted.map(DigestEntry::unknown));
        let delta = self.tell_peer(now, from, &about, false);
        (wants, delta)
    }

    /// The nodes in our digest with these ids, and the ids that are left over.
    fn told_by(&self, ids: &[u32]) -> (Vec<NodeId>, Vec<u32>) {
        if ids.is_empty() {
            return Default::default();
        }
        let mut ids: Vec<_> = ids.iter().map(|id| (*id, false)).collect();
        ids.sort_unstable();
        ids.dedup();
        let key = self.config.sketch_key;
        let told = self.copies.keys().filter(|node| !self.forgotten.is_retired(node));
        let mut found = Vec::new();
        for node in told.chain([&self.config.node]) {
            let id = key.id(node);
            if let Ok(at) = ids.binary_search_by_key(&id, |(id, _)| *id) {
                ids[at].1 = true;
                found.push(node.clone());
            }
        }
        let left = ids.into_iter().filter(|(_, found)| !found).map(|(id, _)| id).collect();
        (found, left)
    }
}
