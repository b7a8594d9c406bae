//! New updates as they are sent, and the frames that others send unasked.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Replica,
    outcome::Outcome,
    outgoing::{hand_out, refused, relayed, tell},
};
use crate::protocol::{
    delta::Delta,
    digest::DigestEntry,
    gate::Kind,
    gossip::{Gossip, Have, OWNERS_MAX},
    id::{Generation, NodeId, Version},
    map::{Budget, Refusal},
    mode::Mode,
    push::{Fresh, Item, Limits, Missed, PUSH_BYTES_MAX},
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
            let (copies, own) = (&self.copies, &self.own.map);
            let at = |owner: &NodeId| {
                let map = copies.get(owner).map_or(own, Arc::as_ref);
                map.record().map(|record| &record.datacenter)
            };
            let limits = Limits { introductions: most, lag: self.clock.lag() };
            let shares = self.push.share(now, &items, limits, at, fed);
            let held = self.push.take_held();
            if held > 0 {
                out.push(Output::Count(Kind::Introduction.held(), held));
            }
            hand_out(&items, shares, out);
            self.pace(now, &items);
            let wanted = self.push.wants_edges(now, &items);
            let wanted = wanted.map(|has| SchedulerInput::EdgesWanted { has });
            out.extend(wanted.map(Output::Scheduler));
        }
        self.tell_floods(now, out);
        self.tell_notes(now, out);
        self.request(now, out);
        let mut waiting = self.push.overdue_exchanges(now);
        waiting.retain(|peer| self.gates_owed(now, peer, out));
        if !waiting.is_empty() {
            self.begin_round(waiting.into_iter().map(Target::Peer).collect(), out);
        }
        self.arm(now, out);
    }

    /// Sends what floods over the links beside the tree.
    fn tell_floods(&mut self, now: Time, out: &mut Vec<Output>) {
        for (since, mut peers) in self.push.take_floods(now, self.clock.lag()) {
            peers.retain(|peer| !self.bulk.is_feeding(now, peer, &since.node));
            if peers.is_empty() || self.noted_head(&since.node).is_none() {
                continue;
            }
            if since.node == self.config.node {
                self.seal_own();
            }
            let news = self.cut(now, std::iter::once(since), true);
            if !news.is_empty() {
                peers.iter().for_each(|peer| self.push.sent(now, peer, &news));
                tell(peers, Gossip::of_news(Mode::Flood, news), out);
            }
        }
    }

    /// Sends the notes that are due: all of one link in as few frames as there can be.
    fn tell_notes(&mut self, now: Time, out: &mut Vec<Output>) {
        let due = self.push.take_notes(now);
        let mut groups: BTreeMap<Vec<NodeId>, Vec<NodeId>> = BTreeMap::new();
        for (peer, owners) in due {
            let lacks = |(owner, has): (NodeId, _)| {
                self.noted_head(&owner).is_some_and(|head| head > has).then_some(owner)
            };
            let owners: Vec<_> = owners.into_iter().filter_map(lacks).collect();
            if !owners.is_empty() {
                groups.entry(owners).or_default().push(peer);
            }
        }
        for (owners, peers) in groups {
            self.note_all(peers, owners.iter(), out);
        }
    }

    /// Sends peers notes of these owners.
    fn note_all<'a>(
        &self,
        to: Vec<NodeId>,
        owners: impl Iterator<Item = &'a NodeId>,
        out: &mut Vec<Output>,
    ) {
        let have = |node: &NodeId| {
            let (generation, version) = self.noted_head(node)?;
            Some(Have { node: node.clone(), generation, version })
        };
        let haves: Vec<_> = owners.filter_map(have).collect();
        out.push(Output::Count(Counter::Notes, (haves.len() * to.len()) as u64));
        for haves in haves.chunks(OWNERS_MAX) {
            tell(to.clone(), Gossip::Have(haves.to_vec()), out);
        }
    }

    /// How far the map of an owner reaches here, if others are to be told: exchanges tell what is left of the dead.
    fn noted_head(&self, owner: &NodeId) -> Option<(Generation, Version)> {
        let told = !self.forgotten.is_retired(owner) && !self.is_gone(owner);
        let map = self.map_of(owner).filter(|map| told && map.is_whole())?;
        Some((map.generation(), map.max_version()))
    }

    /// Asks for announced updates that have not come.
    fn request(&mut self, now: Time, out: &mut Vec<Output>) {
        let mut lacked = self.push.awaited(now);
        lacked.retain(|have| self.lacks(have) && !self.bulk.is_coming(now, &have.node));
        let lacked: BTreeSet<_> = lacked.into_iter().map(|have| have.node).collect();
        for (peer, owners) in self.push.overdue(now, &lacked) {
            out.push(Output::Count(Counter::Grafts, owners.len() as u64));
            let lines: Vec<_> = owners.iter().map(|owner| self.line(owner)).collect();
            for lines in lines.chunks(OWNERS_MAX) {
                tell(vec![peer.clone()], Gossip::Graft(lines.to_vec()), out);
            }
        }
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
                self.push.put_back(fresh);
                continue;
            };
            if cut {
                let since = DigestEntry { max_version: delta.to, ..full };
                self.push.put_back(Fresh { since, ..fresh.clone() });
            }
            let bytes = room.saturating_sub(budget.bytes).saturating_sub(delta.sealed_len_max());
            let mut item = Item { delta, bytes, noted: false, fresh };
            if item.delta.node == self.config.node && !item.is_verdict() {
                item.fresh.mode = self.push.choose(now, bytes, self.clock.lag());
            }
            items.push(item);
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
        let missed = self.push.congested(peer, congested);
        let Missed { mut owed, shed } = missed;
        self.note_all(vec![peer.clone()], shed.iter(), out);
        owed.retain(|line| !self.bulk.is_feeding(now, peer, &line.node));
        if owed.is_empty() {
            return;
        }
        self.seal_own();
        let news = self.cut(now, owed.into_iter(), true);
        let more = news.more;
        self.send(now, peer, news, out);
        if more && self.may_owe(now, peer, out) {
            self.begin_round(vec![Target::Peer(peer.clone())], out);
        }
    }

    /// Sends a peer updates that it lacks.
    fn send(&mut self, now: Time, peer: &NodeId, news: Delta, out: &mut Vec<Output>) {
        self.push.sent(now, peer, &news);
        let mode = self.push.mode_on_request(now);
        tell(vec![peer.clone()], Gossip::of_news(mode, news), out);
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
            Gossip::Push(news) => self.pushed(now, from, Mode::Flood, &news, out),
            Gossip::Tree(news) => self.pushed(now, from, Mode::Tree, &news, out),
            Gossip::Have(haves) => {
                self.push.was_noted(now, from);
                for have in haves {
                    let head = (have.generation, have.version);
                    self.push.reaches(now, from, &have.node, head);
                    if have.node == self.config.node {
                        self.told_of_past(from, &have, out);
                    } else if self.lacks(&have) {
                        let known = self.map_of(&have.node);
                        let known = known.is_some_and(|map| map.generation() == have.generation);
                        self.push.heard_of(now, from, have, known, self.clock.lag());
                    }
                }
            }
            Gossip::Graft(lines) => self.grafted(now, from, lines, out),
            // Only of an earlier version: this node prunes nobody, and what it floods it floods to all.
            Gossip::Prune(_) => {}
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
    pub(super) fn pushed(
        &mut self,
        now: Time,
        from: &NodeId,
        mode: Mode,
        news: &Delta,
        out: &mut Vec<Output>,
    ) {
        let mut asked = Vec::new();
        for (delta, outcome, before) in self.apply_together(now, from, &news.nodes, out) {
            match outcome {
                Outcome::News => {
                    if !delta.entries.is_empty() {
                        self.own.pace.heard(now, &delta.node);
                    }
                    let requested = self.push.arrived(now, from, delta, true);
                    self.push.pass_on(before.line, from, mode, requested);
                }
                Outcome::Known => {
                    out.push(Output::Count(Counter::PushesRepeated, 1));
                    self.push.arrived(now, from, delta, false);
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
        for line in &lines {
            self.push.reaches(now, from, &line.node, (line.generation, line.max_version));
        }
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
            self.send(now, from, news, out);
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
