//! Any frames in a row, given to a replica and a failure detector as the actors do it: in turns. Each turn
//! looks at no more entries, and says no more, than what it was given and what is known can be worth.
#![no_main]

#[path = "../support.rs"]
mod support;

use std::time::Duration;

use gossipmonger::protocol::{
    delta::Delta,
    digest::DigestEntry,
    exchange::Ask,
    gossip::{Accusation, Gossip, Have, OBSERVERS_MAX, OWNERS_MAX, Removal},
    id::{Generation, Incarnation, Version},
    liveness::{Liveness, LivenessConfig},
    message::{Heartbeat, LENGTH_BYTES, Message},
    route::{Counter, DetectorInput, Output, Sign, StorageInput},
    verdict::{Level, Verdict},
};
use libfuzzer_sys::fuzz_target;
use support::{News, Watched, name};

#[derive(Debug, arbitrary::Arbitrary)]
enum Frame {
    /// Any bytes after the header of a kind.
    Bytes(u8, u8, Vec<u8>),
    /// News told unasked.
    Pushed(u8, Vec<News>),
    /// The same along a tree.
    Passed(u8, Vec<News>),
    /// The transport has dropped a frame for a peer, with updates of these owners.
    Shed(u8, Vec<u8>),
    /// The opening of an exchange: by whom, and of each line the node, life, version, floor.
    Syn(u8, Vec<(u8, u8, u8, u8)>),
    /// Its answer.
    SynAck(u8, Vec<(u8, u8, u8, u8)>, Vec<News>),
    /// Its end, or bulk.
    Ack(u8, Vec<News>),
    More(u8, Vec<News>, bool),
    Have(u8, Vec<(u8, u8, u8)>),
    Graft(u8, Vec<(u8, u8, u8, u8)>),
    Prune(u8, Vec<u8>),
    Accusation(u8, u8, u8, u8, bool, Vec<u8>),
    Removal(u8, u8, u8, u8),
    Heartbeat(u8, Vec<u8>),
    Linked(u8, bool),
    Congested(u8, bool),
    Pass(u16),
}

fuzz_target!(|frames: Vec<Frame>| {
    let mut node = Node::new();
    for frame in frames.into_iter().take(100) {
        node.take(frame);
        node.watched.check();
    }
});

/// What a node consists of that others speak to.
struct Node {
    watched: Watched,
    detector: Liveness,
}

impl Node {
    fn new() -> Self {
        let second = Duration::from_secs(1);
        let detector = Liveness::new(LivenessConfig {
            node: name(0),
            heartbeat_interval: second,
            dead_peer_phi: 8.0,
            suspicion: 3 * second,
            join_grace: 3 * second,
            forget_after: 5 * second,
            rules: Default::default(),
        });
        Self { watched: Watched::new(), detector }
    }

    fn take(&mut self, frame: Frame) {
        match frame {
            Frame::Bytes(from, kind, bytes) => {
                self.receive(from, &[&[kind % 17, 1], &bytes[..]].concat());
            }
            Frame::Pushed(from, news) => self.tell(from, Gossip::Push(delta(news, false))),
            Frame::Passed(from, news) => self.tell(from, Gossip::Tree(delta(news, false))),
            Frame::Shed(peer, owners) => {
                let owners = owners.into_iter().take(OWNERS_MAX).map(name).collect();
                self.cast(StorageInput::Shed(name(peer), owners));
            }
            Frame::Syn(from, of) => self.send(from, &Message::Syn { digest: digest(of) }),
            Frame::SynAck(from, of, news) => {
                let (wants, delta) = (digest(of), delta(news, false));
                self.send(from, &Message::SynAck { wants, delta });
            }
            Frame::Ack(from, news) => self.send(from, &Message::Ack { delta: delta(news, false) }),
            Frame::More(from, news, more) => {
                self.send(from, &Message::More { delta: delta(news, more) });
            }
            Frame::Have(from, of) => {
                let have = |(node, generation, version): (u8, u8, u8)| Have {
                    node: name(node),
                    generation: Generation(generation.into()),
                    version: Version(version.into()),
                };
                let haves = of.into_iter().take(OWNERS_MAX).map(have).collect();
                self.tell(from, Gossip::Have(haves));
            }
            Frame::Graft(from, of) => {
                self.tell(from, Gossip::Graft(of.into_iter().take(OWNERS_MAX).map(line).collect()));
            }
            Frame::Prune(from, of) => {
                self.tell(from, Gossip::Prune(of.into_iter().take(OWNERS_MAX).map(name).collect()));
            }
            Frame::Accusation(from, subject, generation, incarnation, dead, observers) => {
                let level = if dead { Level::Dead } else { Level::Suspect };
                self.tell(
                    from,
                    Gossip::Accusation(Accusation {
                        subject: name(subject),
                        generation: Generation(generation.into()),
                        verdict: Verdict { incarnation: Incarnation(incarnation.into()), level },
                        observers: observers.into_iter().take(OBSERVERS_MAX).map(name).collect(),
                    }),
                );
            }
            Frame::Removal(from, subject, generation, incarnation) => {
                let (subject, generation) = (name(subject), Generation(generation.into()));
                let incarnation = Incarnation(incarnation.into());
                self.tell(from, Gossip::Removal(Removal { subject, generation, incarnation }));
            }
            Frame::Heartbeat(from, bytes) => {
                if let Ok(heartbeat) = Heartbeat::decode(&[&[16, 1], &bytes[..]].concat()) {
                    let (peer, at) = (name(from), self.watched.now());
                    let (generation, sign) = (heartbeat.generation, Sign::Heartbeat);
                    self.detect(DetectorInput::Heard { peer, generation, sign, at });
                }
            }
            Frame::Linked(peer, up) => {
                self.cast(StorageInput::Linked(name(peer), up));
                self.detect(DetectorInput::Linked { peer: name(peer), up, dialed: true });
            }
            Frame::Congested(peer, full) => self.cast(StorageInput::Congested(name(peer), full)),
            Frame::Pass(millis) => {
                self.watched.wait(millis);
                self.cast(StorageInput::Tick);
                self.detect(DetectorInput::Tick);
            }
        }
    }

