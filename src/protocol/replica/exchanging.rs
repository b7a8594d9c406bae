//! Both sides of an exchange: what a digest offers, what it lacks, and a peer's line of this node in it.

use std::sync::Arc;

use super::{Replica, outcome::Occasion};
use crate::protocol::{
    claim::{Heads, Heard, Ruling, Standing},
    delta::{Delta, NodeDelta},
    digest::{Digest, DigestEntry},
    event::{Event, Problem},
    id::{Generation, NodeId, Version},
    map::{Budget, NodeMap},
    route::{Counter, Output, Target, TransportInput},
    seal::Signing,
    time::Time,
};

impl Replica {
    /// Whether the digest has a line of this peer: it has none once the peer is about to be forgotten.
    #[must_use]
    pub fn lists(&self, peer: &NodeId) -> bool {
        self.copies.contains_key(peer) && !self.forgotten.is_retired(peer)
    }

    /// How far all maps reach.
    #[must_use]
    pub fn digest(&mut self) -> Arc<Digest> {
        if let Some(digest) = self.published.digest() {
            return Arc::clone(digest);
        }
        let told = self.copies.iter().filter(|(node, _)| !self.forgotten.is_retired(node));
        let mut entries: Vec<_> = told
            .map(|(node, map)| map.digest_entry(node.clone()))
            .chain([self.own.map.digest_entry(self.config.node.clone())])
            .collect();
        entries.sort_unstable_by(|a, b| a.node.cmp(&b.node));
        let digest = Arc::new(Digest { entries });
        self.published.set_digest(&digest);
        digest
    }

    /// Answers a peer's digest: the lines of what we want, and the delta that the peer lacks.
    pub fn answer(
        &mut self,
        now: Time,
        from: &NodeId,
        digest: &Digest,
        out: &mut Vec<Output>,
    ) -> (Digest, Delta) {
        self.look_for_self(now, from, digest, out);
        self.remind(from, digest, out);
        let wants = self.wants(now, from, digest);
        let delta = self.tell_peer(now, from, digest, true);
        (wants, delta)
    }

    /// Takes a peer's answer to our digest: applies its updates, and returns what it wants.
    pub fn merge(
        &mut self,
        now: Time,
        from: &NodeId,
        wants: &Digest,
        news: &Delta,
        out: &mut Vec<Output>,
    ) -> Delta {
        self.look_for_self(now, from, wants, out);
        self.remind(from, wants, out);
        self.apply(now, from, news, out);
        self.tell_peer(now, from, wants, false)
    }

    pub(super) fn begin_round(&mut self, targets: Vec<Target>, out: &mut Vec<Output>) {
        let summary = self.summary();
        out.push(Output::Transport(TransportInput::Round { targets, summary }));
    }

    /// The line of this node in a peer's digest.
    pub(super) fn look_for_self(
        &mut self,
        now: Time,
        from: &NodeId,
        digest: &Digest,
        out: &mut Vec<Output>,
    ) {
        let Some(entry) = digest.get(&self.config.node) else { return };
        self.judged_by_others(now, entry.generation, entry.verdict, out);
        self.inherit_floor(now, entry.generation, entry.gc_floor, out);
        if self.is_later_self(entry.generation, entry.max_version) {
            self.heard_of_self(now, entry.generation, Heard::Said(from.clone()), out);
        }
    }

    /// An earlier generation of ours had dropped these tombstones already, had sent that floor, and then lost
    /// the record of it in a crash: the floor stays, or each copy of that generation would be sent the whole
    /// map.
    pub(super) fn inherit_floor(
        &mut self,
        now: Time,
        generation: Generation,
        floor: Version,
        out: &mut Vec<Output>,
    ) {
        let continues =
            |(life, upto): &(Generation, Version)| *life == generation && floor <= *upto;
        let due = self.own.tombstones.may_inherit(now);
        if due && floor > self.own.map.gc_floor() && self.own.map.ancestry().iter().any(continues) {
            self.own.tombstones.inherit(now);
            self.drop_tombstones(now, floor, out);
        }
    }

    /// Whether this is a later state of this node's name than its own.
    pub(super) fn is_later_self(&self, generation: Generation, version: Version) -> bool {
        (generation, version) > (self.own.map.generation(), self.own.map.max_version())
    }

