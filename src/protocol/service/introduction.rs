//! Which connections for calls are between the processes that they are meant for.

use super::{
    directory::{Gone, Standing},
    frame::{ClientHello, Hello},
};
use crate::protocol::id::Generation;

/// The bit of [`Hello::features`] that says what a connection is for: streams of single calls, not small calls.
pub const STREAMS: u64 = 1;

/// What a connection for calls is for. A node has at most one of each to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Small calls and casts, over its lane.
    Lane,
    /// Streams of single calls: so that bulk does not hold up small calls.
    Streams,
}

impl Purpose {
    /// The bits of [`Hello::features`].
    #[must_use]
    pub const fn features(self) -> u64 {
        match self {
            Self::Lane => 0,
            Self::Streams => STREAMS,
        }
    }

    /// The purpose of the connection whose introduction has these features.
    #[must_use]
    pub const fn of(features: u64) -> Self {
        match features & STREAMS {
            0 => Self::Lane,
            _ => Self::Streams,
        }
    }

    /// Bytes that its connection may bring before they are read, if there is plenty of room.
    #[must_use]
    pub const fn window(self) -> u32 {
        match self {
            Self::Lane => 512 << 10,
            Self::Streams => 4 << 20,
        }
    }
}

/// Why a caller whose name is proved is disconnected: one of the two processes is not the one that the other means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// It calls another process of this node.
    #[error("you expect generation {expected}, this is {own}")]
    OtherProcess {
        /// The generation that it calls.
        expected: Generation,
        /// The present one.
        own: Generation,
    },
    /// A later process of the caller is known.
    #[error("a later generation of you is known: {known}")]
    Outlived {
        /// The generation of that process.
        known: Generation,
    },
}

/// Judges a caller whose name is proved. `own`: the generation of this node. `known`: the latest generation of the caller
/// that is known, or zero.
///
/// # Errors
/// [`Mismatch`]: the connection must be closed, and nothing that came over it runs.
pub fn admit(hello: &Hello, own: Generation, known: Generation) -> Result<(), Mismatch> {
    if hello.expected != own {
        return Err(Mismatch::OtherProcess { expected: hello.expected, own });
    }
    if hello.generation < known {
        return Err(Mismatch::Outlived { known });
    }
    Ok(())
}

/// Judges a client whose name is proved. `own`: the generation of this node.
///
/// # Errors
/// [`Mismatch::OtherProcess`]: the connection must be closed, and nothing that came over it runs.
pub fn admit_client(hello: &ClientHello, own: Generation) -> Result<(), Mismatch> {
    let expected = hello.expected;
    match expected == own || expected == Generation::ZERO {
        true => Ok(()),
        false => Err(Mismatch::OtherProcess { expected, own }),
    }
}

/// What becomes of a call to a node in a generation, and of the link to the node.
///
/// A caller may have the generation from an address in a message, so it proves nothing: only what membership knows ends a
/// link, and only a generation that membership knows is dialed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// The call goes over the link that is open.
    Keep,
    /// A link is dialed. It takes the place of one that is open, which is to another process.
    Replace,
    /// The call cannot run. A link that is open stays.
    Refuse(NoProcess),
}

/// Why there is no process of a node to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoProcess {
    /// It has ended.
    #[error("{0}")]
    Ended(Gone),
    /// Membership knows no such node, or no such generation of it yet.
    #[error("no process of the node in generation {0} is known here")]
    Unknown(Generation),
}

impl Reuse {
    /// For a call to a node in generation `wanted`. `open`: the generation of the open link, if there is one. `known`: what
    /// membership knows of `wanted`; it is asked for only if that matters. A link must be ended when its generation is
    /// known to have ended.
    #[must_use]
    pub fn of(
        open: Option<Generation>,
        wanted: Generation,
        known: impl FnOnce() -> Standing,
    ) -> Self {
        if open == Some(wanted) {
            return Self::Keep;
        }
        match known() {
            Standing::Present => Self::Replace,
            Standing::Ended(why) => Self::Refuse(NoProcess::Ended(why)),
            Standing::Unknown => Self::Refuse(NoProcess::Unknown(wanted)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::id::{ClusterId, NodeId};

    #[test]
    fn a_client_calls_the_process_that_it_knows_or_any_if_it_knows_none() {
        let own = Generation(5);
        let admitted = |expected| {
            admit_client(&ClientHello { expected: Generation(expected), features: 0 }, own)
        };
        for expected in [4, 6, u64::MAX] {
            let mismatch = Mismatch::OtherProcess { expected: Generation(expected), own };
            assert_eq!(admitted(expected), Err(mismatch));
        }
        assert_eq!([admitted(5), admitted(0)], [Ok(()), Ok(())]);
    }

    #[test]
    fn only_what_membership_knows_ends_a_link() {
        let generations = [1, 2, 3].map(Generation);
        let [_, open, _] = generations;
        for wanted in generations {
            for ended in [Gone::Restarted, Gone::NodeDead] {
                let reuse = Reuse::of(Some(open), wanted, || Standing::Ended(ended));
                let refused = Reuse::Refuse(NoProcess::Ended(ended));
                assert_eq!(reuse, if wanted == open { Reuse::Keep } else { refused });
            }
            let reuse = Reuse::of(Some(open), wanted, || Standing::Unknown);
            let refused = Reuse::Refuse(NoProcess::Unknown(wanted));
            assert_eq!(reuse, if wanted == open { Reuse::Keep } else { refused });
            let reuse = Reuse::of(Some(open), wanted, || Standing::Present);
            assert_eq!(reuse, if wanted == open { Reuse::Keep } else { Reuse::Replace });
        }
    }

    #[test]
    fn only_a_process_that_membership_knows_is_dialed() {
        let wanted = Generation(1);
        let dialed = |standing| Reuse::of(None, wanted, || standing) == Reuse::Replace;
        assert!(dialed(Standing::Present));
        assert!(!dialed(Standing::Unknown));
        assert!(!dialed(Standing::Ended(Gone::NodeDead)));
    }

    #[test]
    fn only_present_processes_call_each_other() {
        let hello = |generation, expected| Hello {
            cluster: ClusterId::new("demo").unwrap(),
            node: NodeId::new("a").unwrap(),
            generation: Generation(generation),
            expected: Generation(expected),
            features: 0,
        };
        let (own, known) = (Generation(5), Generation(3));
        let admitted = |generation, expected| admit(&hello(generation, expected), own, known);
        for expected in [4, 6] {
            let mismatch = Mismatch::OtherProcess { expected: Generation(expected), own };
            assert_eq!(admitted(3, expected), Err(mismatch));
        }
        assert_eq!(admitted(2, 5), Err(Mismatch::Outlived { known }));
        assert_eq!([admitted(3, 5), admitted(4, 5)], [Ok(()), Ok(())]);
    }
}
