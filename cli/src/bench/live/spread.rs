//! How long each write took until a quorum, all nodes, and all nodes of each datacenter had it.
//!
//! A node has a write when its answer has arrived that says so: the time includes that of the question, and what passed
//! since the question before (`asked_every_ms`).

use std::{collections::BTreeMap, time::Duration};

use gossipmonger::protocol::id::{Datacenter, NodeId, Version};
use serde_json::{Value, json};

use super::{Args, keys::Keys, nodes::Nodes, writes::Log};
use crate::{
    admin::Request,
    bench::{Faults, Report, statistics::quantiles_to},
    client,
    error::CliError,
    plot::{Axis, Chart},
    probe::CopiesView,
    remote::Target,
    spread::{SpreadView, WAIT_MAX, Wait},
};

/// The times of all writes, in milliseconds; `None`: it did not get so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Spread {
    writes: usize,
    last: u64,
    quorum: Vec<Option<f64>>,
    all: Vec<Option<f64>>,
    datacenters: BTreeMap<Datacenter, Vec<Option<f64>>>,
    /// Writes that no other node has.
    nowhere: usize,
    /// How many writes each node lacks.
    lacking: BTreeMap<NodeId, usize>,
    asked_every_ms: Vec<f64>,
}

impl Spread {
    pub(super) fn of(nodes: &Nodes, log: &Log) -> Self {
        let mut spread = Self { writes: log.writes.len(), ..Self::default() };
        let asked = log.answers.windows(2).map(|two| two[1].at_ms - two[0].at_ms);
        spread.asked_every_ms = asked.collect();
        for write in &log.writes {
            spread.last = spread.last.max(write.version);
            let arrived = |node: &NodeId| {
                let answers = log.answers.iter();
                let mut with = answers.filter(|answer| {
                    answer.has.iter().any(|(other, has)| other == node && *has >= write.version)
                });
                with.next().map(|answer| answer.at_ms - write.at_ms)
            };
            let times: Vec<_> =
                nodes.live.iter().map(|(node, at)| (node, at, arrived(node))).collect();
            for (node, ..) in times.iter().filter(|(.., time)| time.is_none()) {
                *spread.lacking.entry((*node).clone()).or_default() += 1;
            }
            let mut known: Vec<_> = times.iter().filter_map(|(.., time)| *time).collect();
            known.sort_by(f64::total_cmp);
            spread.nowhere += usize::from(known.is_empty());
            // The agent's own node is one of the quorum.
            spread.quorum.push(match nodes.quorum() {
                0 => Some(0.0),
                quorum => known.get(quorum - 1).copied(),
            });
            spread.all.push(latest(times.iter().map(|(.., time)| *time)));
            for datacenter in &nodes.datacenters {
                let there = times.iter().filter(|(_, at, _)| *at == datacenter);
                let there: Vec<_> = there.map(|(.., time)| *time).collect();
                if !there.is_empty() {
                    let all = spread.datacenters.entry(datacenter.clone()).or_default();
                    all.push(latest(there.into_iter()));
                }
            }
        }
        spread
    }

    /// Writes the figures into the report, after the copies at all nodes were compared with what was written.
    pub(super) fn report(
        &self,
        agent: &Target,
        nodes: &Nodes,
        keys: &Keys,
        args: &Args,
        out: &mut Report,
    ) -> Result<(), CliError> {
        let mut faults = self.faults(args, nodes);
        let copies = client::list(agent, Request::Copies { prefix: keys.prefix().to_owned() })?;
        let checked = compare(nodes, &keys.sums(), &copies, &mut faults);
        if faults.is_empty() {
            faults.append(self.confirm(agent, args, nodes));
        }
        let quantiles =
            |times: &[Option<f64>]| quantiles_to(times.iter().copied().flatten().collect(), DIGITS);
        let datacenters = self.datacenters.iter();
        let datacenters: Value =
            datacenters.map(|(name, times)| (name.to_string(), quantiles(times))).collect();
        out.insert("writes".into(), self.writes.into());
        out.insert("copies_checked".into(), checked.into());
        out.insert("asked_every_ms".into(), quantiles_to(self.asked_every_ms.clone(), DIGITS));
        out.insert(
            "spread_ms".into(),
            json!({
                "quorum": quantiles(&self.quorum),
                "all": quantiles(&self.all),
                "datacenters": datacenters,
            }),
        );
        faults.judge(out, &["spread_ms"]);
        Ok(())
    }

    fn faults(&self, args: &Args, nodes: &Nodes) -> Faults {
        let mut faults = Faults::default();
        for node in &nodes.lost {
            faults.require(false, || {
                format!(
                    "{node} was lost while it was measured: the answers of the others waited for it"
                )
            });
        }
        let (writes, wanted) = (self.writes, args.writes());
        faults.require(writes == wanted, || format!("{writes} of {wanted} writes were made"));
        let nowhere = self.nowhere;
        faults.require(nowhere == 0, || format!("no other node had {nowhere} of {writes} writes"));
        let no_quorum = self.quorum.iter().filter(|time| time.is_none()).count();
        faults.require(no_quorum == 0, || format!("no quorum had {no_quorum} of {writes} writes"));
        for (node, lacks) in &self.lacking {
            faults.require(false, || {
                format!("{node} did not have {lacks} of {writes} writes in time")
            });
        }
        faults
    }

    /// Asks by the other way: every node takes part in it, agent or not.
    fn confirm(&self, agent: &Target, args: &Args, nodes: &Nodes) -> Faults {
        let mut faults = Faults::default();
        let within = Duration::from_secs(args.timeout).min(WAIT_MAX);
        let request = Request::Await {
            version: Version(self.last),
            wait: Wait::All,
            within_ms: u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
        };
        match client::call::<SpreadView>(agent, request) {
            Ok(spread) => {
                let (have, live) = (spread.have, nodes.live.len() + 1);
                faults.require(have >= live, || format!("{have} of {live} nodes have all writes"));
            }
            Err(error) => {
                faults.require(false, || format!("not all nodes have all writes: {error}"));
            }
        }
        faults
    }

