//! The cluster's verdict on a node: replicated like the node's keys, and withdrawn only by the node itself.
//!
//! Within one generation verdicts are ordered by incarnation, then by level, and the greater of two wins:
//! copies that have received the same verdicts agree, in any order of arrival. Only the node itself raises
//! its incarnation, to refute suspicions of it (Das, Gupta and Motivala, "SWIM", DSN 2002, section 4.2).

use super::{
    id::Incarnation,
    wire::{fields, variants},
};

/// The last incarnation of a generation: far more than years of refutations. A verdict on a later one is
/// refused; a node that is accused in this one begins a new generation.
pub const INCARNATION_MAX: Incarnation = Incarnation(u32::MAX as u64);

/// The cluster's verdict on a node, in one generation of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Verdict {
    /// The incarnation that the verdict is about.
    pub incarnation: Incarnation,
    /// The level of suspicion.
    pub level: Level,
}

fields!(Verdict { incarnation, level });

/// The level of suspicion of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// No suspicion.
    #[default]
    Alive,
    /// An observer does not hear the node; the node has a while to refute the suspicion.
    Suspect,
    /// The node has not refuted the suspicion.
    Dead,
}

variants!(Level { 0 => Alive {}, 1 => Suspect {}, 2 => Dead {} });

impl Verdict {
    /// No suspicion of this incarnation.
    #[must_use]
    pub const fn alive(incarnation: Incarnation) -> Self {
        Self { incarnation, level: Level::Alive }
    }

    /// The same incarnation at this level.
    #[must_use]
    pub const fn at(self, level: Level) -> Self {
        Self { level, ..self }
    }
}
