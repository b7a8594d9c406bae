//! One node's map as readers see it.

use std::sync::Arc;

use imbl::OrdMap;

use super::{
    delta::NodeDelta,
    entry::{Entry, Key},
    id::{Generation, NodeId, Version},
    map::{NodeMap, Signed},
    record::NodeRecord,
    seal::Credential,
    skim::Reach,
    verdict::Verdict,
};

/// One node's map as readers see it: immutable and cheap to clone.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// The owner's generation.
    pub generation: Generation,
    /// Earlier generations that this one continues.
    pub ancestry: Vec<(Generation, Version)>,
    /// Every live entry up to this version is in `entries`.
    pub max_version: Version,
    /// How far the senders of this copy had got: below here it may lack entries that were overwritten since.
    pub horizon: Version,
    /// The last write that replaced one part of a batch while another part still stands.
    pub torn: Version,
    /// Up to which version tombstones have been dropped.
    pub gc_floor: Version,
    /// The owner's record and its version.
    pub record: Option<(Version, Arc<NodeRecord>)>,
    /// The cluster's verdict on the owner in this generation.
    pub verdict: Verdict,
    /// All entries, tombstones included.
    pub entries: OrdMap<Key, Entry>,
    /// How many of them are not tombstones.
    pub live_keys: usize,
    /// The holder of the key that signs this generation, and the version of the record that came with it.
    pub credential: Option<(Version, Arc<Credential>)>,
    /// The owner's latest signed head.
    pub signed: Option<Arc<Signed>>,
}

impl NodeView {
    /// How far it reaches.
    #[must_use]
    pub fn reach(&self) -> Reach<'_> {
        Reach {
            generation: self.generation,
            max_version: self.max_version,
            horizon: self.horizon,
            torn: self.torn,
            gc_floor: self.gc_floor,
            verdict: self.verdict,
            record: self.record.as_ref().map_or(Version::ZERO, |(version, _)| *version),
            signed: self.signed.as_deref(),
        }
    }

    /// As [`NodeMap::signed_head`].
    #[must_use]
    pub fn signed_head(&self, node: &NodeId) -> Option<NodeDelta> {
        let record = self.record.as_ref().map(|(version, record)| (*version, &**record));
        let (signed, (_, credential)) = (self.signed.as_deref()?, self.credential.as_ref()?);
        signed.head(node, (self.generation, &self.ancestry), record, credential)
    }
}

impl NodeMap {
    /// How far it reaches.
    #[must_use]
    pub fn reach(&self) -> Reach<'_> {
        Reach {
            generation: self.generation(),
            max_version: self.max_version(),
            horizon: self.horizon(),
            torn: self.torn(),
            gc_floor: self.gc_floor(),
            verdict: self.verdict(),
            record: self.record_version(),
            signed: self.signed().map(|signed| &**signed),
        }
    }

    /// The map as readers see it.
    #[must_use]
    pub fn view(&self) -> NodeView {
        let shown = self.shown();
        NodeView {
            generation: self.generation(),
            ancestry: self.ancestry().to_vec(),
            max_version: shown.max_version,
            horizon: self.horizon(),
            torn: self.torn(),
            gc_floor: shown.gc_floor,
            record: self.record().map(|record| (self.record_version(), Arc::clone(record))),
            verdict: self.verdict(),
            entries: shown.entries,
            live_keys: shown.live_keys,
            credential: self.credential_version(),
            signed: self.signed().cloned(),
        }
    }

    /// The map that readers saw.
    #[must_use]
    pub fn from_view(view: &NodeView) -> Self {
        let mut map = Self::new(view.generation, view.ancestry.clone());
        for (key, entry) in &view.entries {
            map.write(key.clone(), entry.clone());
        }
        if let Some((version, record)) = &view.record {
            map.restore_record(*version, Arc::clone(record));
        }
        map.restore(view.max_version, view.gc_floor);
        map.restore_horizon(view.horizon);
        map.restore_torn(view.torn);
        map.judge(view.verdict);
        map.set_credential(view.credential.clone());
        // The copy that readers see may hold less than was signed; then it is asked for again.
        if let Some(signed) = &view.signed
            && map.root() == signed.seal.root
        {
            map.set_seal(Some(signed.seal));
        }
        map
    }
}
