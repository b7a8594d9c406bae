//! A steady load of updates, measured as for other libraries.

use gossipmonger::protocol::route::Counter;
use serde_json::Value;

use super::{
    Common, Report, SETTLE,
    faults::Faults,
    in_range, join_all,
    lag::Lag,
    rounded,
    statistics::quantiles,
    trial::{self, Plan, Trial},
};
use crate::error::CliError;

/// The arguments of `bench load`.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    /// Updates a second, over all nodes together.
    #[arg(long, default_value_t = 100.0, value_name = "U")]
    rate: f64,
}

/// Writes at the rate for the given time, and samples some of the updates.
pub(super) async fn load(args: Args) -> Result<Report, CliError> {
    in_range("rate", args.rate, RATE_MIN, RATE_MAX)?;
    let common = args.common.check(2)?;
    let mut out = common.report("load");
    let cluster = join_all(&common, &mut out).await?;
    tokio::time::sleep(SETTLE).await;
    let lag = Lag::watch();
    let plan = Plan {
        rate: args.rate,
        keys: KEYS,
        bytes: common.value_bytes,
        lead_in: LEAD_IN,
        seconds: common.seconds as f64,
        drain: DRAIN,
        followed: FOLLOWED,
    };
    let trial = trial::run(&cluster, plan).await;
    out.insert("lag_ms".into(), lag.end());
    describe(&trial, &mut out);
    let mut faults = faults(&trial);
    faults.require_joined(&out);
    faults.judge(&mut out, &FIGURES);
    out.insert("counters".into(), cluster.counters_json());
    Ok(out)
}

/// Every sampled update must be at all other nodes in the end.
fn faults(trial: &Trial) -> Faults {
    let mut faults = trial.faults();
    faults.require(trial.unseen == 0, || {
        let (unseen, followed) = (trial.unseen, trial.followed());
        format!(
            "{unseen} of {followed} followed updates were not at all others {DRAIN} s after the end"
        )
    });
    faults.require(trial.behind_pairs == 0, || {
        format!("{} copies lacked the last update of their owner at the end", trial.behind_pairs)
    });
    faults
}

fn describe(trial: &Trial, out: &mut Report) {
    let nodes = trial.nodes as f64;
    let wire = trial.wire;
    let per_node = |total: u64| total as f64 / trial.seconds / nodes;
    let seen = trial.shown.iter().chain(&trial.replaced).copied().collect();
    let count = |counter| trial.per_update(trial.counts.get(counter) as f64);
    let figures = [
        ("asked_per_s", trial.asked.into()),
        ("reached_per_s", rounded(trial.made_per_s(), 1)),
        ("staleness_ms", quantiles(seen)),
        ("unseen_samples", trial.unseen.into()),
        ("replaced_samples", trial.replaced.len().into()),
        ("unchanged_updates", trial.unchanged.into()),
        ("refused_updates", trial.refused.into()),
        ("behind_pairs", trial.behind_pairs.into()),
        ("cpu_s_per_s", rounded(trial.cpu / trial.seconds, 3)),
        ("cpu_us_per_update", rounded(trial.per_update(trial.cpu * 1e6), 1)),
        ("wire_bytes_per_update", rounded(trial.per_update(wire.bytes as f64), 0)),
        ("wire_bytes_per_node_s", rounded(per_node(wire.bytes), 0)),
        ("wire_packets_per_node_s", rounded(per_node(wire.packets), 1)),
        ("load_udp_rcvbuf_errors", trial.udp_receive_errors.into()),
        ("copies_per_update", rounded(count(Counter::EntriesReceived), 2)),
        ("applied_per_update", rounded(count(Counter::EntriesApplied), 2)),
    ];
    out.extend(figures.map(|(name, value): (_, Value)| (name.to_owned(), value)));
    for (name, figure) in trial.counts.work(trial.updates as f64) {
        out.insert(format!("{name}_per_update"), rounded(figure, 3));
    }
}

/// Void if the load was not carried. The counts of failures are not among them.
const FIGURES: [&str; 9] = [
    "reached_per_s",
    "staleness_ms",
    "cpu_s_per_s",
    "cpu_us_per_update",
    "wire_bytes_per_update",
    "wire_bytes_per_node_s",
    "wire_packets_per_node_s",
    "copies_per_update",
    "applied_per_update",
];
/// The same number as for the other libraries.
const KEYS: u64 = 100;
const LEAD_IN: f64 = 2.0;
const DRAIN: f64 = 15.0;
const FOLLOWED: f64 = 20.0;
const RATE_MIN: f64 = 0.1;
const RATE_MAX: f64 = 1e6;

#[cfg(test)]
mod tests {
    use super::{super::trial::tests::good, *};

    #[test]
    fn a_load_that_is_not_everywhere_in_the_end_is_void() {
        assert!(faults(&good()).is_empty());
        let unseen = Trial { unseen: 1, ..good() };
        let behind = Trial { behind_pairs: 1, ..good() };
        for void in [unseen, behind] {
            let (mut out, faults) = (Report::new(), faults(&void));
            describe(&void, &mut out);
            faults.judge(&mut out, &FIGURES);
            assert!(FIGURES.iter().all(|figure| out[*figure].is_null()), "{out:?}");
            assert!(Faults::check(&out).is_err(), "{out:?}");
        }
    }
}
