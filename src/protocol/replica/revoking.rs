//! Revocations: accepted if signed by an authority, sent to all, and enforced.

use std::sync::Arc;

use super::{
    Replica,
    outgoing::{hold_against, tell},
    quotas::Quota,
};
use crate::protocol::{
    durable::Change,
    write::{WriteError, Written},
};
use crate::protocol::{
    event::{Event, Problem},
    gossip::{Gossip, RevocationList},
    id::{Generation, NodeId},
    map::{NodeMap, Refusal},
    revocation::{Authorities, Revocation, RevocationError, Revocations, first_life_after},
    route::{Counter, Output},
    seal::Credential,
    time::Time,
};

impl Replica {
    /// Sets whose signatures count from now on, and checks whether this node itself is revoked.
    pub fn set_authorities(
        &mut self,
        now: Time,
        authorities: Arc<dyn Authorities>,
        out: &mut Vec<Output>,
    ) {
        authorities.enforce(&self.revoked.union);
        self.revoked.authorities = Some(authorities);
        self.look_at_self(now, out);
    }

    /// All statements that were taken.
    #[must_use]
    pub const fn revocations(&self) -> &Arc<Revocations> {
        &self.revoked.union
    }

    /// Takes a statement from this node's operator. A known statement changes nothing.
    ///
    /// # Errors
    /// [`WriteError::Revocation`] if it is not valid.
    pub fn revoke(
        &mut self,
        now: Time,
        statement: Revocation,
        out: &mut Vec<Output>,
    ) -> Result<Written, WriteError> {
        let version = self.own.map.max_version();
        if self.revoked.union.covers(&statement) {
            return Ok(Written { version, changed: false, persist: Vec::new() });
        }
        self.revoked.verify(self.clock.wall_seconds(now), &statement)?;
        let persist = self.take_statements(now, None, vec![statement], out);
        if persist.is_empty() {
            return Err(RevocationError::Full.into());
        }
        Ok(Written { version, changed: true, persist })
    }

    /// A peer sends statements. After the first forged one the rest is dropped: an honest node does not pass
    /// forged ones on, and each costs a verification.
    pub(super) fn told_revocations(
        &mut self,
        now: Time,
        from: &NodeId,
        told: RevocationList,
        out: &mut Vec<Output>,
    ) {
        let (mut fresh, mut refused) = (Vec::new(), 0);
        for statement in told.statements.iter().filter(|s| !self.revoked.union.covers(s)) {
            match self.revoked.verify(self.clock.wall_seconds(now), statement) {
                Ok(()) => fresh.push(statement.clone()),
                // Not an offence: clocks differ.
                Err(RevocationError::Expired) => {}
                Err(refusal) => {
                    let forged = matches!(refusal, RevocationError::Forged(_));
                    let (by, about) = (from.clone(), statement.node.clone());
                    let problem = Problem::RevocationRefused { from: by, about, refusal };
                    out.push(Output::Count(Counter::RevocationsRefused, 1));
                    refused += 1;
                    if refused == 1 || forged {
                        out.push(Output::Event(Event::Error(problem)));
                    }
                    if forged {
                        hold_against(from, Refusal::Forged.price(), out);
                        break;
                    }
                }
            }
        }
        let persist = self.take_statements(now, Some(from), fresh, out);
        if !persist.is_empty() {
            out.push(Output::Persist(persist));
        }
        let lacking = self.revoked.union.lacking(&told.statements);
        if told.all && !lacking.is_empty() && self.may_tell_revocations(now, from) {
            let list = RevocationList { statements: lacking, all: false };
            tell(vec![from.clone()], Gossip::Revocations(list), out);
        }
    }

    /// A peer sends the sum of its revocations. If ours differ, it is sent all of ours, and answers with the
    /// missing ones.
    pub(super) fn told_revocation_sum(
        &mut self,
        now: Time,
        from: &NodeId,
        sum: u64,
        out: &mut Vec<Output>,
    ) {
        if sum != self.revoked.union.sum() && self.may_tell_revocations(now, from) {
            let statements = self.revoked.union.iter().cloned().collect();
            let list = RevocationList { statements, all: true };
            tell(vec![from.clone()], Gossip::Revocations(list), out);
        }
    }

    /// Sends the sum to these, if there are any revocations.
    pub(super) fn tell_revocation_sum(&self, to: Vec<NodeId>, out: &mut Vec<Output>) {
        if !self.revoked.union.is_empty() && !to.is_empty() {
            tell(to, Gossip::RevocationSum(self.revoked.union.sum()), out);
        }
    }

    /// A peer sends state of a generation that is revoked: it may not know that.
    pub(super) fn refuse_revoked(&self, from: &NodeId, out: &mut Vec<Output>) {
        out.push(Output::Count(Counter::RevokedNewsRefused, 1));
        self.tell_revocation_sum(vec![from.clone()], out);
    }

