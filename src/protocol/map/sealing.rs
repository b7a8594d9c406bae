//! The signed state of a map, and the credential of the key.

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
    /// The last signed head of this generation, without entries: it alone shows that its key has lived in the
    /// generation. `None` if the owner signs nothing, or its record has changed since.
    #[must_use]
    pub fn signed_head(&self, node: &NodeId) -> Option<NodeDelta> {
        let record = self.life.record.as_ref().map(|(version, record)| (*version, &**record));
        let signed = self.life.signed.as_deref()?;
        signed.head(node, (self.life.generation, &self.life.ancestry), record, self.credential()?)
    }

    /// The credential of the key that signs this generation.
    #[must_use]
    pub fn credential(&self) -> Option<&Arc<Credential>> {
        self.life.credential.as_ref().map(|(_, credential)| credential)
    }

    /// The credential, with the version of the record that it came with.
    #[must_use]
    pub fn credential_version(&self) -> Option<(Version, Arc<Credential>)> {
        self.life.credential.clone()
    }

    /// The owner's last signed head of this map.
    #[must_use]
    pub const fn signed(&self) -> Option<&Arc<Signed>> {
        self.life.signed.as_ref()
    }

    /// An upper bound of the bytes of the owner's signature and certificate.
    #[must_use]
    pub fn sealed_len_max(&self) -> usize {
        self.life
            .signed
            .as_ref()
            .map_or(0, |_| Sealed::header_len_max(self.credential().map(|known| &**known)))
    }

    /// Whether this copy is exactly the owner's last signed state; or the owner signs nothing.
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

    /// The head of this map to be signed.
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

    /// Remembers the credential of this generation; `version`: that of the record it goes with. Returns
    /// whether it had been requested.
    pub fn set_credential(&mut self, credential: Option<(Version, Arc<Credential>)>) -> bool {
        self.life.credential = credential;
        std::mem::replace(&mut self.life.unvouched, false)
    }

    /// Takes over a received credential of this generation, unless a later one is known: a peer that brings
    /// back the former one would make everything signed since look forged. Returns whether it had been
    /// requested.
    pub fn vouch(&mut self, told: (Version, Arc<Credential>)) -> bool {
        let is_later = self.life.credential.as_ref().is_none_or(|(known, _)| *known < told.0);
        is_later && self.set_credential(Some(told))
    }

    /// The owner signs with a key that is not known here: its credential is requested with the record.
    /// Returns whether that is new.
    pub fn ask_for_credential(&mut self) -> bool {
        self.life.credential.is_none() && !std::mem::replace(&mut self.life.unvouched, true)
    }

    /// Remembers the owner's signed head of this map as it is.
    pub fn set_seal(&mut self, seal: Option<Seal>) {
        let (gc_floor, torn) = (self.reach.gc_floor, self.reach.torn);
        self.life.signed = seal.map(|seal| Arc::new(Signed { seal, gc_floor, torn }));
    }

    /// The signed head does not follow from this copy: from now on the whole map is requested, and replaces
    /// this copy once it is complete. Returns whether that is new.
    ///
    /// Any relay can cause this with a signature and a spoiled update, for a few bytes, and a map may be
    /// large: it is not requested more than once within [`DOUBT_INTERVAL`](super::DOUBT_INTERVAL).
    pub fn doubt(&mut self, now: Time) -> bool {
        if !self.doubt.may_arise(now) {
            return false;
        }
        // The staged copy does not fit either.
        let grew = self.staged.take().is_some();
        self.doubt.arise(now) || grew
    }

    /// The owner's signature, unless the update is no more than a verdict on the owner.
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
