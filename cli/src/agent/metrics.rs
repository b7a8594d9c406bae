//! The metrics for Prometheus: the figures of the node, of the agent and of its process as one page of text.

use std::sync::Arc;

use gossipmonger::metrics::{Meter, Sample, Series, Value, series};
use tokio::task::JoinHandle;

use super::{http::MetricsPage, server::Agent};

mod own;
mod process;
#[cfg(test)]
mod reference;
mod text;

/// Reads the figures of one agent.
pub(super) struct Exporter {
    meter: Arc<Meter>,
    agent: Arc<Agent>,
}

impl Exporter {
    pub(super) fn new(agent: &Arc<Agent>) -> Self {
        Self { meter: Arc::new(Meter::new(agent.node.clone())), agent: Arc::clone(agent) }
    }

    /// Renders all figures as they are then, in Prometheus's text format, version 0.0.4.
    pub(super) fn page(&self) -> MetricsPage {
        let (meter, agent) = (Arc::clone(&self.meter), Arc::clone(&self.agent));
        Arc::new(move || {
            let mut samples = meter.read();
            own::read(&agent, &mut samples);
            process::read(&mut samples);
            text::page(&all_series(), &mut samples)
        })
    }

    /// Measures what has to be watched, until the node has ended or the task is aborted.
    pub(super) fn keep(self) -> JoinHandle<()> {
        tokio::spawn(async move { self.meter.keep().await })
    }
}

/// All series that the page can have, sorted by name.
fn all_series() -> Vec<Series> {
    let mut all = [series(), &own::SERIES, &process::SERIES].concat();
    all.sort_by_key(|series| series.name);
    all
}
