//! Whether an earlier generation of a peer is heard beside the present one.

use std::time::Duration;

use crate::protocol::time::Time;

/// How the present generation of a peer began, for this node.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Renewal {
    /// When it was learned of, as long as nothing of an earlier one was heard since.
    at: Option<Time>,
    /// Whether the earlier generation was still heard then.
    overlaps: bool,
}

impl Renewal {
    /// It was learned of just now.
    pub(super) const fn new(now: Time, overlaps: bool) -> Self {
        Self { at: Some(now), overlaps }
    }

    /// Whether the earlier generation was still heard when the present one was learned of.
    pub(super) const fn overlaps(&self) -> bool {
        self.overlaps
    }

    /// A packet of an earlier generation was heard. Returns, once, whether that generation goes on after
    /// `patience`.
    pub(super) fn hears_earlier(&mut self, at: Time, patience: Duration) -> bool {
        self.at.take_if(|since| at >= *since + patience).is_some()
    }
}
