//! The figures of calls, for monitoring.

use std::time::Duration;

use super::ServiceId;
pub use crate::{
    node::services::figures::CallEnd,
    protocol::service::figures::{CallOutcome, METHODS_MAX},
};
use crate::{
    node::{Gossipmonger, services::figures::Line},
    protocol::service::figures::LATENCY_BOUNDS_US,
};

/// The figures of the calls of one node since its process began.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServiceFigures {
    /// By end, service and method: one for each method that this node has offered or has a
    /// [`Stub`](super::Stub) of, at most [`METHODS_MAX`], and one for all others of each end.
    pub methods: Vec<MethodFigures>,
    /// Connections for calls that this node has dialed, or dials.
    pub connections_out: usize,
    /// Connections for calls that other nodes and clients have dialed.
    pub connections_in: usize,
    /// Bytes of bodies that wait to be sent to other nodes; each message counts 64 more.
    pub lane_queue_bytes: usize,
}

/// The figures of the calls and casts of one method at one end.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MethodFigures {
    /// Which end this node is.
    pub end: CallEnd,
    /// The service and the name of the method; `None`: all that have no figures of their own.
    pub method: Option<(ServiceId, &'static str)>,
    /// Those that have begun and not ended. At the provider also those that wait for room.
    pub in_flight: u64,
    /// Attempts after the first one, at the caller.
    pub retries: u64,
    ended: [u64; CallOutcome::ALL.len()],
    latency: [u64; LATENCY_BOUNDS_US.len() + 1],
    /// The sum of all latencies.
    pub latency_sum: Duration,
}

impl MethodFigures {
    fn new((end, method, read): Line) -> Self {
        Self {
            end,
            method,
            in_flight: read.in_flight,
            retries: read.retries,
            ended: read.ended,
            latency: read.classes,
            latency_sum: Duration::from_nanos(read.nanos),
        }
    }

    /// How many have ended like this.
    #[must_use]
    pub const fn ended(&self, outcome: CallOutcome) -> u64 {
        self.ended[outcome as usize]
    }

    /// How many took no longer than each bound, the last one being `None`: a histogram with cumulative classes. At the
    /// caller these are the answered calls, from their begin to the answer, with all attempts. At the provider these are
    /// all that ran, from the place that they got to the end of the handler, without the time that they waited for it.
    pub fn latency(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let bounds = LATENCY_BOUNDS_US.iter().map(|bound| Some(Duration::from_micros(*bound)));
        let mut sum = 0;
        bounds.chain([None]).zip(self.latency).map(move |(bound, count)| {
            sum += count;
            (bound, sum)
        })
    }
}

impl Gossipmonger {
    /// The figures of the calls of this node. The labels of a metric that is made from them are bounded.
    #[must_use]
    pub fn service_figures(&self) -> ServiceFigures {
        let services = &self.shared.services;
        let (connections_out, lane_queue_bytes) = services.outbound.usage();
        ServiceFigures {
            methods: services.outbound.figures.all().into_iter().map(MethodFigures::new).collect(),
            connections_out,
            connections_in: services.connections_in(),
            lane_queue_bytes,
        }
    }
}
