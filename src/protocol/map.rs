//! One node's map: its keys in version order, and the rules by which a copy of it grows.
//!
//! The owner and everybody who holds a copy use the same type. What holds of a copy at any time: it
//! has every live entry of the owner up to `max_version` (a gap-free prefix, Scuttlebutt section 2).
//! Whatever would break that is refused and leaves the copy as it was.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use imbl::{OrdMap, ordmap::DiffItem};

use super::{
    delta::{ANCESTRY_MAX, DeltaContent, DeltaEntry, NodeDelta, entry_len_max},
    digest::DigestEntry,
    entry::{Content, Entry, Key, Value},
    id::{Generation, Incarnation, NodeId, Version},
    record::{NodeRecord, Status},
    seal::{Credential, Head, Seal, Sealed},
    time::Time,
    tree::{Hash, Leaf, Tree},
    verdict::{INCARNATION_MAX, Level, Verdict},
};

/// One node's keys, or a copy of them.
#[derive(Clone, Debug, Default)]
pub struct NodeMap {
    generation: Generation,
    ancestry: Vec<(Generation, Version)>,
    max_version: Version,
    /// How far those had got who told this copy, if further than it reaches itself.
    told_at: Version,
    gc_floor: Version,
    record: Option<(Version, Arc<NodeRecord>)>,
    /// The gravest that was heard of this life.
    verdict: Verdict,
    entries: OrdMap<Key, Entry>,
    by_version: BTreeSet<(Version, Key)>,
    bytes: usize,
    /// The entries that are tombstones, by version: the floor rises past some of them at a time.
    dead: BTreeSet<(Version, Key)>,
    /// The last write that replaced a part of a batch whose other part still stands. The owner finds
    /// it, by the next two; copies are told.
    torn: Version,
    /// The owner's keys that were such a part.
    torn_keys: BTreeSet<Key>,
    /// Up to here the owner does not know any more which writes made up a batch.
    unknown_batches: Version,
    /// What readers see while the copy does not reach `torn`.
    shown: Option<Box<Shown>>,
    /// The copy that will replace this one, once it reaches as far (see [`NodeMap::apply`]).
    staged: Option<Box<Self>>,
    /// Whose key signs this life, and the version of the record that came with it; nobody, if the owner
    /// signs nothing.
    credential: Option<(Version, Arc<Credential>)>,
    /// What the owner last signed of what is here.
    signed: Option<Arc<Signed>>,
    /// Of all entries, once somebody has asked for its root.
    tree: Option<Tree>,
    /// What was signed does not follow from what is here: it is to be told from the start.
    doubted: bool,
    /// When that last was so.
    doubted_at: Option<Time>,
    /// The owner signs, and nobody has told by what certificate: that goes where the record goes.
    unvouched: bool,
    /// Entries looked at so far to apply news.
    examined: u64,
}

/// What an owner has signed, with what was told beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed {
    /// What it signed.
    pub seal: Seal,
    /// Up to which version tombstones were gone.
    pub gc_floor: Version,
    /// The last write that replaced a part of a batch.
    pub torn: Version,
}

impl Signed {
    /// This head of a life, with what is needed to verify it, as news that tells no entry.
    #[must_use]
    pub fn head(
        &self,
        node: &NodeId,
        (generation, ancestry): (Generation, &[(Generation, Version)]),
        record: Option<(Version, &NodeRecord)>,
        credential: &Arc<Credential>,
    ) -> Option<NodeDelta> {
        let (version, record) = record.filter(|(version, _)| *version == self.seal.record)?;
        let (seal, credential) = (self.seal, Some(Arc::clone(credential)));
        Some(NodeDelta {
            node: node.clone(),
            generation,
            ancestry: ancestry.to_vec(),
            from: Version::ZERO,
            to: Version::ZERO,
            horizon: Version::ZERO,
            torn: self.torn,
            gc_floor: self.gc_floor,
            verdict: Verdict::default(),
            record: Some((version, record.clone())),
            entries: Vec::new(),
            sealed: Some(Box::new(Sealed { seal, credential, proof: Default::default() })),
        })
    }
}

/// A state of a copy in which every batch is whole.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    pub(super) max_version: Version,
    pub(super) gc_floor: Version,
    pub(super) entries: OrdMap<Key, Entry>,
    pub(super) live_keys: usize,
}

/// What remains of the room in one delta.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Bytes left.
    pub bytes: usize,
    /// Entries left.
    pub entries: usize,
    /// Nothing has been put in yet: the first version goes in whatever its size, or it never would.
    pub untouched: bool,
}

/// What one node may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapLimits {
    /// Live keys.
    pub keys: usize,
    /// Bytes of keys and values together.
    pub bytes: usize,
    /// Bytes of one key.
    pub key_bytes: usize,
    /// Bytes of one value.
    pub value_bytes: usize,
}

/// A visible effect of applying news.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyChange {
    /// The key has this value now.
    Updated(Key, Value, Version),
    /// The key has no value any more.
    Deleted(Key, Version),
}

/// What applying news did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The visible effects, in version order.
    pub changes: Vec<KeyChange>,
    /// The owner has started anew.
    pub generation: bool,
    /// The owner's record is new.
    pub record: bool,
    /// The copy reaches further than before, visibly or not.
    pub advanced: bool,
    /// The owner has started anew and nothing of the copy is left.
    pub forgotten: bool,
}

/// Why news was refused. The copy is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It is of an earlier life of the owner.
    #[error("news of an earlier generation")]
    OldGeneration,
    /// It starts after what we have.
    #[error("news that leaves a gap")]
    Gap,
    /// The sender has dropped tombstones that we need, or not yet those that we have dropped.
    #[error("news across a collected range")]
    Collected,
    /// Versions out of order or out of range, or a key or record outside its limits.
    #[error("malformed news")]
    Malformed,
    /// The owner would hold more than a node may.
    #[error("news of more than a node may hold")]
    TooLarge,
    /// The owner has not signed it, though it signs, or has to.
    #[error("news that its owner has not signed")]
    Unsigned,
    /// It is not what the owner has signed: whoever relays it has forged or left out something.
    #[error("news that is not what its owner has signed")]
    Forged,
    /// What the owner has signed does not follow from what is here. Whose fault that is shows when the
    /// whole map has been told again.
    #[error("news that does not fit what is here")]
    Mismatch,
    /// Whose key signed it is not known.
    #[error("news signed with a key that nobody has vouched for yet")]
    NoCredential,
    /// Its certificate is not one of its owner's, or does not vouch for the key.
    #[error("news signed with a key that its owner's certificate does not vouch for")]
    BadCredential,
    /// Its certificate is older than one that its owner has shown since, or is not valid yet.
    #[error("news signed with a certificate that its owner has replaced, or that is not valid yet")]
    Untimely,
    /// Its record says another datacenter than its certificate, or than before in the same life.
    #[error(
        "a record of another datacenter than its owner's certificate, or its record of before, says"
    )]
    Misplaced,
}

