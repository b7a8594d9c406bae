//! What is counted of calls: how they end, and how long they take.

use std::time::Duration;

use super::{
    failure::{CallFailure, NotRun},
    frame::Code,
};

macro_rules! outcomes {
    ($($(#[$doc:meta])* $name:ident = $label:literal;)*) => {
        /// How a call or a cast has ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum CallOutcome { $($(#[$doc])* $name,)* }

        impl CallOutcome {
            /// All of them, in order.
            pub const ALL: [Self; [$($label),*].len()] = [$(Self::$name),*];

            /// Its label in metrics.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

outcomes! {
    /// It was answered. A cast: at the caller a connection has taken it, at the provider a handler has.
    Ok = "ok";
    /// There was no room for it: it has not run.
    Shed = "shed";
    /// It has not run, for another reason.
    NotRun = "not_run";
    /// Whether it ran is not known.
    Unknown = "unknown";
    /// It ran, and gave no answer.
    Failed = "failed";
    /// The caller has cancelled it.
    Cancelled = "cancelled";
}

impl CallOutcome {
    /// Of a call that has failed.
    #[doc(hidden)]
    #[must_use]
    pub const fn failed(failure: &CallFailure) -> Self {
        match failure {
            CallFailure::NotRun(NotRun::Overloaded { .. }) => Self::Shed,
            CallFailure::NotRun(_) => Self::NotRun,
            CallFailure::Unknown(_) => Self::Unknown,
            CallFailure::Failed(_) => Self::Failed,
        }
    }

    /// Of a request that was refused.
    #[doc(hidden)]
    #[must_use]
    pub const fn refused(code: Code) -> Self {
        match code {
            Code::Overloaded | Code::PeerOverloaded => Self::Shed,
            code if code.has_not_run() => Self::NotRun,
            _ => Self::Failed,
        }
    }
}

/// Methods with figures of their own, of both ends together; the others share a row for each end. With all outcomes
/// these are at most 1,000 label sets.
pub const METHODS_MAX: usize = 160;

/// The upper bounds of the classes of latency, in microseconds; what takes longer than the last is in one more class.
pub const LATENCY_BOUNDS_US: [u64; 17] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// The class of a latency: the index of the first bound that it does not exceed.
#[must_use]
pub fn latency_class(took: Duration) -> usize {
    let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    LATENCY_BOUNDS_US.partition_point(|bound| bound * 1_000 < took)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_class_and_there_is_a_last_class() {
        assert_eq!(latency_class(Duration::ZERO), 0);
        for (class, bound) in LATENCY_BOUNDS_US.into_iter().enumerate() {
            let bound = Duration::from_micros(bound);
            assert_eq!(latency_class(bound), class);
            assert_eq!(latency_class(bound + Duration::from_nanos(1)), class + 1);
        }
        assert_eq!(latency_class(Duration::MAX), LATENCY_BOUNDS_US.len());
    }

    #[test]
    fn all_label_sets_are_within_the_limit() {
        assert!((METHODS_MAX + 2) * CallOutcome::ALL.len() <= 1_000);
    }
}
