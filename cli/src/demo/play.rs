//! The course of the demo: start, join, a change every 2 s, a death, a return, the end.
//!
//! Each act has its time. An act that waits for the nodes may be late by [`GRACE`]; then the demo goes on without it,
//! and the verdict says what was missing.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use gossipmonger::{
    Member, Snapshot,
    protocol::{
        entry::{Key, Value},
        event::Event,
        id::{NodeId, Version},
        service::manifest::MANIFEST_KEY,
        state::PeerState,
    },
};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::{
    Args,
    account::{Account, Change, Written, shown},
    calls::Calls,
    stage::{Seen, Stage},
};
use crate::error::CliError;

/// The running demo.
#[derive(Debug)]
pub(super) struct Play {
    stage: Stage,
    names: Vec<NodeId>,
    times: Times,
    act: Act,
    rng: StdRng,
    victim: NodeId,
    next_write: Duration,
    account: Account,
    calls: Calls,
    verdict: Vec<String>,
    news: Vec<News>,
    random_seed: u64,
    datacenters: usize,
}

/// News for the view.
#[derive(Clone, Debug)]
pub(super) enum News {
    /// An action of the demo.
    Done { at: Duration, node: Option<NodeId>, what: String },
    /// An event that a node saw.
    Seen(Seen),
}

/// Whether the demo goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    Done,
}

/// What the demo waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    Start,
    Join,
    Kill,
    Return,
    Quiet,
    End,
}

#[derive(Clone, Copy, Debug)]
struct Times {
    kill: Duration,
    back: Duration,
    quiet: Duration,
    end: Duration,
}

/// One node, from the other nodes' view.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) node: NodeId,
    pub(super) datacenter: String,
    pub(super) runs: bool,
    /// How many of the other running nodes consider it live, suspect or dead.
    pub(super) live: usize,
    pub(super) suspect: usize,
    pub(super) dead: usize,
    /// The number of other running nodes.
    pub(super) others: usize,
    /// The highest phi that another node has for it.
    pub(super) phi: f64,
    pub(super) version: Version,
    pub(super) keys: usize,
    /// How many other nodes have its last version.
    pub(super) copies: usize,
    pub(super) last_write: Option<String>,
}

impl Play {
    pub(super) fn begin(args: &Args) -> Result<Self, CliError> {
        let stage = Stage::build(args.nodes, args.datacenters)?;
        let names = stage.names();
        let random_seed =
            args.random_seed.unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
        let mut rng = StdRng::seed_from_u64(random_seed);
        // Never the first node: it is the others' seed.
        let victim = names[1..].choose(&mut rng).unwrap_or(&names[0]).clone();
        let account = Account { nodes: args.nodes, ..Account::default() };
        Ok(Self {
            stage,
            names,
            times: Times::new(Duration::from_secs(args.seconds)),
            act: Act::Start,
            rng,
            victim,
            next_write: Duration::ZERO,
            account,
            calls: Calls::default(),
            verdict: vec!["it did not come to its end".to_owned()],
            news: Vec::new(),
            random_seed,
            datacenters: args.datacenters,
        })
    }

    /// Waits for an event at a node, and takes all that have arrived.
    pub(super) async fn listen(&mut self) {
        let seen = self.stage.seen().await;
        self.take(seen);
        while let Some(seen) = self.stage.try_seen() {
            self.take(seen);
        }
    }

    /// Does what is due.
    ///
    /// # Errors
    /// A node that cannot start ends the demo.
    pub(super) async fn step(&mut self) -> Result<Progress, CliError> {
        let now = self.elapsed();
        self.account.calls = self.calls.counts();
        match self.act {
            Act::Start => self.start_all().await?,
            Act::Join => self.join(now),
            Act::Kill if self.is_due(now, self.times.kill, |_| true) => self.kill(now),
            Act::Return if self.is_due(now, self.times.back, Self::is_death_seen) => {
                self.bring_back(now).await?;
            }
            Act::Quiet if now >= self.times.quiet => self.act = Act::End,
            Act::End if self.is_due(now, self.times.end, |play| play.missing().is_empty()) => {
                self.account.converged = self.converged();
                self.verdict = self.missing();
                return Ok(Progress::Done);
            }
            _ => {}
        }
        self.write_if_due(now).await;
        Ok(Progress::More)
    }

