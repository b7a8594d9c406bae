//! What the cluster thinks of a node: told like its keys, and taken back only by the node itself.
//!
//! Within one generation verdicts are ordered by incarnation, then by level, and of two the greater
//! holds: copies that have heard the same verdicts agree, in whatever order they came. Nobody but the
//! node itself raises its incarnation, and it does so to refute what others say of it (Das, Gupta and
//! Motivala, "SWIM", DSN 2002, section 4.2).

use bincode::{Decode, Encode};

use super::id::Incarnation;

/// The last incarnation of a life: far more than refutations of years. What is said of a later one is
/// refused; whoever is accused in this one begins another life.
pub const INCARNATION_MAX: Incarnation = Incarnation(u32::MAX as u64);

/// What is thought of a node, in one generation of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Verdict {
    /// The incarnation that it is about.
    pub incarnation: Incarnation,
    /// How bad it looks.
    pub level: Level,
}

/// How bad it looks for a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Level {
    /// Nothing is known against it.
    #[default]
    Alive,
    /// Somebody who should hear it does not; it has a while to refute that.
    Suspect,
    /// It has not refuted it.
    Dead,
}

impl Verdict {
    /// Nothing is known against this incarnation.
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
