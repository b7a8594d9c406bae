//! Calls that are lost between two nodes, for tests.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rand::{Rng, RngExt};

use super::lost::Lost;
use crate::protocol::id::NodeId;

/// Which calls are lost from now on.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Loss {
    /// None.
    Nothing,
    /// The next ones, this many.
    Next(u32),
    /// This part of them, from 0.0 (none) to 1.0 (all), drawn from the seed.
    Part(f64),
}

/// The losses between all nodes of a test.
#[derive(Debug, Default)]
pub(crate) struct Losses(Mutex<BTreeMap<(NodeId, NodeId, Lost), Loss>>);

impl Losses {
    /// Sets the loss of the calls of one node to another. `what`: their requests, or the replies to them.
    pub(crate) fn set(&self, (from, to): (&NodeId, &NodeId), what: Lost, loss: Loss) {
        self.lock().insert((from.clone(), to.clone(), what), loss);
    }

    /// Nothing is lost any more.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    /// Whether this is lost of the next call of one node to another.
    pub(super) fn draw(
        &self,
        (from, to): (&NodeId, &NodeId),
        what: Lost,
        rng: &mut impl Rng,
    ) -> bool {
        let mut losses = self.lock();
        let loss = losses.get_mut(&(from.clone(), to.clone(), what));
        loss.is_some_and(|loss| loss.draw(rng))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(NodeId, NodeId, Lost), Loss>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Loss {
    fn draw(&mut self, rng: &mut impl Rng) -> bool {
        match self {
            Self::Nothing | Self::Next(0) => false,
            Self::Next(left) => {
                *left -= 1;
                true
            }
            Self::Part(part) => rng.random_bool(part.clamp(0.0, 1.0)),
        }
    }
}
