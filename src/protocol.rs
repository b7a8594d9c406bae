//! Scuttlebutt and phi accrual as pure state machines: no IO, no clock, no global random numbers.
//!
//! Every node owns a map of keys and only the owner writes it, each write with a version above all
//! before. A copy is summarised by one number, the largest version up to which it is complete, so
//! two nodes compare their copies by a [`digest`] of one line per node, and repair the difference
//! by a [`delta`] in version order (van Renesse, Dumitriu, Gough and Thomas, "Efficient
//! reconciliation and flow control for anti-entropy protocols", LADIS 2008). In a large cluster a
//! [`sketch`] shows which lines differ, and only those are compared.
//!
//! Four machines do the work. [`replica`] holds the maps and reports what is new ([`push`]): to all neighbours, or along
//! a tree ([`mode`], [`spanning`], [`edges`]); to a peer that is not known to have it ([`known`]); and it asks for what
//! peers have noted ([`requests`]). [`liveness`]
//! judges which peers are alive, from what this node hears ([`watch`], [`phi`]) and from what other nodes
//! answer ([`inquiry`], [`questions`]). [`scheduler`] decides which connections exist ([`overlay`],
//! [`links`]), with which peers to compare state ([`repair`]) and which datacenters are unreachable
//! ([`datacenters`]). [`peering`] decides which connection to a peer counts, what is queued for it, and what is held
//! against it. A node that is late ([`lag`]) begins less work ([`gate`]), and its patience stands still ([`served`]). A
//! machine takes an input and the present [`time`], and returns the actions to take and
//! their receivers ([`route`]). The actors of this crate deliver them, and so do the simulator in
//! `tests/simulation` and `gossipmonger simulate`, which therefore run the logic that ships.
//!
//! An owner signs its state ([`seal`]) as the root of a [`tree`] of its entries. A [`revocation`] ends the
//! validity of a certificate. [`claim`] checks the proof that a statement from a peer needs before it changes
//! anything. [`exchange`] has the two halves of one exchange, [`sketch`] makes its cost follow the size of
//! the difference, [`bulk`] decides which node sends which part of a difference that is too large for it,
//! [`gossip`] has the frames that neighbours send unasked, [`message`] the bytes.

pub(crate) mod bucket;
mod budget;
pub mod bulk;
pub mod claim;
pub mod close;
pub mod counter;
pub mod datacenters;
pub mod delta;
pub mod digest;
pub mod durable;
pub mod edges;
pub mod entry;
pub mod event;
pub mod exchange;
pub mod flow;
pub mod gate;
pub mod gossip;
pub mod hash;
pub mod id;
pub mod inquiry;
pub mod known;
pub mod lag;
pub mod links;
pub(crate) mod list;
pub mod liveness;
pub mod map;
pub mod message;
pub mod mode;
pub mod outbox;
pub mod overlay;
pub mod peering;
pub mod penalties;
pub mod phi;
pub mod push;
pub mod questions;
pub mod rates;
pub mod reason;
pub mod record;
pub mod repair;
pub mod replica;
pub mod requests;
pub mod returning;
pub mod revocation;
pub mod route;
pub mod rules;
pub mod scheduler;
pub mod seal;
pub mod served;
pub mod service;
pub mod session;
pub mod sketch;
pub mod skim;
pub mod spanning;
pub mod state;
pub mod time;
pub mod timing;
pub mod tree;
pub mod verdict;
pub mod view;
pub mod watch;
pub mod wave;
pub(crate) mod wire;
pub mod write;
