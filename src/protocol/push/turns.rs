//! When notes are sent on a link: its ends take turns.

use std::time::Duration;

use crate::protocol::time::Time;

/// A note of an update along a tree is sent after this long, with all others that are due on the link.
pub const NOTE_DELAY: Duration = Duration::from_millis(250);
/// The same at the end of a link that dials it: the other end need not note what it was sent a note of.
pub const FIRST_NOTE_DELAY: Duration = Duration::from_millis(200);
/// An end of a link that has sent notes waits for those of the other end, but no longer than this: so they take
/// turns, and there is one frame of notes on a link in [`NOTE_DELAY`], not two.
pub const NOTE_INTERVAL: Duration = Duration::from_millis(400);

/// Whose turn it is on one link to send notes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turns {
    /// Since when notes wait here, and from when on they may be sent.
    wait: Option<(Time, Time)>,
    /// Until when the other end has its turn.
    rest: Time,
}

impl Turns {
    pub(super) fn want(&mut self, now: Time, delay: Duration) {
        self.wait.get_or_insert((now, now + delay));
    }

    pub(super) fn heard(&mut self, now: Time) {
        self.rest = now + NOTE_DELAY;
    }

    /// Sends the notes that wait by this time, also in the turn of the other end.
    pub(super) fn hurry(&mut self, by: Time) {
        let due = self.due();
        if let Some((_, from)) = &mut self.wait
            && due.is_some_and(|due| due > by)
        {
            *from = by;
            self.rest = by;
        }
    }

    /// When this end sends its notes, if any wait: whatever the other end does, they wait no longer than
    /// [`NOTE_INTERVAL`].
    pub(super) fn due(&self) -> Option<Time> {
        self.wait.map(|(since, from)| from.max(self.rest).min(since + NOTE_INTERVAL))
    }

    /// Whether to send them now.
    pub(super) fn take(&mut self, now: Time) -> bool {
        let due = self.due().is_some_and(|due| due <= now);
        if due {
            (self.wait, self.rest) = (None, now + NOTE_INTERVAL);
        }
        due
    }
}
