//! Signs this node's own map, and verifies the signatures of others' updates.

use std::sync::Arc;

use super::{
    Replica,
    outcome::{Before, Outcome},
    outgoing::{hold_against, tell},
    quotas::Quota,
    signing::Signer,
};
use crate::protocol::{
    claim::{Claim, Heard, Proof},
    delta::NodeDelta,
    event::{Event, Problem},
    gossip::{Equivocation, Gossip, SignedHead},
    id::{Generation, NodeId, Version},
    map::{NodeMap, Refusal, Signed},
    record::NodeRecord,
    route::{Counter, Output},
    seal::{Credential, Head, Objection, Seal, Seals, Signing},
    time::Time,
};

/// The result of checking the signature of an update.
#[derive(Debug)]
pub(super) enum Vetted {
    /// The owner signs nothing.
    Bare,
    /// It has only a verdict on the owner, which is not signed.
    Verdict,
    /// The owner has signed it; its credential is new, if one is given.
    Signed(Option<(Version, Arc<Credential>)>),
}

impl Replica {
    /// Signs the present state of this node's map, if the node signs and the map has changed since.
    pub(super) fn seal_own(&mut self) {
        let Some(seals) = self.signing.seals.clone().filter(|seals| seals.signing != Signing::Off)
        else {
            return;
        };
        let generation = self.own.map.generation();
        if !self.signing.has_key(generation) {
            let Some((signer, credential)) = self.begin_to_sign(&seals) else { return };
            self.sign_with(signer, credential);
        }
        if self.own.map.signed().is_some() && self.own.map.is_whole() {
            return;
        }
        let Some(signer) = self.signing.signer() else { return };
        let root = self.own.map.root();
        let head = self.own.map.head(&self.config.node, root);
        let Some(signature) = signer.signer.sign(&head.digest(seals.notary.cluster())) else {
            let of = signer.of;
            return self.signing.fail(of, "its key does not sign".to_owned());
        };
        let (upto, record) = (self.own.map.max_version(), self.own.map.record_version());
        self.own.map.set_seal(Some(Seal { upto, record, root, signature }));
    }

    /// Makes a key for this generation, or a new credential with another certificate. If a certificate cannot
    /// vouch for it now, it cannot later either.
    fn begin_to_sign(&mut self, seals: &Seals) -> Option<(Signer, Credential)> {
        let of = (self.own.map.generation(), seals.notary.revision());
        if self.signing.is_unable(of) {
            return None;
        }
        match seals.notary.begin(&self.config.node, of.0) {
            Ok((signer, credential)) => Some((Signer { signer, of }, credential)),
            Err(reason) => {
                self.signing.fail(of, reason);
                None
            }
        }
    }

    fn sign_with(&mut self, signer: Signer, credential: Credential) {
        // A peer with the record has the credential.
        let version = self.own.map.record_version();
        self.own.map.set_credential(Some((version, Arc::new(credential))));
        self.signing.set_signer(signer);
    }

    /// The certificate has changed: others need a credential of this generation with the new one.
    pub fn renew_credential(&mut self, now: Time, out: &mut Vec<Output>) {
        let Some(seals) = self.signing.seals.clone() else { return };
        let revision = seals.notary.revision();
        if !self.signing.is_outdated(revision) {
            return;
        }
        // Otherwise the former one continues to vouch for it.
        let Some((signer, credential)) = self.begin_to_sign(&seals) else { return };
        let before = self.before(&self.config.node);
        let persist = self.write_record(self.own_record());
        self.sign_with(signer, credential);
        out.push(Output::Persist(persist));
        self.touched_own(now, before, out);
    }

