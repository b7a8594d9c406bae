//! Says what to do when a feature is missing, or one of ractor's does not go with this crate.
//!
//! With its feature `cluster` ractor no longer implements `Message` for every type, and Cargo turns it on for
//! this crate as soon as any package in the build enables it. The compiler then reports some fifty
//! errors here; the error below says what to do. With `async-std` ractor spawns its actors on another runtime than that
//! of QUIC.

use crate::protocol::route::SchedulerInput;

#[diagnostic::on_unimplemented(
    message = "ractor's feature `cluster` is on, but gossipmonger's feature `cluster` is not",
    label = "`{Self}` is a `ractor::Message` only with that feature",
    note = "add it where you depend on gossipmonger: features = [\"cluster\"]"
)]
trait SentBetweenActors {}

#[diagnostic::do_not_recommend]
impl<M: ractor::Message> SentBetweenActors for M {}

#[diagnostic::on_unimplemented(
    message = "ractor's feature `async-std` is on, and gossipmonger runs on tokio only",
    label = "actors are tasks of async-std",
    note = "turn it off in the package that turns it on, which this command shows: cargo tree -e features -i ractor"
)]
trait OnTokio {}

impl OnTokio for tokio::task::JoinHandle<()> {}

const fn compiles_with_the_features_of_ractor<M: SentBetweenActors, T: OnTokio>() {}

const _: () =
    compiles_with_the_features_of_ractor::<SchedulerInput, ractor::concurrency::JoinHandle<()>>();

/// What [`Builder::keep_store`](crate::Builder::keep_store) asks for where there is no such store.
#[cfg(not(feature = "redb"))]
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`keep_store` needs gossipmonger's feature `redb`",
    label = "there is no store in a file without it",
    note = "add it where you depend on gossipmonger: features = [\"redb\"]"
)]
pub trait StoreInFile {}

/// What `Gossipmonger::publish_metrics` asks for where there is no facade to publish to.
#[cfg(not(feature = "metrics"))]
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`publish_metrics` needs gossipmonger's feature `metrics`",
    label = "nothing is published to the `metrics` facade without it",
    note = "add it where you depend on gossipmonger: features = [\"metrics\"]"
)]
pub trait Facade {}
