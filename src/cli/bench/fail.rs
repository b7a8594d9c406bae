//! How soon silence is noticed, and how often somebody is called dead who is not.

use std::{collections::BTreeSet, time::Duration};

use rand::seq::IndexedRandom;
use serde_json::{Value, json};

use super::{Common, Report, cluster::Cluster, join_all, rounded};
use crate::cli::{error::CliError, stopwatch::Stopwatch};

/// Lets the cluster settle, silences one node, and later five at once. Node 0, the seed, stays.
pub(super) async fn fail(common: &Common) -> Result<Report, CliError> {
    let mut out = common.report("fail");
    let mut cluster = join_all(common, &mut out).await?;
    let poll = if common.nodes > POLL_NODES { POLL_MANY } else { POLL };
    let mut views = Views::new(common.nodes);
    views.look_for(&cluster, Duration::from_secs(common.warmup), poll).await;
    out.insert("false_deaths_warmup".into(), views.false_deaths.into());
    out.insert("poll_ms".into(), (poll.as_millis() as u64).into());
    for count in [1, 5] {
        let report = stop(&mut cluster, &mut views, count, common.timeout(), poll).await;
        out.insert(format!("fail{count}"), report);
        views.look_for(&cluster, PAUSE, poll).await;
    }
    out.insert("false_deaths_total".into(), views.false_deaths.into());
    out.insert("false_death_targets".into(), views.false_targets.len().into());
    out.insert("counters".into(), cluster.counters());
    Ok(out)
}

async fn stop(
    cluster: &mut Cluster,
    views: &mut Views,
    count: usize,
    timeout: Duration,
    poll: Duration,
) -> Value {
    let may_stop: Vec<_> = views.running().filter(|index| *index != 0).collect();
    let victims: Vec<_> = may_stop.sample(&mut rand::rng(), count).copied().collect();
    victims.iter().for_each(|victim| views.runs[*victim] = false);
    let pairs = views.running().count() * victims.len();
    let already = pairs - views.live_pairs(&victims);
    let before = views.false_deaths;
    let watch = Stopwatch::start();
    victims.iter().for_each(|victim| cluster.kill(*victim));
    let (mut first, mut all) = (None, None);
    let mut unseen = pairs;
    while all.is_none() && watch.elapsed() < timeout {
        tokio::time::sleep(poll).await;
        views.look(cluster);
        unseen = views.live_pairs(&victims);
        let seconds = || rounded(watch.seconds(), 2);
        if unseen < pairs && first.is_none() {
            first = Some(seconds());
        }
        if unseen == 0 {
            all = Some(seconds());
        }
    }
    json!({
        "first_s": first,
        "all_s": all,
        "undetected_pairs_at_end": unseen,
        "already_dead_pairs": already,
        "false_deaths": views.false_deaths - before,
    })
}

/// Who has whom for live.
#[derive(Debug)]
struct Views {
    /// By observer, then by target.
    live: Vec<Vec<bool>>,
    runs: Vec<bool>,
    /// Times that somebody no longer had a running node for live.
    false_deaths: usize,
    false_targets: BTreeSet<usize>,
}

impl Views {
    fn new(nodes: usize) -> Self {
        let live = vec![vec![false; nodes]; nodes];
        Self { live, runs: vec![true; nodes], false_deaths: 0, false_targets: BTreeSet::new() }
    }

    fn running(&self) -> impl Iterator<Item = usize> {
        self.runs.iter().enumerate().filter_map(|(index, runs)| runs.then_some(index))
    }

    async fn look_for(&mut self, cluster: &Cluster, time: Duration, poll: Duration) {
        let watch = Stopwatch::start();
        while watch.elapsed() < time {
            self.look(cluster);
            tokio::time::sleep(poll).await;
        }
    }

    /// Reads every view once.
    fn look(&mut self, cluster: &Cluster) {
        let mut now = vec![false; self.runs.len()];
        for (observer, node) in cluster.running() {
            cluster.live(node, &mut now);
            let before = &mut self.live[observer];
            for target in (0..now.len()).filter(|target| *target != observer) {
                if before[target] && !now[target] && self.runs[target] {
                    self.false_deaths += 1;
                    self.false_targets.insert(target);
                }
            }
            before.copy_from_slice(&now);
        }
    }

    /// In how many views of running nodes these are still live.
    fn live_pairs(&self, targets: &[usize]) -> usize {
        let views = self.running().map(|observer| &self.live[observer]);
        views.map(|view| targets.iter().filter(|target| view[**target]).count()).sum()
    }
}

const POLL: Duration = Duration::from_millis(50);
const POLL_MANY: Duration = Duration::from_millis(100);
/// From more nodes than this on, views are read less often.
const POLL_NODES: usize = 50;
/// The survivors settle before the next stop.
const PAUSE: Duration = Duration::from_secs(5);