    /// A later state of this node's name is reported. It may be our own past, with the store lost or the
    /// clock set back: then a later generation begins. Or it is another process with our name: then one of
    /// the two ends. [`Claim`](crate::protocol::claim::Claim) lists the proofs that either needs.
    pub(super) fn heard_of_self(
        &mut self,
        now: Time,
        heard: Generation,
        by: Heard,
        out: &mut Vec<Output>,
    ) {
        let ours = self.own.map.generation();
        let from = match &by {
            Heard::Said(from) => Some(from.clone()),
            Heard::Signed | Heard::SignedBefore | Heard::Present => None,
        };
        match self.own.name.judge(heard, by, &self.standing(now)) {
            Ruling::Known => {}
            Ruling::TooFar => out.push(Output::Count(Counter::NewsRefused, 1)),
            Ruling::Unproved { tell } => {
                out.push(Output::Count(Counter::ClaimsUnproved, 1));
                if let Some(from) = from.filter(|_| tell) {
                    let claim = Problem::ClaimUnproved { from, heard, ours };
                    out.push(Output::Event(Event::Error(claim)));
                }
            }
            Ruling::End => {
                out.push(Output::Count(Counter::NameConflicts, 1));
                out.push(Output::Stop(Problem::Displaced { heard }));
            }
            Ruling::Renew(generation) => {
                out.push(Output::Count(Counter::NameConflicts, 1));
                let before = self.before(&self.config.node);
                self.own.map.renew_alone(generation);
                let persist = self.write_record(self.own_record());
                out.push(Output::Persist(persist));
                out.push(Output::Event(Event::Error(Problem::NameConflict { heard, ours })));
                self.touched_own(now, before, out);
            }
        }
    }

    fn standing(&self, now: Time) -> Standing {
        let last = Generation::last(self.clock.wall(now));
        Standing {
            ours: self.own.map.generation(),
            clock: self.clock.generation(now),
            last: self.own_end().map_or(last, |end| end.min(last)),
            heads: self.heads(),
            members: self.copies.keys().filter(|node| !self.is_gone(node)).count(),
        }
    }

    /// The last generation for which this node's certificate can vouch: no other node would accept a later
    /// one.
    fn own_end(&self) -> Option<Generation> {
        let credential = self.own.map.credential()?;
        let certified = self.signing.seals.as_ref()?.notary.certified(credential)?;
        Some(certified.last_life())
    }

    /// Whether members have to sign their own state.
    pub(super) fn heads(&self) -> Heads {
        match &self.signing.seals {
            Some(seals) if seals.signing == Signing::Require => Heads::Signed,
            _ => Heads::Unsigned,
        }
    }

    pub(super) fn is_absurd(&self, now: Time, generation: Generation) -> bool {
        generation.is_absurd(self.clock.wall(now))
    }

    /// The lines of a peer's digest in which we are behind.
    pub(super) fn wants(&self, now: Time, from: &NodeId, digest: &Digest) -> Digest {
        // Unknown nodes are requested only up to the limit of known ones.
        let mut room = self.config.peers_max.saturating_sub(self.copies.len());
        let mut entries = Vec::new();
        for theirs in &digest.entries {
            if theirs.node == self.config.node {
                // By our line the peer sees which proof of the later generation to show us.
                let later = self.is_later_self(theirs.generation, theirs.max_version)
                    && !self.is_absurd(now, theirs.generation);
                entries.extend(later.then(|| self.own.map.digest_entry(theirs.node.clone())));
                continue;
            }
            let known = self.copies.contains_key(&theirs.node);
            if (known || room > 0)
                && let Some(ours) = self.want(now, from, theirs)
            {
                room -= usize::from(!known);
                entries.push(ours);
            }
        }
        Digest { entries }
    }

    pub(super) fn want(
        &self,
        now: Time,
        from: &NodeId,
        theirs: &DigestEntry,
    ) -> Option<DigestEntry> {
        let absurd = self.is_absurd(now, theirs.generation)
            || self.revoked.union.ends(&theirs.node, theirs.generation);
        let life = (theirs.generation, theirs.verdict.incarnation);
        if absurd || self.forgotten.marks.against(from, &theirs.node, life).is_some() {
            return None;
        }
        let Some(copy) = self.copies.get(&theirs.node) else {
            let room = self.copies.len() < self.config.peers_max;
            return room.then(|| DigestEntry::unknown(theirs.node.clone()));
        };
        let ours = copy.digest_entry(theirs.node.clone());
        // The peer has to receive that another process writes under its name.
        if theirs.node == *from
            && (ours.generation, ours.max_version) > (theirs.generation, theirs.max_version)
        {
            return Some(ours);
        }
        let newer = (theirs.generation, theirs.max_version) > (ours.generation, ours.max_version)
            || (theirs.generation == ours.generation
                && (theirs.record > ours.record
                    || theirs.gc_floor > ours.gc_floor
                    || theirs.verdict > ours.verdict));
        newer.then_some(ours)
    }

