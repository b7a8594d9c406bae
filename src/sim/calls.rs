//! A simulator of calls between nodes: the machines that ship, in virtual time.
//!
//! Directory, balance, retry budget, back-off, both halves of a lane and the room of an offer are the ones that an
//! agent runs, and so are the rules for the end of an attempt
//! ([`attempt`](crate::protocol::service::attempt)). What lies between the nodes is a model: connections with latency
//! and a window, which break, and are cut; processes that pause, die, restart, drain and leave. What a node knows of
//! the others is an input: it learns of each change after a delay of its own, and a verdict may be wrong.
//!
//! A run follows from its random seed. [`oracle`] knows which handler ran when, and judges all that callers see.
//! [`settings::Mutation`] breaks one rule at a time, to show that the oracle finds it.
//!
//! `caller` has the way of a call at its caller, `wire` the connection, `callee` the way of a request, `streams` that of a
//! stream, `knowledge` what a node knows, `clients` what callers know that are no members, `fate` what befalls
//! processes, `draw` what a seed decides, `even` the traffic of a cluster that is planned. [`figures`] counts what callers
//! see.

mod callee;
mod caller;
mod clients;
mod draw;
pub mod even;
mod event;
mod fate;
pub mod figures;
mod knowledge;
pub mod oracle;
pub mod settings;
mod state;
mod stream;
mod streams;
mod wire;
pub mod world;
