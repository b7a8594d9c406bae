//! When new updates are sent: once for everything that waits for storage already.
//!
//! Whoever has changed something asks for a turn, which lands behind all that waits. So a node on time sends an
//! update at once, and a late one sends together what the whole queue has brought.

use std::time::Duration;

use crate::protocol::time::Time;

/// New updates wait no longer for their turn than this.
pub const TURN_MAX: Duration = Duration::from_millis(50);

/// The turn to send new updates.
#[derive(Debug, Default)]
pub(super) struct Batching {
    /// Since when updates wait.
    since: Option<Time>,
    /// A turn was asked for and has not come.
    asked: bool,
    /// It is this one.
    turn: bool,
}

impl Batching {
    /// A turn of storage begins. `to_tell`: updates are to be sent in it.
    pub(super) const fn begin(&mut self, to_tell: bool) {
        self.turn = to_tell;
    }

    /// The turn that was asked for has come.
    pub(super) const fn come(&mut self) {
        self.asked = false;
    }

    /// It ends.
    pub(super) const fn end(&mut self) {
        self.turn = false;
    }

    /// Whether updates that wait may be sent now. If not, a turn is to be asked for, unless one
    /// [waits](Self::waits).
    pub(super) fn is_due(&mut self, now: Time) -> bool {
        let since = *self.since.get_or_insert(now);
        let due = self.turn || now.since(since) >= TURN_MAX;
        if due {
            self.since = None;
        }
        due
    }

    /// A turn is asked for. Returns whether none was.
    pub(super) const fn ask(&mut self) -> bool {
        !std::mem::replace(&mut self.asked, true)
    }

    /// Whether updates wait for a turn that was asked for.
    pub(super) const fn waits(&self) -> bool {
        self.asked
    }
}
