//! Calls between nodes: the connections for them, and what this node offers.
//!
//! ```text
//!   a handle -> outbound -> link ... dial -> connection    this node calls
//!   connection -> serve -> lane -> offer                   this node is called
//! ```
//!
//! A call passes through no actor: the caller's task and the tasks of the two ends of a connection handle it. The
//! actor of services owns the tasks of the connections that this node has dialed.

pub(crate) mod audit;
mod built_in;
pub(crate) mod caller;
pub(crate) mod callers;
mod client;
pub(crate) mod converse;
pub(crate) mod dial;
pub(crate) mod disconnect;
mod drain;
mod expiry;
pub(crate) mod exposed;
pub(crate) mod feed;
pub(crate) mod figures;
pub(crate) mod framed;
pub(crate) mod lane;
pub(crate) mod link;
mod long;
pub(crate) mod offered;
pub(crate) mod outbound;
pub(crate) mod pace;
pub(crate) mod paths;
mod rates;
mod refusal;
pub(crate) mod responder;
pub(crate) mod room;
pub(crate) mod running;
pub(crate) mod serve;
pub(crate) mod stream;
pub(crate) mod table;
pub(crate) mod tags;
pub(crate) mod unfinished;
pub(crate) mod watched;
pub(crate) mod window;
