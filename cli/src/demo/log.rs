//! Events as the live view shows them: if several nodes see the same event, that is one line with a count.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use gossipmonger::protocol::{event::Event, id::NodeId};

use super::{
    play::{News, is_manifest},
    stage::Seen,
};

/// The last lines, the newest last.
#[derive(Debug, Default)]
pub(super) struct Log(VecDeque<Line>);

/// One event.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) at: Duration,
    pub(super) kind: Kind,
    /// The node that it is about; `None`: the demo itself.
    pub(super) node: Option<NodeId>,
    pub(super) what: String,
    /// The nodes that have seen it.
    pub(super) seen: BTreeSet<NodeId>,
    /// How many should see it.
    pub(super) of: usize,
    /// When the last of them saw it.
    pub(super) last: Duration,
    /// The line begins with the write itself, so that `last - at` is the time of its spread.
    pub(super) whole: bool,
    /// The lowest and the highest phi at which they saw it.
    pub(super) phi: Option<(f64, f64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Act,
    Live,
    Suspect,
    Dead,
    Key,
    Trouble,
}

impl Log {
    /// The last lines, the newest last.
    pub(super) fn last(&self, count: usize) -> impl Iterator<Item = &Line> {
        self.0.iter().skip(self.0.len().saturating_sub(count))
    }

    /// Adds an event; `running` are the nodes that ran when it happened.
    pub(super) fn add(&mut self, news: News, running: &BTreeSet<NodeId>) {
        match news {
            News::Done { at, node, what } => self.push(Line::new(at, Kind::Act, node, what, 0)),
            News::Seen(seen) => self.add_seen(seen, running),
        }
    }

    fn add_seen(&mut self, Seen { at, observer, event, .. }: Seen, running: &BTreeSet<NodeId>) {
        let event = match event {
            Ok(event) => event,
            Err(missed) => {
                let what = format!("has missed {missed} events");
                return self.push(Line::new(at, Kind::Trouble, Some(observer), what, 0));
            }
        };
        let Some((kind, node, what, phi)) = describe(&observer, &event) else { return };
        let others = running.iter().filter(|name| **name != node).count();
        let others = if kind == Kind::Trouble { 0 } else { others };
        let known = self.0.iter_mut().rev().take(MERGED_MAX).find(|line| {
            line.kind == kind
                && line.node.as_ref() == Some(&node)
                && line.what == what
                && !line.seen.contains(&observer)
                // Later observers are nodes that catch up.
                && line.seen.len() < line.of
        });
        let own = observer == node;
        match known {
            Some(line) if !own => line.notice(observer, at, phi),
            _ => {
                let mut line = Line::new(at, kind, Some(node), what, others);
                line.whole = own;
                if !own {
                    line.notice(observer, at, phi);
                }
                self.push(line);
            }
        }
    }

    fn push(&mut self, line: Line) {
        if self.0.len() == LINES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(line);
    }
}

impl Line {
    fn new(at: Duration, kind: Kind, node: Option<NodeId>, what: String, of: usize) -> Self {
        Self { at, kind, node, what, seen: BTreeSet::new(), of, last: at, whole: false, phi: None }
    }

    fn notice(&mut self, observer: NodeId, at: Duration, phi: Option<f64>) {
        self.seen.insert(observer);
        self.of = self.of.max(self.seen.len());
        self.last = self.last.max(at);
        if let Some(phi) = phi {
            let (least, most) = self.phi.unwrap_or((phi, phi));
            self.phi = Some((least.min(phi), most.max(phi)));
        }
    }
}

type Described = (Kind, NodeId, String, Option<f64>);

/// The text of an event and the node that it is about; `None` if it is not worth a line.
fn describe(observer: &NodeId, event: &Event) -> Option<Described> {
    let (kind, node, what, phi) = match event {
        Event::PeerChanged { peer, .. } => {
            (Kind::Live, peer, "has restarted or moved".to_owned(), None)
        }
        Event::PeerLive { peer, .. } => (Kind::Live, peer, "is live".to_owned(), None),
        Event::PeerSuspect { peer, reason } => {
            (Kind::Suspect, peer, "is missed".to_owned(), Some(reason.phi))
        }
        Event::PeerDead { peer, reason } => {
            (Kind::Dead, peer, "is dead".to_owned(), Some(reason.phi))
        }
        Event::PeerLeft { peer, .. } => (Kind::Live, peer, "has left".to_owned(), None),
        Event::PeerReturned { peer, how, .. } => (Kind::Trouble, peer, how.to_string(), None),
        Event::PeerRemoved { peer, .. } => (Kind::Dead, peer, "is removed".to_owned(), None),
        Event::PeerRevoked { peer, .. } => (Kind::Dead, peer, "is revoked".to_owned(), None),
        Event::PeerForgotten { peer } => (Kind::Dead, peer, "is forgotten".to_owned(), None),
        Event::DatacenterUnreachable { datacenter } => {
            (Kind::Dead, observer, format!("cannot reach {datacenter}"), None)
        }
        Event::DatacenterReachable { datacenter } => {
            (Kind::Live, observer, format!("reaches {datacenter} again"), None)
        }
        // The list of services is not text, and the calls show what it is for.
        Event::Updated { key, .. } | Event::Deleted { key, .. } if is_manifest(key) => return None,
        Event::Updated { peer, key, value, version, .. } => {
            let value = value.as_str().unwrap_or("(bytes)");
            (Kind::Key, peer, format!("{key} = {value} (version {version})"), None)
        }
        Event::Deleted { peer, key, .. } => (Kind::Key, peer, format!("{key} deleted"), None),
        Event::Error(problem) => (Kind::Trouble, observer, problem.to_string(), None),
        // The event that a new peer is live follows.
        _ => return None,
    };
    Some((kind, node.clone(), what, phi))
}

/// More than a tall terminal shows.
const LINES_MAX: usize = 256;
/// How far back a line may be to count another node's event.
const MERGED_MAX: usize = 160;
