//! The connections of a node: the table of them, and the tasks that serve each connection.
//!
//! ```text
//!   accept      reach       initiate       who connects, and who begins an exchange
//!      '----.     |     .-------'
//!           introduce                      the first stream of a connection
//!                 |
//!               serve                      one connection: exchange, streams, gossip, expiry
//!                 |
//!         frames ---- table                bytes with limits; the machine behind its lock
//!                       |
//!                   link, room, claims
//! ```

pub(crate) mod accept;
mod claims;
pub(crate) mod closing;
pub(crate) mod context;
mod exchange;
mod expiry;
pub(crate) mod frames;
mod gossip;
pub(crate) mod initiate;
mod introduce;
mod link;
pub(crate) mod reach;
mod refused;
pub(crate) mod revoked;
mod room;
pub(crate) mod serve;
mod streams;
pub(crate) mod table;
pub(crate) mod tasks;
