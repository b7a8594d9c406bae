//! The paper's two experiments (`experiment.rs`), as a table, as JSON and as plots.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{Report, faults::Faults, in_range, rounded};
use crate::{
    error::CliError,
    experiment::{self, Sample, Scheme, Settings, Summary},
    plot::{Axis, Chart},
};

/// The arguments of `bench flow`.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// How many nodes.
    #[arg(long, default_value_t = 128, value_name = "N")]
    nodes: usize,
    /// Writes in the overload, as a part of what a node can be told in the exchanges it begins.
    #[arg(long, default_value_t = 2.0, value_name = "X")]
    load: f64,
    /// Where the random numbers begin.
    #[arg(long, default_value_t = 1, value_name = "S")]
    seed: u64,
    /// Draws the plots into this directory, which is made if need be.
    #[arg(long, value_name = "DIR")]
    plot: Option<PathBuf>,
    /// Prints the JSON object alone.
    #[arg(long)]
    json: bool,
}

/// Runs all schemes under the same load.
pub(super) fn flow(args: &Args) -> Result<Report, CliError> {
    in_range("nodes", args.nodes, 2, NODES_MAX)?;
    in_range("load", args.load, LOAD_MIN, LOAD_MAX)?;
    let settings = Settings { nodes: args.nodes, ..Settings::paper(args.load, args.seed) };
    if !args.json {
        println!("{HEAD}");
    }
    let mut runs = Vec::new();
    for scheme in Scheme::ALL {
        let samples = experiment::run(scheme, &settings)?;
        let summary = Summary::new(&settings, &samples);
        if !args.json {
            println!("{}", line(scheme, &summary));
        }
        runs.push((scheme, samples, summary));
    }
    if let Some(dir) = &args.plot {
        draw(dir, &settings, &runs)?;
    }
    let mut out = report(args, &settings, &runs);
    for (scheme, samples, summary) in &runs {
        let name = scheme.name().replace('-', "_");
        faults(&name, samples, summary).judge(&mut out, &[&name, "staleness_s_max"]);
    }
    Ok(out)
}

/// Under each scheme owners must have written and sent entries, and copies must have lacked some.
fn faults(scheme: &str, samples: &[Sample], summary: &Summary) -> Faults {
    let mut faults = Faults::default();
    let Summary { told_per_s, max_s, written_max_s, .. } = *summary;
    faults.require(!samples.is_empty(), || format!("{scheme}: nobody looked at the copies"));
    faults.require(told_per_s > 0.0, || format!("{scheme}: nothing was told"));
    faults.require(max_s > 0.0 && written_max_s > 0.0, || {
        format!("{scheme}: no copy lacked anything, so nothing was written")
    });
    faults
}

type Run = (Scheme, Vec<Sample>, Summary);

fn report(args: &Args, settings: &Settings, runs: &[Run]) -> Report {
    let mut out = Report::new();
    out.insert("scenario".into(), "flow".into());
    out.insert("nodes".into(), settings.nodes.into());
    out.insert("keys".into(), settings.keys.into());
    out.insert("budget_entries".into(), settings.budget.into());
    out.insert("load".into(), json!(args.load));
    out.insert("writes_per_s".into(), rounded(args.load * settings.capacity(), 1));
    out.insert("seed".into(), args.seed.into());
    for (scheme, _, summary) in runs {
        out.insert(scheme.name().replace('-', "_"), figures(summary));
    }
    let ours = runs.iter().find(|(scheme, ..)| *scheme == Scheme::Ours);
    let ours = ours.map_or(Value::Null, |(_, _, summary)| rounded(summary.max_s, 2));
    out.insert("staleness_s_max".into(), ours);
    out
}

fn figures(summary: &Summary) -> Value {
    json!({
        "staleness_s_max": rounded(summary.max_s, 2),
        "staleness_s_mean": rounded(summary.mean_s, 2),
        "stale_entries": rounded(summary.entries, 0),
        "onset_s_max": rounded(summary.onset_max_s, 2),
        "since_written_s_max": rounded(summary.written_max_s, 2),
        "since_written_s_mean": rounded(summary.written_mean_s, 2),
        "behind_entries": rounded(summary.written_entries, 0),
        "told_per_s": rounded(summary.told_per_s, 1),
    })
}

fn line(scheme: Scheme, summary: &Summary) -> String {
    let Summary { max_s, mean_s, entries, onset_max_s, written_max_s, written_mean_s, .. } =
        summary;
    format!(
        "{:<15} {max_s:>9.1} {mean_s:>9.2} {entries:>10.0} {onset_max_s:>9.1} \
         {written_max_s:>12.1} {written_mean_s:>12.2} {:>9.0}",
        scheme.name(),
        summary.told_per_s,
    )
}

/// One plot for each figure, one line for each scheme.
fn draw(dir: &Path, settings: &Settings, runs: &[Run]) -> Result<(), CliError> {
    fs::create_dir_all(dir).map_err(|error| {
        CliError::failed(format!("cannot make the directory {}: {error}", dir.display()))
    })?;
    let load = settings.load.iter().map(|(load, _)| *load).fold(0.0, f64::max);
    let of = format!("{} nodes of {} keys, load {load}", settings.nodes, settings.keys);
    let plot = |file: &str, title: &str, y: Axis, value: fn(&Sample) -> f64| {
        let chart = Chart::new(format!("{title}: {of}"), Axis::linear("time, s"), y);
        let chart = runs.iter().fold(chart, |chart, (scheme, samples, _)| {
            chart.line(scheme.name(), samples.iter().map(|sample| (sample.at_s, value(sample))))
        });
        chart.write_svg(&dir.join(file))
    };
    let seconds = || Axis::linear("since it was told, s");
    plot("staleness-max.svg", "Stalest entry", seconds(), |sample| sample.staleness.max_s)?;
    plot("staleness-mean.svg", "Stale entries, mean", seconds(), |sample| sample.staleness.mean_s)?;
    plot("stale-entries.svg", "Stale entries", Axis::log("entries"), |sample| {
        sample.staleness.entries as f64
    })
}

const NODES_MAX: usize = 512;
const LOAD_MIN: f64 = 0.1;
const LOAD_MAX: f64 = 20.0;
const HEAD: &str = "                  since it was told, s       stale     onset       since it was written, s    told
                        max      mean    entries     max, s          max         mean     a second";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_experiment_in_which_nothing_was_written_is_void() {
        let settings = Settings { nodes: 4, load: vec![(1.0, 60)], ..Settings::paper(1.0, 1) };
        let samples = experiment::run(Scheme::Ours, &settings).unwrap();
        let summary = || Summary::new(&settings, &samples);
        assert!(faults("ours", &samples, &summary()).is_empty());
        assert!(!faults("ours", &[], &summary()).is_empty(), "nobody looked");
        for void in [
            Summary { told_per_s: 0.0, ..summary() },
            Summary { max_s: 0.0, ..summary() },
            Summary { written_max_s: 0.0, ..summary() },
        ] {
            assert!(!faults("ours", &samples, &void).is_empty(), "{void:?}");
        }
    }
}
