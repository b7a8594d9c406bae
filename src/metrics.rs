//! The figures of a node for a monitoring system: [`series`] lists what there is, a [`Meter`] reads it.
//!
//! Names and units follow Prometheus: counters end in `_total`, units are seconds and bytes. The program serves them as
//! a page of text. `docs/metrics.md` in the repository is the reference.
//!
//! With the feature `metrics` a node publishes them to the `metrics` facade, for a program that has a recorder:
//! `Gossipmonger::publish_metrics`, and the example `metrics`.
//!
//! No label has a value that a peer can choose without a limit: datacenters beyond
//! [`DATACENTERS_MAX`] and methods beyond [`METHODS_MAX`](crate::service::METHODS_MAX)
//! share the label `(other)`.

mod calls;
mod meter;
#[cfg(feature = "metrics")]
mod publish;
mod sample;
mod series;
mod spread;

#[cfg(feature = "metrics")]
pub use self::publish::{PUBLISHED_EVERY, Publisher};
pub use self::{
    meter::{DATACENTERS_MAX, Meter},
    sample::{Histogram, Sample, Value},
    series::{Kind, Series, series},
};

#[cfg(not(feature = "metrics"))]
impl crate::node::Gossipmonger {
    /// Without the feature `metrics` a call of it does not compile, and the compiler names the feature.
    #[doc(hidden)]
    pub fn publish_metrics<F>(&self)
    where
        (F,): crate::node::features::Facade,
    {
    }
}