    fn tell(&mut self, from: u8, gossip: Gossip) {
        self.send(from, &Message::Gossip(gossip));
    }

    /// What was made up here goes over the wire as well.
    fn send(&mut self, from: u8, message: &Message) {
        if let Ok(frame) = message.encode() {
            self.receive(from, &frame[LENGTH_BYTES..]);
        }
    }

    fn receive(&mut self, from: u8, frame: &[u8]) {
        let Ok(message) = Message::decode(frame) else { return };
        let ask = match message {
            Message::Syn { digest } => Ask::Answer { digest: digest.into() },
            Message::SynAck { wants, delta } => Ask::Merge { wants, delta: delta.into() },
            Message::Ack { delta } => Ask::Apply { delta: delta.into() },
            Message::More { delta } => Ask::Take { delta: delta.into() },
            Message::Gossip(gossip) => Ask::Gossip(vec![gossip]),
            Message::Differ { lines, unknown } => {
                Ask::AnswerLines { lines: lines.into(), unknown: unknown.into() }
            }
            Message::Pull { digest: Some(digest), all } => Ask::Feed { digest, all },
            _ => return,
        };
        for turn in ask.turns() {
            let entries = entries(&turn);
            let out = self.watched.serve(from, turn);
            self.judge(entries, out);
        }
    }

    fn cast(&mut self, input: StorageInput) {
        let out = self.watched.turn(input);
        self.judge(0, out);
    }

    fn detect(&mut self, input: DetectorInput) {
        let (now, mut out) = (self.watched.now(), Vec::new());
        self.detector.handle(now, input, &mut out);
        assert!(out.len() <= OUTPUTS_MAX, "{} outputs of the detector", out.len());
        for output in out {
            if let Output::Storage(input) = output {
                let out = self.watched.turn(input);
                // What storage says to that is the last word: an actor's mailbox is not a stack.
                self.watched.settle_with(out);
            }
        }
    }

    /// A turn of storage is over, in which so many entries were told.
    fn judge(&mut self, entries: usize, out: Vec<Output>) {
        let most = OUTPUTS_MAX + entries;
        assert!(out.len() <= most, "{} outputs, {entries} entries told", out.len());
        let counted = |counter| -> u64 {
            let counts = out.iter().filter_map(|output| match output {
                Output::Count(of, times) if *of == counter => Some(*times),
                _ => None,
            });
            counts.sum()
        };
        let examined = counted(Counter::EntriesExamined);
        let most = (EXAMINED_PER_ENTRY * entries + Watched::ENTRIES_MAX) as u64;
        assert!(examined <= most, "{examined} entries looked at, {entries} told");
        assert_eq!(counted(Counter::SealsVerified), 0, "nobody signs here");
        let detected: Vec<_> = out
            .iter()
            .filter_map(|output| match output {
                Output::Detector(input) => Some(input.clone()),
                _ => None,
            })
            .collect();
        self.watched.settle_with(out);
        detected.into_iter().for_each(|input| self.detect(input));
    }
}

/// What one turn says at most besides one event for each entry: a replica with three peers of forty entries
/// has no more to say of all of them, and of two nodes that it forgets or that are new.
const OUTPUTS_MAX: usize = 1_000;
/// How often one entry of the news is looked at: when it is proved, kept for the way back, taken, taken back
/// and compared with what readers see.
const EXAMINED_PER_ENTRY: usize = 6;

fn entries(ask: &Ask) -> usize {
    match ask {
        Ask::Apply { delta } | Ask::Take { delta } | Ask::Merge { delta, .. } => delta.len(),
        Ask::Gossip(frames) => {
            let of = |gossip: &Gossip| gossip.news().map_or(0, |(_, delta)| delta.len());
            frames.iter().map(of).sum()
        }
        _ => 0,
    }
}

fn delta(news: Vec<News>, more: bool) -> Delta {
    Delta { nodes: news.into_iter().take(64).map(News::into_delta).collect(), more }
}

fn digest(of: Vec<(u8, u8, u8, u8)>) -> gossipmonger::protocol::digest::Digest {
    let mut entries: Vec<_> = of.into_iter().map(line).collect();
    entries.sort_by(|a, b| a.node.cmp(&b.node));
    entries.dedup_by(|a, b| a.node == b.node);
    gossipmonger::protocol::digest::Digest { entries }
}

fn line((node, generation, version, floor): (u8, u8, u8, u8)) -> DigestEntry {
    DigestEntry {
        generation: Generation(generation.into()),
        max_version: Version(version.into()),
        horizon: Version(version.into()),
        gc_floor: Version(floor.into()),
        ..DigestEntry::unknown(name(node))
    }
}