    /// The state that a peer lacks; the state that it is being fed comes that way.
    pub(super) fn tell_peer(
        &mut self,
        now: Time,
        peer: &NodeId,
        theirs: &Digest,
        all: bool,
    ) -> Delta {
        self.seal_own();
        let fed = self.bulk.fed(now, peer, theirs);
        let is_fed = fed.is_some();
        let mut delta = self.lacking(now, peer, theirs, all, Occasion::Told { fed });
        if !is_fed {
            self.bulk.told(now, peer, &delta, false);
        }
        delta.nodes.extend(self.later_life_of(peer, theirs));
        delta
    }

    /// A peer reports less of itself than is known here: the part signed by its key, by which alone it can
    /// know that this is true.
    fn later_life_of(&self, peer: &NodeId, theirs: &Digest) -> Option<NodeDelta> {
        let (line, copy) = (theirs.get(peer)?, self.copies.get(peer)?);
        let later = (copy.generation(), copy.max_version()) > (line.generation, line.max_version);
        later.then(|| copy.signed_head(peer)).flatten()
    }

    /// The state that `theirs` lacks, cut to the budget: nodes the peer does not know first, so that large
    /// maps do not starve small ones, then the most outdated. `all`: nodes that `theirs` does not list are
    /// unknown to it; otherwise it wants only the listed ones.
    pub(super) fn lacking(
        &self,
        now: Time,
        peer: &NodeId,
        theirs: &Digest,
        all: bool,
        occasion: Occasion<'_>,
    ) -> Delta {
        let mut left_out = false;
        let fed = match occasion {
            Occasion::Pulled => None,
            Occasion::Told { fed } => fed,
        };
        let mut stale: Vec<(bool, u64, DigestEntry)> = Vec::new();
        let mut consider = |entry: DigestEntry| {
            let Some(map) = self.map_of(&entry.node) else { return };
            if entry.generation == Generation::ZERO && self.is_gone(&entry.node) {
                return;
            }
            if let Some(versions) = map.staleness(&entry) {
                if fed == Some(&entry.node) {
                    left_out = true;
                    return;
                }
                stale.push((entry.generation == Generation::ZERO, versions, entry));
            }
        };
        if all {
            let nodes = self.copies.keys().chain([&self.config.node]);
            nodes
                .filter(|node| *node != peer && !self.forgotten.is_retired(node))
                .map(|node| match theirs.get(node) {
                    Some(entry) => entry.clone(),
                    None => DigestEntry::unknown(node.clone()),
                })
                .for_each(&mut consider);
        } else {
            let listed = theirs.entries.iter().filter(|e| e.node != *peer);
            listed.cloned().for_each(&mut consider);
        }
        // Unknown ones: the small before the large. Known ones: the most outdated first.
        stale.sort_by_key(|(unknown, versions, _)| {
            (!unknown, if *unknown { *versions } else { u64::MAX - versions })
        });
        let pulled = matches!(occasion, Occasion::Pulled);
        let mut news = self.cut(now, stale.into_iter().map(|(_, _, entry)| entry), pulled);
        news.more |= left_out;
        news
    }

    /// The part of these for which there is room. `untouched`: the first version in any case.
    pub(super) fn cut(
        &self,
        now: Time,
        stale: impl Iterator<Item = DigestEntry>,
        untouched: bool,
    ) -> Delta {
        let mut budget = Budget {
            bytes: self.config.delta_bytes.saturating_sub(DELTA_FIXED_BYTES_MAX),
            entries: self.config.delta_entries,
            untouched,
        };
        let mut news = Delta::default();
        for entry in stale {
            let Some(map) = self.map_of(&entry.node) else { continue };
            match map.delta(now, &entry, &mut budget) {
                Some((delta, cut)) => {
                    news.more |= cut;
                    if !cut || delta.to > delta.from || delta.record.is_some() {
                        news.nodes.push(delta);
                    }
                }
                None => news.more = true,
            }
        }
        news
    }

    pub(super) fn map_of(&self, node: &NodeId) -> Option<&NodeMap> {
        if *node == self.config.node { Some(&self.own.map) } else { self.copy(node) }
    }
}

/// Count of nodes (9) and `more` (1).
const DELTA_FIXED_BYTES_MAX: usize = 10;
