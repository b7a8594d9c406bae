//! Nodes over real QUIC on loopback.
mod convergence;
mod harness;
