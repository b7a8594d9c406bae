//! Services on secure membership: nodes find each other, call each other and share state, without a server. Scuttlebutt
//! gossip, phi-accrual failure detection and calls, over mutually authenticated QUIC, in [ractor] actors.
//!
//! ```no_run
//! use gossipmonger::{Gossipmonger, service::Access};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Level {
//!     item: String,
//! }
//!
//! gossipmonger::service! {
//!     /// What a shop has in store.
//!     struct Stock = "stock", 1.0;
//!     1: call Level -> Option<u32>, idempotent;
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // `a` has the node's certificate: `gossipmonger join` makes it, in development `pki::throwaway`.
//! let builder = Gossipmonger::builder().directory("a").seeds(["seed.example:7101"]);
//! let (node, running) = builder.listen("10.0.0.2:7101").spawn().await?;
//!
//! // Membership and state: every other node gets a copy of the key.
//! node.set("service/web", "10.0.0.1:80").await?;
//! for (peer, address) in node.snapshot().live_with("service/web") {
//!     println!("{peer}: {address:?}");
//! }
//!
//! // A service: this node offers it, and calls whichever live node offers it.
//! let offer = node
//!     .offer::<Stock>(Access::members())
//!     .call(|ask: Level, _| async move { (ask.item == "tea").then_some(3) })
//!     .start()
//!     .await?;
//! let level = node.service::<Stock>().call(Level { item: "tea".into() }).await?;
//! assert_eq!(level, Some(3));
//!
//! node.leave_for_now().await?; // calls in progress end first
//! running.await?;
//! # drop(offer);
//! # Ok(())
//! # }
//! ```
//!
//! Every node owns a key/value map and holds a copy of every other node's map; the copies converge. A
//! failure detector reports which nodes are alive. A node's certificate proves its name, and decides which services it
//! may call. `docs/ractor.md` in the repository is the first hour, from an empty `cargo new` to two processes whose
//! actors talk; `docs/concepts.md` defines each term; `docs/services.md` is the guide to services.
//!
//! # What to read first
//!
//! 1. [`Gossipmonger`]: the handle of a node. [`Builder`]: how it is started; [`Config`]: every setting.
//! 2. [`Snapshot`] and [`Member`]: what a node knows at one moment. [`subscription`]: the changes.
//! 3. [`Event`] and [`Problem`]: what a node reports. [`Error`]: why a call failed.
//! 4. [`mod@service`]: offering services, and calling them; [`service::client`]: the same without being a member.
//! 5. [`tls`]: certificates, and which peers are accepted. [`pki`]: your own certificate authority. `issuer` (a
//!    feature): certificates by token.
//! 6. [`store`]: what survives a restart. [`net`]: how nodes reach each other.
//! 7. [`mod@metrics`]: the figures of a node for a monitoring system.
//! 8. `testkit` (a feature): tests of your own services on several nodes, in virtual time.
//!
//! The program and the tests of this repository also use the modules `protocol` (the rules themselves) and
//! `unstable`. Both are left out here, since they have no promise of compatibility.
//! `docs/public-api.txt` in the repository lists everything else.
//!
//! # Architecture
//!
//! The rules are state machines without IO, clock or global random numbers. Four of them are those of membership:
//! `replica`, `liveness`, `scheduler` and `peering`. One actor drives each of the first three. The tasks of the
//! connections call `peering` under one lock, so that a heartbeat wakes no actor. One table (`protocol::route`) says
//! which output goes to which machine. The simulator (feature `sim`) drives the same four. The rules of calls are in
//! `protocol::service`: `directory` (who offers what), `balance` (which node is called), `calls` and `intake` (the two
//! ends of a connection for calls) and `room` (what one service takes on).
//!
//! ```text
//!   your code ── Gossipmonger (handle) ── snapshots, subscriptions, stubs ── calls ──┐
//!                      │                                                              │
//!                  supervisor             one child in your supervision tree          │
//!        ┌─────────────┼──────────────┬──────────────────┬───────────────┐            │
//!     storage       detector      scheduler          transport       services         │
//!   (replica)     (liveness)    (scheduler)          (peering)    dials, announces    │
//!        │                                               │               │            │
//!     writer ── Store                               connections     connections ──────┘
//!                                                   for gossip       for calls
//!                                                        └───────┬───────┘
//!                                                               QUIC, one UDP port
//!                                                          TLS: identities
//! ```
//!
//! # How a change spreads
//!
//! Storage applies a `set`, and asks for a turn to send it, which comes after all that waits in its mailbox already. In
//! that turn it cuts a *delta* from the map and sends it to all linked peers: about ten neighbours, which the overlay
//! computes from the member list. Each node passes news on once. If a node receives news that does not connect to its
//! copy, it asks for what is missing.
//!
//! That is fast, and costs several copies a node. The edges of a tree, which all nodes compute from the member list, and
//! the connections between datacenters come first; the other connections follow 10 to 50 ms later, unless the other end
//! has the news by then. And the owner floods its news only while there are fewer than 50 updates a second in the whole
//! cluster, and small ones. Otherwise the news goes along one of two trees alone: one copy a node. The other connections carry notes of what there is, some times a
//! second, and a node that lacks a noted update asks for it. An owner that writes 40 times a second or more
//! signs and sends several updates at once, 50 ms after the last time; the first one never waits.
//!
//! # When a node is late
//!
//! A task of the transport measures the *lag*: how late the node is served. The machines get it as an input. Whatever
//! begins work (a dial, an exchange, a wave) asks the *gate* (`protocol::gate`) first; what has begun is finished, and its
//! timeouts run on the *served clock* (`protocol::served`), which stands still while the node is late. Updates that
//! arrive together are sent on together, and of one owner only the last signature is verified.
//!
//! # How an exchange repairs differences
//!
//! Every `gossip_interval` neighbours compare *roots*: one number that sums up all a node knows. If two
//! consecutive comparisons differ, the node starts an exchange. Its storage gives a *digest*: for each node, how
//! far its copy reaches. If there are many nodes it gives a sketch, from which the peer computes the lines that
//! differ. The transport opens a QUIC stream to the peer and sends it (`Syn`, `Cells`). The peer's storage
//! answers (`SynAck`) with a *delta*, the writes that the digest lacks, oldest first, and with what the peer
//! itself wants. This node applies the delta, publishes a new snapshot, notifies subscribers, and sends what the
//! peer wanted (`Ack`). If a budget cut a delta, the rest is pulled on the same stream at once.
//!
//! # What is signed
//!
//! Before storage sends its own map it signs a *head*: generation, version, floor, record, and the root of a
//! Merkle tree over all entries. A node that receives the news applies it, computes the same tree and compares;
//! the hashes beside a part prove that part. So a relay cannot forge, roll back or omit entries, and a node
//! passes a copy on only as far as its owner has signed it. The certificate that vouches for the key travels
//! with the record. Revocations are signed by the authority; they travel apart from all maps, and every node
//! keeps them.
//!
//! # How a failure is detected
//!
//! On each connection of the overlay one end sends a heartbeat in every interval. Everything that arrives from a
//! neighbour is a sign of life: the transport reports it to the detector. A heartbeat that is late or not
//! acknowledged is a miss. From then on the detector probes the neighbour every few milliseconds, and asks the
//! other observers to do the same. Each unanswered probe raises *phi*, by an amount that depends on the packet
//! loss of the path; at `dead_peer_phi` one observer is convinced. When a quorum of observers is convinced, the
//! neighbour is *suspect*: an accusation names the observers and spreads like a change. A live peer refutes the
//! accusation by raising its incarnation. If it does not within two intervals, it is *dead*. Time in which this
//! process itself stood still counts against no peer, and a node that finds itself slow is patient.
//! [`Snapshot::why`] shows the evidence for every state change. Failures are detected inside the node's own
//! datacenter. If no bridge to a datacenter responds, its nodes are *unreachable*: neither live nor dead.
//!
//! # How a call travels
//!
//! Every node publishes the list of its offers, the *manifest*, under one reserved key of its own map, so the list is
//! signed and spreads like any other key. Each node keeps an index of all lists, the *directory*. Readers
//! take no lock. A stub picks a provider there and queues the call for the *lane* to that node: one long-lived stream on a
//! connection that carries calls only. At the first call the services actor dials it. The node that answers checks
//! the caller's rates, access and room, and passes the request to a function or to the mailbox of an actor. Storage and
//! detector publish each change of a node into the directory; when a node has ended, its pending calls end before the event is delivered.
//! Streams, and questions too long for the lane, use a second connection to the node.
//!
//! # Invariants
//!
//! 1. Nothing in `protocol` reads a clock, a socket or a global random number generator.
//! 2. Calls between actors go only into storage, and storage calls no actor. Casts find their target through one
//!    routing table.
//! 3. No actor awaits the network in a handler. Tasks do; each is owned by an actor and reports to it. The
//!    exception is the supervisor, which does so for a limited time when the node stops.
//! 4. The certificate, not the frame, identifies the sender. A peer relays other nodes' maps; it never changes ours.
//! 5. Every queue, frame, delta, window and retry has a named limit, and a counter for what was dropped.
//!    Mailboxes have no limit of their own: their sources are limited instead.
//! 6. The largest version of a copy is a complete summary of it: deltas are applied as gap-free prefixes. A batch
//!    is one version, and readers see all of it or nothing. Equal roots mean equal copies: a part, sent by a peer
//!    that reaches further, enters no root until it is complete.
//! 7. Every start of a process is a new generation. A version is never used twice.
//! 8. Actors have no names, and there is no process-wide registry: many nodes live in one process. They share only
//!    the list of node introductions that have been verified already.
//! 9. Bad input from the network never panics, never stops an actor, and is counted.
//! 10. No call passes through an actor of this crate. A call runs at most once, unless its method is idempotent, and
//!     its error says whether it may have run.
//!
//! # Features
//!
//! No feature is on by default. `redb` adds a store in a file; `config-file` reads the `gossipmonger.toml` in a node's
//! directory; `issuer` issues certificates by token and renews them; `metrics` publishes a node's figures to the
//! `metrics` facade; `testkit` adds what tests need: `testkit` runs
//! your services on several nodes in one process, in virtual time (`docs/testkit.md` in the repository is the guide),
//! and [`service::frozen`](mod@service#functions) keeps the messages of a service as they were released; `sim` is a
//! simulator of whole clusters, which has no semantic versioning and runs the machines. The program `gossipmonger` is a
//! package of its own, `gossipmonger-cli`.
//!
//! `cluster` carries `ractor_cluster` over the connections of a node: remote actors, process groups and monitors
//! (`service::mesh`). Also enable it if any crate in your dependency graph enables ractor's feature `cluster`. Without it
//! the compiler reports some fifty errors in this crate, among them
//! *"ractor's feature `cluster` is on, but gossipmonger's feature `cluster` is not"*, with what to add. With ractor's
//! `cluster` your own message types need `impl ractor::Message for Msg {}` too. ractor's features `async-trait`,
//! `blanket_serde`, `message_span_propogation`, `monitors` and `output-port-v2` need no feature of this crate
//! (`blanket_serde` turns on ractor's `cluster`); but with `cluster`, ractor's `async-trait` needs this crate's `async-trait`.
//! Its `async-std` is refused.
//!
//! [ractor]: https://docs.rs/ractor
#![cfg_attr(docsrs, feature(doc_cfg))]

