//! What was seen so far, by which node and when: the basis of the verdict.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    time::Duration,
};

use super::calls::Counts;
use gossipmonger::protocol::{
    entry::{Key, Value},
    event::Event,
    id::{NodeId, Version},
};

/// The content of the closing summary.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) nodes: usize,
    /// When every node considered every other one live.
    pub(super) joined: Option<Duration>,
    pub(super) death: Option<Change>,
    pub(super) back: Option<Change>,
    pub(super) writes: Vec<Written>,
    pub(super) calls: Counts,
    /// The number of keys, if all maps were equal in the end.
    pub(super) converged: Option<usize>,
}

/// An event at one node that the others should notice.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) node: NodeId,
    pub(super) at: Duration,
    /// The nodes that should notice it, and when each did.
    pub(super) seen: BTreeMap<NodeId, Option<Duration>>,
}

/// One write.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) key: Key,
    pub(super) value: Value,
    pub(super) version: Version,
    pub(super) change: Change,
}

impl Change {
    pub(super) fn new<'a>(
        node: &NodeId,
        at: Duration,
        observers: impl Iterator<Item = &'a NodeId>,
    ) -> Self {
        let others = observers.filter(|name| *name != node);
        Self { node: node.clone(), at, seen: others.map(|name| (name.clone(), None)).collect() }
    }

    pub(super) fn notice(&mut self, observer: &NodeId, at: Duration) {
        if let Some(seen) = self.seen.get_mut(observer) {
            seen.get_or_insert(at);
        }
    }

    pub(super) fn seen_by(&self) -> usize {
        self.seen.values().flatten().count()
    }

    pub(super) fn is_seen_by_all(&self) -> bool {
        self.seen.values().all(Option::is_some)
    }

    /// The nodes that have not seen it.
    pub(super) fn unseen(&self) -> Vec<&str> {
        let unseen = self.seen.iter().filter(|(_, at)| at.is_none());
        unseen.map(|(name, _)| name.as_str()).collect()
    }

    /// The delays of the first and the last node that have seen it.
    pub(super) fn delays(&self) -> Option<(Duration, Duration)> {
        let delays = || self.seen.values().flatten().map(|at| at.saturating_sub(self.at));
        Some((delays().min()?, delays().max()?))
    }
}

impl Account {
    /// Records what a node has seen.
    pub(super) fn note(&mut self, observer: &NodeId, at: Duration, event: &Event) {
        match event {
            Event::PeerDead { peer, .. } => notice(&mut self.death, peer, observer, at),
            Event::PeerLive { peer, .. } => notice(&mut self.back, peer, observer, at),
            Event::Updated { peer, key, version, .. } => {
                // A later write of the same key may have overtaken this one.
                let reached = |write: &&mut Written| {
                    write.change.node == *peer && write.key == *key && write.version <= *version
                };
                let writes = self.writes.iter_mut().rev().filter(reached);
                writes.for_each(|write| write.change.notice(observer, at));
            }
            _ => {}
        }
    }

    /// A node that has died notices nothing any more, and a write that was lost with it is never noticed.
    pub(super) fn excuse(&mut self, name: &NodeId) {
        for write in &mut self.writes {
            if write.change.seen.get(name).is_some_and(Option::is_none) {
                write.change.seen.remove(name);
            }
        }
        self.writes.retain(|write| write.change.node != *name || write.change.is_seen_by_all());
    }

    /// The closing summary.
    pub(super) fn print(&self, elapsed: Duration, cut: bool) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out)?;
        writeln!(out, "after {:.1} s:", elapsed.as_secs_f64())?;
        let joined = self.joined.map_or_else(
            || "not all had found each other".to_owned(),
            |at| format!("{} nodes, all found each other after {}", self.nodes, shown(at)),
        );
        writeln!(out, "  join       {joined}")?;
        writeln!(out, "  changes    {}", self.writes_line())?;
        writeln!(out, "  death      {}", line(self.death.as_ref(), "killed"))?;
        writeln!(out, "  return     {}", line(self.back.as_ref(), "back"))?;
        writeln!(out, "  calls      {}", self.calls_line())?;
        if !cut {
            let maps = self.converged.map_or_else(
                || "no: the nodes do not hold the same".to_owned(),
                |keys| {
                    format!(
                        "yes: every node holds the same {} maps, {keys} keys in all",
                        self.nodes
                    )
                },
            );
            writeln!(out, "  converged  {maps}")?;
        }
        Ok(())
    }

    fn calls_line(&self) -> String {
        let Counts { answered, not_run, may_have_run, .. } = self.calls;
        format!(
            "{answered} answered by {} nodes, {not_run} failed before they ran, {may_have_run} \
             failed and may have run",
            self.calls.nodes()
        )
    }

    fn writes_line(&self) -> String {
        let spread = self.writes.iter().filter(|write| write.change.is_seen_by_all());
        let mut took: Vec<_> = spread.filter_map(|write| Some(write.change.delays()?.1)).collect();
        took.sort_unstable();
        let count = self.writes.len();
        match (took.get(took.len() / 2), took.last()) {
            (Some(median), Some(last)) => format!(
                "{count} made, {} seen by all after {} (median), {} (longest)",
                took.len(),
                shown(*median),
                shown(*last)
            ),
            _ => format!("{count} made, none seen by all"),
        }
    }
}

fn notice(change: &mut Option<Change>, peer: &NodeId, observer: &NodeId, at: Duration) {
    if let Some(change) = change
        && change.node == *peer
    {
        change.notice(observer, at);
    }
}

fn line(change: Option<&Change>, what: &str) -> String {
    let Some(change) = change else { return "none so far".to_owned() };
    let (seen, of) = (change.seen_by(), change.seen.len());
    let delays = change.delays().map_or_else(String::new, |(first, last)| {
        format!(" after {} to {}", shown(first), shown(last))
    });
    let at = change.at.as_secs_f64();
    format!("{} {what} at {at:.1} s, seen by {seen} of {of}{delays}", change.node)
}

/// A short time for people.
pub(super) fn shown(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.2} s", time.as_secs_f64())
    }
}
