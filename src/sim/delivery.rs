//! The routing table: what the actors are in production.

use std::{collections::VecDeque, time::Duration};

use super::{
    cpu::Work,
    event::{Machine, What},
    queue::micros,
    slot::number,
    watched::{Seen, Sighting},
    world::World,
};
use crate::protocol::{
    event::{Event, Problem},
    id::Version,
    route::{DetectorInput, Output, SchedulerInput, StorageInput},
    time::Time,
};

impl World {
    pub(super) fn wake(&mut self, slot: usize, epoch: u64, machine: Machine, token: u64) {
        let at = &self.slots[slot];
        let due = at.node.as_ref().is_some_and(|node| node.wakes[machine as usize] == token);
        if at.epoch != epoch || !due {
            return;
        }
        self.bill(Work::Timers, |costs| costs.tick);
        if machine == Machine::Detector && !self.switches.packets {
            self.tell_heard(slot, self.queue.now());
        }
        let tick = match machine {
            Machine::Storage => Output::Storage(StorageInput::Tick),
            Machine::Detector => Output::Detector(DetectorInput::Tick),
            Machine::Scheduler => Output::Scheduler(SchedulerInput::Tick),
            Machine::Transport => return self.look_at_connections(slot),
        };
        self.input(slot, machine, tick);
    }

    /// A node's own clock, which began when it booted.
    pub(super) fn local(&self, slot: usize) -> Time {
        let booted = self.slots[slot].node.as_ref().map_or(0, |node| node.booted);
        Time::from_origin(Duration::from_micros(self.queue.now().saturating_sub(booted)))
    }

    pub(super) fn input(&mut self, slot: usize, machine: Machine, output: Output) {
        self.deliver(slot, machine, vec![output]);
    }

    /// Delivers what a machine said, and what the others say to that, in order.
    pub(super) fn deliver(&mut self, slot: usize, machine: Machine, out: Vec<Output>) {
        self.record(slot, &out);
        let mut queue: VecDeque<_> = out.into_iter().map(|output| (machine, output)).collect();
        let mut settled = 0;
        while let Some((machine, output)) = queue.pop_front() {
            let now = self.local(slot);
            let Some(node) = self.node_mut(slot) else { return };
            let mut out = Vec::new();
            let to = match output {
                Output::Storage(input) => {
                    node.replica.handle(now, input, &mut out);
                    Machine::Storage
                }
                Output::Detector(input) => {
                    let heard = matches!(input, DetectorInput::Heard { .. });
                    if !heard && node.rest.is_some() {
                        self.rouse(slot);
                        queue.push_front((machine, Output::Detector(input)));
                        continue;
                    }
                    settled += u64::from(matches!(input, DetectorInput::Observe { .. }));
                    node.liveness.handle(now, input, &mut out);
                    drop(node.liveness.take_changed());
                    Machine::Detector
                }
                Output::Scheduler(input) => {
                    if node.drowsy.take().is_some() {
                        node.scheduler.skip_to(now, input != SchedulerInput::Tick);
                    }
                    node.scheduler.handle(now, input, &mut out);
                    Machine::Scheduler
                }
                Output::Transport(input) => {
                    let out = self.transport(slot, input);
                    queue.extend(out.into_iter().map(|output| (Machine::Transport, output)));
                    continue;
                }
                Output::Counted(..) => continue,
                Output::Revoked(_) => {
                    self.cut_off_revoked(slot);
                    continue;
                }
                Output::Persist(changes) => {
                    self.persist(slot, changes);
                    continue;
                }
                Output::Wake(after) => {
                    self.arm(slot, machine, after);
                    continue;
                }
                Output::Stop(problem) => {
                    let displaced = matches!(problem, Problem::Displaced { .. });
                    let revoked = matches!(problem, Problem::Revoked { .. });
                    if self.switches.checks && !revoked && !(displaced && self.twins) {
                        self.fail(format!("n{slot} ends without a twin: {problem}"));
                    }
                    self.crash(slot);
                    self.slots[slot].displaced = displaced;
                    return;
                }
                // Some peers know; the node need not wait for the others.
                Output::Farewell(_) => {
                    self.stop(slot);
                    return;
                }
                Output::Event(event) => {
                    self.hear_of(slot, event);
                    continue;
                }
                Output::Unreachable(_) | Output::Protocol(_) | Output::Count(..) => continue,
            };
            self.record(slot, &out);
            queue.extend(out.into_iter().map(|output| (to, output)));
            self.look(slot);
        }
        self.counts.settlements += settled;
        self.look(slot);
        self.wake_scheduler(slot);
    }

