//! Names the feature that is missing when ractor's own `cluster` feature is on without this crate's.
//!
//! With that feature ractor no longer implements `Message` for every type, and Cargo turns it on for
//! this crate as soon as any package in the build enables it. The compiler then reports some forty
//! errors here; the error below says what to do.

use crate::protocol::route::SchedulerInput;

#[diagnostic::on_unimplemented(
    message = "ractor's feature `cluster` is on, but gossipmonger's feature `cluster` is not",
    label = "`{Self}` is a `ractor::Message` only with that feature",
    note = "add it where you depend on gossipmonger: features = [\"cluster\"]"
)]
trait SentBetweenActors {}

#[diagnostic::do_not_recommend]
impl<M: ractor::Message> SentBetweenActors for M {}

const fn compiles_with_the_features_of_ractor<M: SentBetweenActors>() {}

const _: () = compiles_with_the_features_of_ractor::<SchedulerInput>();