    /// Whether an update is the owner's signed state, as far as that can be checked without its entries.
    ///
    /// # Errors
    /// [`Refusal`], of which [`Refusal::Gap`] is not an offence.
    pub(super) fn vet(
        &self,
        now: Time,
        delta: &NodeDelta,
        out: &mut Vec<Output>,
    ) -> Result<Vetted, Refusal> {
        let Some(seals) = &self.signing.seals else { return Ok(Vetted::Bare) };
        let copy = self.copies.get(&delta.node).map(Arc::as_ref);
        if copy.is_some_and(|copy| copy.generation() > delta.generation) {
            return Err(Refusal::OldGeneration);
        }
        // The credential that has vouched for this node so far, in any generation.
        let shown = copy.and_then(NodeMap::credential);
        let copy = copy.filter(|copy| copy.generation() == delta.generation);
        let Some(sealed) = &delta.sealed else {
            let says_no_more = copy.is_some_and(|copy| {
                delta.entries.is_empty()
                    && delta.record.is_none()
                    && delta.to <= copy.max_version()
                    && delta.gc_floor <= copy.gc_floor()
            });
            let signs = copy.is_some_and(|copy| copy.credential().is_some());
            let bare = Claim::NewLife.is_proved_by(self.heads(), Proof::Member);
            return match (says_no_more, signs || !bare) {
                (true, true) => Ok(Vetted::Verdict),
                (false, true) => Err(Refusal::Unsigned),
                (_, false) => Ok(Vetted::Bare),
            };
        };
        let record = told_record(delta, copy, sealed.seal.record)?;
        let ancestry = copy.map_or(&delta.ancestry[..], |copy| copy.ancestry());
        let known = copy.and_then(NodeMap::credential);
        let credential = match (&sealed.credential, known) {
            (Some(told), known) => Ok((told, known == Some(told))),
            (None, Some(known)) => Ok((known, true)),
            (None, None) => Err(Refusal::NoCredential),
        };
        let (credential, vetted) = credential?;
        let head = Head {
            node: &delta.node,
            generation: delta.generation,
            ancestry,
            max_version: sealed.seal.upto,
            gc_floor: delta.gc_floor,
            torn: delta.torn,
            record,
            root: sealed.seal.root,
        };
        let digest = head.digest(seals.notary.cluster());
        let signed = (&digest, &sealed.seal.signature);
        out.push(Output::Count(Counter::SealsVerified, 1));
        if vetted {
            if !credential.key.verifies(signed.0, signed.1) {
                return Err(Refusal::Forged);
            }
            placed(seals, credential, delta)?;
            return Ok(Vetted::Signed(None));
        }
        out.push(Output::Count(Counter::CredentialsVetted, 1));
        let taken = seals.notary.introduce(&delta.node, delta.generation, credential, signed);
        let taken = taken.map_err(|objection| match objection {
            Objection::Signature => Refusal::Forged,
            Objection::Credential => Refusal::BadCredential,
        })?;
        placed(seals, &taken, delta)?;
        // Also an update that changes no credential here could change entries.
        self.vouches(now, seals, (&taken, delta.generation), shown.map(|known| &**known))?;
        Ok(Vetted::Signed(Some((sealed.seal.record, taken))))
    }

    /// Whether the certificate of a credential vouches for a generation, now and after the one shown before.
    ///
    /// # Errors
    /// [`Refusal::BadCredential`]: it never can. [`Refusal::Untimely`]: not now, or not any more.
    fn vouches(
        &self,
        now: Time,
        seals: &Seals,
        (credential, life): (&Credential, Generation),
        before: Option<&Credential>,
    ) -> Result<(), Refusal> {
        let Some(certified) = seals.notary.certified(credential) else { return Ok(()) };
        if !certified.reaches(life) {
            return Err(Refusal::BadCredential);
        }
        let before = before.and_then(|before| seals.notary.certified(before));
        let timely = certified.has_begun(self.clock.generation(now))
            && before.is_none_or(|before| certified.succeeds(&before));
        if timely { Ok(()) } else { Err(Refusal::Untimely) }
    }

    /// An update of this node's own name. Only this node writes its map: the update can only show that there
    /// is a later generation than ours, and the verdict of others on this one.
    pub(super) fn told_of_self(
        &mut self,
        now: Time,
        from: &NodeId,
        delta: &NodeDelta,
        out: &mut Vec<Output>,
    ) -> Outcome {
        self.judged_by_others(now, delta.generation, delta.verdict, out);
        let upto = delta.sealed.as_ref().map_or(delta.to, |sealed| sealed.seal.upto);
        let later = delta.generation > self.own.map.generation()
            || (delta.sealed.is_some() && self.is_later_self(delta.generation, upto));
        if !later {
            return Outcome::Ignored;
        }
        let by = match self.vet_own_name(now, from, delta, out) {
            Ok(Some(signed)) => signed,
            Ok(None) => Heard::Said(from.clone()),
            Err(refusal) => return Outcome::Refused(refusal),
        };
        self.heard_of_self(now, delta.generation, by, out);
        Outcome::Ignored
    }

