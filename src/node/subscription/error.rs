//! Why a subscription gives no event.

/// Why no event follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscriptionError {
    /// This many events were dropped because they were not read in time. Read the snapshot, then
    /// continue: the next call gives the oldest event still in the queue.
    #[error("{0} events were dropped, since they were not taken in time: read the snapshot")]
    Lagged(u64),
    /// The node has ended.
    #[error("the node has ended")]
    Ended,
}
