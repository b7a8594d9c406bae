//! How an item of a batch is told.

use std::{sync::Arc, time::Duration};

use super::{
    INTRODUCTIONS_PER_SECOND, Push,
    item::{Item, Plan},
};
use crate::protocol::{
    edges::Edges,
    id::{Datacenter, NodeId},
    mode::Mode,
    time::Time,
};

impl Push {
    pub(super) fn plan<'a>(
        &mut self,
        now: Time,
        item: &Item,
        lag: Duration,
        at: &impl Fn(&NodeId) -> Option<&'a Datacenter>,
    ) -> Plan {
        if item.is_verdict() {
            return Plan::Verdict;
        }
        let told = !item.noted
            && !item.introduces_others()
            && (!item.introduces() || self.may_introduce(now));
        let floods =
            item.fresh.mode == Mode::Flood && self.pace.relays_floods(now, item.bytes, lag);
        let course = item.course(&self.datacenter, &self.node, at);
        let lacks = |peer: &NodeId| self.links.get(peer).is_none_or(|link| link.congested);
        let broken = |edges: &Arc<Edges>| edges.is_broken(&course, lacks);
        match told {
            true if floods || !self.rules.trees => {
                let whole = self.edges.as_ref().is_some_and(|edges| !broken(edges));
                Plan::Flood { tree_first: whole && self.may_flood_later(item) }
            }
            true if !item.fresh.relayed => {
                let broken = self.edges.as_ref().is_some_and(broken);
                Plan::Tree { broken: broken || item.fresh.requested }
            }
            // Many nodes join. A peer that lacks them asks for several together.
            _ if item.introduces() => Plan::LateNotes,
            _ => Plan::Notes,
        }
    }

    /// Whether one more introduction may be told unasked; counts it.
    fn may_introduce(&mut self, now: Time) -> bool {
        let rate = f64::from(INTRODUCTIONS_PER_SECOND);
        let introductions = &mut self.introductions;
        if !introductions.bucket.pays_of(now, rate, rate) {
            return false;
        }
        let may = introductions.left > 0;
        introductions.left = introductions.left.saturating_sub(1);
        introductions.held += u64::from(!may);
        may
    }
}
