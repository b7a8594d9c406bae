//! What the owner of a map signs of it, and with whose key.

use std::sync::Arc;

use crate::protocol::{
    delta::NodeDelta,
    digest::DigestEntry,
    id::{NodeId, Version},
    seal::{Credential, Head, Seal, Sealed},
    time::Time,
    tree::Hash,
};

use super::{NodeMap, Signed};

impl NodeMap {
    /// What the owner last signed of this life, without its entries: by that alone its key is known to
    /// have lived in it. `None` if it signs nothing, or its record has changed since.
    #[must_use]
    pub fn signed_head(&self, node: &NodeId) -> Option<NodeDelta> {
        let record = self.life.record.as_ref().map(|(version, record)| (*version, &**record));
        let signed = self.life.signed.as_deref()?;
        signed.head(node, (self.life.generation, &self.life.ancestry), record, self.credential()?)
    }

    /// Whose key signs this life.
    #[must_use]
    pub fn credential(&self) -> Option<&Arc<Credential>> {
        self.life.credential.as_ref().map(|(_, credential)| credential)
    }

    /// The credential, with the version of the record that it came with.
    #[must_use]
    pub fn credential_version(&self) -> Option<(Version, Arc<Credential>)> {
        self.life.credential.clone()
    }

    /// What the owner last signed of this map.
    #[must_use]
    pub const fn signed(&self) -> Option<&Arc<Signed>> {
        self.life.signed.as_ref()
    }

    /// An upper bound of the bytes of what the owner has signed, and by which certificate.
    #[must_use]
    pub fn sealed_len_max(&self) -> usize {
        self.life
            .signed
            .as_ref()
            .map_or(0, |_| Sealed::header_len_max(self.credential().map(|known| &**known)))
    }

    /// Whether this is all of what the owner has last signed, no less and no more; or it signs nothing.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.life.credential.is_none()
            || self.life.signed.as_ref().is_some_and(|signed| {
                signed.seal.upto == self.reach.max_version
                    && signed.seal.record == self.record_version()
                    && signed.gc_floor == self.reach.gc_floor
                    && signed.torn == self.reach.torn
            })
    }

    /// The root of the tree of all entries.
    #[must_use]
    pub fn root(&mut self) -> Hash {
        self.entries.root()
    }

    /// What of this map is to be signed.
    #[must_use]
    pub fn head<'a>(&'a self, node: &'a NodeId, root: Hash) -> Head<'a> {
        Head {
            node,
            generation: self.life.generation,
            ancestry: &self.life.ancestry,
            max_version: self.reach.max_version,
            gc_floor: self.reach.gc_floor,
            torn: self.reach.torn,
            record: self.life.record.as_ref().map(|(version, record)| (*version, &**record)),
            root,
        }
    }

    /// Remembers whose key signs this life; `version`: that of the record it goes with.
    /// Says whether it had been asked for.
    pub fn set_credential(&mut self, credential: Option<(Version, Arc<Credential>)>) -> bool {
        self.life.credential = credential;
        std::mem::replace(&mut self.life.unvouched, false)
    }

    /// Takes over whose key signs this life, as it was told, unless a later one is known: whoever
    /// brings back the one before would have all that is signed since look forged.
    /// Says whether it had been asked for.
    pub fn vouch(&mut self, told: (Version, Arc<Credential>)) -> bool {
        let is_later = self.life.credential.as_ref().is_none_or(|(known, _)| *known < told.0);
        is_later && self.set_credential(Some(told))
    }

    /// The owner signs with a key that is not known here: whose it is, is asked for with the record. Says
    /// whether that is new.
    pub fn ask_for_credential(&mut self) -> bool {
        self.life.credential.is_none() && !std::mem::replace(&mut self.life.unvouched, true)
    }

    /// Remembers what the owner has signed of this map as it is.
    pub fn set_seal(&mut self, seal: Option<Seal>) {
        let (gc_floor, torn) = (self.reach.gc_floor, self.reach.torn);
        self.life.signed = seal.map(|seal| Arc::new(Signed { seal, gc_floor, torn }));
    }

    /// What was signed does not follow from what is here: from now on all of it is asked for, and
    /// replaces this once it is whole. Says whether that is new.
    ///
    /// Any relay can bring this about with a signature that it has spoiled the news of, for a few bytes,
    /// and a map may be large: more than once within [`DOUBT_INTERVAL`](super::DOUBT_INTERVAL) it is not asked for.
    pub fn doubt(&mut self, now: Time) -> bool {
        if !self.doubt.may_arise(now) {
            return false;
        }
        // What grew beside it does not fit either.
        let grew = self.staged.take().is_some();
        self.doubt.arise(now) || grew
    }

    /// What the owner has signed, unless the news is no more than what is thought of it.
    pub(super) fn sealed(
        &self,
        theirs: &DigestEntry,
        from: Version,
        known_life: bool,
    ) -> Option<Box<Sealed>> {
        let (signed, (version, credential)) =
            (self.life.signed.as_ref()?, self.life.credential.as_ref()?);
        let says_more = self.reach.max_version > from
            || !known_life
            || self.record_version() > theirs.record
            || self.reach.gc_floor > theirs.gc_floor;
        let known = known_life && theirs.record >= *version;
        says_more.then(|| {
            Box::new(Sealed {
                seal: signed.seal,
                credential: (!known).then(|| Arc::clone(credential)),
                proof: Default::default(),
            })
        })
    }
}
