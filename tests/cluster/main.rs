//! Nodes over real QUIC on loopback.
mod bulk;
mod convergence;
mod harness;
mod membership;
mod restart;
mod supervision;
