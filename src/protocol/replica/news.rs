//! New updates as they are sent, and the frames that others send unasked.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Replica,
    outcome::Outcome,
    outgoing::{hand_out, refused, relayed, tell},
};
use crate::protocol::{
    delta::{Delta, DeltaEntry},
    digest::DigestEntry,
    gate::Kind,
    gossip::{Gossip, Have, OWNERS_MAX},
    id::NodeId,
    map::{Budget, Refusal},
    push::{Fresh, Item, PUSH_BYTES_MAX},
    route::{Counter, Output, SchedulerInput, Target},
    time::Time,
    verdict::Level,
};

impl Replica {
    /// Sends the new updates, if it is time to, and asks for announced ones that have not come.
    pub(super) fn tell_news(&mut self, now: Time, out: &mut Vec<Output>) {
        if let Some(since) = self.own.pace.release_due(now) {
            self.push.note(since, None, false);
        }
        let turn = self.is_turn_to_tell(now, out);
        let fresh = if turn { self.push.take(now) } else { Vec::new() };
        if !fresh.is_empty() {
            if fresh.iter().any(|fresh| fresh.since.node == self.config.node) {
                self.seal_own();
            }
            let items = self.items(now, fresh);
            let introduces = items.iter().any(Item::introduces);
            let most = self.may_introduce(now, introduces);
            let bulk = &self.bulk;
            let fed = |peer: &NodeId, owner: &NodeId| bulk.is_feeding(now, peer, owner);
            let shares = self.push.share(now, &items, most, fed);
            let held = self.push.take_held();
            if held > 0 {
                out.push(Output::Count(Kind::Introduction.held(), held));
            }
            hand_out(&items, shares, out);
            self.pace(now, &items);
        }
        let mut asked: BTreeMap<NodeId, Vec<DigestEntry>> = BTreeMap::new();
        for (from, have) in self.push.overdue(now) {
            let coming = self.bulk.is_coming(now, &have.node);
            if self.lacks(&have) && self.push.is_linked(&from) && !coming {
                out.push(Output::Count(Counter::Grafts, 1));
                asked.entry(from).or_default().push(self.line(&have.node));
            }
        }
        for (from, lines) in asked {
            for lines in lines.chunks(OWNERS_MAX) {
                tell(vec![from.clone()], Gossip::Graft(lines.to_vec()), out);
            }
        }
        let mut waiting = self.push.overdue_exchanges(now);
        waiting.retain(|peer| self.gates_owed(now, peer, out));
        if !waiting.is_empty() {
            self.begin_round(waiting.into_iter().map(Target::Peer).collect(), out);
        }
        self.arm(now, out);
    }

    /// Counts the own updates sent, and checks whether the links, and this node, could take them.
    pub(super) fn pace(&mut self, now: Time, items: &[Item]) {
        let own = items.iter().filter(|item| item.delta.node == self.config.node);
        let entries: usize = own.map(|item| item.delta.entries.len()).sum();
        let crowded = self.push.is_crowded(now) || self.clock.is_overloaded(now);
        self.own.pace.sent(now, entries, crowded);
    }

    /// Cuts the updates from the maps as they are now. The rest follows.
    pub(super) fn items(&mut self, now: Time, fresh: Vec<Fresh>) -> Vec<Item> {
        let mut budget =
            Budget { bytes: PUSH_BYTES_MAX, entries: self.config.delta_entries, untouched: true };
        let mut items = Vec::with_capacity(fresh.len());
        for fresh in fresh {
            let node = &fresh.since.node;
            if self.forgotten.is_retired(node) {
                continue;
            }
            let Some(map) = self.map_of(node) else { continue };
            if map.staleness(&fresh.since).is_none() {
                continue;
            }
            if fresh.relayed {
                items.extend(relayed(now, map, fresh));
                continue;
            }
            let (room, full) = (budget.bytes, map.digest_entry(node.clone()));
            let Some((delta, cut)) = map.delta(now, &fresh.since, &mut budget) else {
                self.push.note(fresh.since, fresh.except.as_ref(), fresh.relayed);
                continue;
            };
            if cut {
                let since = DigestEntry { max_version: delta.to, ..full };
                self.push.note(since, fresh.except.as_ref(), fresh.relayed);
            }
            let bytes = room.saturating_sub(budget.bytes).saturating_sub(delta.sealed_len_max());
            items.push(Item { delta, bytes, noted: false, fresh });
        }
        items
    }

    /// A link has no room any more, or has room again: then it gets the updates that it has missed.
    pub(super) fn congested(
        &mut self,
        now: Time,
        peer: &NodeId,
        congested: bool,
        out: &mut Vec<Output>,
    ) {
        let mut owed = self.push.congested(peer, congested);
        owed.retain(|line| !self.bulk.is_feeding(now, peer, &line.node));
        if owed.is_empty() {
            return;
        }
        self.seal_own();
        let news = self.cut(now, owed.into_iter(), true);
        let more = news.more;
        tell(vec![peer.clone()], Gossip::Push(news), out);
        if more && self.may_owe(now, peer, out) {
            self.begin_round(vec![Target::Peer(peer.clone())], out);
        }
    }

