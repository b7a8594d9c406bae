//! What was signed does not follow from what is here: then all of it is told again, now and then.

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
    /// Whether what is here is to be told from the start.
    pub(super) const fn stands(self) -> bool {
        self.stands
    }

    /// Whether it may arise once more: not soon after the last time.
    pub(super) fn may_arise(self, now: Time) -> bool {
        self.arose.is_none_or(|at| now >= at + DOUBT_INTERVAL)
    }

    /// It arises. Says whether that is new.
    pub(super) const fn arise(&mut self, now: Time) -> bool {
        self.arose = Some(now);
        !std::mem::replace(&mut self.stands, true)
    }

    /// What is here fits. When it last arose is remembered.
    pub(super) const fn settled(self) -> Self {
        Self { stands: false, ..self }
    }
}

/// A map whose news did not fit is told once more from the start, but not more often than this.
pub const DOUBT_INTERVAL: Duration = Duration::from_secs(30);