    /// How a head of our name is signed, if it is with a key for which a certificate of our name vouches.
    ///
    /// # Errors
    /// [`Refusal`]: it is signed, and not by such a key.
    fn vet_own_name(
        &mut self,
        now: Time,
        from: &NodeId,
        delta: &NodeDelta,
        out: &mut Vec<Output>,
    ) -> Result<Option<Heard>, Refusal> {
        let (Some(seals), Some(sealed)) = (&self.signing.seals, &delta.sealed) else {
            return Ok(None);
        };
        let Some(credential) = &sealed.credential else { return Ok(None) };
        if self.is_absurd(now, delta.generation) {
            return Err(Refusal::Malformed);
        }
        if !self.quotas.may(now, Quota::OwnHeads, from) {
            return Ok(None);
        }
        let head = Head {
            node: &delta.node,
            generation: delta.generation,
            ancestry: &delta.ancestry,
            max_version: sealed.seal.upto,
            gc_floor: delta.gc_floor,
            torn: delta.torn,
            record: told_record(delta, None, sealed.seal.record)?,
            root: sealed.seal.root,
        };
        out.push(Output::Count(Counter::SealsVerified, 1));
        out.push(Output::Count(Counter::CredentialsVetted, 1));
        let digest = head.digest(seals.notary.cluster());
        let signed = (&digest, &sealed.seal.signature);
        match seals.notary.introduce(&delta.node, delta.generation, credential, signed) {
            Ok(taken) => {
                let life = (&*taken, delta.generation);
                self.vouches(now, seals, life, None)?;
                let own = self.own.map.credential().map(|known| &**known);
                Ok(Some(match self.vouches(now, seals, life, own) {
                    Ok(()) => Heard::Signed,
                    Err(_) => Heard::SignedBefore,
                }))
            }
            Err(Objection::Signature) => Err(Refusal::Forged),
            Err(Objection::Credential) => Err(Refusal::BadCredential),
        }
    }

    /// Whether the update differs from our copy, though the owner has signed both.
    pub(super) fn equivocates(&mut self, from: &NodeId, delta: &NodeDelta, out: &mut Vec<Output>) {
        let Some(sealed) = &delta.sealed else { return };
        let Some(copy) = self.copies.get(&delta.node) else { return };
        let Some(signed) = copy.signed().filter(|_| copy.generation() == delta.generation) else {
            return;
        };
        let same = (signed.seal.upto, signed.gc_floor) == (sealed.seal.upto, delta.gc_floor);
        if !same || signed.seal.root == sealed.seal.root || self.signing.is_liar(&delta.node) {
            return;
        }
        let record = |version| {
            let here = copy.record().map(|record| (copy.record_version(), (**record).clone()));
            delta.record.clone().into_iter().chain(here).find(|(at, _)| *at == version)
        };
        let head = |signed: &Signed| SignedHead {
            ancestry: copy.ancestry().to_vec(),
            gc_floor: signed.gc_floor,
            torn: signed.torn,
            record: record(signed.seal.record),
            seal: signed.seal,
        };
        let other = Signed { seal: sealed.seal, gc_floor: delta.gc_floor, torn: delta.torn };
        let (node, generation) = (delta.node.clone(), delta.generation);
        let heads = [head(signed), head(&other)];
        self.accuse_liar(from, None, Equivocation { node, generation, heads }, out);
    }

