//! The figures of calls as text for Prometheus: a histogram whose classes the node has counted already.

use std::fmt::{self, Write};

use gossipmonger::service::{CallEnd, CallOutcome, MethodFigures, ServiceFigures};

/// The label of all methods that have no figures of their own.
const OTHER: &str = "(other)";

/// The text, which follows that of the other metrics. Series that nothing was counted for are left out.
pub(super) fn text(figures: &ServiceFigures) -> String {
    let mut text = String::new();
    // A string takes whatever is written to it.
    let _ = write(&mut text, figures);
    text
}

fn write(to: &mut String, figures: &ServiceFigures) -> fmt::Result {
    let used: Vec<_> = figures.methods.iter().filter(|row| is_used(row)).collect();
    let name = "gossipmonger_service_calls_total";
    head(to, name, "counter", "Calls and casts that have ended, by how they ended.")?;
    for row in &used {
        for outcome in CallOutcome::ALL.into_iter().filter(|outcome| row.ended(*outcome) > 0) {
            let times = row.ended(outcome);
            writeln!(to, "{name}{{{},outcome=\"{}\"}} {times}", labels(row), outcome.as_str())?;
        }
    }
    let name = "gossipmonger_service_latency_seconds";
    let help = "At the caller the time of answered calls, at the provider that of all that ran.";
    head(to, name, "histogram", help)?;
    for row in &used {
        let (labels, mut all) = (labels(row), 0);
        for (bound, times) in row.latency() {
            let bound =
                bound.map_or_else(|| "+Inf".to_owned(), |bound| bound.as_secs_f64().to_string());
            writeln!(to, "{name}_bucket{{{labels},le=\"{bound}\"}} {times}")?;
            all = times;
        }
        writeln!(to, "{name}_sum{{{labels}}} {}", row.latency_sum.as_secs_f64())?;
        writeln!(to, "{name}_count{{{labels}}} {all}")?;
    }
    let name = "gossipmonger_service_in_flight";
    head(to, name, "gauge", "Calls and casts that have begun and not ended.")?;
    for row in &used {
        writeln!(to, "{name}{{{}}} {}", labels(row), row.in_flight)?;
    }
    let name = "gossipmonger_service_retries_total";
    head(to, name, "counter", "Attempts of calls after the first one.")?;
    for row in used.iter().filter(|row| row.end == CallEnd::Caller) {
        writeln!(to, "{name}{{{}}} {}", labels(row), row.retries)?;
    }
    let name = "gossipmonger_service_connections";
    head(to, name, "gauge", "Connections for calls, by the end that has dialed.")?;
    writeln!(to, "{name}{{dialed=\"here\"}} {}", figures.connections_out)?;
    writeln!(to, "{name}{{dialed=\"there\"}} {}", figures.connections_in)?;
    let name = "gossipmonger_service_lane_queue_bytes";
    head(to, name, "gauge", "Bytes of questions and messages that wait to be sent.")?;
    writeln!(to, "{name} {}", figures.lane_queue_bytes)
}

fn head(to: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(to, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

fn is_used(row: &MethodFigures) -> bool {
    row.in_flight > 0 || CallOutcome::ALL.into_iter().any(|outcome| row.ended(outcome) > 0)
}

fn labels(row: &MethodFigures) -> String {
    let end = row.end.as_str();
    match &row.method {
        // Names of services and of Rust types: there is nothing to escape.
        Some((service, method)) => {
            format!("end=\"{end}\",service=\"{service}\",method=\"{method}\"")
        }
        None => format!("end=\"{end}\",service=\"{OTHER}\",method=\"{OTHER}\""),
    }
}
