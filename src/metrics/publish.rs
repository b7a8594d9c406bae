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
