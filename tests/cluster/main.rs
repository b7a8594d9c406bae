//! Nodes over real QUIC on loopback.
mod attacker;
mod bulk;
mod clients;
mod convergence;
mod expiry;
mod gossip;
mod harness;
mod hostile_datagrams;
mod hostile_peer;
mod membership;
mod mutual_tls;
mod refusals;
mod reset;
mod restart;
mod revocation;
mod supervision;
mod versions;