    /// `by` shows two states that a node has signed as one. If that is true, all other nodes are shown it;
    /// `from` knows it already. If not, two signatures were verified in vain.
    pub(super) fn accuse_liar(
        &mut self,
        by: &NodeId,
        from: Option<&NodeId>,
        evidence: Equivocation,
        out: &mut Vec<Output>,
    ) {
        let node = &evidence.node;
        if self.signing.is_liar(node) || !self.signing.may_find_liar() {
            return;
        }
        let Some(seals) = &self.signing.seals else { return };
        let copy = self.map_of(node).filter(|copy| copy.generation() == evidence.generation);
        let Some(key) = copy.and_then(NodeMap::credential).map(|credential| credential.key) else {
            return;
        };
        let [one, other] = &evidence.heads;
        let place = |head: &SignedHead| (head.seal.upto, head.gc_floor);
        let verifies = |head: &SignedHead| {
            let record = head.record.as_ref().map(|(version, record)| (*version, record));
            let signed = Head {
                node,
                generation: evidence.generation,
                ancestry: &head.ancestry,
                max_version: head.seal.upto,
                gc_floor: head.gc_floor,
                torn: head.torn,
                record,
                root: head.seal.root,
            };
            key.verifies(&signed.digest(seals.notary.cluster()), &head.seal.signature)
        };
        if place(one) != place(other) || one.seal.root == other.seal.root {
            return;
        }
        out.push(Output::Count(Counter::SealsVerified, 2));
        if !verifies(one) || !verifies(other) {
            return hold_against(by, Refusal::Forged.price(), out);
        }
        self.signing.found_liar(node.clone());
        out.push(Output::Count(Counter::Equivocations, 1));
        let peer = node.clone();
        out.push(Output::Event(Event::Error(Problem::Equivocation { peer })));
        let others = self.push.links().filter(|peer| Some(*peer) != from && **peer != *node);
        let others: Vec<_> = others.cloned().collect();
        if !others.is_empty() {
            tell(others, Gossip::Equivocation(Box::new(evidence)), out);
        }
    }
}

impl Replica {
    /// From now on this node signs what it sends and verifies what it receives, as this specifies.
    pub fn set_seals(&mut self, seals: Option<Seals>) {
        self.signing.seals = seals;
    }

    /// Whether anything is signed or verified.
    #[must_use]
    pub const fn knows_seals(&self) -> bool {
        self.signing.seals.is_some()
    }

    /// The update cannot be judged by the state here: more is to be requested.
    pub(super) fn ask_for_more(
        &mut self,
        now: Time,
        refusal: Refusal,
        delta: &NodeDelta,
        before: &Before,
    ) {
        let Some(copy) = self.copies.get_mut(&delta.node) else { return };
        // The credential of another generation is sent with it anyway. But if the update does not fit, our
        // copy may be the wrong one, and the next generation continues from that.
        if refusal != Refusal::Mismatch && copy.generation() != delta.generation {
            return;
        }
        let copy = Arc::make_mut(copy);
        let is_new = match refusal {
            Refusal::Mismatch => copy.doubt(now),
            Refusal::NoCredential => copy.ask_for_credential(),
            _ => false,
        };
        if is_new {
            self.touched(before);
        }
    }
}

/// Whether the record of an update names the datacenter that the certificate names.
///
/// # Errors
/// [`Refusal::Misplaced`].
fn placed(seals: &Seals, credential: &Credential, delta: &NodeDelta) -> Result<(), Refusal> {
    let Some((_, record)) = &delta.record else { return Ok(()) };
    match seals.notary.certified(credential) {
        Some(certified) if !certified.places(&record.datacenter) => Err(Refusal::Misplaced),
        _ => Ok(()),
    }
}

/// The signed record: the one in the update, or the one here.
fn told_record<'a>(
    delta: &'a NodeDelta,
    copy: Option<&'a NodeMap>,
    signed: Version,
) -> Result<Option<(Version, &'a NodeRecord)>, Refusal> {
    let told = delta.record.as_ref().map(|(version, record)| (*version, record));
    let here = copy.and_then(|copy| Some((copy.record_version(), &**copy.record()?)));
    // Another one has come meanwhile: then the update is old, or from a peer that is behind.
    let record = told.or(here).filter(|(version, _)| *version == signed);
    record.map(Some).ok_or(Refusal::Gap)
}
