//! How soon a silent node is noticed, and how often a running node is suspected or called dead.
//!
//! The benchmark takes every node's opinions from its events, stamped as they arrive, and does not poll: a thousand
//! snapshots a second would be a load on the nodes under measurement.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use gossipmonger::{
    Gossipmonger,
    protocol::{event::Event, id::NodeId, state::PeerState},
    subscription::{Events, SubscriptionError},
};
use rand::seq::IndexedRandom;
use serde_json::{Map, Value, json};
use tokio::{
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    time::{error::Elapsed, timeout},
};

use super::{
    Common, Report,
    cluster::{Cluster, Indices},
    counts::Counts,
    faults::Faults,
    join_all, report_work, rounded,
};
use crate::{error::CliError, stopwatch::Stopwatch};

/// Lets the cluster settle, silences one node, and later five at once. Node 0, the seed, keeps running.
pub(super) async fn fail(common: &Common) -> Result<Report, CliError> {
    let mut out = common.report("fail");
    let mut cluster = join_all(common, &mut out).await?;
    let mut views = Views::watch(&cluster, common.nodes);
    views.follow_for(Duration::from_secs(common.warmup)).await;
    out.insert("false_deaths_warmup".into(), views.falsely.deaths.into());
    out.insert("false_suspicions_warmup".into(), views.falsely.suspicions.into());
    let before = Counters::of(&cluster);
    let mut faults = Faults::default();
    faults.require_joined(&out);
    faults.judge(&mut out, &[]);
    for count in STOPS {
        let stopped = stop(&mut cluster, &mut views, count, common.timeout()).await;
        stopped.report(count, &mut out);
        views.follow_for(PAUSE).await;
    }
    let (nodes, counts) = before.since(&cluster);
    report_work("fail", nodes, &counts, &mut out);
    out.insert("false_deaths_total".into(), views.falsely.deaths.into());
    out.insert("false_death_targets".into(), views.falsely.dead.len().into());
    out.insert("false_suspicions_total".into(), views.falsely.suspicions.into());
    out.insert("false_suspicion_targets".into(), views.falsely.suspected.len().into());
    // Other benchmarks poll the views at this interval; here every node reports its opinions as they change.
    out.insert("poll_ms".into(), 0.into());
    out.insert("events_missed".into(), views.missed.into());
    out.insert("counters".into(), cluster.counters_json());
    Ok(out)
}

/// The counters of each node at one moment.
struct Counters(Vec<Counts>);

impl Counters {
    fn of(cluster: &Cluster) -> Self {
        Self(cluster.running().map(|(_, node)| Counts::of([node])).collect())
    }

    /// How many nodes still run, and their work since then.
    fn since(&self, cluster: &Cluster) -> (usize, Counts) {
        let running = || cluster.running().filter(|(index, _)| *index < self.0.len());
        let earlier = Counts::sum(running().map(|(index, _)| &self.0[index]));
        (running().count(), Counts::of(running().map(|(_, node)| node)).since(&earlier))
    }
}

/// The result of one stop: when the victims were at least suspect, and when they were dead.
#[derive(Clone, Debug)]
struct Stopped {
    victims: usize,
    suspect: Noticed,
    dead: Noticed,
    false_suspicions: usize,
    false_deaths: usize,
}

impl Stopped {
    fn report(&self, count: usize, out: &mut Report) {
        let (mut suspect, mut dead) = (
            self.suspect.describe("already_suspect_pairs"),
            self.dead.describe("already_dead_pairs"),
        );
        suspect.insert("false_suspicions".into(), self.false_suspicions.into());
        dead.insert("false_deaths".into(), self.false_deaths.into());
        let figures = ["first_s", "all_s"];
        for (part, noticed) in [(&mut suspect, &self.suspect), (&mut dead, &self.dead)] {
            let faults = self.faults(count, noticed);
            faults.judge(part, &figures);
            faults.judge(out, &[]);
            if noticed.already > 0 {
                // An observer had this opinion before the stop.
                part.insert("first_s".into(), Value::Null);
            }
        }
        out.insert(format!("suspect{count}"), suspect.into());
        out.insert(format!("fail{count}"), dead.into());
    }

    /// Nodes must have been stopped, and all others must have noticed it after that.
    fn faults(&self, count: usize, noticed: &Noticed) -> Faults {
        let mut faults = Faults::default();
        faults.require(self.victims == count, || {
            format!("{} of {count} nodes were stopped", self.victims)
        });
        let Noticed { pairs, already, noticed: held, all, .. } = *noticed;
        faults.require(already < pairs, || {
            format!("nobody was left who could notice that {count} stopped")
        });
        faults.require(all.is_some(), || {
            format!("{held} of {pairs} views noticed in time that {count} stopped")
        });
        faults
    }
}

