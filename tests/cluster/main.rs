//! Nodes over real QUIC on loopback.
mod attacker;
mod bulk;
mod calling_clients;
mod calls;
mod certs;
mod clients;
mod convergence;
mod costs;
mod dialing;
mod doors;
mod ends;
mod expiry;
#[path = "../../cli/src/bench/forge.rs"]
mod forge;
mod gossip;
mod harness;
mod hearsay;
mod hostile_datagrams;
mod hostile_peer;
mod membership;
mod mutual_tls;
mod outage;
mod picking;
mod references;
mod refusals;
mod reset;
mod restart;
#[path = "../support/start.rs"]
mod start;
mod revocation;
mod service_clients;
mod signed_heads;
mod streams;
mod supervision;
mod versions;