    /// A node reports an event.
    fn hear_of(&mut self, observer: usize, event: Event) {
        let seen = match &event {
            Event::PeerLive { peer, .. } => Some((peer, Seen::Live)),
            Event::PeerSuspect { peer, .. } => Some((peer, Seen::Suspect)),
            Event::PeerDead { peer, .. } | Event::PeerLeft { peer, .. } => Some((peer, Seen::Dead)),
            _ => None,
        };
        let at = self.queue.now();
        if let (Some(sightings), Some((peer, seen))) = (&mut self.said.sightings, seen)
            && let Some(subject) = number(peer)
        {
            sightings.push(Sighting { at, observer, subject, seen });
        }
        if !self.switches.checks {
            return;
        }
        match event {
            Event::PeerDead { .. }
            | Event::DatacenterUnreachable { .. }
            | Event::DatacenterReachable { .. } => {
                self.said.told.push((self.now(), observer, event));
            }
            Event::Error(Problem::Equivocation { peer }) => {
                self.said.equivocations.push((observer, peer));
            }
            Event::PeerSuspect { peer, .. } => {
                self.said.suspected.push((self.now(), observer, peer));
            }
            _ => {}
        }
    }

    pub(super) fn arm(&mut self, slot: usize, machine: Machine, after: Duration) {
        let rests = machine == Machine::Detector && self.may_rest(slot);
        let (now, elide) = (self.queue.now(), self.switches.elide);
        let at = &mut self.slots[slot];
        let Some(node) = at.node.as_deref_mut() else { return };
        let mut next = now + micros(after).max(1);
        if elide && machine == Machine::Scheduler {
            let root = node.replica.root();
            if let Some(until) = node.scheduler.rests_until(root) {
                node.drowsy = Some(root);
                next = next.max(node.booted + micros(until.since_origin()));
            }
        }
        if rests {
            node.rest = Some(now + micros(after));
            return;
        }
        node.wakes[machine as usize] += 1;
        let token = node.wakes[machine as usize];
        let wake = What::Wake { slot, epoch: at.epoch, machine, token };
        self.queue.ranked(next, slot as u32 + 1, wake);
    }

    /// Tells the witness what the node has written.
    pub(super) fn record(&mut self, slot: usize, out: &[Output]) {
        if self.hooks.witness.is_none() {
            return;
        }
        self.note_generation(slot);
        let Some(witness) = &mut self.hooks.witness else { return };
        let name = &self.slots[slot].name;
        for output in out {
            let Output::Event(event) = output else { continue };
            let wrote = match event {
                Event::Updated { peer, key, value, generation, version } if peer == name => {
                    witness.wrote(peer, *generation, *version, key, Some(value))
                }
                Event::Deleted { peer, key, generation, version } if peer == name => {
                    witness.wrote(peer, *generation, *version, key, None)
                }
                _ => Ok(()),
            };
            if let Err(broken) = wrote {
                self.fail(broken);
            }
        }
    }

    /// A node that took a newer generation goes on from what it had written.
    pub(super) fn note_generation(&mut self, slot: usize) {
        let name = self.slots[slot].name.clone();
        let Some(node) = self.slots[slot].node.as_mut() else { return };
        let generation = node.replica.own().generation();
        if generation != node.generation {
            let earlier = std::mem::replace(&mut node.generation, generation);
            let continues = Some((earlier, Version(u64::MAX)));
            let begun = self.hooks.witness.as_mut();
            let begun = begun.map(|witness| witness.begin(&name, generation, continues));
            self.promise(begun.unwrap_or(Ok(())));
        }
    }

    /// Looks at what readers see of a node now, if it changed.
    pub(super) fn look(&mut self, slot: usize) {
        let Some(witness) = &self.hooks.witness else { return };
        let name = self.slots[slot].name.clone();
        let two_faced = self.hooks.liars.iter().filter(|(_, liar)| liar.is_two_faced());
        let two_faced: Vec<_> = two_faced.map(|(slot, _)| self.slots[*slot].name.clone()).collect();
        let Some(node) = self.slots[slot].node.as_mut() else { return };
        let Some(views) = node.replica.view() else { return };
        node.views = views.clone();
        node.seen.retain(|peer, _| views.contains_key(peer));
        for (peer, view) in &views {
            let reach = (view.generation, view.max_version);
            let before = node.seen.insert(peer.clone(), reach);
            if before.is_some_and(|before| before > reach) {
                self.fail(format!("{name} fell back on {peer}: {before:?} -> {reach:?}"));
            }
            // The copies of an owner that equivocates may differ.
            if two_faced.contains(peer) {
                continue;
            }
            if let Err(broken) = witness.check(peer, view) {
                self.fail(format!("{name} holds of {peer}: {broken}"));
            }
        }
    }
}