// In reading order.
mod node;
pub mod service;
pub mod tls;
pub mod pki;
pub mod store;
pub mod net;
pub mod metrics;
// rustdoc's JSON has no methods for a type whose module is hidden, so `.ci/public-api` shows the module.
#[cfg_attr(not(listed), doc(hidden))]
pub mod protocol;
mod ambient;
mod clock;
mod counters;
mod dials;
mod foreign;
mod lateness;
mod latest;
mod slot;
#[doc(hidden)]
pub mod unstable;
#[cfg(feature = "issuer")]
pub mod issuer;
#[cfg(feature = "testkit")]
pub mod testkit;
#[cfg(feature = "sim")]
#[doc(hidden)]
pub mod sim;

pub use counters::Counters;
pub use dials::DialFailure;
pub use foreign::Foreign;
pub use node::{
    Backends, Gossipmonger,
    builder::{BuildError, Builder, Parts},
    clients,
    config::{Config, ConfigError, Limits, QuicLimits, Restarts, ServiceLimits, ServiceRates},
    cuts::Cut,
    error::{Error, SpawnError},
    neighbours::PeerPath,
    propagation::{Audience, Propagation},
    snapshot::{Certificates, Entry, Member, Snapshot},
    subscription,
};
#[cfg(feature = "sim")]
#[doc(hidden)]
pub use node::{reins, tape};
#[doc(hidden)]
pub use protocol::event::ProtocolEvent;
#[doc(inline)]
pub use protocol::{
    counter::Counter,
    entry::{Key, Value},
    event::{Behind, Event, Problem},
    id::{ClientId, ClusterId, Datacenter, Generation, InvalidLabel, NodeId, Version},
    map::Refusal as NewsRefusal,
    reason::{Cause, Evidence, History, Reason, Transition},
    record::RecordError,
    returning::Returned,
    revocation::{IssuerId, Revocation, RevocationError, Revocations},
    seal::Signing,
    state::PeerState,
    time::Time,
    write::{Write, WriteError},
};
/// The release of ractor on which a node's actors are built: messages and references of another one do not fit.
#[doc(no_inline)]
pub use ractor;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../docs/services.md")]
struct Services;

#[cfg(doctest)]
#[doc = include_str!("../docs/testkit.md")]
struct Testkit;
