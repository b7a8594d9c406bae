//! Whole nodes over the in-memory transport, most of them under paused time.
mod api;
mod calls;
mod datacenters;
mod ends;
mod exposed;
mod figures;
mod harness;
mod limits;
mod live_keys;
mod membership;
mod once;
mod nearest;
mod operate;
mod picking;
mod propagation;
mod reconciliation;
mod references;
mod replay;
#[path = "../support/start.rs"]
mod start;
mod store;
mod streams;
mod returning;
mod seed;
mod subscriptions;
mod supervision;
mod trace;
