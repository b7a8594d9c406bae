//! The reasons of a peer's state transitions: kept for every change, so that each verdict can be explained.

use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use super::{id::NodeId, state::PeerState, time::Time};

/// Most changes of one peer that are kept.
pub const TRANSITIONS_MAX: usize = 32;
/// Most notes, which are transitions that leave the state of the peer as it is: a peer that begins one
/// generation after another, or keeps moving, must not push the other transitions out.
pub const NOTES_MAX: usize = 16;

/// One state transition of a peer.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    /// When, on the monotonic clock of this node.
    pub at: Time,
    /// The state before.
    pub from: PeerState,
    /// The state since then.
    pub to: PeerState,
    /// Why.
    pub reason: Arc<Reason>,
}

/// Why it changed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Reason {
    /// The cause of the transition.
    pub cause: Cause,
    /// The level of suspicion at that moment, as this node judged it by the times that it allows (`factor`); 0 if
    /// this node does not hear the peer itself.
    pub phi: f64,
    /// What this node itself had heard of the peer, if it is an observer of the peer.
    pub evidence: Option<Evidence>,
    /// The observers that agreed that the peer is silent.
    pub observers: Arc<[NodeId]>,
    /// For how long this process itself had stood still lately.
    pub stall: Duration,
    /// How slow this node considered itself ([`HEALTH_MAX`](super::liveness::HEALTH_MAX)).
    pub slowness: u32,
    /// How late this node was served.
    pub lag: Duration,
    /// How many times as long as usual this node takes to judge the peer: 1 + `slowness`, doubled each time that
    /// the peer has refuted it lately; 1 if this node does not hear the peer itself.
    pub factor: u32,
    /// The offence of the peer, if the cause alone does not name it.
    pub deed: Option<Arc<str>>,
}

/// What one node had heard of a peer, and on which path, when it judged the peer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Evidence {
    /// How long nothing had been heard.
    pub silence: Duration,
    /// Whether anything was ever heard.
    pub heard: bool,
    /// The connection: `Some(true)` if this end dialed it, `None` if there was none.
    pub dialed: Option<bool>,
    /// The round trip, as far as it was measured.
    pub rtt: Option<Duration>,
    /// The part of the packets that is lost on the way, as assumed for `phi`.
    pub loss: f64,
    /// Probes that were not answered.
    pub probes: u32,
}

/// The cause of a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// It was heard by this node itself.
    Heard,
    /// Another node has heard it.
    Vouched,
    /// The peer has restarted.
    Renewed,
    /// The peer has refuted the suspicion.
    Refuted,
    /// A quorum of observers does not hear the peer.
    Quorum,
    /// This node does not hear the peer, and no other observer answered.
    Alone,
    /// Others agreed that they do not hear it.
    Told,
    /// A suspicion was not refuted in time.
    Unrefuted,
    /// It said that it leaves.
    Left,
    /// The peer violated the protocol, and this node disconnected it. Its state stays.
    CutOff,
    /// The peer is at another address. Its state stays.
    Moved,
    /// The peer came back in a way that an operator should look at: [`Returned`](super::returning::Returned).
    /// Its state stays.
    AfterLeaving,
    /// The same.
    Behind,
    /// The same.
    Twice,
}

/// The latest state transitions of one peer, oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History(VecDeque<Transition>);

impl Transition {
    /// Whether the state of the peer is the same as before.
    pub(crate) fn is_note(&self) -> bool {
        self.from == self.to
    }
}

impl Reason {
    /// A reason that needs no evidence.
    #[must_use]
    #[doc(hidden)]
    pub fn of(cause: Cause) -> Self {
        Self {
            cause,
            phi: 0.0,
            evidence: None,
            observers: Arc::default(),
            stall: Duration::ZERO,
            slowness: 0,
            lag: Duration::ZERO,
            factor: 1,
            deed: None,
        }
    }
}

impl Cause {
    /// One word for it, as in events and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Heard => "heard",
            Self::Vouched => "vouched",
            Self::Renewed => "renewed",
            Self::Refuted => "refuted",
            Self::Quorum => "quorum",
            Self::Alone => "alone",
            Self::Told => "told",
            Self::Unrefuted => "unrefuted",
            Self::Left => "left",
            Self::CutOff => "cut_off",
            Self::Moved => "moved",
            Self::AfterLeaving => "after_leaving",
            Self::Behind => "behind",
            Self::Twice => "twice",
        }
    }

    /// A sentence for it, with the peer as its subject.
    #[must_use]
    #[doc(hidden)]
    pub const fn as_sentence(self) -> &'static str {
        match self {
            Self::Heard => "was heard by this node itself",
            Self::Vouched => "is heard by others",
            Self::Renewed => "has started anew",
            Self::Refuted => "has refuted what was said of it",
            Self::Quorum => "is not heard by enough of those who should hear it",
            Self::Alone => "is not heard by this node, and nobody else could say more",
            Self::Told => "is not heard, by what others agreed on",
            Self::Unrefuted => "has not refuted the suspicion in time",
            Self::Left => "said that it leaves",
            Self::CutOff => "did not keep to the protocol and was cut off by this node",
            Self::Moved => "is at another address",
            Self::AfterLeaving => "is back although it had left on purpose",
            Self::Behind => "is back with less than it had",
            Self::Twice => "seems to run twice",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl History {
    /// Adds a change; the oldest is dropped beyond [`TRANSITIONS_MAX`], the oldest note beyond
    /// [`NOTES_MAX`].
    #[doc(hidden)]
    pub fn push(&mut self, transition: Transition) {
        let notes = || self.0.iter().filter(|known| known.is_note()).count();
        let dropped = if transition.is_note() && notes() >= NOTES_MAX {
            self.0.iter().position(Transition::is_note)
        } else {
            (self.0.len() >= TRANSITIONS_MAX).then_some(0)
        };
        dropped.and_then(|oldest| self.0.remove(oldest));
        self.0.push_back(transition);
    }

    /// The latest transition that has changed the state of the peer.
    #[must_use]
    pub fn last_change(&self) -> Option<&Transition> {
        self.0.iter().rev().find(|transition| !transition.is_note())
    }

    /// The changes, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Transition> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing has changed yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transition(second: u64, to: PeerState) -> Transition {
        let (at, reason) = (Duration::from_secs(second), Arc::new(Reason::of(Cause::Moved)));
        Transition { at: Time::from_origin(at), from: PeerState::Live, to, reason }
    }

    #[test]
    fn notes_push_out_notes_and_not_the_changes() {
        let mut history = History::default();
        history.push(transition(0, PeerState::Suspect));
        (1..100).for_each(|second| history.push(transition(second, PeerState::Live)));
        assert_eq!(history.len(), NOTES_MAX + 1);
        assert_eq!(history.last_change(), Some(&transition(0, PeerState::Suspect)));
        assert_eq!(history.iter().last(), Some(&transition(99, PeerState::Live)));
        (100..200).for_each(|second| history.push(transition(second, PeerState::Dead)));
        assert_eq!(history.len(), TRANSITIONS_MAX);
    }
}
