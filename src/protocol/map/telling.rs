//! The parts of a map that others lack, as much as fits.

use crate::protocol::{
    delta::{NodeDelta, entry_len_max},
    digest::DigestEntry,
    id::{NodeId, Version},
    record::Status,
    time::Time,
    verdict::{Level, Verdict},
};

use super::{Budget, NodeMap, life::continued, wire::wire_entry};

impl NodeMap {
    /// Whether an update has nothing new for this copy.
    #[must_use]
    pub fn covers(&self, delta: &NodeDelta) -> bool {
        let record = delta.record.as_ref().map_or(Version::ZERO, |(version, _)| *version);
        self.life.generation == delta.generation
            && self.reach.max_version >= delta.to
            && self.reach.gc_floor >= delta.gc_floor
            && self.record_version() >= record
            && self.verdict() >= delta.verdict
            && self.staged.is_none()
            && !self.doubt.stands()
            && !(self.life.unvouched && delta.sealed.is_some())
    }

    /// An update that is only a verdict on the owner.
    #[must_use]
    pub fn judgement(&self, node: NodeId) -> NodeDelta {
        NodeDelta {
            node,
            generation: self.life.generation,
            ancestry: Vec::new(),
            from: Version::ZERO,
            to: Version::ZERO,
            horizon: Version::ZERO,
            torn: Version::ZERO,
            gc_floor: Version::ZERO,
            verdict: self.verdict(),
            record: None,
            entries: Vec::new(),
            sealed: None,
        }
    }

    /// The line of this map in a digest: how far it reaches, or the copy that will replace it.
    #[must_use]
    pub fn digest_entry(&self, node: NodeId) -> DigestEntry {
        let growing = self.staged.as_deref().unwrap_or(self);
        if self.doubt.stands() && self.staged.is_none() {
            let (generation, verdict) = (self.life.generation, self.verdict());
            return DigestEntry { generation, verdict, ..DigestEntry::unknown(node) };
        }
        DigestEntry {
            node,
            generation: self.life.generation,
            max_version: growing.reach.max_version,
            horizon: growing.horizon(),
            gc_floor: growing.reach.gc_floor,
            record: if self.life.unvouched { Version::ZERO } else { self.record_version() },
            verdict: self.verdict(),
        }
    }

    /// How many versions `theirs` lacks, and whether it lacks anything at all; `None` if nothing.
    #[must_use]
    pub fn staleness(&self, theirs: &DigestEntry) -> Option<u64> {
        if !self.is_whole() {
            return self.has_verdict(theirs).then_some(0);
        }
        let from = self.start(theirs)?;
        self.has_news(theirs, from).then(|| self.reach.max_version.0.saturating_sub(from.0))
    }

    /// The part that `theirs` lacks, as much as fits; `None` if there is no update or no room for any. The
    /// second value says whether the budget cut it.
    #[must_use]
    pub fn delta(
        &self,
        now: Time,
        theirs: &DigestEntry,
        budget: &mut Budget,
    ) -> Option<(NodeDelta, bool)> {
        // The owner's signature could not be shown for a part.
        if !self.is_whole() {
            let news = self.has_verdict(theirs);
            return news.then(|| (self.judgement(theirs.node.clone()), false));
        }
        let from = self.start(theirs)?;
        if !self.has_news(theirs, from) {
            return None;
        }
        let mut delta = self.header(theirs, from);
        let header = delta.header_len_max();
        if header > budget.bytes && !budget.untouched {
            return None;
        }
        budget.bytes = budget.bytes.saturating_sub(header);
        let cut = self.fill(now, &mut delta, budget);
        budget.untouched = false;
        if let (true, Some(sealed), Some(tree)) = (cut, &mut delta.sealed, self.entries.tree()) {
            sealed.proof = tree.prove(delta.from, delta.to);
            budget.bytes = budget.bytes.saturating_sub(sealed.proof.encoded_len_max());
        }
        Some((delta, cut))
    }

