//! The attempts of one call: what the end of each one means, and whether there is another one.

use std::time::Duration;

use bytes::Bytes;

use super::{
    balance::{
        Outcome as Judged,
        retry::{ATTEMPTS, Attempt, Class, Retry, RetryBudget},
    },
    calls::{NoRoom, Outcome},
    directory::Gone,
    failure::{By, CallFailure, Lost, NotRun, refused},
    link_end::LinkEnd,
};
use crate::protocol::{id::NodeId, time::Time};

/// The end of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The encoded answer, or why there is none.
    pub result: Result<Bytes, CallFailure>,
    /// How full the service is, if it has answered.
    pub load: Option<u8>,
    /// Whether membership has ended the attempt: the node is dead, has left or has restarted.
    pub verdict: bool,
}

/// The attempts of one call so far.
#[derive(Clone, Debug)]
pub struct Attempts {
    idempotent: bool,
    deadline: Time,
    nodes: Vec<NodeId>,
    reasons: Vec<String>,
    /// The last failure after which the call may have run.
    lost: Option<CallFailure>,
    /// Whether it went to a node that another one named.
    followed: bool,
}

impl Ending {
    /// The attempt has not begun.
    #[must_use]
    pub const fn not_run(why: NotRun) -> Self {
        Self { result: Err(CallFailure::NotRun(why)), load: None, verdict: false }
    }

    /// What an outcome on a link means. `why`: why the link has ended, if it has.
    #[must_use]
    pub fn settle(outcome: Outcome, why: impl FnOnce() -> LinkEnd) -> Self {
        let failed = |failure| Self { result: Err(failure), load: None, verdict: false };
        match outcome {
            Outcome::Reply { load, body } => {
                Self { result: Ok(body), load: Some(load), verdict: false }
            }
            Outcome::Refused { code, retry_after, words } => {
                failed(refused(code, retry_after, words))
            }
            Outcome::Deadline { sent: true } => failed(CallFailure::Unknown(Lost::Deadline)),
            Outcome::Deadline { sent: false } => failed(CallFailure::NotRun(NotRun::Deadline)),
            Outcome::Ended { sent } => {
                let why = why();
                let verdict = matches!(why, LinkEnd::Gone(_));
                let failure = match sent {
                    true => CallFailure::Unknown(lost(why)),
                    false => CallFailure::NotRun(not_sent(why)),
                };
                Self { result: Err(failure), load: None, verdict }
            }
        }
    }

    /// How the call counts in the figures of the node that was called.
    #[must_use]
    pub const fn judged(&self) -> Judged {
        match &self.result {
            Ok(_) => Judged::Answered,
            Err(CallFailure::NotRun(NotRun::Overloaded { by: By::Link | By::Caller, .. })) => {
                Judged::Refused
            }
            Err(CallFailure::NotRun(NotRun::Overloaded { retry_after, .. })) => {
                Judged::Overloaded { retry_after: *retry_after }
            }
            Err(CallFailure::NotRun(NotRun::NotConnected(_))) => Judged::Failed,
            Err(CallFailure::NotRun(_)) => Judged::Refused,
            Err(CallFailure::Unknown(_) | CallFailure::Failed(_)) => Judged::Failed,
        }
    }
}

impl Attempts {
    /// Of a call that has not been tried.
    #[must_use]
    pub const fn new(idempotent: bool, deadline: Time) -> Self {
        Self {
            idempotent,
            deadline,
            nodes: Vec::new(),
            reasons: Vec::new(),
            lost: None,
            followed: false,
        }
    }

    /// The deadline of the call.
    #[must_use]
    pub const fn deadline(&self) -> Time {
        self.deadline
    }

    /// The nodes at which it was tried.
    #[must_use]
    pub fn tried(&self) -> &[NodeId] {
        &self.nodes
    }

    /// The nodes that a second attempt, beside the one under way at this node, must not go to; `None` if there must not
    /// be one: the method must not run twice, or it was tried often enough.
    #[must_use]
    pub fn beside(&self, node: &NodeId) -> Option<Vec<NodeId>> {
        let tried = u32::try_from(self.nodes.len() + 1).unwrap_or(u32::MAX);
        let may = self.idempotent && tried < ATTEMPTS;
        may.then(|| self.nodes.iter().chain([node]).cloned().collect())
    }

    /// The attempt at this node has failed.
    pub fn failed(&mut self, node: NodeId, failure: &CallFailure) {
        self.nodes.push(node);
        self.reasons.push(failure.reason());
        if !matches!(failure, CallFailure::NotRun(_)) {
            self.lost = Some(failure.clone());
        }
    }

    /// The node that the last one has named as the owner of the key. It is followed once: two nodes whose views differ
    /// may name each other.
    pub fn follow(&mut self, failure: &CallFailure) -> Option<NodeId> {
        let CallFailure::NotRun(NotRun::NotOwner { better }) = failure else { return None };
        let first = !std::mem::replace(&mut self.followed, true);
        (first && !self.nodes.contains(better)).then(|| better.clone())
    }