async fn stop(
    cluster: &mut Cluster,
    views: &mut Views,
    count: usize,
    timeout: Duration,
) -> Stopped {
    let may_stop: Vec<_> = views.running().filter(|index| *index != 0).collect();
    let victims: Vec<_> = may_stop.sample(&mut rand::rng(), count).copied().collect();
    victims.iter().for_each(|victim| views.runs[*victim] = false);
    let pairs = views.running().count() * victims.len();
    let (suspicions, deaths) = (views.falsely.suspicions, views.falsely.deaths);
    let mut suspect = Noticed::new(Thought::Suspect, pairs, views.held(&victims, Thought::Suspect));
    let mut dead = Noticed::new(Thought::Dead, pairs, views.held(&victims, Thought::Dead));
    let begun = views.watch.elapsed();
    victims.iter().for_each(|victim| cluster.kill(*victim));
    while dead.all.is_none() {
        let left = (begun + timeout).saturating_sub(views.watch.elapsed());
        let Ok(at) = views.next(left).await else { break };
        for noticed in [&mut suspect, &mut dead] {
            noticed.update(at.saturating_sub(begun), views.held(&victims, noticed.thought));
        }
    }
    let false_suspicions = views.falsely.suspicions - suspicions;
    let false_deaths = views.falsely.deaths - deaths;
    Stopped { victims: victims.len(), suspect, dead, false_suspicions, false_deaths }
}

/// When the first observer noticed the stop, and when all had.
#[derive(Clone, Debug)]
struct Noticed {
    thought: Thought,
    pairs: usize,
    already: usize,
    noticed: usize,
    first: Option<Duration>,
    last: Duration,
    all: Option<Duration>,
}

impl Noticed {
    const fn new(thought: Thought, pairs: usize, already: usize) -> Self {
        Self {
            thought,
            pairs,
            already,
            noticed: already,
            first: None,
            last: Duration::ZERO,
            all: None,
        }
    }

    /// After this time, so many views agree.
    fn update(&mut self, after: Duration, noticed: usize) {
        if noticed > 0 {
            self.first.get_or_insert(after);
        }
        // Reports of two nodes at about the same time may arrive in either order.
        self.last = self.last.max(after);
        if noticed == self.pairs {
            self.all.get_or_insert(self.last);
        }
        self.noticed = noticed;
    }

    fn describe(&self, already: &str) -> Map<String, Value> {
        let seconds = |at: Option<Duration>| at.map(|at| rounded(at.as_secs_f64(), 3));
        let mut out = Map::new();
        out.insert("first_s".into(), json!(seconds(self.first)));
        out.insert("all_s".into(), json!(seconds(self.all)));
        let left = if self.all.is_some() { 0 } else { self.pairs - self.noticed };
        out.insert("undetected_pairs_at_end".into(), left.into());
        out.insert(already.into(), self.already.into());
        out
    }
}

/// A node's opinion of another, from good to bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Thought {
    #[default]
    Unknown,
    Live,
    Suspect,
    /// Or left, which no node does here.
    Dead,
}

/// An observer has changed its opinion.
#[derive(Clone, Copy, Debug)]
struct Thinks {
    /// On the watch of [`Views`].
    at: Duration,
    observer: usize,
    target: usize,
    thought: Thought,
    /// The number of lost events before this one.
    missed: u64,
}

/// The opinions of all nodes about all others.
#[derive(Debug)]
struct Views {
    watch: Stopwatch,
    news: UnboundedReceiver<Thinks>,
    /// By observer, then by target.
    thoughts: Vec<Vec<Thought>>,
    runs: Vec<bool>,
    falsely: Falsely,
    missed: u64,
}

/// Wrong opinions about running nodes.
#[derive(Debug, Default)]
struct Falsely {
    /// Times that an observer began to suspect a node that it had considered live.
    suspicions: usize,
    suspected: BTreeSet<usize>,
    /// Times that an observer called a node dead that it had considered live or suspect.
    deaths: usize,
    dead: BTreeSet<usize>,
}

impl Views {
    fn watch(cluster: &Cluster, nodes: usize) -> Self {
        let watch = Stopwatch::start();
        let (tell, news) = mpsc::unbounded_channel();
        for (observer, node) in cluster.running() {
            let events = node.subscribe();
            let indices = cluster.indices();
            let teller = Teller { watch, observer, indices, tell: tell.clone() };
            tokio::spawn(teller.tell(node.clone(), events));
        }
        let (thoughts, runs) = (vec![vec![Thought::Unknown; nodes]; nodes], vec![true; nodes]);
        Self { watch, news, thoughts, runs, falsely: Falsely::default(), missed: 0 }
    }

    fn running(&self) -> impl Iterator<Item = usize> {
        self.runs.iter().enumerate().filter_map(|(index, runs)| runs.then_some(index))
    }

    /// Processes all reports within this time.
    async fn follow_for(&mut self, time: Duration) {
        let end = self.watch.elapsed() + time;
        while self.next(end.saturating_sub(self.watch.elapsed())).await.is_ok() {}
    }

