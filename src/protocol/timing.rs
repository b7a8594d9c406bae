//! What a node measures the time of: the durations that metrics show as histograms.

use std::time::Duration;

/// Defines [`Timing`] from one list: each with its meaning, which is also its help text in metrics.
macro_rules! timings {
    ($($(#[doc = $line:literal])+ $timing:ident => $name:literal,)+) => {
        /// What is timed. Each is a histogram of seconds that begins empty with the process.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Timing {
            $($(#[doc = $line])+ $timing,)+
        }

        impl Timing {
            /// All of them, in order.
            #[doc(hidden)]
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$timing),+];

            /// Its name in metrics.
            #[must_use]
            pub const fn metric(self) -> &'static str {
                match self {
                    $(Self::$timing => concat!("gossipmonger_", $name, "_seconds"),)+
                }
            }

            /// What it times, in one line.
            #[must_use]
            #[doc(hidden)]
            pub fn help(self) -> &'static str {
                // Each line of a doc comment begins with a space.
                match self {
                    $(Self::$timing => concat!($($line),+).trim_start(),)+
                }
            }
        }
    };
}

timings! {
    /// Completed exchanges that this node has begun, from the first frame to the last one.
    Exchange => "exchange_duration",
    /// Completed QUIC handshakes that this node has begun by dialing.
    HandshakeDialed => "handshake_dialed_duration",
    /// Completed QUIC handshakes that others have begun and this node has taken up.
    HandshakeAccepted => "handshake_accepted_duration",
    /// Commits of the store, from the call until the changes are durable (write and fsync); failed ones as well.
    StoreCommit => "store_commit_duration",
    /// Messages that storage has handled, the time that each took: all other messages wait for that long.
    StorageStep => "storage_step_duration",
    /// Writes of this node, from the write until all live nodes have confirmed it: a sample, see `docs/metrics.md`.
    Spread => "spread_duration",
}

/// The upper bounds of the classes of a timing, in microseconds; what takes longer than the last is in one more class.
pub const BOUNDS_US: [u64; 17] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000,
];

/// The class of a duration: the index of the first bound that it does not exceed.
#[must_use]
pub fn class(took: Duration) -> usize {
    let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    BOUNDS_US.partition_point(|bound| bound * 1_000 < took)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_class_and_there_is_a_last_class() {
        for (number, bound) in BOUNDS_US.into_iter().enumerate() {
            let bound = Duration::from_micros(bound);
            assert_eq!(class(bound), number);
            assert_eq!(class(bound + Duration::from_nanos(1)), number + 1);
        }
        assert_eq!((class(Duration::ZERO), class(Duration::MAX)), (0, BOUNDS_US.len()));
    }

    #[test]
    fn each_has_a_help_text_of_one_line() {
        for timing in Timing::ALL {
            let help = timing.help();
            assert!(
                help.ends_with('.') && !help.contains('\n') && !help.starts_with(' '),
                "{help}"
            );
        }
    }
}
