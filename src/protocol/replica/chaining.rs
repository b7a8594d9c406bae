//! Updates that arrive together: the heads of one owner follow from each other, so that the last one is verified
//! for all of them.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Replica,
    outcome::{Before, Outcome},
};
use crate::protocol::{
    delta::NodeDelta,
    id::NodeId,
    map::{Applied, NodeMap},
    route::{Counter, Output},
    seal::Head,
    time::Time,
};

/// An update, what came of it, and the line of its owner before it.
pub(super) type Taken<'a> = (&'a NodeDelta, Outcome, Before);

impl Replica {
    /// Applies updates that have arrived together from one peer, those of each owner in their order. Of several
    /// that were applied as one only the last is returned, with the line before the first.
    pub(super) fn apply_together<'a>(
        &mut self,
        now: Time,
        from: &NodeId,
        updates: &'a [NodeDelta],
        out: &mut Vec<Output>,
    ) -> Vec<Taken<'a>> {
        let mut places: BTreeMap<&NodeId, usize> = BTreeMap::new();
        let mut owners: Vec<Vec<&NodeDelta>> = Vec::with_capacity(updates.len());
        for delta in updates {
            let place = *places.entry(&delta.node).or_insert(owners.len());
            match owners.get_mut(place) {
                Some(owner) => owner.push(delta),
                None => owners.push(vec![delta]),
            }
        }
        let mut taken = Vec::with_capacity(updates.len());
        for owner in owners {
            self.apply_in_order(now, from, &owner, &mut taken, out);
        }
        taken
    }

    /// Applies updates of one owner. Several that connect are applied to the copy at once, and only the last
    /// head is verified, over the root that results. If that fails, they are undone and applied one by one: a
    /// forged update costs no honest one. Nothing of them is shown, sent or summed before.
    fn apply_in_order<'a>(
        &mut self,
        now: Time,
        from: &NodeId,
        updates: &[&'a NodeDelta],
        taken: &mut Vec<Taken<'a>>,
        out: &mut Vec<Output>,
    ) {
        let mut rest = updates;
        while let Some(first) = rest.first() {
            let chained = if rest.len() > 1 { self.chain(now, from, rest) } else { 1 };
            let (these, others) = rest.split_at(chained.max(1));
            rest = others;
            if let [.., last] = these
                && these.len() > 1
            {
                let before = self.before(&first.node);
                if let Some(applied) = self.apply_chain(now, these, out) {
                    let outcome = self.applied(last, None, applied, &before, out);
                    taken.push((last, outcome, before));
                    continue;
                }
            }
            for delta in these {
                let before = self.before(&delta.node);
                let outcome = self.apply_one(now, from, delta, &before, out);
                taken.push((delta, outcome, before));
            }
        }
    }

    /// How many of these updates of one owner may be applied at once.
    fn chain(&self, now: Time, from: &NodeId, updates: &[&NodeDelta]) -> usize {
        let Some(owner) = updates.first().map(|delta| &delta.node) else { return 0 };
        let Some(copy) = self.copies.get(owner).filter(|_| self.knows_seals()) else { return 0 };
        let life = (copy.generation(), copy.verdict().incarnation);
        let barred = self.is_absurd(now, life.0)
            || self.revoked.union.ends(owner, life.0)
            || self.forgotten.marks.against(from, owner, life).is_some();
        if barred || !self.config.rules.verify_once { 0 } else { copy.chain(updates) }
    }

    /// Applies a chain of updates; `None` if its last head does not verify, and then nothing has changed.
    fn apply_chain(
        &mut self,
        now: Time,
        updates: &[&NodeDelta],
        out: &mut Vec<Output>,
    ) -> Option<Applied> {
        let (last, covered) = updates.split_last()?;
        let seals = self.signing.seals.clone()?;
        let copy = Arc::make_mut(self.copies.get_mut(&last.node)?);
        let examined = copy.examined();
        let applied =
            copy.apply_chain(now, updates, &self.config.limits, |copy: &NodeMap, seal| {
                out.push(Output::Count(Counter::SealsVerified, 1));
                let head = Head { torn: last.torn, ..copy.head(&last.node, seal.root) };
                let digest = head.digest(seals.notary.cluster());
                copy.credential().is_some_and(|known| known.key.verifies(&digest, &seal.signature))
            });
        out.push(Output::Count(Counter::EntriesExamined, copy.examined() - examined));
        if applied.is_some() {
            let of_others: usize = covered.iter().map(|delta| delta.entries.len()).sum();
            let all = of_others + last.entries.len();
            out.push(Output::Count(Counter::EntriesReceived, all as u64));
            // Those of the last one are counted where its outcome is.
            out.push(Output::Count(Counter::EntriesApplied, of_others as u64));
            out.push(Output::Count(Counter::SealsCovered, covered.len() as u64));
        }
        applied
    }
}
