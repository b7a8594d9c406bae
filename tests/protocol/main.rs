//! The machines one by one, through their public doors: what copies accept, what deltas hold, who is
//! thought to be live. Time is a parameter; every message goes through its bytes. The bytes themselves (`wire`)
//! and what stores do (`store`) are here as well: one binary is linked once.

mod batching;
mod chains;
mod costs;
mod datacenters;
mod deletes;
mod detection;
mod differences;
mod exchanges;
mod flow;
mod hostile;
mod introductions;
mod late;
mod lifecycle;
mod links;
mod notary;
mod overlay;
mod peering;
mod questions;
mod reconciliation;
mod repair;
mod returning;
mod revocation;
mod scheduling;
mod seals;
mod sketches;
mod spreading;
mod store;
mod support;
mod wire;
