//! The peers to which this node announces that it leaves.

use std::collections::BTreeMap;

use crate::protocol::route::Target;

/// The peers to which this node announces that it leaves.
#[derive(Debug, Default)]
pub(super) struct Farewell {
    /// How many exchanges with each have still to end: one that was under way had already begun before the
    /// announcement.
    pending: BTreeMap<Target, u32>,
    acknowledged: usize,
}

impl Farewell {
    /// These are sent the announcement, and this many exchanges with each have still to end.
    pub(super) fn to(told: impl Iterator<Item = (Target, u32)>) -> Self {
        Self { pending: told.collect(), acknowledged: 0 }
    }

    /// An exchange has ended. Returns how many have acknowledged, if it was the last one.
    pub(super) fn ended(&mut self, target: &Target, ok: bool) -> Option<usize> {
        let endings = self.pending.get_mut(target)?;
        *endings -= 1;
        if *endings > 0 {
            return None;
        }
        self.pending.remove(target);
        self.acknowledged += usize::from(ok);
        self.pending.is_empty().then_some(self.acknowledged)
    }

    /// No exchange will end any more. Returns how many have acknowledged, unless that was returned already.
    pub(super) fn interrupt(&mut self) -> Option<usize> {
        let waited = !self.pending.is_empty();
        self.pending.clear();
        waited.then_some(self.acknowledged)
    }
}
