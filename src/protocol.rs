//! Scuttlebutt and phi accrual as pure state machines: no IO, no clock, no global random numbers.
//!
//! Every node owns a map of keys and only the owner writes it, each write with a version above all
//! before. A copy is summarised by one number, the largest version up to which it is complete, so
//! two nodes compare what they know by a [`digest`] of one line per node, and repair the difference
//! by a [`delta`] in version order (van Renesse, Dumitriu, Gough and Thomas, "Efficient
//! reconciliation and flow control for anti-entropy protocols", LADIS 2008). In a large cluster a
//! [`sketch`] tells which lines differ, and only those are compared.
//!
//! Three machines do it: [`replica`] holds the maps and tells what is new ([`push`]), [`liveness`]
//! judges who is live, by what this node hears ([`watch`], [`phi`]) and by what others answer
//! ([`inquiry`], [`questions`]), [`scheduler`] decides which connections there are ([`overlay`],
//! [`links`]), with whom to compare what is known ([`repair`]) and which datacenters cannot be reached
//! ([`datacenters`]). A machine is told something and the present
//! [`time`], and says what is to be done and by whom ([`route`]). The actors of this crate deliver that,
//! and so do the simulator in `tests/simulation` and `gossipmonger simulate`, which therefore run the
//! logic that ships. What an owner says is signed ([`seal`]) as the root of a [`tree`] of its entries;
//! whose certificate counts no more is a [`revocation`]; what has to be proved
//! before the words of others change anything is in [`claim`]. [`exchange`] has the two halves of one exchange, [`sketch`] what makes it cost as
//! little as the difference, [`bulk`] who sends whom what is too
//! much for it, [`gossip`] what neighbours tell unasked, [`message`] the bytes.

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
pub mod entry;
pub mod event;
pub mod exchange;
pub mod flow;
pub mod gossip;
pub mod id;
pub mod inquiry;
pub mod links;
pub(crate) mod list;
pub mod liveness;
pub mod map;
pub mod message;
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
pub mod returning;
pub mod revocation;
pub mod route;
pub mod scheduler;
pub mod seal;
pub mod session;
pub mod sketch;
pub mod skim;
pub mod state;
pub mod time;
pub mod tree;
pub mod verdict;
pub mod view;
pub mod watch;
pub mod wave;
pub mod write;