    /// Which part of the writes had spread after which time.
    pub(super) fn chart(&self) -> Chart {
        let title = format!("{} writes on a running cluster", self.writes);
        let (x, y) = (Axis::linear("ms after the write"), Axis::linear("% of the writes"));
        let mut chart = Chart::new(title, x, y);
        for (name, times) in &self.datacenters {
            chart = chart.line(format!("all nodes in {name}"), steps(times));
        }
        chart.line("a quorum", steps(&self.quorum)).line("all nodes", steps(&self.all))
    }
}

/// The time of the last of them; `None` if one has none.
fn latest(mut times: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    times.try_fold(0.0, |latest, time| Some(f64::max(latest, time?)))
}

/// The distribution of the times. Writes that did not get so far keep it below 100 %.
fn steps(times: &[Option<f64>]) -> Vec<(f64, f64)> {
    let mut known: Vec<_> = times.iter().copied().flatten().collect();
    known.sort_by(f64::total_cmp);
    let part = |rank: usize| 100.0 * rank as f64 / times.len() as f64;
    let steps = known.iter().enumerate();
    steps.flat_map(|(rank, time)| [(*time, part(rank)), (*time, part(rank + 1))]).collect()
}

/// Compares the copies at the counted nodes with what was written; the number of equal ones.
fn compare(
    nodes: &Nodes,
    sums: &BTreeMap<String, String>,
    copies: &[CopiesView],
    faults: &mut Faults,
) -> usize {
    let mut equal = 0;
    for copy in copies.iter().filter(|copy| nodes.called.contains_key(&copy.node)) {
        if let Some(problem) = &copy.problem {
            faults.require(false, || format!("{} did not show its copies: {problem}", copy.node));
            continue;
        }
        let same = sums.iter().filter(|(key, sum)| copy.sums.get(*key) == Some(sum)).count();
        equal += same;
        faults.require(same == sums.len(), || {
            format!("{} has {same} of {} keys as they were written", copy.node, sums.len())
        });
    }
    for node in nodes.called.keys().filter(|node| !copies.iter().any(|copy| copy.node == **node)) {
        faults.require(false, || format!("{node} did not show its copies"));
    }
    equal
}

const DIGITS: i32 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::live::writes::{Answer, Write};

    fn node(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn datacenter(name: &str) -> Datacenter {
        Datacenter::new(name).unwrap()
    }

    /// Two nodes in `eu`, one in `us`, and the agent's own.
    fn nodes() -> Nodes {
        let live: BTreeMap<_, _> = [("b", "eu"), ("c", "us"), ("d", "eu")]
            .map(|(name, at)| (node(name), datacenter(at)))
            .into();
        let datacenters = live.values().cloned().collect();
        Nodes { called: live.clone(), live, datacenters, known: 4, ..Nodes::default() }
    }

    fn log(answers: &[(f64, [u64; 3])]) -> Log {
        let answer = |(at_ms, [b, c, d]): &(f64, [u64; 3])| Answer {
            at_ms: *at_ms,
            has: vec![(node("b"), *b), (node("c"), *c), (node("d"), *d)],
        };
        Log {
            writes: vec![Write { version: 5, at_ms: 100.0 }, Write { version: 6, at_ms: 200.0 }],
            answers: answers.iter().map(answer).collect(),
        }
    }

    #[test]
    fn a_write_is_where_an_answer_says_so_and_not_before() {
        let log =
            log(&[(90.0, [4, 4, 4]), (110.0, [5, 4, 5]), (150.0, [5, 5, 5]), (230.0, [6; 3])]);
        let spread = Spread::of(&nodes(), &log);
        assert_eq!(spread.all, [Some(50.0), Some(30.0)]);
        assert_eq!(spread.quorum, [Some(10.0), Some(30.0)]);
        assert_eq!(spread.datacenters[&datacenter("eu")], [Some(10.0), Some(30.0)]);
        assert_eq!(spread.datacenters[&datacenter("us")], [Some(50.0), Some(30.0)]);
        assert_eq!((spread.nowhere, spread.lacking.len(), spread.last), (0, 0, 6));
    }

    #[test]
    fn a_write_that_a_node_never_has_is_a_fault_that_names_it() {
        let spread = Spread::of(&nodes(), &log(&[(150.0, [5, 4, 5])]));
        assert_eq!(spread.all, [None, None]);
        assert_eq!(spread.nowhere, 1, "nobody has version 6");
        assert_eq!(spread.lacking[&node("c")], 2);
    }

    #[test]
    fn a_copy_that_differs_or_is_missing_is_a_fault() {
        let sums = BTreeMap::from([("k".to_owned(), "1".to_owned())]);
        let copy = |name: &str, sum: &str| CopiesView {
            node: node(name),
            datacenter: datacenter("eu"),
            sums: BTreeMap::from([("k".to_owned(), sum.to_owned())]),
            omitted: 0,
            problem: None,
        };
        let judged = |copies: &[CopiesView]| {
            let mut faults = Faults::default();
            let equal = compare(&nodes(), &sums, copies, &mut faults);
            (equal, faults.is_empty())
        };
        assert_eq!(judged(&[copy("b", "1"), copy("c", "1"), copy("d", "1")]), (3, true));
        assert_eq!(judged(&[copy("b", "1"), copy("c", "2"), copy("d", "1")]), (2, false));
        assert_eq!(judged(&[copy("b", "1"), copy("c", "1")]), (2, false));
    }
}
