//! Secure cluster membership and shared state: Scuttlebutt gossip and phi-accrual failure detection
//! over mutually authenticated QUIC, in [ractor] actors.
//!
//! Every node keeps its own key/values and a copy of every other node's; the copies converge. A
//! failure detector says who is live. A certificate says who a node is. Start with [`Gossipmonger`]
//! and [`Config`].
//!
//! [ractor]: https://docs.rs/ractor
//!
//! # One change
//!
//! A `set` is applied by storage, and in the same turn cut as a *delta* from the map and told to all
//! linked peers: the ten neighbours or so that the overlay computes from the member list. Whoever it
//! is new to passes it on once; what does not connect to a copy is asked for, never skipped. Large or
//! frequent news goes along a tree per owner, and the other edges only say that there is some.
//!
//! # One exchange
//!
//! Every `gossip_interval` neighbours compare the *root*, one number that sums up all they know, if
//! it has changed. Whoever differs twice in a row repairs that. Storage gives a *digest*: for each node
//! known, how far its copy reaches; or, of many nodes, a sketch from which the peer works out the lines
//! that differ. The transport opens a QUIC stream to the peer and sends it
//! (`Syn`, `Cells`). The peer's storage compares and answers (`SynAck`) with a *delta*, what the digest lacks,
//! oldest writes first, and with what it wants itself. Our storage applies the delta, a gap-free
//! run of writes per node, publishes the new snapshot, tells the subscribers, and sends back what was
//! wanted (`Ack`). If a budget cut a delta, the rest is pulled on the same stream at once.
//!
//! # One signature
//!
//! Before storage tells of its own map it signs a *head*: life, version, floor, record, and the root of a
//! Merkle tree over all entries. The head goes with the news, and who takes the news applies it, makes the
//! same tree and compares; a part that a budget has cut is proved by the hashes beside it. So nobody who
//! passes news on can forge it or leave something out, and a copy is told to others only as far as its
//! owner has signed it. The certificate that vouches for the key goes where the record goes. Statements of
//! the authority that revoke certificates travel apart from all maps, and are kept by everybody.
//!
//! # One death
//!
//! On each edge of the overlay one end sends a heartbeat in every interval, and whatever arrives from a
//! neighbour is a sign of its life: the transport reports it to the detector. A heartbeat that is not
//! answered, or not there in time, is a miss. From then on the neighbour is probed every few
//! milliseconds, and the others who should hear it are asked to do the same. Each unanswered probe adds
//! to *phi* what it is worth on a path that loses so many packets; at `dead_peer_phi` one observer is
//! convinced. Once enough observers are, the neighbour is *suspect* before everybody: an accusation
//! names them and travels like a change. The accused refutes it if it lives, by raising its
//! incarnation; if it does not within two intervals it is *dead*. Time in which this process itself
//! stood still counts against nobody, and whoever finds itself slow is patient. What led to each
//! verdict is kept: [`Gossipmonger::why`]. A death is for its own datacenter to find; of one that no
//! bridge leads to any more the nodes are *unreachable*, neither live nor dead.
//!
//! # Layers
//!
//! [`protocol`] has the rules, as machines without IO, clock or global random numbers; actors around
//! them are the shell; [`Gossipmonger`] is the handle. What can be replaced is a trait: [`store`] for
//! what survives a restart, [`transport`] for how nodes reach each other. [`tls`] has certificates.
//!
//! # Invariants
//!
//! 1. Nothing below [`protocol`] reads a clock, a socket or a global random number generator.
//! 2. Calls go only into storage, and storage calls nobody. Casts find their target through one
//!    routing table.
//! 3. No actor awaits the network in a handler, but the root, for a limited time, when it stops.
//!    Tasks do; they are owned by their actor and report.
//! 4. The certificate, not the frame, says who speaks. A peer relays other nodes' maps; it never
//!    changes ours.
//! 5. Every queue, frame, delta, window and retry has a named limit, and a counter for what was
//!    dropped. Mailboxes have none of their own: what fills them is limited where it comes from.
//! 6. The largest version of a copy is a complete summary of it: deltas are applied as gap-free
//!    prefixes, and a batch is one version, which readers see whole or not at all. Equal roots mean equal
//!    copies: a copy that is a part, told by a peer that reaches further, is in no root until it is complete.
//! 7. Every start of a process is a new generation; a version is never used twice.
//! 8. Actors have no names, and there is no process-wide registry: many nodes live in one process. All
//!    that they share is which introductions of nodes have been verified already.
//! 9. Bad input from the network never panics, never stops an actor, and is counted.
//!
//! # Features
//!
//! `default-features = false` is the library alone. `redb` adds a store in a file, `issuer` issues
//! certificates by token and renews them. `cli` (the default) is the program.
//!
//! Enable `cluster` if any package in your build enables ractor's feature `cluster`; it has no other
//! effect. Without it the compiler reports some forty errors in this crate, among them
//! *"the trait bound `SchedulerInput: ractor::Message` is not satisfied"* and *"ractor's feature
//! `cluster` is on, but gossipmonger's feature `cluster` is not"*. With ractor's `cluster` your own
//! message types need `impl ractor::Message for Msg {}` too. ractor's feature `async-trait` needs
//! nothing of this crate.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod node;
pub mod config;
pub mod error;
mod snapshot;
mod propagation;
pub mod subscription;
pub mod protocol;
mod actors;
mod clock;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod transport;
pub mod tls;
#[cfg(feature = "issuer")]
pub mod issuer;
pub mod store;
pub mod counters;
mod cuts;
mod foreign;
mod dials;
mod latest;

pub use config::Config;
pub use cuts::{CUTS_MAX, Cut};
pub use dials::{DIALED_ADDRESSES_MAX, DialFailure};
pub use error::{Error, SpawnError};
pub use foreign::Foreign;
pub use node::Gossipmonger;
pub use propagation::{Audience, Propagation};
pub use protocol::{
    entry::{Key, Value},
    event::{Event, Problem, ProtocolEvent},
    id::{ClusterId, Datacenter, Generation, NodeId, Version},
    liveness::PeerState,
    replica::Write,
    revocation::{Revocation, Revocations},
};
pub use snapshot::{Certificates, Member, Snapshot};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