    /// Now and then: drops statements whose certificates have all expired, and sends the sum to all. As
    /// statements are sent at once and sums are compared on every new connection, none should be missing
    /// anywhere; but a node that is sent too much at once drops some.
    pub(super) fn look_at_revocations(&mut self, now: Time, out: &mut Vec<Output>) {
        if !self.revoked.is_due(now) {
            return;
        }
        let seconds = self.clock.wall_seconds(now);
        let over = Arc::make_mut(&mut self.revoked.union).expire(seconds);
        if !over.is_empty() {
            out.push(Output::Persist(over.into_iter().map(Change::DropRevocation).collect()));
            self.enforce(out);
        }
        let links = self.push.links().cloned().collect();
        self.tell_revocation_sum(links, out);
    }

    /// Takes valid statements: sends them to all other nodes, and enforces them. Returns the changes that the
    /// store has to keep.
    fn take_statements(
        &mut self,
        now: Time,
        from: Option<&NodeId>,
        statements: Vec<Revocation>,
        out: &mut Vec<Output>,
    ) -> Vec<Change> {
        let (mut fresh, mut persist, mut earlier) = (Vec::new(), Vec::new(), Vec::new());
        for statement in statements {
            let before = self.revoked.union.cutoff(&statement.node);
            let union = Arc::make_mut(&mut self.revoked.union);
            let Some(replaced) = union.merge(statement.clone()) else { continue };
            persist.extend(replaced.into_iter().map(Change::DropRevocation));
            persist.push(Change::Revocation(statement.clone()));
            if before.is_none_or(|before| before < statement.cutoff) {
                earlier.push(statement.node.clone());
            }
            fresh.push(statement);
        }
        if fresh.is_empty() {
            return persist;
        }
        out.push(Output::Count(Counter::RevocationsTaken, fresh.len() as u64));
        let to = self.push.links().filter(|peer| Some(*peer) != from).cloned().collect();
        let list = RevocationList { statements: fresh, all: false };
        tell(to, Gossip::Revocations(list), out);
        self.enforce(out);
        for node in earlier {
            self.cut_off(now, &node, out);
        }
        persist
    }

    /// A node has a later cutoff than before: its generation until then is over, here and at once.
    fn cut_off(&mut self, now: Time, node: &NodeId, out: &mut Vec<Output>) {
        if *node == self.config.node {
            return self.look_at_self(now, out);
        }
        let cutoff = self.revoked.union.cutoff(node).unwrap_or_default();
        out.push(Output::Event(Event::PeerRevoked { peer: node.clone(), cutoff }));
        let copy = self.copies.get(node);
        if copy.is_some_and(|copy| self.is_over(node, copy)) {
            self.drop_copy(node, false, out);
        }
    }

    /// A node whose certificate is revoked ends. If it has a later one by now, only the generation that it
    /// began with the earlier one is over.
    fn look_at_self(&mut self, now: Time, out: &mut Vec<Output>) {
        let Some(cutoff) = self.revoked.union.cutoff(&self.config.node) else { return };
        let Some(authorities) = &self.revoked.authorities else { return };
        let over = self.revoked.union.ends(&self.config.node, self.own.map.generation());
        if authorities.valid_from().map_or(over, |at| at <= cutoff) {
            out.push(Output::Stop(Problem::Revoked { cutoff }));
        } else if over {
            let before = self.before(&self.config.node);
            let by_clock = Generation(self.clock.wall_seconds(now).saturating_mul(1_000));
            self.own.map.renew_alone(by_clock.max(first_life_after(cutoff)));
            let persist = self.write_record(self.own_record());
            out.push(Output::Persist(persist));
            self.touched_own(now, before, out);
        }
    }

    /// Whether a generation had begun by the cutoff, or has only an earlier certificate.
    fn is_over(&self, node: &NodeId, copy: &NodeMap) -> bool {
        let refused = |credential: &Credential| {
            let seals = self.signing.seals.as_ref();
            seals
                .is_some_and(|seals| seals.notary.vet(node, copy.generation(), credential).is_err())
        };
        self.revoked.union.ends(node, copy.generation())
            || copy.credential().is_some_and(|c| refused(c))
    }

    fn enforce(&self, out: &mut Vec<Output>) {
        if let Some(authorities) = &self.revoked.authorities {
            authorities.enforce(&self.revoked.union);
        }
        out.push(Output::Revoked(Arc::clone(&self.revoked.union)));
    }

    fn may_tell_revocations(&mut self, now: Time, to: &NodeId) -> bool {
        self.quotas.may(now, Quota::Revocations, to) && self.revoked.may_tell(now)
    }
}
