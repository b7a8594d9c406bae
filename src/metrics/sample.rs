//! One value of a series at one moment.

use std::time::Duration;

/// The present value of one series with one set of labels.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Sample {
    /// The name of its [`Series`](super::Series).
    pub name: &'static str,
    /// The labels with their values, in the order of the series.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: Value,
}

/// The value of a sample.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// That of a counter or of a gauge.
    Number(f64),
    /// That of a histogram.
    Histogram(Histogram),
}

/// Durations by class.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Histogram {
    /// How many durations do not exceed each bound, the last of which is `None`: the counts are cumulative.
    pub classes: Vec<(Option<Duration>, u64)>,
    /// The sum of all durations.
    pub sum: Duration,
}

impl Histogram {
    /// From upper bounds in microseconds and one count for each class, those beyond the last bound included.
    pub(super) fn new(bounds_us: &[u64], counts: &[u64], sum: Duration) -> Self {
        let bounds = bounds_us.iter().map(|bound| Some(Duration::from_micros(*bound)));
        let cumulative = counts.iter().scan(0, |all, count| {
            *all += count;
            Some(*all)
        });
        Self { classes: bounds.chain([None]).zip(cumulative).collect(), sum }
    }

    /// How many durations there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.classes.last().map_or(0, |(_, count)| *count)
    }
}

impl Sample {
    /// A sample of a series that the caller adds to those of a node.
    #[must_use]
    pub const fn new(name: &'static str, labels: Vec<(&'static str, String)>, number: f64) -> Self {
        Self { name, labels, value: Value::Number(number) }
    }

    /// A number without a label.
    pub(super) const fn plain(name: &'static str, number: f64) -> Self {
        Self { name, labels: Vec::new(), value: Value::Number(number) }
    }

    /// A histogram with labels.
    pub(super) const fn histogram(
        name: &'static str,
        labels: Vec<(&'static str, String)>,
        histogram: Histogram,
    ) -> Self {
        Self { name, labels, value: Value::Histogram(histogram) }
    }
}
