//! Tests of your own services, actors and subscribers on several nodes in one process, in virtual time.
//!
//! [`check`] runs a test once for each of some seeds. Each run gets a [`Kit`]: it starts nodes ([`Gossipmonger`]
//! handles like any other) on a network in memory, and does to them what happens in production: it cuts, delays and
//! loses, it kills nodes and restarts them with the same store, it renews certificates and sets wall clocks.
//!
//! ```
//! use std::time::Duration;
//!
//! use gossipmonger::testkit::check;
//!
//! check(1..=3, |kit| async move {
//!     let [a, b] = kit.start_all(["a", "b"]).await;
//!     a.set("color", "green").await.unwrap();
//!     kit.cut("a", "b");
//!     kit.kill("a").await;
//!     kit.heal();
//!     kit.restart("a").await;
//!     kit.converged(Duration::from_secs(60)).await;
//!     assert_eq!(b.get_str(a.node(), "color").as_deref(), Some("green"));
//! });
//! ```
//!
//! # Time
//!
//! A run has a runtime of its own with one thread, and tokio's paused clock: when nothing can run, the clock jumps to
//! the next timer. So an hour takes seconds, and a `sleep` in your service costs nothing. An hour of five idle nodes
//! takes 3,600 s of virtual time; `docs/testkit.md` in the repository states its CPU time. There is no IO driver: a
//! socket would not know of that clock.
//!
//! # Seeds
//!
//! Everything random follows from the seed: delays, losses, whom nodes gossip with, which node a call is sent to, and
//! [`Kit::rng`]. The same seed, test and build give the same run, with the same [`Kit::trace`]. A run that panics
//! prints its seed, and the variable `GOSSIPMONGER_SEED` repeats it: [`check`] then runs that seed alone.
//!
//! That holds for your code as well if it takes no other source of randomness. The usual ones are `rand::rng()` (take
//! [`Kit::rng`]), the order of a `HashMap` (take a `BTreeMap`), `SystemTime::now()` and `std::time::Instant` (take
//! [`Kit::wall`] and [`tokio::time::Instant`]), threads and `spawn_blocking`, and a `tokio::select!` that is not
//! `biased`. Built with `--cfg tokio_unstable`, `select!` follows from the seed too. ractor's process groups and names
//! belong to the process: all nodes of all tests that run at once share them.
//!
//! # What is simulated
//!
//! The nodes are the real ones: actors, frames and codecs. In place of QUIC and TLS there is a network in memory. A
//! connection over a cut path waits, as over QUIC, and breaks after [`idle_timeout`](crate::QuicLimits::idle_timeout).
//! A certificate is only a date: it is shown, expires and is renewed, but nothing is signed, and nothing can be revoked.

mod faults;
mod kit;
mod machine;
mod process;
mod seed;
mod trace;
mod waiting;
mod wall;

pub use self::{
    kit::Kit,
    process::Process,
    seed::{check, run},
};
pub use crate::ambient::losses::Loss;
#[cfg(doc)]
use crate::node::Gossipmonger;