impl Refusal {
    /// What news refused for this costs who sent it, of what may be dropped of it
    /// ([`THROTTLED_MAX`](crate::transport::quic::THROTTLED_MAX)): by the work that it was, and only
    /// where no honest member sends it, but for one whose limits or certificate authorities differ.
    #[must_use]
    pub const fn price(self) -> u32 {
        match self {
            // A signature, or a tree, was verified in vain.
            Self::Forged => 4,
            Self::BadCredential | Self::Malformed | Self::TooLarge => 1,
            // It was not looked at, or lost a race against other news, or is the fault of its owner alone:
            // what a relay holds depends on what came to it first.
            Self::Unsigned
            | Self::Untimely
            | Self::Misplaced
            | Self::OldGeneration
            | Self::Gap
            | Self::Collected
            | Self::Mismatch
            | Self::NoCredential => 0,
        }
    }
}

impl NodeMap {
    /// An empty map in this generation.
    #[must_use]
    pub fn new(generation: Generation, ancestry: Vec<(Generation, Version)>) -> Self {
        Self { generation, ancestry, ..Self::default() }
    }

    /// The owner's life this is (a copy) of.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// Every live entry up to here is in the map.
    #[must_use]
    pub const fn max_version(&self) -> Version {
        self.max_version
    }

    /// How far those had got who told this copy. They left out what they had overwritten by then, so
    /// only from here on is it all that the owner held at some version.
    #[must_use]
    pub fn horizon(&self) -> Version {
        self.told_at.max(self.max_version)
    }

    /// Up to which version tombstones are gone.
    #[must_use]
    pub const fn gc_floor(&self) -> Version {
        self.gc_floor
    }

    /// Earlier lives that this one continues, newest first.
    #[must_use]
    pub fn ancestry(&self) -> &[(Generation, Version)] {
        &self.ancestry
    }

    /// The owner's record.
    #[must_use]
    pub fn record(&self) -> Option<&Arc<NodeRecord>> {
        self.record.as_ref().map(|(_, record)| record)
    }

    /// The version of the owner's record; zero if there is none.
    #[must_use]
    pub fn record_version(&self) -> Version {
        self.record.as_ref().map_or(Version::ZERO, |(version, _)| *version)
    }

