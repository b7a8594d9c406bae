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
    verdict::Verdict,
};

/// One node's map as readers see it: immutable and cheap to clone.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// The owner's life.
    pub generation: Generation,
    /// Earlier lives that this one continues.
    pub ancestry: Vec<(Generation, Version)>,
    /// Every live entry up to here is in `entries`.
    pub max_version: Version,
    /// How far those had got who told it: below here it may lack what was overwritten since.
    pub horizon: Version,
    /// The last write that replaced a part of a batch whose other part still stands.
    pub torn: Version,
    /// Up to which version tombstones are gone.
    pub gc_floor: Version,
    /// The owner's record and its version.
    pub record: Option<(Version, Arc<NodeRecord>)>,
    /// What is thought of the owner in this life.
    pub verdict: Verdict,
    /// All entries, tombstones included.
    pub entries: OrdMap<Key, Entry>,
    /// How many of them are not tombstones.
    pub live_keys: usize,
    /// Whose key signs this life, and the version of the record that came with it.
    pub credential: Option<(Version, Arc<Credential>)>,
    /// What the owner last signed of it.
    pub signed: Option<Arc<Signed>>,
}

impl NodeView {
    /// As [`NodeMap::signed_head`].
    #[must_use]
    pub fn signed_head(&self, node: &NodeId) -> Option<NodeDelta> {
        let record = self.record.as_ref().map(|(version, record)| (*version, &**record));
        let (signed, (_, credential)) = (self.signed.as_deref()?, self.credential.as_ref()?);
        signed.head(node, (self.generation, &self.ancestry), record, credential)
    }
}

impl NodeMap {
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
        // What is shown may be less than what was signed; then it is asked for again.
        if let Some(signed) = &view.signed
            && map.root() == signed.seal.root
        {
            map.set_seal(Some(signed.seal));
        }
        map
    }
}
