//! The figures of the agent itself: its build and its log.

use gossipmonger::metrics::{Kind, Sample, Series};

use super::super::server::Agent;

pub(super) const SERIES: [Series; 3] = [
    Series {
        name: "gossipmonger_build_info",
        kind: Kind::Gauge,
        labels: &["version", "rustc", "features"],
        help: "Always 1: the version of the program, the compiler, and the features that it was built with.",
    },
    Series {
        name: "gossipmonger_log_lines_dropped_total",
        kind: Kind::Counter,
        labels: &[],
        help: "Lines of the log dropped, since nobody took them.",
    },
    Series {
        name: "gossipmonger_log_queue_bytes",
        kind: Kind::Gauge,
        labels: &[],
        help: "Bytes of lines of the log that wait for standard error.",
    },
];

pub(super) fn read(agent: &Agent, samples: &mut Vec<Sample>) {
    let features = if cfg!(feature = "cluster") { "cluster" } else { "" };
    let build = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("rustc", env!("BUILT_BY_RUSTC")),
        ("features", features),
    ];
    let build = build.map(|(label, value)| (label, value.to_owned())).to_vec();
    samples.extend([
        Sample::new("gossipmonger_build_info", build, 1.0),
        Sample::new(
            "gossipmonger_log_lines_dropped_total",
            Vec::new(),
            agent.reloader.log_lines_dropped() as f64,
        ),
        Sample::new(
            "gossipmonger_log_queue_bytes",
            Vec::new(),
            agent.reloader.log_queue_bytes() as f64,
        ),
    ]);
}
