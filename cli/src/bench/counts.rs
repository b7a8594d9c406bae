//! The counters of nodes. Work beyond the least that a job takes is wasted.

use std::collections::BTreeMap;

use gossipmonger::{Gossipmonger, protocol::route::Counter};

use super::{Report, rounded};

/// The sums of the counters of some nodes.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts(BTreeMap<Counter, u64>);

impl Counts {
    /// The present counters of these nodes.
    pub(super) fn of<'a>(nodes: impl IntoIterator<Item = &'a Gossipmonger>) -> Self {
        let mut sums = BTreeMap::new();
        for node in nodes {
            for counter in Counter::ALL {
                *sums.entry(counter).or_default() += node.counters().get(counter);
            }
        }
        Self(sums)
    }

    /// The sum of several.
    pub(super) fn sum<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut sums = BTreeMap::new();
        for (counter, count) in all.into_iter().flat_map(|counts| &counts.0) {
            *sums.entry(*counter).or_default() += count;
        }
        Self(sums)
    }

    /// The difference to an earlier state.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let since = |(counter, count): (&Counter, &u64)| {
            (*counter, count.saturating_sub(earlier.get(*counter)))
        };
        Self(self.0.iter().map(since).collect())
    }

    pub(super) fn get(&self, counter: Counter) -> u64 {
        self.0.get(&counter).copied().unwrap_or(0)
    }

    /// The cost of the work by its parts, each divided by `by`: name and figure.
    pub(super) fn work(&self, by: f64) -> [(&'static str, f64); 18] {
        let sum = |counters: &[Counter]| {
            counters.iter().map(|counter| self.get(*counter)).sum::<u64>() as f64 / by
        };
        [
            ("dials", sum(&[Counter::ConnectionsDialed, Counter::DialsFailed])),
            ("dials_failed", sum(&[Counter::DialsFailed])),
            ("handshakes_begun", sum(&[Counter::HandshakesBegun])),
            ("handshakes_failed", sum(&[Counter::HandshakesFailed])),
            // By either end: the other one may have finished it.
            (
                "handshakes_given_up",
                sum(&[Counter::HandshakesGivenUp, Counter::HandshakesAbandoned]),
            ),
            ("settlements", sum(&[Counter::Settlements])),
            // What had to wait because the node was late.
            (
                "held",
                sum(&[
                    Counter::DialsHeld,
                    Counter::SeedsHeld,
                    Counter::RepairsHeld,
                    Counter::OwedHeld,
                    Counter::ErrandsHeld,
                    Counter::IntroductionsHeld,
                    Counter::WavesHeld,
                ]),
            ),
            ("gossip_sent", sum(&[Counter::GossipSent])),
            ("gossip_received", sum(&[Counter::GossipReceived])),
            // Frames dropped before they were decoded, since they contained nothing new.
            ("gossip_duplicates", sum(&[Counter::GossipDuplicates])),
            // Items of the other frames that were not new: a frame has many.
            ("news_repeated", sum(&[Counter::PushesRepeated])),
            ("repairs", sum(&[Counter::ExchangesInitiated, Counter::Grafts])),
            ("exchanges_failed", sum(&[Counter::ExchangesFailed])),
            ("inquiries", sum(&[Counter::Inquiries])),
            ("seals_verified", sum(&[Counter::SealsVerified])),
            // Updates as they came, also those that were not new, and the notes of updates.
            ("news_received", sum(&[Counter::NewsReceived])),
            ("notes", sum(&[Counter::Notes])),
            ("repair_us", sum(&[Counter::RepairMicros])),
        ]
    }

    /// The mean work of one node, as figures whose names begin with `prefix`.
    pub(super) fn report_per_node(&self, prefix: &str, nodes: usize, out: &mut Report) {
        for (name, figure) in self.work(nodes.max(1) as f64) {
            out.insert(format!("{prefix}_{name}_per_node"), rounded(figure, 2));
        }
    }

    /// The same for people, on one line.
    pub(super) fn describe_per_node(&self, nodes: usize) -> String {
        let work = self.work(nodes.max(1) as f64);
        let figure = |name: &str| {
            work.iter().find(|(known, _)| *known == name).map_or(0.0, |(_, figure)| *figure)
        };
        format!(
            "{:.1} dials ({:.1} failed), {:.1} gossip messages ({:.1} duplicates), {:.1} items of the \
             others known already, {:.1} repairs, {:.1} inquiries per node",
            figure("dials"),
            figure("dials_failed"),
            figure("gossip_received"),
            figure("gossip_duplicates"),
            figure("news_repeated"),
            figure("repairs"),
            figure("inquiries"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_without_news_and_items_without_news_are_counted_apart() {
        let counts = [(Counter::GossipDuplicates, 2), (Counter::PushesRepeated, 50)];
        let work: BTreeMap<_, _> = Counts(counts.into_iter().collect()).work(1.0).into();
        assert_eq!((work["gossip_duplicates"], work["news_repeated"]), (2.0, 50.0));
    }

    #[test]
    fn work_is_what_was_counted_since_divided_by_the_nodes() {
        let counts = |dialed, failed| {
            let counts = [(Counter::ConnectionsDialed, dialed), (Counter::DialsFailed, failed)];
            Counts(counts.into_iter().collect())
        };
        let since = counts(13, 7).since(&counts(3, 1));
        let mut out = Report::new();
        since.report_per_node("join", 4, &mut out);
        assert_eq!(out["join_dials_per_node"], 4.0);
        assert_eq!(out["join_dials_failed_per_node"], 1.5);
        assert_eq!(out["join_repairs_per_node"], 0.0);
        assert!(since.describe_per_node(4).starts_with("4.0 dials (1.5 failed)"));
    }
}
