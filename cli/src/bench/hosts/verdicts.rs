//! What a dead verdict did to the calls that were under way.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use super::rates::Rates;
use crate::bench::rounded;

/// The verdicts of this node about others, and the calls that were under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdicts {
    all: Vec<Verdict>,
    /// Calls that failed at a node: when the last of them did, and how many.
    failed: BTreeMap<String, (Duration, u64)>,
}

#[derive(Clone, Debug)]
struct Verdict {
    node: String,
    at: Duration,
    /// Calls under way when it was reported.
    pending: u64,
    /// How many of them are still under way.
    left: u64,
    /// When the last of them ended.
    ended: Duration,
}

impl Verdicts {
    /// The node was reported dead at this moment, while so many calls were under way.
    pub(super) fn dead(&mut self, node: String, at: Duration, pending: u64) {
        if self.all.len() < VERDICTS_MAX {
            self.all.push(Verdict { node, at, pending, left: pending, ended: at });
        }
    }

    /// A call has ended.
    pub(super) fn ended(&mut self, begun: Duration, now: Duration) {
        for verdict in self.all.iter_mut().filter(|verdict| begun <= verdict.at && verdict.left > 0)
        {
            verdict.left -= 1;
            verdict.ended = now;
        }
    }

    /// A call has failed at this node.
    pub(super) fn failed(&mut self, node: &str, now: Duration) {
        if let Some((last, count)) = self.failed.get_mut(node) {
            *last = now;
            *count += 1;
        } else if self.failed.len() < VERDICTS_MAX {
            self.failed.insert(node.to_owned(), (now, 1));
        }
    }

    /// `rate`: with which calls are begun until `end`; `None`: with no certain one.
    pub(super) fn report(&self, rates: &Rates, rate: Option<f64>, end: Duration) -> Value {
        let millis = |time: Duration| rounded(time.as_secs_f64() * 1e3, 1);
        let report = |verdict: &Verdict| {
            let failed = self.failed.get(&verdict.node);
            let full = rate.and_then(|rate| rates.full_after(verdict.at, end, rate));
            let ended =
                (verdict.left == 0).then(|| millis(verdict.ended.saturating_sub(verdict.at)));
            json!({
                "node": verdict.node,
                "at_ms": millis(verdict.at),
                "pending": verdict.pending,
                "pending_ended_ms": ended,
                "failed": failed.map_or(0, |(_, count)| *count),
                "last_failed_ms": failed.map(|(last, _)| {
                    rounded((last.as_secs_f64() - verdict.at.as_secs_f64()) * 1e3, 1)
                }),
                "full_rate_ms": full.map(millis),
            })
        };
        self.all.iter().map(report).collect()
    }
}

/// How many verdicts, and nodes at which calls failed, are kept.
const VERDICTS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn only_calls_under_way_at_the_verdict_count() {
        let mut verdicts = Verdicts::default();
        verdicts.failed("b", ms(99));
        verdicts.dead("b".into(), ms(100), 2);
        verdicts.ended(ms(90), ms(110));
        verdicts.ended(ms(101), ms(400));
        let report = verdicts.report(&Rates::default(), None, ms(1_000));
        assert_eq!(report[0]["pending_ended_ms"], Value::Null, "one is under way: {report}");
        verdicts.ended(ms(80), ms(140));
        verdicts.ended(ms(105), ms(500));
        let report = verdicts.report(&Rates::default(), None, ms(1_000));
        assert_eq!(report[0]["pending"], 2, "{report}");
        assert_eq!(report[0]["pending_ended_ms"], 40.0, "{report}");
        assert_eq!((&report[0]["failed"], &report[0]["last_failed_ms"]), (&json!(1), &json!(-1.0)));
    }
}