    pub(super) fn gossip(
        &mut self,
        now: Time,
        from: &NodeId,
        gossip: Gossip,
        out: &mut Vec<Output>,
    ) {
        match gossip {
            Gossip::Root(root) => {
                out.push(Output::Scheduler(SchedulerInput::Root(from.clone(), root)));
            }
            Gossip::Push(news) => self.pushed(now, from, &news, out),
            Gossip::Have(haves) => {
                for have in haves {
                    if have.node == self.config.node {
                        self.told_of_past(from, &have, out);
                    } else if self.lacks(&have) {
                        let known = self.map_of(&have.node);
                        let known = known.is_some_and(|map| map.generation() == have.generation);
                        self.push.heard_of(now, from, have, known);
                    }
                }
            }
            Gossip::Graft(lines) => self.grafted(now, from, lines, out),
            Gossip::Prune(owners) => self.push.pruned(from, &owners),
            Gossip::Wave(wave) => self.waved(now, from, wave, out),
            Gossip::Echo(echo) => {
                let swells = self.waves.echo(now, from, echo);
                self.swell(now, swells, out);
            }
            Gossip::Ask(ask) => self.asked_about(now, from, ask, out),
            Gossip::Answer(answer) => self.answered(now, from, answer, out),
            Gossip::Accusation(accusation) => self.accused_by_others(now, from, accusation, out),
            Gossip::Removal(removal) => self.removed_by_others(now, from, removal, out),
            Gossip::Equivocation(evidence) => self.accuse_liar(from, Some(from), *evidence, out),
            Gossip::RevocationSum(sum) => self.told_revocation_sum(now, from, sum, out),
            Gossip::Revocations(told) => self.told_revocations(now, from, told, out),
        }
    }

    /// An update that a peer sends unasked. If it does not connect to our copy, the rest is requested.
    pub(super) fn pushed(&mut self, now: Time, from: &NodeId, news: &Delta, out: &mut Vec<Output>) {
        let (mut pruned, mut asked) = (Vec::new(), Vec::new());
        for (delta, outcome, before) in self.apply_together(now, from, &news.nodes, out) {
            match outcome {
                Outcome::News => {
                    if !delta.entries.is_empty() {
                        self.own.pace.heard(now, &delta.node);
                    }
                    self.push.arrived(from, &delta.node);
                    self.push.note(before.line, Some(from), false);
                }
                Outcome::Known => {
                    out.push(Output::Count(Counter::PushesRepeated, 1));
                    let bytes = delta.entries.iter().map(DeltaEntry::encoded_len_max).sum();
                    let has_keys = !delta.entries.is_empty();
                    // The owner's own edge is pruned last.
                    let relayed = *from != delta.node;
                    if relayed && has_keys && self.push.repeated(from, &delta.node, bytes) {
                        pruned.push(delta.node.clone());
                    }
                }
                Outcome::Unintroduced if delta.verdict.level != Level::Dead => {
                    asked.push(before.line);
                }
                Outcome::Refused(
                    Refusal::Gap | Refusal::Collected | Refusal::Mismatch | Refusal::NoCredential,
                ) => {
                    out.push(Output::Count(Counter::PushGaps, 1));
                    if !self.bulk.is_coming(now, &delta.node) {
                        asked.push(self.line(&delta.node));
                    }
                }
                Outcome::Refused(refusal) => refused(from, delta, refusal, out),
                Outcome::Unintroduced | Outcome::Ignored => {}
            }
        }
        asked.truncate(OWNERS_MAX);
        pruned.truncate(OWNERS_MAX);
        if !pruned.is_empty() {
            tell(vec![from.clone()], Gossip::Prune(pruned), out);
        }
        if !asked.is_empty() {
            tell(vec![from.clone()], Gossip::Graft(asked), out);
        }
    }

    /// A peer asks for the state of some owners that it lacks.
    pub(super) fn grafted(
        &mut self,
        now: Time,
        from: &NodeId,
        lines: Vec<DigestEntry>,
        out: &mut Vec<Output>,
    ) {
        lines.iter().for_each(|line| self.push.grafted(from, &line.node));
        if let Some(line) = lines.iter().find(|line| line.node == self.config.node) {
            self.inherit_floor(now, line.generation, line.gc_floor, out);
        }
        self.seal_own();
        let mut named = BTreeSet::new();
        let mut told = |line: &DigestEntry| {
            line.node != *from
                && named.insert(line.node.clone())
                && !self.forgotten.is_retired(&line.node)
                && !self.bulk.is_feeding(now, from, &line.node)
        };
        // It has not taken the earlier frames: this waits with them, and is cut once there is room.
        if self.push.is_congested(from) {
            lines.iter().filter(|line| told(line)).for_each(|line| self.push.owe(from, line));
            return;
        }
        let lacking = lines.into_iter().filter(|line| told(line)).filter(|line| {
            self.map_of(&line.node).is_some_and(|map| map.staleness(line).is_some())
        });
        let lacking: Vec<_> = lacking.collect();
        let news = self.cut(now, lacking.into_iter(), true);
        let more = news.more;
        if !news.is_empty() {
            tell(vec![from.clone()], Gossip::Push(news), out);
        }
        if more && self.may_owe(now, from, out) {
            // It is far behind: an exchange is the right way.
            self.begin_round(vec![Target::Peer(from.clone())], out);
        }
    }

    pub(super) fn lacks(&self, have: &Have) -> bool {
        if self.revoked.union.ends(&have.node, have.generation) {
            return false;
        }
        let Some(map) = self.map_of(&have.node) else { return true };
        have.node != self.config.node
            && (have.generation, have.version) > (map.generation(), map.max_version())
    }
}