    /// Ends all nodes.
    pub(super) async fn end(&mut self) {
        self.calls.end().await;
        self.stage.clear().await;
    }

    /// What was missing for a good end: empty if all went well.
    pub(super) fn verdict(&self) -> &[String] {
        &self.verdict
    }

    fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if self.account.joined.is_none() {
            missing.push("not all nodes have found each other".to_owned());
        }
        missing.extend(unseen(self.account.death.as_ref(), "death"));
        missing.extend(unseen(self.account.back.as_ref(), "return"));
        missing.extend(self.account.calls.faults(&self.victim));
        if self.account.converged.is_none() {
            missing.extend(self.differences());
        }
        missing
    }

    /// The running nodes.
    pub(super) fn running(&self) -> BTreeSet<NodeId> {
        self.names.iter().filter(|name| self.stage.node(name).is_some()).cloned().collect()
    }

    pub(super) const fn account(&self) -> &Account {
        &self.account
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.stage.elapsed()
    }

    /// The planned duration.
    pub(super) const fn length(&self) -> Duration {
        self.times.end
    }

    pub(super) fn nodes(&self) -> usize {
        self.names.len()
    }

    pub(super) const fn datacenters(&self) -> usize {
        self.datacenters
    }

    /// The news since the last call.
    pub(super) fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// The present state of all nodes.
    pub(super) fn rows(&self) -> Vec<Row> {
        let snapshots = self.stage.snapshots();
        self.names.iter().map(|name| self.row(name, &snapshots)).collect()
    }

    // --- acts

    async fn start_all(&mut self) -> Result<(), CliError> {
        let many = if self.datacenters == 1 { "" } else { "s" };
        self.tell(
            None,
            format!(
                "{} nodes in {} datacenter{many}, random seed {}; certificates by an authority \
                 made for this run",
                self.names.len(),
                self.datacenters,
                self.random_seed
            ),
        );
        for name in self.names.clone() {
            let address = self.stage.start(&name).await?;
            self.tell(Some(&name), format!("starts on {address}"));
        }
        self.act = Act::Join;
        Ok(())
    }

    fn join(&mut self, now: Duration) {
        let snapshots = self.stage.snapshots();
        let mut all = self.names.iter().map(|name| self.row(name, &snapshots));
        if all.all(|row| row.live == row.others) {
            self.account.joined = Some(now);
            self.tell(None, format!("all nodes have found each other, after {}", shown(now)));
            self.act = Act::Kill;
        } else if now > self.times.kill + GRACE {
            self.act = Act::Kill;
        }
        if self.act == Act::Kill {
            self.begin_calls();
        }
        self.next_write = now;
    }

    /// The victim does not call: what was under way there when it was killed would say nothing.
    fn begin_calls(&mut self) {
        let callers = self.names.iter().filter(|name| **name != self.victim).take(CALLERS_MAX);
        let callers: Vec<_> = callers.filter_map(|name| self.stage.node(name)).cloned().collect();
        for caller in &callers {
            self.calls.begin(caller);
        }
        let names = callers.iter().map(|caller| caller.node().as_str()).collect::<Vec<_>>();
        let verb = if names.len() == 1 { "calls" } else { "call" };
        let who = names.join(" and ");
        self.tell(None, format!("{who} {verb} a service of all nodes from now on"));
    }

    fn kill(&mut self, now: Duration) {
        let victim = self.victim.clone();
        self.account.death = Some(Change::new(&victim, now, self.names.iter()));
        self.stage.kill(&victim);
        self.account.excuse(&victim);
        self.tell(Some(&victim), "is killed: it falls silent, nobody is told".to_owned());
        self.act = Act::Return;
    }

    async fn bring_back(&mut self, now: Duration) -> Result<(), CliError> {
        let victim = self.victim.clone();
        self.account.back = Some(Change::new(&victim, now, self.names.iter()));
        let address = self.stage.start(&victim).await?;
        self.tell(Some(&victim), format!("is back, with what its store kept, on {address}"));
        self.act = Act::Quiet;
        Ok(())
    }

    async fn write_if_due(&mut self, now: Duration) {
        let writing = (Act::Kill..=Act::Quiet).contains(&self.act);
        if !writing || now < self.next_write {
            return;
        }
        self.next_write = now + WRITE_INTERVAL;
        let running = Vec::from_iter(self.running());
        let Some(owner) = running.choose(&mut self.rng) else { return };
        let Some(node) = self.stage.node(owner).cloned() else { return };
        let (key, value) = self.pick(&node.snapshot(), owner);
        let change = Change::new(owner, self.elapsed(), running.iter());
        match node.set(key.clone(), value.clone()).await {
            Ok(version) => {
                self.account.writes.push(Written { key, value, version, change });
            }
            Err(error) => self.tell(Some(owner), format!("cannot set {key}: {error}")),
        }
    }

    /// A key and a new value for it.
    fn pick(&mut self, snapshot: &Snapshot, owner: &NodeId) -> (Key, Value) {
        let (key, values) = KEYS.choose(&mut self.rng).copied().unwrap_or(KEYS[0]);
        let present = snapshot.get(owner, key).and_then(Value::as_str);
        let others: Vec<_> = values.iter().filter(|value| Some(**value) != present).collect();
        let value = others.choose(&mut self.rng).map_or(values[0], |value| **value);
        (Key::from(key), Value::from(value))
    }

    // --- judging

    fn is_due(&self, now: Duration, at: Duration, ready: impl Fn(&Self) -> bool) -> bool {
        now >= at + GRACE || now >= at && ready(self)
    }

    fn is_death_seen(&self) -> bool {
        self.account.death.as_ref().is_some_and(Change::is_seen_by_all)
    }

    /// The number of keys, if every node has all of them and considers every other node live.
    fn converged(&self) -> Option<usize> {
        let snapshots = self.stage.snapshots();
        let keys = || self.names.iter().map(|name| snapshots.get(name).map_or(0, |s| s.len(name)));
        self.differences().is_empty().then(|| keys().sum())
    }

    /// Compares what the nodes hold: their real maps, not their events.
    fn differences(&self) -> Vec<String> {
        let snapshots = self.stage.snapshots();
        let mut differences = Vec::new();
        for owner in &self.names {
            let Some(own) = snapshots.get(owner) else {
                differences.push(format!("{owner} does not run"));
                continue;
            };
            let differing = snapshots.iter().filter_map(|(name, copy)| {
                difference(owner, own, copy).map(|what| format!("{name} {what}"))
            });
            differences.extend(differing);
        }
        differences
    }

    fn row(&self, name: &NodeId, snapshots: &BTreeMap<NodeId, Snapshot>) -> Row {
        let own = snapshots.get(name);
        let others: Vec<_> = snapshots.iter().filter(|(other, _)| *other != name).collect();
        let members: Vec<_> = others.iter().filter_map(|(_, copy)| copy.member(name)).collect();
        let count = |state| members.iter().filter(|member| member.state == state).count();
        let latest = |member: &&Member| (member.generation, member.version);
        let best = own.and_then(|own| own.member(name));
        let best = best.or_else(|| members.iter().max_by_key(latest).cloned());
        let reached =
            |member: &&Member| best.as_ref().map(|best| latest(&best)) == Some(latest(member));
        let last = self.account.writes.iter().rev().find(|write| write.change.node == *name);
        Row {
            node: name.clone(),
            datacenter: self.stage.datacenter(name).to_owned(),
            runs: own.is_some(),
            live: count(PeerState::Live),
            suspect: count(PeerState::Suspect),
            dead: count(PeerState::Dead),
            others: others.len(),
            phi: members.iter().map(|member| member.phi).fold(0.0, f64::max),
            version: best.as_ref().map_or(Version::ZERO, |best| best.version),
            keys: best.as_ref().map_or(0, |best| best.keys),
            copies: members.iter().filter(reached).count(),
            last_write: last.map(|write| {
                format!("{} = {}", write.key, write.value.as_str().unwrap_or("(bytes)"))
            }),
        }
    }

    fn take(&mut self, seen: Seen) {
        if let Ok(event) = &seen.event {
            self.account.note(&seen.observer, seen.at, event);
        }
        self.news.push(News::Seen(seen));
    }

    fn tell(&mut self, node: Option<&NodeId>, what: String) {
        self.news.push(News::Done { at: self.elapsed(), node: node.cloned(), what });
    }
}

