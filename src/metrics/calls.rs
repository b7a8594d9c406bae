//! The figures of calls.

use super::sample::{Histogram, Sample};
use crate::service::{CallEnd, CallOutcome, MethodFigures, ServiceFigures};

/// The label of all methods that have no figures of their own.
const OTHER: &str = "(other)";

/// Series that nothing was counted for are left out.
pub(super) fn read(figures: &ServiceFigures, samples: &mut Vec<Sample>) {
    for row in figures.methods.iter().filter(|row| is_used(row)) {
        let number = |name, number: u64| Sample::new(name, labels(row), number as f64);
        for outcome in CallOutcome::ALL.into_iter().filter(|outcome| row.ended(*outcome) > 0) {
            let mut labels = labels(row);
            labels.push(("outcome", outcome.as_str().to_owned()));
            let times = row.ended(outcome) as f64;
            samples.push(Sample::new("gossipmonger_service_calls_total", labels, times));
        }
        let latency = Histogram { classes: row.latency().collect(), sum: row.latency_sum };
        let name = "gossipmonger_service_latency_seconds";
        samples.push(Sample::histogram(name, labels(row), latency));
        samples.push(number("gossipmonger_service_in_flight", row.in_flight));
        if row.end == CallEnd::Caller {
            samples.push(number("gossipmonger_service_retries_total", row.retries));
        }
    }
    for (end, connections) in [("here", figures.connections_out), ("there", figures.connections_in)]
    {
        let labels = vec![("dialed", end.to_owned())];
        let name = "gossipmonger_service_connections";
        samples.push(Sample::new(name, labels, connections as f64));
    }
    let waiting = figures.lane_queue_bytes as f64;
    samples.push(Sample::plain("gossipmonger_service_lane_queue_bytes", waiting));
}

fn is_used(row: &MethodFigures) -> bool {
    row.in_flight > 0 || CallOutcome::ALL.into_iter().any(|outcome| row.ended(outcome) > 0)
}

fn labels(row: &MethodFigures) -> Vec<(&'static str, String)> {
    let (service, method) = match &row.method {
        Some((service, method)) => (service.to_string(), (*method).to_owned()),
        None => (OTHER.to_owned(), OTHER.to_owned()),
    };
    vec![("end", row.end.as_str().to_owned()), ("service", service), ("method", method)]
}
