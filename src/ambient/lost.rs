//! What a test loses of a call.

/// The half of a call that is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lost {
    Request,
    Reply,
}
