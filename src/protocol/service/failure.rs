//! Why a call has no reply, and what that says about whether it ran.

use std::{fmt, time::Duration};

use super::{ServiceVersion, balance::NoPick, frame::Code};
use crate::protocol::id::NodeId;

/// What a failed call means for its caller.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallFailure {
    /// It has not run, and will not.
    NotRun(NotRun),
    /// Whether it ran is unknown: it was sent, and then this happened.
    Unknown(Lost),
    /// It ran, and gave no answer.
    Failed(Failure),
}

/// Why a call has not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotRun {
    /// No live node offers the service where it was looked for.
    #[error("no live node offers it")]
    NoProvider,
    /// All nodes that offer it are draining.
    #[error("all nodes that offer it are about to stop")]
    Draining,
    /// All nodes that offer it have an older minor version than the method.
    #[error("all nodes that offer it are too old for the method: the newest offers {offered}")]
    TooOld {
        /// The newest version.
        offered: ServiceVersion,
    },
    /// The node cannot be reached.
    #[error("the node cannot be reached: {0}")]
    NotConnected(String),
    /// There is no room.
    #[error("{by} has no room for more; try again after {retry_after:?}")]
    Overloaded {
        /// Whose limit it is.
        by: By,
        /// When it makes sense to try again; zero if that is unknown.
        retry_after: Duration,
    },
    /// The certificate of the node does not prove that it is one of the nodes that may answer this caller.
    #[error("the certificate of the node does not prove that it may answer this caller")]
    NotTrusted,
    /// The key of the question belongs to another node, as the node that was asked knows it. A call follows once.
    #[error("the key of the question belongs to {better}")]
    NotOwner {
        /// The node to which it belongs.
        better: NodeId,
    },
    /// The caller may not call it.
    #[error("this caller may not call it")]
    Forbidden,
    /// The node does not offer the service any more.
    #[error("the node does not offer it any more")]
    NoSuchService,
    /// The service has no such method.
    #[error("the node's version of the service has no such method")]
    NoSuchMethod,
    /// The question is too long.
    #[error("the question has {bytes} bytes, {allowed} are allowed")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The longest.
        allowed: usize,
    },
    /// The question cannot be encoded.
    #[error("the question cannot be encoded: {0}")]
    NotEncoded(String),
    /// The node cannot decode the question.
    #[error("the node cannot decode the question: {0}")]
    Malformed(String),
    /// The deadline passed before the question was sent, or before it began to run.
    #[error("the deadline passed before it was sent")]
    Deadline,
    /// This node has ended.
    #[error("this node has ended")]
    Stopped,
}

/// Whose limit a call has hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum By {
    /// The caller's own limit, that of a proxy for example.
    Caller,
    /// The connection to the node, at the caller's end.
    Link,
    /// The service.
    Service,
    /// The service's limit for this caller.
    Peer,
}

/// Why it is unknown whether a call has run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Lost {
    /// The deadline has passed.
    #[error("the deadline passed")]
    Deadline,
    /// The node is dead.
    #[error("the node is dead")]
    NodeDead,
    /// The node has restarted.
    #[error("the node has restarted")]
    NodeRestarted,
    /// The node has left, or was forgotten.
    #[error("the node has left")]
    NodeLeft,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Connection(String),
    /// The node's certificate was revoked.
    #[error("the certificate of the node was revoked")]
    Revoked,
    /// This node has ended.
    #[error("this node has ended")]
    Stopped,
}

/// Why a call that ran gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The handler panicked.
    #[error("its handler panicked")]
    Panicked,
    /// The handler ended without an answer.
    #[error("its handler gave no answer")]
    NoAnswer,
    /// The actor that answers has ended.
    #[error("the actor that answers has ended")]
    ActorEnded,
    /// The answer is too long to be sent.
    #[error("its answer is too long: {0}")]
    ReplyTooLarge(String),
    /// An item of the caller was not sent.
    #[error("an item was not sent: {0}")]
    ItemNotSent(String),
    /// The answer is not of the reply type.
    #[error("its answer cannot be decoded: {0}")]
    NotDecoded(String),
}

impl CallFailure {
    /// The reason alone, without what it means.
    #[doc(hidden)]
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::NotRun(why) => why.to_string(),
            Self::Unknown(why) => why.to_string(),
            Self::Failed(why) => why.to_string(),
        }
    }
}

impl fmt::Display for CallFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRun(why) => write!(f, "the call has not run: {why}"),
            Self::Unknown(why) => write!(f, "whether the call ran is unknown: {why}"),
            Self::Failed(why) => write!(f, "the call failed: {why}"),
        }
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Caller => "the caller itself",
            Self::Link => "the connection to the node",
            Self::Service => "the service",
            Self::Peer => "the service's limit for this caller",
        })
    }
}

/// The failure that a refusal means.
#[must_use]
pub fn refused(code: Code, retry_after: Duration, words: String) -> CallFailure {
    let not_run = |why| CallFailure::NotRun(why);
    match code {
        Code::NoSuchService => not_run(NotRun::NoSuchService),
        Code::NoSuchMethod => not_run(NotRun::NoSuchMethod),
        Code::Forbidden => not_run(NotRun::Forbidden),
        Code::Overloaded => not_run(NotRun::Overloaded { by: By::Service, retry_after }),
        Code::PeerOverloaded => not_run(NotRun::Overloaded { by: By::Peer, retry_after }),
        Code::Draining => not_run(NotRun::Draining),
        // The caller's own limit should have refused it.
        Code::TooLarge => not_run(NotRun::Malformed(words)),
        Code::Malformed => not_run(NotRun::Malformed(words)),
        Code::Deadline => not_run(NotRun::Deadline),
        // Without a name of a node there is none to follow.
        Code::NotOwner => not_run(match NodeId::new(&words) {
            Ok(better) => NotRun::NotOwner { better },
            Err(_) => NotRun::NoSuchService,
        }),
        Code::Panicked => CallFailure::Failed(Failure::Panicked),
        Code::NoAnswer => CallFailure::Failed(Failure::NoAnswer),
        Code::ActorEnded => CallFailure::Failed(Failure::ActorEnded),
        Code::ReplyTooLarge => CallFailure::Failed(Failure::ReplyTooLarge(words)),
    }
}

/// The failure that a refusal means after the handler has begun: what says that the call has not run is no such proof
/// any more.
#[must_use]
pub fn refused_after_begun(code: Code, retry_after: Duration, words: String) -> CallFailure {
    match refused(code, retry_after, words) {
        CallFailure::NotRun(_) => CallFailure::Failed(Failure::NoAnswer),
        failure => failure,
    }
}

impl NotRun {
    /// Why there is no provider. `major`: the major version that was asked for.
    #[doc(hidden)]
    #[must_use]
    pub const fn no_pick(why: NoPick, major: u16) -> Self {
        match why {
            NoPick::Draining => Self::Draining,
            NoPick::TooOld { offered } => {
                Self::TooOld { offered: ServiceVersion::new(major, offered) }
            }
            NoPick::NoProvider | NoPick::Tried => Self::NoProvider,
        }
    }

    /// The caller's own end of the connection has no room.
    #[doc(hidden)]
    #[must_use]
    pub const fn link_is_full() -> Self {
        Self::Overloaded { by: By::Link, retry_after: Duration::ZERO }
    }
}
