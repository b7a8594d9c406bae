//! What a test adds to a run: a judge of all that readers see, and members that lie.

use std::fmt;

use rand::rngs::SmallRng;

use crate::protocol::{
    entry::{Key, Value},
    gossip::Gossip,
    id::{Generation, NodeId, Version},
    map::NodeMap,
    message::Message,
    view::NodeView,
};

/// Knows what each owner wrote, and judges copies by that. An error ends the run.
pub trait Witness: fmt::Debug + Send {
    /// A generation begins with what an earlier one had written up to a version, or with nothing.
    ///
    /// # Errors
    /// The node must not begin it.
    fn begin(
        &mut self,
        node: &NodeId,
        generation: Generation,
        continues: Option<(Generation, Version)>,
    ) -> Result<(), String>;

    /// The owner wrote something; no value is a deletion.
    ///
    /// # Errors
    /// The owner must not write that.
    fn wrote(
        &mut self,
        node: &NodeId,
        generation: Generation,
        version: Version,
        key: &Key,
        value: Option<&Value>,
    ) -> Result<(), String>;

    /// Readers see this of an owner.
    ///
    /// # Errors
    /// The owner's writes do not allow it.
    fn check(&self, owner: &NodeId, view: &NodeView) -> Result<(), String>;
}

/// A member that lies: it changes what it sends.
pub trait Liar: fmt::Debug + Send {
    /// Whether it shows different peers different maps of its own.
    fn is_two_faced(&self) -> bool;

    /// Changes a frame of gossip to a peer. `own`: its name and its map.
    fn gossip(
        &mut self,
        rng: &mut SmallRng,
        own: (&NodeId, &NodeMap),
        peer: &NodeId,
        gossip: &mut Gossip,
    );

    /// Changes a frame of an exchange with a peer.
    fn message(
        &mut self,
        rng: &mut SmallRng,
        own: (&NodeId, &NodeMap),
        peer: &NodeId,
        message: &mut Message,
    );
}
