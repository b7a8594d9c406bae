//! Why a peer is thought to be what it is: kept for every change, so that each verdict can be explained.

use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use super::{id::NodeId, liveness::PeerState, time::Time};

/// Most changes of one peer that are kept.
pub const TRANSITIONS_MAX: usize = 32;

/// One change of what is thought of a peer.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    /// When, on the monotonic clock of this node.
    pub at: Time,
    /// What was thought before.
    pub from: PeerState,
    /// What is thought since.
    pub to: PeerState,
    /// Why.
    pub reason: Arc<Reason>,
}

/// Why it changed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Reason {
    /// What brought it about.
    pub cause: Cause,
    /// The level of suspicion at that moment; 0 if this node does not hear the peer itself.
    pub phi: f64,
    /// What this node itself had of the peer, if it is to hear it.
    pub evidence: Option<Evidence>,
    /// Those who agreed that it is silent.
    pub observers: Arc<[NodeId]>,
    /// For how long this process itself had stood still lately.
    pub stall: Duration,
    /// What the peer has done, where the cause alone does not say so.
    pub deed: Option<Arc<str>>,
}

/// What one node had heard of a peer, and on which path, when it judged it.
#[derive(Clone, Copy, Debug, PartialEq)]
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

/// What brings a change about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// It was heard by this node itself.
    Heard,
    /// Another node has heard it.
    Vouched,
    /// It has started anew.
    Renewed,
    /// It has refuted what was said of it.
    Refuted,
    /// Enough of those who should hear it do not.
    Quorum,
    /// This node does not hear it, and nobody answered who could have.
    Alone,
    /// Others agreed that they do not hear it.
    Told,
    /// A suspicion was not refuted in time.
    Unrefuted,
    /// It said that it leaves.
    Left,
    /// It did not keep to the protocol, and this node cut it off. What is thought of it stays.
    CutOff,
}

/// The last changes of one peer, oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History(VecDeque<Transition>);

impl Reason {
    /// A reason that needs no evidence.
    #[must_use]
    pub fn of(cause: Cause) -> Self {
        let observers = Arc::default();
        Self { cause, phi: 0.0, evidence: None, observers, stall: Duration::ZERO, deed: None }
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
        }
    }

    /// A sentence for it, with the peer as its subject.
    #[must_use]
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
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl History {
    /// Adds a change; the oldest is dropped beyond [`TRANSITIONS_MAX`].
    pub fn push(&mut self, transition: Transition) {
        if self.0.len() == TRANSITIONS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(transition);
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
