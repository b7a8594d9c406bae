//! Publishes the figures of a node to the `metrics` facade, for a program that has a recorder of its own.

use std::{
    collections::BTreeMap,
    sync::{Mutex, Once, PoisonError},
    time::Duration,
};

use ::metrics::{
    Label, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use tokio::task::JoinHandle;

use super::{
    meter::Meter,
    sample::{Histogram, Sample, Value},
    series::{Kind, series},
};
use crate::node::Gossipmonger;

/// How often [`Gossipmonger::publish_metrics`] publishes.
pub const PUBLISHED_EVERY: Duration = Duration::from_secs(1);

/// Publishes the figures of one node to the recorder of the caller: the local one, or else the global one.
///
/// The facade takes whole numbers for counters, so `gossipmonger_repair_seconds_total` has whole seconds. It takes
/// histograms one duration at a time, and a node keeps classes: each duration is published as the upper bound of its
/// class.
#[derive(Debug)]
pub struct Publisher {
    meter: Meter,
    described: Once,
    /// How many durations of each class of a histogram have been published.
    told: Mutex<BTreeMap<Told, Vec<u64>>>,
}

type Told = (&'static str, Vec<(&'static str, String)>);

impl Publisher {
    /// A publisher of this node. One for each node and recorder is enough.
    #[must_use]
    pub fn new(node: Gossipmonger) -> Self {
        Self { meter: Meter::new(node), described: Once::new(), told: Mutex::default() }
    }

    /// Publishes all present values, the first time with their help texts.
    pub fn publish(&self) {
        self.described.call_once(describe);
        for sample in self.meter.read() {
            self.publish_one(sample);
        }
    }

    fn publish_one(&self, Sample { name, labels, value }: Sample) {
        let own = labels.iter().map(|(label, value)| Label::new(*label, value.clone())).collect();
        let own: Vec<Label> = own;
        match value {
            // It never shrinks, and a cast of a float saturates.
            Value::Number(number) if name.ends_with("_total") => {
                counter!(name, own).absolute(number as u64);
            }
            Value::Number(number) => gauge!(name, own).set(number),
            Value::Histogram(classes) => self.publish_classes((name, labels), own, &classes),
        }
    }

    fn publish_classes(
        &self,
        key: Told,
        labels: Vec<Label>,
        Histogram { classes, .. }: &Histogram,
    ) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let histogram = histogram!(key.0, labels);
        let told = told.entry(key).or_insert_with(|| vec![0; classes.len()]);
        let (mut below, mut longest) = (0, Duration::ZERO);
        for ((bound, cumulative), told) in classes.iter().zip(told) {
            let own = cumulative - below;
            below = *cumulative;
            longest = bound.unwrap_or(longest);
            let new = own.saturating_sub(*told);
            if new > 0 {
                histogram.record_many(longest.as_secs_f64(), new as usize);
            }
            *told = own;
        }
    }
}

impl Gossipmonger {
    /// Publishes the figures of this node to the global recorder of the `metrics` facade each second, until the node has
    /// ended or the task is aborted. Install the recorder before.
    pub fn publish_metrics(&self) -> JoinHandle<()> {
        let publisher = Publisher::new(self.clone());
        self.runtime.spawn(async move {
            let publish = async {
                let mut ticks = tokio::time::interval(PUBLISHED_EVERY);
                loop {
                    ticks.tick().await;
                    publisher.publish();
                }
            };
            tokio::select! {
                () = publish => {}
                () = publisher.meter.keep() => publisher.publish(),
            }
        })
    }
}

fn describe() {
    for series in series() {
        let unit = if series.name.contains("_seconds") {
            Unit::Seconds
        } else if series.name.contains("_bytes") {
            Unit::Bytes
        } else {
            Unit::Count
        };
        match series.kind {
            Kind::Counter => describe_counter!(series.name, unit, series.help),
            Kind::Gauge => describe_gauge!(series.name, unit, series.help),
            Kind::Histogram => describe_histogram!(series.name, unit, series.help),
        }
    }
}

#[cfg(test)]
mod tests {
    use ::metrics::with_local_recorder;
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::{
        Config,
        net::memory::MemoryNetwork,
        protocol::id::{ClusterId, Datacenter, NodeId},
        tls::PeerName,
    };

    #[tokio::test(start_paused = true)]
    async fn a_recorder_gets_each_duration_once_and_each_help_text() {
        let name = PeerName {
            cluster: ClusterId::new("test").unwrap(),
            datacenter: Datacenter::new("eu").unwrap(),
            node: NodeId::new("a").unwrap(),
        };
        let place = MemoryNetwork::default().place();
        let (node, running) = Gossipmonger::spawn(Config::new(&name), place).await.unwrap();
        node.set("key", "value").await.unwrap();
        let recorder = PrometheusBuilder::new().build_recorder();
        let publisher = Publisher::new(node.clone());
        let commits = "gossipmonger_store_commit_duration_seconds";
        let count = || {
            with_local_recorder(&recorder, || publisher.publish());
            let page = recorder.handle().render();
            let line = format!("{commits}_count ");
            let found = page.lines().find_map(|said| said.strip_prefix(&line).map(str::to_owned));
            (found.unwrap().parse::<u64>().unwrap(), page)
        };
        node.shutdown().await;
        running.await.unwrap();
        let (first, page) = count();
        assert!(first > 0, "{page}");
        assert_eq!(count().0, first);
        for line in [
            "gossipmonger_members{state=\"live\",datacenter=\"eu\"} 1".to_owned(),
            "# TYPE gossipmonger_exchanges_failed_total counter".to_owned(),
            format!("# HELP {commits} "),
        ] {
            assert!(page.contains(&line), "{line} is missing in {page}");
        }
    }
}