    /// What is thought of the owner in this life. Its record may have refuted what was said of it.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let own = self.record().map_or_else(Verdict::default, |r| Verdict::alive(r.incarnation));
        self.verdict.max(own)
    }

    /// Whether this is graver than what is thought of the owner already, and may be true.
    #[must_use]
    pub fn is_graver(&self, verdict: Verdict) -> bool {
        // Whoever signs says by itself which incarnation it is in.
        let signs = self.credential.is_some();
        let own = self.record().map_or(Incarnation::ZERO, |record| record.incarnation);
        let last = if signs { own } else { INCARNATION_MAX };
        verdict > self.verdict() && verdict.incarnation <= last
    }

    /// Takes over what somebody thinks of the owner in this life, if it is graver than what is
    /// thought already; says whether it was.
    pub fn judge(&mut self, verdict: Verdict) -> bool {
        let graver = self.is_graver(verdict);
        if graver {
            self.verdict = verdict;
        }
        graver
    }

    /// Whether news tells nothing that is not here already.
    #[must_use]
    pub fn covers(&self, delta: &NodeDelta) -> bool {
        let record = delta.record.as_ref().map_or(Version::ZERO, |(version, _)| *version);
        self.generation == delta.generation
            && self.max_version >= delta.to
            && self.gc_floor >= delta.gc_floor
            && self.record_version() >= record
            && self.verdict() >= delta.verdict
            && self.staged.is_none()
            && !self.doubted
            && !(self.unvouched && delta.sealed.is_some())
    }

    /// News that says no more than what is thought of the owner.
    #[must_use]
    pub fn judgement(&self, node: NodeId) -> NodeDelta {
        NodeDelta {
            node,
            generation: self.generation,
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

    /// What the owner last signed of this life, without its entries: by that alone its key is known to
    /// have lived in it. `None` if it signs nothing, or its record has changed since.
    #[must_use]
    pub fn signed_head(&self, node: &NodeId) -> Option<NodeDelta> {
        let record = self.record.as_ref().map(|(version, record)| (*version, &**record));
        let signed = self.signed.as_deref()?;
        signed.head(node, (self.generation, &self.ancestry), record, self.credential()?)
    }

    /// Whose key signs this life.
    #[must_use]
    pub fn credential(&self) -> Option<&Arc<Credential>> {
        self.credential.as_ref().map(|(_, credential)| credential)
    }

    /// The credential, with the version of the record that it came with.
    #[must_use]
    pub fn credential_version(&self) -> Option<(Version, Arc<Credential>)> {
        self.credential.clone()
    }

    /// What the owner last signed of this map.
    #[must_use]
    pub const fn signed(&self) -> Option<&Arc<Signed>> {
        self.signed.as_ref()
    }

    /// An upper bound of the bytes of what the owner has signed, and by which certificate.
    #[must_use]
    pub fn sealed_len_max(&self) -> usize {
        self.signed
            .as_ref()
            .map_or(0, |_| Sealed::header_len_max(self.credential().map(|known| &**known)))
    }

    /// Whether this is all of what the owner has last signed, no less and no more; or it signs nothing.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.credential.is_none()
            || self.signed.as_ref().is_some_and(|signed| {
                signed.seal.upto == self.max_version
                    && signed.seal.record == self.record_version()
                    && signed.gc_floor == self.gc_floor
                    && signed.torn == self.torn
            })
    }

    /// The root of the tree of all entries.
    #[must_use]
    pub fn root(&mut self) -> Hash {
        if self.tree.is_none() {
            self.tree = Some(Tree::of(self.entries.iter().map(|(key, e)| (key.as_str(), e))));
        }
        self.tree.as_mut().map_or(Hash([0; 32]), Tree::root)
    }

    /// What of this map is to be signed.
    #[must_use]
    pub fn head<'a>(&'a self, node: &'a NodeId, root: Hash) -> Head<'a> {
        Head {
            node,
            generation: self.generation,
            ancestry: &self.ancestry,
            max_version: self.max_version,
            gc_floor: self.gc_floor,
            torn: self.torn,
            record: self.record.as_ref().map(|(version, record)| (*version, &**record)),
            root,
        }
    }

    /// Remembers whose key signs this life; `version`: that of the record it goes with.
    /// Says whether it had been asked for.
    pub fn set_credential(&mut self, credential: Option<(Version, Arc<Credential>)>) -> bool {
        self.credential = credential;
        std::mem::replace(&mut self.unvouched, false)
    }

    /// Takes over whose key signs this life, as it was told, unless a later one is known: whoever
    /// brings back the one before would have all that is signed since look forged.
    /// Says whether it had been asked for.
    pub fn vouch(&mut self, told: (Version, Arc<Credential>)) -> bool {
        let is_later = self.credential.as_ref().is_none_or(|(known, _)| *known < told.0);
        is_later && self.set_credential(Some(told))
    }

    /// The owner signs with a key that is not known here: whose it is, is asked for with the record. Says
    /// whether that is new.
    pub fn ask_for_credential(&mut self) -> bool {
        self.credential.is_none() && !std::mem::replace(&mut self.unvouched, true)
    }

    /// Remembers what the owner has signed of this map as it is.
    pub fn set_seal(&mut self, seal: Option<Seal>) {
        let (gc_floor, torn) = (self.gc_floor, self.torn);
        self.signed = seal.map(|seal| Arc::new(Signed { seal, gc_floor, torn }));
    }

    /// What was signed does not follow from what is here: from now on all of it is asked for, and
    /// replaces this once it is whole. Says whether that is new.
    ///
    /// Any relay can bring this about with a signature that it has spoiled the news of, for a few bytes,
    /// and a map may be large: more than once within [`DOUBT_INTERVAL`] it is not asked for.
    pub fn doubt(&mut self, now: Time) -> bool {
        if self.doubted_at.is_some_and(|at| now < at + DOUBT_INTERVAL) {
            return false;
        }
        self.doubted_at = Some(now);
        // What grew beside it does not fit either.
        let grew = self.staged.take().is_some();
        !std::mem::replace(&mut self.doubted, true) || grew
    }

    /// Whether this copy is all that its digest entry says and no more: nothing is staged beside it,
    /// and readers see it as it is.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.staged.is_none() && self.shown.is_none()
    }

    /// All entries, tombstones included; cloning it costs nothing.
    #[must_use]
    pub const fn entries(&self) -> &OrdMap<Key, Entry> {
        &self.entries
    }

    /// How many of the entries are tombstones.
    #[must_use]
    pub fn tombstones(&self) -> usize {
        self.dead.len()
    }

    /// Keys that are not deleted.
    #[must_use]
    pub fn live_keys(&self) -> usize {
        self.entries.len() - self.dead.len()
    }

    /// How many entries were looked at so far to apply news, refused news included: what the news has
    /// cost. A count for as long as this map lives in memory.
    #[must_use]
    pub const fn examined(&self) -> u64 {
        self.examined
    }

    /// Bytes of keys and values together.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The line of this map in a digest: how far it reaches, or the copy that will replace it.
    #[must_use]
    pub fn digest_entry(&self, node: NodeId) -> DigestEntry {
        let growing = self.staged.as_deref().unwrap_or(self);
        if self.doubted && self.staged.is_none() {
            let (generation, verdict) = (self.generation, self.verdict());
            return DigestEntry { generation, verdict, ..DigestEntry::unknown(node) };
        }
        DigestEntry {
            node,
            generation: self.generation,
            max_version: growing.max_version,
            horizon: growing.horizon(),
            gc_floor: growing.gc_floor,
            record: if self.unvouched { Version::ZERO } else { self.record_version() },
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
        self.has_news(theirs, from).then(|| self.max_version.0.saturating_sub(from.0))
    }

    /// What `theirs` lacks, as much as fits; `None` if there is no news or no room for any.
    /// The second part says whether the budget cut it.
    #[must_use]
    pub fn delta(
        &self,
        now: Time,
        theirs: &DigestEntry,
        budget: &mut Budget,
    ) -> Option<(NodeDelta, bool)> {
        // Of a part nobody could be shown what the owner has signed.
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
        if let (true, Some(sealed), Some(tree)) = (cut, &mut delta.sealed, &self.tree) {
            sealed.proof = tree.prove(delta.from, delta.to);
            budget.bytes = budget.bytes.saturating_sub(sealed.proof.encoded_len_max());
        }
        Some((delta, cut))
    }

    /// Writes one key: a value, or a tombstone. The caller has taken `version` and logged it.
    pub fn write(&mut self, key: Key, entry: Entry) {
        let version = entry.version;
        self.max_version = self.max_version.max(version);
        if let Some(replaced) = self.put(key.clone(), entry)
            && (replaced <= self.unknown_batches
                || self.has_writes_of(replaced)
                || self.torn_keys.contains(&key))
        {
            self.torn = self.torn.max(version);
            self.torn_keys.insert(key);
        }
    }

    /// Takes the next version, for a write.
    #[must_use]
    pub const fn next_version(&self) -> Version {
        self.max_version.next()
    }

    /// Replaces the record, as a write of `version`.
    pub fn write_record(&mut self, version: Version, record: NodeRecord) {
        self.max_version = self.max_version.max(version);
        self.record = Some((version, Arc::new(record)));
    }

    /// Takes over the owner's record into a copy, which may not reach as far as its version yet.
    pub fn restore_record(&mut self, version: Version, record: Arc<NodeRecord>) {
        self.record = Some((version, record));
    }

    /// Takes over how far those had got who told this copy.
    pub fn restore_horizon(&mut self, horizon: Version) {
        self.told_at = horizon;
    }

    /// Starts a new life that continues this one.
    pub fn renew(&mut self, generation: Generation) {
        self.ancestry.insert(0, (self.generation, self.max_version));
        self.ancestry.truncate(ANCESTRY_MAX);
        self.generation = generation;
    }

    /// Starts a new life that continues none: somebody else may have written in the earlier ones, so
    /// that a copy of them need not be a prefix of this map.
    pub fn renew_alone(&mut self, generation: Generation) {
        self.ancestry.clear();
        self.generation = generation;
    }

    /// Sets how far the map reaches and is collected, when it is read back from a store.
    pub fn restore(&mut self, max_version: Version, gc_floor: Version) {
        self.max_version = self.max_version.max(max_version);
        self.gc_floor = gc_floor;
    }

    /// Raises the floor and drops the tombstones up to it; returns their keys.
    pub fn collect(&mut self, floor: Version) -> Vec<Key> {
        self.gc_floor = self.gc_floor.max(floor);
        let upto = (self.gc_floor.next(), Key::from(""));
        let keys: Vec<_> = self.dead.range(..upto).map(|(_, key)| key.clone()).collect();
        self.examined += keys.len() as u64;
        for key in &keys {
            self.take(key);
            self.torn_keys.remove(key);
        }
        keys
    }

    /// Whether another copy grows beside this one and will replace it. The digest tells of that one.
    #[must_use]
    pub const fn is_told_anew(&self) -> bool {
        self.staged.is_some()
    }

    /// Whether there are writes after this version, deletions included.
    #[must_use]
    pub fn has_writes_after(&self, version: Version) -> bool {
        self.by_version.range((version.next(), Key::from(""))..).next().is_some()
    }

    /// Applies news of the owner.
    ///
    /// When the sender has dropped tombstones that this copy still needs, the owner's whole map is
    /// sent again: it is staged beside this copy, which stays in use, and replaces it in one step
    /// once it reaches both the floor and what this copy has.
    ///
    /// # Errors
    /// [`Refusal`]; then nothing has changed.
    pub fn apply(
        &mut self,
        now: Time,
        delta: &NodeDelta,
        limits: &MapLimits,
    ) -> Result<Applied, Refusal> {
        let (hidden, before) = (self.shown.is_some(), self.shown());
        let mut applied = self.take_in(now, delta, limits)?;
        if self.max_version >= self.torn {
            self.shown = None;
            if hidden {
                applied.changes = self.differences(&before.entries, &self.entries.clone(), now);
            }
        } else if applied.forgotten {
            applied.changes = self.differences(&before.entries, &OrdMap::new(), now);
            self.shown = Some(Box::default());
        } else {
            applied.changes.clear();
            self.shown = Some(Box::new(before));
        }
        Ok(applied)
    }

    /// What readers see: the copy as it is or, while it may have half of a batch, as it last was
    /// without.
    pub(super) fn shown(&self) -> Shown {
        match &self.shown {
            Some(shown) => (**shown).clone(),
            None => Shown {
                max_version: self.max_version,
                gc_floor: self.gc_floor,
                entries: self.entries.clone(),
                live_keys: self.live_keys(),
            },
        }
    }

    /// The last write that replaced a part of a batch whose other part still stands.
    #[must_use]
    pub const fn torn(&self) -> Version {
        self.torn
    }

    /// Sets what a reader's view remembers of it.
    pub(super) fn restore_torn(&mut self, torn: Version) {
        self.torn = self.torn.max(torn);
    }

    /// Any write so far may be part of a batch, and any batch may have been replaced in part: what a
    /// store keeps does not tell.
    pub fn forget_batches(&mut self) {
        self.unknown_batches = self.max_version;
        self.torn = self.max_version;
    }

    fn take_in(
        &mut self,
        now: Time,
        delta: &NodeDelta,
        limits: &MapLimits,
    ) -> Result<Applied, Refusal> {
        check(delta, limits)?;
        if delta.generation < self.generation {
            return Err(Refusal::OldGeneration);
        }
        if delta.generation > self.generation {
            return self.apply_new_life(now, delta, limits);
        }
        if self.is_stuck(delta) {
            return self.begin_again(now, delta, limits);
        }
        self.take_news(now, delta, limits)
    }

    fn take_news(
        &mut self,
        now: Time,
        delta: &NodeDelta,
        limits: &MapLimits,
    ) -> Result<Applied, Refusal> {
        if self.needs_reset(delta) {
            return self.apply_reset(now, delta, limits);
        }
        self.apply_news(now, delta, limits)
    }

    /// Whether what grows here does not reach its floor, the owner is gone, and the sender, who has not
    /// come to that floor, tells all it has.
    fn is_stuck(&self, delta: &NodeDelta) -> bool {
        let growing = self.staged.as_deref().unwrap_or(self);
        delta.from == Version::ZERO
            && growing.max_version < growing.gc_floor
            && delta.gc_floor < growing.gc_floor
            && (self.is_owner_gone(delta.verdict)
                || delta.record.as_ref().is_some_and(|(_, r)| r.status == Status::Left))
    }

    /// Gives up what cannot be completed for what the sender has.
    fn begin_again(
        &mut self,
        now: Time,
        delta: &NodeDelta,
        limits: &MapLimits,
    ) -> Result<Applied, Refusal> {
        if self.max_version < self.gc_floor && delta.gc_floor < self.gc_floor {
            return self.apply_reset(now, delta, limits);
        }
        let staged = self.staged.take();
        let taken = self.take_news(now, delta, limits);
        if taken.is_err() {
            self.staged = staged;
        }
        taken.map(|applied| Applied { advanced: true, ..applied })
    }

    /// From which version on `theirs` has to be told; `None` if this map cannot help it.
    fn start(&self, theirs: &DigestEntry) -> Option<Version> {
        if theirs.generation > self.generation {
            return None;
        }
        let (reach, floor) = if self.continues(theirs) {
            (theirs.max_version, theirs.gc_floor)
        } else {
            (Version::ZERO, Version::ZERO)
        };
        if reach >= self.gc_floor.max(floor) || floor == self.gc_floor {
            Some(reach)
        } else if self.gc_floor > floor || self.is_owner_gone(self.verdict()) {
            // What the copy was being completed from may have gone with the owner: then this map is as
            // good as any.
            Some(Version::ZERO)
        } else {
            None
        }
    }

    /// Whether the owner, of whom this is thought, is not there to complete any copy.
    fn is_owner_gone(&self, verdict: Verdict) -> bool {
        verdict.level == Level::Dead || self.record().is_some_and(|r| r.status == Status::Left)
    }

    /// Whether a copy is a prefix of this map.
    fn continues(&self, copy: &DigestEntry) -> bool {
        copy.generation == self.generation || continued(copy, &self.ancestry, self.gc_floor)
    }

    /// Whether what is thought of the owner is graver than what the holder of a copy of this life thinks.
    fn has_verdict(&self, theirs: &DigestEntry) -> bool {
        self.generation == theirs.generation && self.verdict() > theirs.verdict
    }

    fn has_news(&self, theirs: &DigestEntry, from: Version) -> bool {
        self.max_version > from
            || self.generation != theirs.generation
            || self.record_version() > theirs.record
            || self.verdict() > theirs.verdict
            || (self.gc_floor > theirs.gc_floor && from >= self.gc_floor)
    }

    fn header(&self, theirs: &DigestEntry, from: Version) -> NodeDelta {
        let known_life = theirs.generation == self.generation;
        let record_known = known_life && theirs.record >= self.record_version();
        NodeDelta {
            node: theirs.node.clone(),
            generation: self.generation,
            ancestry: if known_life { Vec::new() } else { self.ancestry.clone() },
            from,
            to: from.max(self.max_version),
            horizon: from.max(self.horizon()),
            torn: self.torn,
            gc_floor: self.gc_floor,
            verdict: self.verdict(),
            record: if record_known {
                None
            } else {
                self.record.as_ref().map(|(version, record)| (*version, (**record).clone()))
            },
            entries: Vec::new(),
            sealed: self.sealed(theirs, from, known_life),
        }
    }

    /// What the owner has signed, unless the news is no more than what is thought of it.
    fn sealed(&self, theirs: &DigestEntry, from: Version, known_life: bool) -> Option<Box<Sealed>> {
        let (signed, (version, credential)) = (self.signed.as_ref()?, self.credential.as_ref()?);
        let says_more = self.max_version > from
            || !known_life
            || self.record_version() > theirs.record
            || self.gc_floor > theirs.gc_floor;
        let known = known_life && theirs.record >= *version;
        says_more.then(|| {
            Box::new(Sealed {
                seal: signed.seal,
                credential: (!known).then(|| Arc::clone(credential)),
                proof: Default::default(),
            })
        })
    }

    /// Puts in whole versions, oldest first, while there is room; says whether it stopped early.
    fn fill(&self, now: Time, delta: &mut NodeDelta, budget: &mut Budget) -> bool {
        // The empty key sorts before all others.
        let mut writes = self.by_version.range((delta.from.next(), Key::from(""))..).peekable();
        let mut whole = delta.from;
        while let Some((version, _)) = writes.peek() {
            let version = *version;
            let (begun, mut bytes) = (delta.entries.len(), 0);
            while let Some((_, key)) = writes.next_if(|(v, _)| *v == version) {
                let Some(entry) = self.entries.get(key) else { continue };
                bytes += entry_len_max(key.as_str().len(), entry.value_len());
                let count = delta.entries.len() + 1 - begun;
                // A batch may be of a hundred thousand: stop as soon as it is clear that it is too much.
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

    /// Returns the version of the write that this one replaces.
    fn put(&mut self, key: Key, entry: Entry) -> Option<Version> {
        self.bytes += key.as_str().len() + entry.value_len();
        if entry.is_tombstone() {
            self.dead.insert((entry.version, key.clone()));
        }
        if let Some(tree) = &mut self.tree {
            tree.insert(Leaf::new(key.as_str(), &entry));
        }
        self.by_version.insert((entry.version, key.clone()));
        // One descent where looking before would be two: a million keys come at once.
        let version = entry.version;
        let is_dead = entry.is_tombstone();
        let old = self.entries.insert(key.clone(), entry)?;
        if old.is_tombstone() && !(is_dead && old.version == version) {
            self.dead.remove(&(old.version, key.clone()));
        }
        self.took(&key, &old, (old.version != version).then_some(old.version))
    }

    /// Removes a key; returns the version that it was written at.
    fn take(&mut self, key: &Key) -> Option<Version> {
        let old = self.entries.remove(key)?;
        if old.is_tombstone() {
            self.dead.remove(&(old.version, key.clone()));
        }
        self.took(key, &old, Some(old.version))
    }

    /// Accounts for an entry that is gone; `listed`: the version that it is still listed under.
    fn took(&mut self, key: &Key, old: &Entry, listed: Option<Version>) -> Option<Version> {
        self.bytes -= key.as_str().len() + old.value_len();
        if let Some(tree) = &mut self.tree {
            tree.remove(&Leaf::new(key.as_str(), old));
        }
        if let Some(version) = listed {
            self.by_version.remove(&(version, key.clone()));
        }
        Some(old.version)
    }

    fn has_writes_of(&self, version: Version) -> bool {
        let first = self.by_version.range((version, Key::from(""))..).next();
        first.is_some_and(|(found, _)| *found == version)
    }

    /// The owner has started anew: keep the copy if the new life continues it, else forget it. A life
    /// that continues a large map costs no more than what it changes of it: an owner may begin many.
    fn apply_new_life(
        &mut self,
        now: Time,
        delta: &NodeDelta,
        limits: &MapLimits,
    ) -> Result<Applied, Refusal> {
        // It goes on from a part of this life that is not here.
        if delta.record.is_none() {
            return Err(Refusal::Gap);
        }
        let (entries, examined) = (self.entries.clone(), self.examined);
        let before = self.begin_life(delta);
        self.examined = examined;
        let forgotten = self.max_version == Version::ZERO;
        let mut applied = match self.take_in(now, delta, limits) {
            Ok(applied) => applied,
            Err(refusal) => {
                // A copy that the new life continues may still be behind its floor.
                let behind = matches!(refusal, Refusal::Gap | Refusal::Collected)
                    && !self.entries.is_empty();
                let examined = self.examined;
                self.end_life(before);
                self.examined = examined;
                return Err(if behind { Refusal::Gap } else { refusal });
            }
        };
        applied.changes = self.differences(&entries, &self.entries.clone(), now);
        applied.generation = true;
        applied.advanced = true;
        applied.forgotten = forgotten;
        Ok(applied)
    }

    /// Goes on in the life that is told of, with what it continues of this copy. The sender goes by our
    /// digest, so of a copy that is being replaced the part that grows must not be lost. Returns what
    /// [`NodeMap::end_life`] needs.
    fn begin_life(&mut self, delta: &NodeDelta) -> Before {
        let generation = self.generation;
        let continues = |map: &Self| {
            let line = DigestEntry { generation, ..map.digest_line(&delta.node) };
            continued(&line, &delta.ancestry, delta.gc_floor)
        };
        let (goes_on, mut staged) = (continues(self), self.staged.take());
        let staged_goes_on = staged.as_deref().is_some_and(continues);
        let staged_life = staged
            .as_deref_mut()
            .filter(|_| staged_goes_on)
            .map(|staged| staged.exchange_life(Life::of(delta)));
        if goes_on {
            // What is doubted stays so: the new life goes on from it.
            let life = self.exchange_life(Life::of(delta));
            if staged_goes_on {
                self.staged = staged;
                return Before { life, replaced: None, staged_life, dropped: None };
            }
            return Before { life, replaced: None, staged_life, dropped: staged };
        }
        // The owner has lost only the floor: readers keep this copy until the map, which is sent again from
        // the start, reaches as far.
        if is_ancestor(&self.digest_line(&delta.node), &delta.ancestry) {
            let life = self.exchange_life(Life::of(delta));
            let (grows, dropped) = match staged {
                Some(staged) if staged_goes_on => (staged, None),
                staged => {
                    let mut fresh = Self::default();
                    fresh.exchange_life(Life::of(delta));
                    (Box::new(fresh), staged)
                }
            };
            self.staged = Some(grows);
            return Before { life, replaced: None, staged_life, dropped };
        }
        let (next, dropped) = match (staged, staged_goes_on) {
            (Some(staged), true) => (*staged, None),
            (staged, _) => {
                let mut next = Self::default();
                next.exchange_life(Life::of(delta));
                (next, staged)
            }
        };
        let replaced = Some(Box::new(std::mem::replace(self, next)));
        Before { life: Life::default(), replaced, staged_life, dropped }
    }

    /// How far this copy itself reaches, whatever grows beside it.
    fn digest_line(&self, node: &NodeId) -> DigestEntry {
        DigestEntry {
            generation: self.generation,
            max_version: self.max_version,
            horizon: self.horizon(),
            gc_floor: self.gc_floor,
            ..DigestEntry::unknown(node.clone())
        }
    }

    /// Takes back [`NodeMap::begin_life`].
    fn end_life(&mut self, before: Before) {
        let Before { life, replaced, staged_life, dropped } = before;
        let grew = match replaced {
            Some(replaced) => Some(Box::new(std::mem::replace(self, *replaced))),
            None => {
                self.exchange_life(life);
                self.staged.take()
            }
        };
        self.staged = match staged_life {
            Some(life) => grew.map(|mut grew| {
                grew.exchange_life(life);
                grew
            }),
            None => dropped,
        };
    }

    fn exchange_life(&mut self, life: Life) -> Life {
        Life {
            generation: std::mem::replace(&mut self.generation, life.generation),
            ancestry: std::mem::replace(&mut self.ancestry, life.ancestry),
            record: std::mem::replace(&mut self.record, life.record),
            verdict: std::mem::replace(&mut self.verdict, life.verdict),
            credential: std::mem::replace(&mut self.credential, life.credential),
            signed: std::mem::replace(&mut self.signed, life.signed),
            unvouched: std::mem::replace(&mut self.unvouched, life.unvouched),
        }
    }

    /// What a reader notices when one state of this map replaces another, in version order. What the
    /// two have in common is not looked at.
    fn differences(
        &mut self,
        old: &OrdMap<Key, Entry>,
        new: &OrdMap<Key, Entry>,
        now: Time,
    ) -> Vec<KeyChange> {
        let mut changes = Vec::new();
        for item in old.diff(new) {
            self.examined += 1;
            changes.extend(visible_change(item, now));
        }
        changes.sort_by_key(|change| match change {
            KeyChange::Updated(_, _, version) | KeyChange::Deleted(_, version) => *version,
        });
        changes
    }

    /// Whether the sender starts from nothing because it has dropped tombstones that we lack.
    fn needs_reset(&self, delta: &NodeDelta) -> bool {
        let growing = self.staged.as_deref().unwrap_or(self);
        if delta.from == Version::ZERO && self.doubted && self.staged.is_none() {
            return true;
        }
        delta.from == Version::ZERO
            && self.max_version > Version::ZERO
            && delta.gc_floor > growing.max_version
            && delta.gc_floor > growing.gc_floor
    }

    fn apply_reset(
        &mut self,
        now: Time,
        delta: &NodeDelta,
        limits: &MapLimits,
    ) -> Result<Applied, Refusal> {
        let mut fresh = Self::new(self.generation, self.ancestry.clone());
        let grown = fresh.grow(now, delta, limits);
        self.examined += std::mem::take(&mut fresh.examined);
        grown?;
        self.staged = Some(Box::new(fresh));
        let mut applied = Applied { advanced: true, ..Applied::default() };
        applied.record = self.take_record(delta);
        self.commit_staged(now, &mut applied);
        Ok(applied)
    }

    fn apply_news(
        &mut self,
        now: Time,
        delta: &NodeDelta,
        limits: &MapLimits,
    ) -> Result<Applied, Refusal> {
        let mut applied = Applied::default();
        if let Some(mut staged) = self.staged.take() {
            let grown = staged.grow(now, delta, limits);
            self.examined += std::mem::take(&mut staged.examined);
            self.staged = Some(staged);
            applied.advanced = grown?.1;
            applied.record = self.take_record(delta);
            self.commit_staged(now, &mut applied);
        } else {
            (applied.changes, applied.advanced) = self.grow(now, delta, limits)?;
            applied.record = self.take_record(delta);
        }
        Ok(applied)
    }

    /// Extends this map by news that connects to it.
    fn grow(
        &mut self,
        now: Time,
        delta: &NodeDelta,
        limits: &MapLimits,
    ) -> Result<(Vec<KeyChange>, bool), Refusal> {
        if delta.from > self.max_version {
            return Err(Refusal::Gap);
        }
        let empty = self.max_version == Version::ZERO && self.entries.is_empty();
        let floors_agree = self.max_version >= delta.gc_floor.max(self.gc_floor)
            || self.gc_floor == delta.gc_floor
            || (empty && delta.gc_floor >= self.gc_floor);
        if !floors_agree {
            return Err(Refusal::Collected);
        }
        self.check_room(delta, limits)?;
        let Some(sealed) = &delta.sealed else { return Ok(self.take_entries(now, delta)) };
        // What is here has gone further in the meantime.
        if delta.gc_floor < self.gc_floor {
            return Err(Refusal::Collected);
        }
        if delta.to < sealed.seal.upto {
            self.examined += delta.entries.len() as u64;
            prove(now, delta, sealed)?;
            return Ok(self.take_entries(now, delta));
        }
        if delta.to < self.max_version {
            return Ok((Vec::new(), false));
        }
        let undo = self.undo(delta);
        self.examined += undo.replaced.len() as u64;
        let taken = self.take_entries(now, delta);
        if self.root() == sealed.seal.root {
            self.set_seal(Some(sealed.seal));
            self.doubted = false;
            return Ok(taken);
        }
        let from_nothing = undo.max_version == Version::ZERO;
        self.take_back(undo);
        Err(if from_nothing { Refusal::Forged } else { Refusal::Mismatch })
    }

    /// Takes over news that may be taken.
    fn take_entries(&mut self, now: Time, delta: &NodeDelta) -> (Vec<KeyChange>, bool) {
        let before = (self.max_version, self.gc_floor);
        let mut changes = Vec::new();
        self.examined += delta.entries.len() as u64;
        for entry in delta.entries.iter().filter(|e| e.version > before.0) {
            changes.extend(self.grow_by(now, entry));
        }
        if delta.to > before.0 {
            self.max_version = delta.to;
            // How far the sender had got, or the owner when it signed.
            let horizon = delta.sealed.as_ref().map_or(delta.horizon, |sealed| sealed.seal.upto);
            self.told_at = self.told_at.max(horizon);
            self.torn = self.torn.max(delta.torn);
        }
        if delta.gc_floor > self.gc_floor {
            self.collect(delta.gc_floor);
        }
        (changes, (self.max_version, self.gc_floor) != before)
    }

    /// What [`NodeMap::take_entries`] is going to change.
    fn undo(&self, delta: &NodeDelta) -> Undo {
        let news = delta.entries.iter().filter(|entry| entry.version > self.max_version);
        let mut replaced: Vec<_> =
            news.map(|e| (e.key.clone(), self.entries.get(&e.key).cloned())).collect();
        if delta.gc_floor > self.gc_floor {
            let upto = (delta.gc_floor.next(), Key::from(""));
            replaced.extend(
                self.dead.range(..upto).filter_map(|(_, key)| {
                    Some((key.clone(), Some(self.entries.get(key)?.clone())))
                }),
            );
        }
        let Self { max_version, told_at, torn, gc_floor, .. } = *self;
        Undo { replaced, max_version, told_at, torn, gc_floor }
    }

    fn take_back(&mut self, undo: Undo) {
        for (key, entry) in undo.replaced {
            match entry {
                Some(entry) => drop(self.put(key, entry)),
                None => drop(self.take(&key)),
            }
        }
        self.max_version = undo.max_version;
        self.told_at = undo.told_at;
        self.torn = undo.torn;
        self.gc_floor = undo.gc_floor;
    }

    fn grow_by(&mut self, now: Time, news: &DeltaEntry) -> Option<KeyChange> {
        // A value that has expired here is deleted for good only now, and only now told.
        let had_value = || self.entries.get(&news.key).is_some_and(|e| !e.is_tombstone());
        let entry = local_entry(now, news);
        let change = match entry.visible(now) {
            Some(value) => Some(KeyChange::Updated(news.key.clone(), value.clone(), news.version)),
            None if entry.is_tombstone() && had_value() => {
                Some(KeyChange::Deleted(news.key.clone(), news.version))
            }
            None => None,
        };
        if entry.is_tombstone() && entry.version <= self.gc_floor {
            let _ = self.take(&news.key);
        } else {
            let _ = self.put(news.key.clone(), entry);
        }
        change
    }

    fn check_room(&self, delta: &NodeDelta, limits: &MapLimits) -> Result<(), Refusal> {
        let keys_max = limits.keys.saturating_mul(COPY_KEYS_FACTOR);
        let bytes_max = limits.bytes.saturating_mul(COPY_BYTES_FACTOR);
        let sizes = delta.entries.iter().map(|entry| entry.key.as_str().len() + entry.value_len());
        // Far from the limits nobody has to look what is replaced.
        if self.entries.len() + delta.entries.len() <= keys_max
            && self.bytes + sizes.sum::<usize>() <= bytes_max
        {
            return Ok(());
        }
        let (mut keys, mut bytes) = (self.entries.len(), self.bytes);
        for entry in &delta.entries {
            let old = self.entries.get(&entry.key);
            keys += usize::from(old.is_none());
            bytes += entry.key.as_str().len() + entry.value_len();
            let freed = old.map_or(0, |old| entry.key.as_str().len() + old.value_len());
            bytes = bytes.saturating_sub(freed);
        }
        if keys > keys_max || bytes > bytes_max {
            return Err(Refusal::TooLarge);
        }
        Ok(())
    }

    fn take_record(&mut self, delta: &NodeDelta) -> bool {
        match &delta.record {
            Some((version, record)) if *version > self.record_version() => {
                self.record = Some((*version, Arc::new(record.clone())));
                true
            }
            _ => false,
        }
    }

    fn commit_staged(&mut self, now: Time, applied: &mut Applied) {
        let reached = |staged: &Self| {
            staged.max_version >= staged.gc_floor && staged.max_version >= self.max_version
        };
        if let Some(staged) = self.staged.take_if(|staged| reached(staged)) {
            applied.changes = self.differences(&self.entries.clone(), &staged.entries, now);
            let (record, verdict, examined) = (self.record.take(), self.verdict, self.examined);
            let (credential, doubted_at) = (self.credential.take(), self.doubted_at);
            let doubted = false;
            *self = Self { record, verdict, credential, doubted, doubted_at, examined, ..*staged };
        }
    }
}

/// Whether a life with this ancestry and floor continues a copy of an earlier one.
///
/// It does not if those who told the copy had seen writes that the owner then lost in a crash: they
/// left out what those had overwritten, which is in force again. Nor if the owner lost the floor of the
/// copy as well: the owner's tombstones that the copy has dropped are part of what the owner signs.
fn continued(copy: &DigestEntry, ancestry: &[(Generation, Version)], floor: Version) -> bool {
    copy.gc_floor <= floor && is_ancestor(copy, ancestry)
}

/// Whether the owner still had all that those who told this copy had seen.
fn is_ancestor(copy: &DigestEntry, ancestry: &[(Generation, Version)]) -> bool {
    ancestry.iter().any(|(life, upto)| *life == copy.generation && copy.horizon <= *upto)
}

/// What a map holds of one life of its owner alone: the next life says all of it anew.
#[derive(Debug, Default)]
struct Life {
    generation: Generation,
    ancestry: Vec<(Generation, Version)>,
    record: Option<(Version, Arc<NodeRecord>)>,
    verdict: Verdict,
    credential: Option<(Version, Arc<Credential>)>,
    signed: Option<Arc<Signed>>,
    unvouched: bool,
}

impl Life {
    /// The life that is told of, of which nothing else is known yet: what was said of the earlier life
    /// says nothing of this one.
    fn of(delta: &NodeDelta) -> Self {
        let (generation, ancestry) = (delta.generation, delta.ancestry.clone());
        Self { generation, ancestry, ..Self::default() }
    }
}

/// What is needed to be again as before a life was begun.
struct Before {
    /// What the copy held of the earlier life, if it goes on.
    life: Life,
    /// The copy, if it does not.
    replaced: Option<Box<NodeMap>>,
    /// What the copy that grows held of the earlier life, if that one goes on.
    staged_life: Option<Life>,
    /// The copy that grew, if it does not.
    dropped: Option<Box<NodeMap>>,
}

/// What is needed to be again as before news was taken.
struct Undo {
    /// What each key held.
    replaced: Vec<(Key, Option<Entry>)>,
    max_version: Version,
    told_at: Version,
    torn: Version,
    gc_floor: Version,
}

/// Whether news that was cut is all that its owner has of these versions.
fn prove(now: Time, delta: &NodeDelta, sealed: &Sealed) -> Result<(), Refusal> {
    let leaf = |entry: &DeltaEntry| Leaf::new(entry.key.as_str(), &local_entry(now, entry));
    let kept = |entry: &&DeltaEntry| {
        !matches!(entry.content, DeltaContent::Tombstone) || entry.version > delta.gc_floor
    };
    let leaves: Vec<_> = delta.entries.iter().filter(kept).map(leaf).collect();
    let root = sealed.proof.root(delta.from, delta.to, &leaves);
    if root == Some(sealed.seal.root) { Ok(()) } else { Err(Refusal::Forged) }
}

/// Whether the news is well formed, whatever we hold.
fn check(delta: &NodeDelta, limits: &MapLimits) -> Result<(), Refusal> {
    let mut last = delta.from;
    let in_order = delta.entries.iter().all(|entry| {
        let fits = entry.version >= last && entry.version > delta.from && entry.version <= delta.to;
        last = entry.version;
        fits
    });
    let small = |entry: &DeltaEntry| {
        let key = entry.key.as_str().len();
        (1..=limits.key_bytes).contains(&key) && entry.value_len() <= limits.value_bytes
    };
    let record_fits = delta.record.as_ref().is_none_or(|(_, record)| record.check().is_ok());
    let ancestry_fits = delta.ancestry.len() <= ANCESTRY_MAX
        && delta.ancestry.iter().all(|(generation, _)| *generation < delta.generation);
    let record = delta.record.as_ref().map_or(Incarnation::ZERO, |(_, record)| record.incarnation);
    let reaches = delta.sealed.as_ref().is_none_or(|sealed| delta.to <= sealed.seal.upto);
    let ordered = reaches
        && delta.verdict.incarnation.max(record) <= INCARNATION_MAX
        && delta.from <= delta.to
        && delta.to.max(delta.torn) <= delta.horizon
        && delta.generation > Generation::ZERO;
    if in_order && delta.entries.iter().all(small) && record_fits && ancestry_fits && ordered {
        Ok(())
    } else {
        Err(Refusal::Malformed)
    }
}

/// What a reader notices of one entry that came, went or was replaced.
fn visible_change(item: DiffItem<'_, '_, Key, Entry>, now: Time) -> Option<KeyChange> {
    let (key, before, entry) = match item {
        DiffItem::Add(key, entry) => (key, None, entry),
        DiffItem::Update { old, new } => (new.0, Some(old.1), new.1),
        DiffItem::Remove(key, entry) => {
            return (!entry.is_tombstone()).then(|| KeyChange::Deleted(key.clone(), entry.version));
        }
    };
    match entry.visible(now) {
        Some(value) if before.and_then(|before| before.visible(now)) != Some(value) => {
            Some(KeyChange::Updated(key.clone(), value.clone(), entry.version))
        }
        None if entry.is_tombstone() && before.is_some_and(|before| !before.is_tombstone()) => {
            Some(KeyChange::Deleted(key.clone(), entry.version))
        }
        _ => None,
    }
}

fn wire_entry(now: Time, key: &Key, entry: &Entry) -> DeltaEntry {
    let content = match &entry.content {
        Content::Value { value, expires } => DeltaContent::Value {
            value: value.clone(),
            ttl_ms: expires.map(|at| u64::try_from(at.since(now).as_millis()).unwrap_or(u64::MAX)),
        },
        Content::Tombstone => DeltaContent::Tombstone,
    };
    DeltaEntry { key: key.clone(), version: entry.version, content }
}

fn local_entry(now: Time, news: &DeltaEntry) -> Entry {
    let content = match &news.content {
        DeltaContent::Value { value, ttl_ms } => Content::Value {
            value: value.clone(),
            expires: ttl_ms.map(|ms| now + Duration::from_millis(ms)),
        },
        DeltaContent::Tombstone => Content::Tombstone,
    };
    Entry { version: news.version, content }
}

/// While a copy catches up it holds what the owner held before and what it holds now: of each so many
/// live keys and as many tombstones.
const COPY_KEYS_FACTOR: usize = 4;
/// The same for the bytes of what was and what is; a tombstone has none but its key's.
const COPY_BYTES_FACTOR: usize = 4;
/// A map whose news did not fit is told once more from the start, but not more often than this.
pub const DOUBT_INTERVAL: Duration = Duration::from_secs(30);
