//! Secure cluster membership and shared state: Scuttlebutt gossip and phi-accrual failure detection
//! over mutually authenticated QUIC, in ractor actors.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod actors;
pub mod config;
pub mod counters;
pub mod error;
pub mod node;
pub mod protocol;
pub mod snapshot;
pub mod store;
pub mod subscription;
pub mod tls;
pub mod transport;

pub use config::Config;
pub use error::{Error, SpawnError};
pub use node::Gossipmonger;
pub use protocol::{
    entry::{Key, Value},
    event::{Event, Problem},
    id::{ClusterId, Datacenter, Generation, NodeId, Version},
    liveness::PeerState,
    replica::Write,
};
pub use snapshot::{Member, Snapshot};