    /// From which version on `theirs` needs the entries; `None` if this map cannot help it.
    fn start(&self, theirs: &DigestEntry) -> Option<Version> {
        if theirs.generation > self.life.generation {
            return None;
        }
        let (reach, floor) = if self.continues(theirs) {
            (theirs.max_version, theirs.gc_floor)
        } else {
            (Version::ZERO, Version::ZERO)
        };
        if reach >= self.reach.gc_floor.max(floor) || floor == self.reach.gc_floor {
            Some(reach)
        } else if self.reach.gc_floor > floor || self.is_owner_gone(self.verdict()) {
            // The copy's former source may have gone with the owner: then this map is as good as any.
            Some(Version::ZERO)
        } else {
            None
        }
    }

    /// Whether the owner, with this verdict, is gone and cannot complete any copy.
    pub(super) fn is_owner_gone(&self, verdict: Verdict) -> bool {
        verdict.level == Level::Dead || self.record().is_some_and(|r| r.status == Status::Left)
    }

    /// Whether a copy is a prefix of this map.
    fn continues(&self, copy: &DigestEntry) -> bool {
        copy.generation == self.life.generation
            || continued(copy, &self.life.ancestry, self.reach.gc_floor)
    }

    /// Whether the verdict on the owner is worse than the one of the holder of a copy of this generation.
    fn has_verdict(&self, theirs: &DigestEntry) -> bool {
        self.life.generation == theirs.generation && self.verdict() > theirs.verdict
    }

    fn has_news(&self, theirs: &DigestEntry, from: Version) -> bool {
        self.reach.max_version > from
            || self.life.generation != theirs.generation
            || self.record_version() > theirs.record
            || self.verdict() > theirs.verdict
            || (self.reach.gc_floor > theirs.gc_floor && from >= self.reach.gc_floor)
    }

    fn header(&self, theirs: &DigestEntry, from: Version) -> NodeDelta {
        let known_life = theirs.generation == self.life.generation;
        let record_known = known_life && theirs.record >= self.record_version();
        NodeDelta {
            node: theirs.node.clone(),
            generation: self.life.generation,
            ancestry: if known_life { Vec::new() } else { self.life.ancestry.clone() },
            from,
            to: from.max(self.reach.max_version),
            horizon: from.max(self.horizon()),
            torn: self.reach.torn,
            gc_floor: self.reach.gc_floor,
            verdict: self.verdict(),
            record: if record_known {
                None
            } else {
                self.life.record.as_ref().map(|(version, record)| (*version, (**record).clone()))
            },
            entries: Vec::new(),
            sealed: self.sealed(theirs, from, known_life),
        }
    }

    /// Adds whole versions, oldest first, while there is room; returns whether it stopped early.
    fn fill(&self, now: Time, delta: &mut NodeDelta, budget: &mut Budget) -> bool {
        let mut writes = self.entries.after(delta.from).peekable();
        let mut whole = delta.from;
        while let Some((version, _)) = writes.peek() {
            let version = *version;
            let (begun, mut bytes) = (delta.entries.len(), 0);
            while let Some((_, key)) = writes.next_if(|(v, _)| *v == version) {
                let Some(entry) = self.entries.get(key) else { continue };
                bytes += entry_len_max(key.as_str().len(), entry.value_len());
                let count = delta.entries.len() + 1 - begun;
                // A batch may have a hundred thousand entries: stop as soon as it is clear that it is too
                // large.
                if (bytes > budget.bytes || count > budget.entries) && !budget.untouched {
                    delta.entries.truncate(begun);
                    delta.to = whole;
                    return true;
                }
                delta.entries.push(wire_entry(now, key, entry));
            }
            let count = delta.entries.len() - begun;
            budget.bytes = budget.bytes.saturating_sub(bytes);
            budget.entries = budget.entries.saturating_sub(count);
            budget.untouched = false;
            whole = version;
        }
        false
    }

    /// How far this copy itself reaches, whatever grows beside it.
    pub(super) fn digest_line(&self, node: &NodeId) -> DigestEntry {
        DigestEntry {
            generation: self.life.generation,
            max_version: self.reach.max_version,
            horizon: self.horizon(),
            gc_floor: self.reach.gc_floor,
            ..DigestEntry::unknown(node.clone())
        }
    }
}
