//! How soon silence is noticed, and how often somebody is suspected or called dead who is not.
//!
//! What every node thinks is taken from its own events, stamped as they arrive, and not looked up again
//! and again: a thousand snapshots a second would be the load under which the nodes are measured.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use rand::seq::IndexedRandom;
use serde_json::{Map, Value, json};
use tokio::{
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    time::{error::Elapsed, timeout},
};

use super::{
    Common, Report,
    cluster::{Cluster, Indices},
    join_all, rounded,
};
use crate::{
    cli::{error::CliError, stopwatch::Stopwatch},
    node::Gossipmonger,
    protocol::{event::Event, id::NodeId, liveness::PeerState},
    subscription::{Events, SubscriptionError},
};

/// Lets the cluster settle, silences one node, and later five at once. Node 0, the seed, stays.
pub(super) async fn fail(common: &Common) -> Result<Report, CliError> {
    let mut out = common.report("fail");
    let mut cluster = join_all(common, &mut out).await?;
    let mut views = Views::watch(&cluster, common.nodes);
    views.follow_for(Duration::from_secs(common.warmup)).await;
    out.insert("false_deaths_warmup".into(), views.falsely.deaths.into());
    out.insert("false_suspicions_warmup".into(), views.falsely.suspicions.into());
    for count in [1, 5] {
        let stopped = stop(&mut cluster, &mut views, count, common.timeout()).await;
        out.insert(format!("suspect{count}"), stopped.suspect);
        out.insert(format!("fail{count}"), stopped.dead);
        views.follow_for(PAUSE).await;
    }
    out.insert("false_deaths_total".into(), views.falsely.deaths.into());
    out.insert("false_death_targets".into(), views.falsely.dead.len().into());
    out.insert("false_suspicions_total".into(), views.falsely.suspicions.into());
    out.insert("false_suspicion_targets".into(), views.falsely.suspected.len().into());
    // Others look at the views that often; here every node tells what it thinks when it does.
    out.insert("poll_ms".into(), 0.into());
    out.insert("events_missed".into(), views.missed.into());
    out.insert("counters".into(), cluster.counters());
    Ok(out)
}

/// What came of one stop: when they were suspected at the least, and when they were dead.
struct Stopped {
    suspect: Value,
    dead: Value,
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
    let suspicions = views.falsely.suspicions - suspicions;
    let deaths = views.falsely.deaths - deaths;
    let mut suspect = suspect.describe("already_suspect_pairs");
    suspect.insert("false_suspicions".into(), suspicions.into());
    let mut dead = dead.describe("already_dead_pairs");
    dead.insert("false_deaths".into(), deaths.into());
    Stopped { suspect: suspect.into(), dead: dead.into() }
}

/// When it was noticed by the first, and when by all, that some have stopped.
#[derive(Debug)]
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

    /// In so many views it is so, after this time.
    fn update(&mut self, after: Duration, noticed: usize) {
        if noticed > 0 {
            self.first.get_or_insert(after);
        }
        // What two nodes tell at about the same time may come in either order.
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

/// What a node thinks of another, from good to bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Thought {
    #[default]
    Unknown,
    Live,
    Suspect,
    /// Or left, which nobody does here.
    Dead,
}

/// Somebody thinks so now.
#[derive(Clone, Copy, Debug)]
struct Thinks {
    /// On the watch of [`Views`].
    at: Duration,
    observer: usize,
    target: usize,
    thought: Thought,
    /// So many events are lost that came before.
    missed: u64,
}

/// Who thinks what of whom.
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

/// What was thought of running nodes.
#[derive(Debug, Default)]
struct Falsely {
    /// Times that somebody who had one of them for live began to suspect it.
    suspicions: usize,
    suspected: BTreeSet<usize>,
    /// Times that somebody no longer had one of them for live or suspect.
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

    /// Takes in what is told within this time.
    async fn follow_for(&mut self, time: Duration) {
        let end = self.watch.elapsed() + time;
        while self.next(end.saturating_sub(self.watch.elapsed())).await.is_ok() {}
    }

    /// Takes in the next thing that is told, and says when that was.
    async fn next(&mut self, wait: Duration) -> Result<Duration, Elapsed> {
        let Some(news) = timeout(wait, self.news.recv()).await? else {
            // Nobody tells any more: the time passes without news.
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

    /// In how many views of running nodes these are thought of so badly.
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

/// Tells what one node thinks.
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
                Err(SubscriptionError::Ended) => return,
            }
        }
    }

    /// Tells everything, since events were missed or nothing was told yet.
    fn tell_all(&self, node: &Gossipmonger, mut missed: u64) {
        for peer in node.snapshot().peers() {
            let thought = match peer.state {
                PeerState::Unheard | PeerState::Unreachable => Thought::Unknown,
                PeerState::Live => Thought::Live,
                PeerState::Suspect => Thought::Suspect,
                PeerState::Dead | PeerState::Left => Thought::Dead,
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
            // Nobody listens when the measurement is over.
            let _ = self.tell.send(Thinks { at, observer, target, thought, missed });
        }
    }
}

/// The survivors settle before the next stop.
const PAUSE: Duration = Duration::from_secs(5);
