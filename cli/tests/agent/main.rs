//! The program as its users meet it: the real binary, in directories of its own, over real QUIC.
//!
//! Nothing is waited for by time: conditions are polled by the program's own commands, up to a
//! deadline that is far longer than any machine needs.

mod certificates;
mod checking;
mod clients;
mod configuration;
mod driving;
mod foreign;
mod harness;
mod http;
mod joining;
mod journal;
mod lifetime;
mod looking;
mod measuring;
mod naming;
mod outside;
mod paths;
mod refusals;
mod renewing;
mod restart;
mod revocation;
mod services;
mod session;
mod spread;
mod streams;
mod waiting;
mod why;