    /// Whether the call is tried again after an attempt that was counted by [`Self::failed`]. `next`: how long the next
    /// provider has asked callers to wait; `None` if there is none.
    #[must_use]
    pub fn decide(
        &self,
        budget: &mut RetryBudget,
        now: Time,
        (failure, verdict): (&CallFailure, bool),
        next: Option<Duration>,
    ) -> Retry {
        // It says nothing of load, and happens once in a call.
        let follows =
            matches!(failure, CallFailure::NotRun(NotRun::NotOwner { .. })) && next.is_some();
        let class = if follows { Class::NotRun } else { failure.class() };
        budget.decide(&Attempt {
            class,
            idempotent: self.idempotent,
            verdict: verdict || follows,
            attempts: u32::try_from(self.nodes.len()).unwrap_or(u32::MAX),
            left: self.deadline.since(now),
            next,
        })
    }

    /// What the caller gets if the last attempt has failed like this: the failure, and the nodes at which the call was
    /// tried, in order, with the reason of each attempt. If any attempt may have run, the failure says so, also if the
    /// later ones have not run.
    #[must_use]
    pub fn end(self, last: CallFailure) -> (CallFailure, Vec<(NodeId, String)>) {
        let failure = match (last, self.lost) {
            (CallFailure::NotRun(_), Some(lost)) => lost,
            (last, _) => last,
        };
        (failure, self.nodes.into_iter().zip(self.reasons).collect())
    }
}

impl CallFailure {
    /// What it says about whether the call ran.
    #[doc(hidden)]
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Unknown(_) => Class::Unknown,
            Self::Failed(_) => Class::Failed,
            Self::NotRun(why) => match why {
                // Another provider would not change it.
                NotRun::Overloaded { by: By::Caller, .. } => Class::Refused,
                NotRun::NoProvider
                | NotRun::Draining
                | NotRun::TooOld { .. }
                | NotRun::NotConnected(_)
                | NotRun::NoSuchService
                | NotRun::NotTrusted
                | NotRun::Overloaded { .. } => Class::NotRun,
                _ => Class::Refused,
            },
        }
    }
}

impl NotRun {
    /// Why a link has not taken a cast, or not within the time for it. `why`: why the link has ended, if it has.
    #[doc(hidden)]
    #[must_use]
    pub fn no_room(full: NoRoom, why: impl FnOnce() -> LinkEnd) -> Self {
        match full {
            NoRoom::Ended => Self::NotConnected(why().to_string()),
            NoRoom::Draining => Self::Draining,
            NoRoom::Calls | NoRoom::Bytes | NoRoom::Binds => Self::link_is_full(),
        }
    }
}

/// Why a call that was sent is lost.
fn lost(why: LinkEnd) -> Lost {
    match why {
        LinkEnd::Gone(Gone::NodeDead) => Lost::NodeDead,
        LinkEnd::Gone(Gone::Restarted) => Lost::NodeRestarted,
        LinkEnd::Gone(_) | LinkEnd::Drained => Lost::NodeLeft,
        LinkEnd::Revoked => Lost::Revoked,
        LinkEnd::Stopped => Lost::Stopped,
        LinkEnd::NotConnected(why) | LinkEnd::Connection(why) => Lost::Connection(why),
        LinkEnd::Idle => Lost::Connection(LinkEnd::Idle.to_string()),
    }
}

/// Why a call was not sent.
fn not_sent(why: LinkEnd) -> NotRun {
    match why {
        LinkEnd::Stopped => NotRun::Stopped,
        LinkEnd::Drained => NotRun::Draining,
        why => NotRun::NotConnected(why.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_attempt_goes_to_no_node_that_was_asked() {
        let node = |name: &str| NodeId::new(name).unwrap();
        assert_eq!(Attempts::new(false, Time::ZERO).beside(&node("a")), None);
        let mut attempts = Attempts::new(true, Time::ZERO);
        assert_eq!(attempts.beside(&node("a")), Some(vec![node("a")]));
        attempts.failed(node("a"), &CallFailure::NotRun(NotRun::Draining));
        assert_eq!(attempts.beside(&node("b")), Some(vec![node("a"), node("b")]));
        attempts.failed(node("b"), &CallFailure::NotRun(NotRun::Draining));
        assert_eq!(attempts.beside(&node("c")), None, "it was tried three times");
    }

    #[test]
    fn a_call_that_may_have_run_is_never_said_not_to_have_run() {
        let not_run = CallFailure::NotRun(NotRun::Draining);
        let lost = CallFailure::Unknown(Lost::NodeDead);
        let end = |failures: &[&CallFailure]| {
            let mut attempts = Attempts::new(true, Time::ZERO);
            for failure in failures {
                attempts.failed(NodeId::new("a").unwrap(), failure);
            }
            attempts.end((*failures.last().unwrap()).clone()).0
        };
        assert_eq!(end(&[&not_run, &not_run]), not_run);
        assert_eq!(end(&[&lost, &not_run]), lost);
        assert_eq!(end(&[&lost, &not_run, &not_run]), lost);
        assert_eq!(end(&[&not_run, &lost]), lost);
    }
}
