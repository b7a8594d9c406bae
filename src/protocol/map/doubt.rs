//! The signed head does not follow from our copy: then the whole map is requested again, now and then.

use std::time::Duration;

use crate::protocol::time::Time;

/// Whether a copy is doubted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Doubt {
    stands: bool,
    /// When it last arose.
    arose: Option<Time>,
}

impl Doubt {
    /// Whether the copy has to be sent again from the start.
    pub(super) const fn stands(self) -> bool {
        self.stands
    }

    /// Whether a doubt may arise again: not soon after the last time.
    pub(super) fn may_arise(self, now: Time) -> bool {
        self.arose.is_none_or(|at| now >= at + DOUBT_INTERVAL)
    }

    /// It arises. Says whether that is new.
    pub(super) const fn arise(&mut self, now: Time) -> bool {
        self.arose = Some(now);
        !std::mem::replace(&mut self.stands, true)
    }

    /// The copy fits. The time of the last doubt is remembered.
    pub(super) const fn settled(self) -> Self {
        Self { stands: false, ..self }
    }
}

/// A map whose update did not fit is requested once more from the start, but not more often than this.
pub const DOUBT_INTERVAL: Duration = Duration::from_secs(30);
