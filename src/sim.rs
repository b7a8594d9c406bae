//! A simulator of whole clusters: the machines that ship, in virtual time.
//!
//! Storage, failure detector, scheduler and connections of every node are the ones that an agent runs; what lies
//! between the nodes is a model ([`network`]). A run follows from its random seed. [`settings::Switches`] say which
//! parts are modelled: of a hundred nodes everything, encoding, disks and each packet of a heartbeat included; of ten
//! thousand what a plan for a cluster needs.
//!
//! The way of one exchange: `delivery` routes the output of a scheduler to `shell`, which hands it to the
//! connections' machine. `introductions` dials and introduces both ends if they are not connected, `exchanging`
//! drives the two halves, and `connections` and [`network`] decide when each packet arrives. The other files: `wire`,
//! `dial`, `exchange` and `slot` hold the state, [`world`] the queue of events, `elision` what a large run leaves out.
//!
//! This module changes with the machines and has no semantic versioning.

pub mod apart;
pub mod busy;
mod callers;
pub mod calls;
mod checks;
mod connections;
pub mod cpu;
mod delivery;
mod dial;
mod disk;
mod elision;
pub mod event;
mod exchange;
mod exchanging;
pub mod faults;
mod handshaking;
pub mod hooks;
mod introductions;
mod lagging;
pub mod load;
pub mod network;
mod orders;
mod pool;
mod process;
pub mod queue;
pub mod settings;
pub mod shake;
mod shell;
mod size;
pub mod slot;
mod spreading;
pub mod storm;
mod tracked;
mod turns;
#[cfg(test)]
mod tests;
pub mod warm;
pub mod watched;
mod wire;
pub mod world;
