//! A simulator of whole clusters: the machines that ship, at any size, in virtual time.
//!
//! Storage, failure detector and scheduler of every node are the ones that an agent runs; only the transport
//! is a model ([`network`]), and messages are only measured, not encoded. A run follows from its random seed.
//! This module changes with the machines and has no semantic versioning.

pub mod faults;
pub mod network;
pub mod node;
mod pool;
pub mod queue;
mod size;
#[cfg(test)]
mod tests;
pub mod warm;
pub mod world;