    /// Processes the next report, and returns its time.
    async fn next(&mut self, wait: Duration) -> Result<Duration, Elapsed> {
        let Some(news) = timeout(wait, self.news.recv()).await? else {
            // No node reports any more: the time passes without news.
            return timeout(wait, std::future::pending()).await;
        };
        self.missed += news.missed;
        let before =
            std::mem::replace(&mut self.thoughts[news.observer][news.target], news.thought);
        if self.runs[news.observer] && self.runs[news.target] {
            self.falsely.count(news.target, before, news.thought);
        }
        Ok(news.at)
    }

    /// In how many views of running nodes these targets are in such a state or a worse one.
    fn held(&self, targets: &[usize], thought: Thought) -> usize {
        let views = self.running().map(|observer| &self.thoughts[observer]);
        views.map(|view| targets.iter().filter(|target| view[**target] >= thought).count()).sum()
    }
}

impl Falsely {
    fn count(&mut self, target: usize, before: Thought, now: Thought) {
        if now == Thought::Suspect && before == Thought::Live {
            self.suspicions += 1;
            self.suspected.insert(target);
        }
        if now == Thought::Dead && matches!(before, Thought::Live | Thought::Suspect) {
            self.deaths += 1;
            self.dead.insert(target);
        }
    }
}

/// Reports the opinions of one node.
struct Teller {
    watch: Stopwatch,
    observer: usize,
    indices: Arc<Indices>,
    tell: UnboundedSender<Thinks>,
}

impl Teller {
    async fn tell(self, node: Gossipmonger, mut events: Events) {
        self.tell_all(&node, 0);
        loop {
            match events.next().await {
                Ok(Event::PeerLive { peer, .. }) => self.thinks(&peer, Thought::Live),
                Ok(Event::PeerSuspect { peer, .. }) => self.thinks(&peer, Thought::Suspect),
                Ok(
                    Event::PeerDead { peer, .. }
                    | Event::PeerLeft { peer, .. }
                    | Event::PeerForgotten { peer, .. },
                ) => self.thinks(&peer, Thought::Dead),
                Ok(_) => {}
                Err(SubscriptionError::Lagged(missed)) => self.tell_all(&node, missed),
                Err(_) => return,
            }
        }
    }

    /// Reports all opinions, since events were missed or nothing was reported yet.
    fn tell_all(&self, node: &Gossipmonger, mut missed: u64) {
        for peer in node.snapshot().peers() {
            let thought = match peer.state {
                PeerState::Live => Thought::Live,
                PeerState::Suspect => Thought::Suspect,
                PeerState::Dead | PeerState::Left => Thought::Dead,
                _ => Thought::Unknown,
            };
            self.send(&peer.node, thought, std::mem::take(&mut missed));
        }
    }

    fn thinks(&self, peer: &NodeId, thought: Thought) {
        self.send(peer, thought, 0);
    }

    fn send(&self, peer: &NodeId, thought: Thought, missed: u64) {
        if let Some(target) = self.indices.get(peer) {
            let (at, observer, target) = (self.watch.elapsed(), self.observer, *target);
            // The receiver is gone after the measurement.
            let _ = self.tell.send(Thinks { at, observer, target, thought, missed });
        }
    }
}

/// This many nodes are stopped: first one, then several at once.
const STOPS: [usize; 2] = [1, 5];
/// The seed, all stopped nodes, and one more that notices them.
pub(super) const NODES_MIN: usize = 8;
/// The survivors settle before the next stop.
const PAUSE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn noticed(pairs: usize, already: usize, seen: usize) -> Noticed {
        let mut noticed = Noticed::new(Thought::Dead, pairs, already);
        if seen > already {
            noticed.update(Duration::from_secs(1), seen);
        }
        noticed
    }

    fn void(victims: usize, noticed: Noticed) -> bool {
        let (suspect, dead) = (noticed.clone(), noticed);
        let stopped = Stopped { victims, suspect, dead, false_suspicions: 0, false_deaths: 0 };
        let mut out = Report::new();
        stopped.report(5, &mut out);
        let none = out["fail5"]["all_s"].is_null();
        assert_eq!(
            none,
            Faults::check(&out).is_err(),
            "void without a figure, and only then: {out:?}"
        );
        none
    }

    #[test]
    fn a_stop_that_stopped_nobody_or_that_nobody_noticed_is_void() {
        assert!(!void(5, noticed(10, 0, 10)));
        assert!(void(5, noticed(10, 0, 9)), "one has not noticed");
        assert!(void(2, noticed(10, 0, 10)), "three run on");
        assert!(void(0, noticed(0, 0, 0)), "nobody was stopped");
        assert!(void(5, noticed(10, 10, 10)), "all thought so before");
    }

    #[test]
    fn who_noticed_first_is_null_if_somebody_thought_so_before() {
        let suspect = noticed(10, 1, 10);
        let stopped = Stopped {
            victims: 5,
            dead: noticed(10, 0, 10),
            suspect,
            false_suspicions: 0,
            false_deaths: 0,
        };
        let mut out = Report::new();
        stopped.report(5, &mut out);
        assert!(out["suspect5"]["first_s"].is_null() && out["suspect5"]["all_s"].is_number());
        assert!(out["fail5"]["first_s"].is_number());
    }
}