impl Times {
    fn new(length: Duration) -> Self {
        Self {
            kill: length / 3,
            back: length * 2 / 3,
            quiet: length.saturating_sub(QUIET),
            end: length,
        }
    }
}

/// The faults of a copy of `owner`'s map.
fn difference(owner: &NodeId, own: &Snapshot, copy: &Snapshot) -> Option<String> {
    let Some(member) = copy.member(owner) else {
        return Some(format!("does not know {owner}"));
    };
    if !member.is_live() {
        return Some(format!("does not have {owner} for live ({:?})", member.state));
    }
    if own.version(owner) != copy.version(owner) {
        return Some(format!("has not got the last version of {owner}"));
    }
    (!own.prefix(owner, "").eq(copy.prefix(owner, "")))
        .then(|| format!("holds other keys of {owner} than {owner} itself"))
}

fn unseen(change: Option<&Change>, what: &str) -> Option<String> {
    match change {
        None => Some(format!("there was no {what}")),
        Some(change) if change.is_seen_by_all() => None,
        Some(change) => {
            let who = change.unseen().join(", ");
            Some(format!("the {what} of {} was not seen by {who}", change.node))
        }
    }
}

/// An event in words, after the observer's name.
pub(super) fn sentence(observer: &NodeId, event: &Event) -> String {
    match event {
        Event::NewPeer { peer } => format!("learns of {peer}"),
        Event::PeerChanged { peer, .. } => {
            format!("sees {peer} restarted or with new addresses")
        }
        Event::PeerLive { peer, .. } => format!("sees {peer} live"),
        Event::PeerSuspect { peer, reason } => format!("misses {peer} (phi {:.1})", reason.phi),
        Event::PeerDead { peer, reason } => format!("sees {peer} dead (phi {:.1})", reason.phi),
        Event::PeerLeft { peer, .. } => format!("sees {peer} leave"),
        Event::PeerReturned { peer, how, .. } => format!("reports that {peer} {how}"),
        Event::PeerRemoved { peer, .. } => format!("removes {peer}"),
        Event::PeerRevoked { peer, .. } => format!("cuts off {peer}, which is revoked"),
        Event::PeerForgotten { peer } => format!("forgets {peer}"),
        Event::DatacenterUnreachable { datacenter } => format!("cannot reach {datacenter}"),
        Event::DatacenterReachable { datacenter } => format!("reaches {datacenter} again"),
        Event::Updated { peer, key, .. } if is_manifest(key) && peer == observer => {
            "offers its services".to_owned()
        }
        Event::Updated { peer, key, .. } if is_manifest(key) => {
            format!("learns which services {peer} offers")
        }
        Event::Deleted { peer, key, .. } if is_manifest(key) => {
            format!("learns that {peer} offers no service")
        }
        Event::Updated { peer, key, value, version, .. } => {
            let value = value.as_str().unwrap_or("(bytes)");
            let verb = if peer == observer { "sets".to_owned() } else { format!("gets {peer}'s") };
            format!("{verb} {key} = {value} (version {version})")
        }
        Event::Deleted { peer, key, .. } if peer == observer => format!("deletes {key}"),
        Event::Deleted { peer, key, .. } => format!("drops {peer}'s {key}"),
        Event::Error(problem) => format!("reports: {problem}"),
        other => format!("reports: {other:?}"),
    }
}

/// Whether a key is the list of the services that a node offers, which is not text.
pub(super) fn is_manifest(key: &Key) -> bool {
    key.as_str() == MANIFEST_KEY
}

/// Each has a connection for calls to every other node.
const CALLERS_MAX: usize = 2;
/// How often a key changes.
const WRITE_INTERVAL: Duration = Duration::from_secs(2);
/// The time before the end without writes, so that all nodes can converge.
const QUIET: Duration = Duration::from_secs(1);
/// How late an act that waits for the nodes may be: a busy machine is slow, not wrong.
const GRACE: Duration = Duration::from_secs(10);
/// The keys that the nodes publish, with their values.
const KEYS: [(&str, &[&str]); 5] = [
    ("color", &["red", "green", "blue", "amber", "violet"]),
    ("load", &["5 %", "12 %", "31 %", "48 %", "77 %", "93 %"]),
    ("role", &["leader", "follower", "witness"]),
    ("build", &["1.4.0", "1.4.1", "1.5.0"]),
    ("shard", &["0", "1", "2", "3", "5", "8"]),
];
