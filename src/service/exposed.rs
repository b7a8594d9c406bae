//! An exposed actor of a node, as a caller knows it.

use super::{Gone, side::Side};
use crate::{
    node::services::exposed::Numbered,
    protocol::id::{Generation, NodeId},
    slot::Slot,
};

/// An actor that is called by its number.
#[derive(Debug)]
pub(super) struct Exposed {
    pub(super) node: NodeId,
    pub(super) generation: Generation,
    pub(super) number: u64,
    /// The node has answered that the actor has ended. The number is not sent again.
    ended: Slot<()>,
}

impl Exposed {
    pub(super) fn new(node: NodeId, generation: Generation, number: u64) -> Self {
        Self { node, generation, number, ended: Slot::default() }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_set()
    }

    /// Its node has answered that it has ended.
    pub(super) fn end(&self) {
        self.ended.set(());
    }

    /// Waits until it is known to have ended. For an actor of another node that is known only after a call.
    pub(super) async fn over(&self, side: &dyn Side) {
        match side.here().filter(|here| *here.node() == self.node) {
            Some(here) => here.exposed().is_over(self.number).await,
            None => self.ended.wait().await,
        }
    }

    /// Why it is gone, as far as this process knows.
    pub(super) fn gone(&self, side: &dyn Side) -> Option<Gone> {
        if self.has_ended() {
            return Some(Gone::Withdrawn);
        }
        if let Some(here) = side.here().filter(|here| *here.node() == self.node)
            && here.generation() == self.generation
        {
            let present = matches!(here.exposed().find(self.number), Numbered::Present(_));
            return (!present).then_some(Gone::Withdrawn);
        }
        // It is listed nowhere.
        let why = side.unlisted(&self.node, self.generation);
        why.filter(|why| *why != Gone::Withdrawn)
    }
}
