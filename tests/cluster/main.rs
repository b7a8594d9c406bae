//! Nodes over real QUIC on loopback.
mod attacker;
mod convergence;
mod harness;
mod hostile_datagrams;
mod hostile_peer;
mod mutual_tls;
mod refusals;
mod reset;
