//! Whether the handler of a stream begins.
//!
//! The handler begins in a task of its own, while the stream may end by its deadline or by a fault of its caller. A
//! caller may be told that its call has not run only if the handler never begins. So that is decided once.

use std::sync::atomic::{AtomicU8, Ordering};

use super::super::frame::Code;

const OPEN: u8 = 0;
const BEGUN: u8 = 1;
const NEVER: u8 = 2;

/// Whether the handler of one stream begins. The first decision stays.
#[derive(Debug, Default)]
pub struct Beginning(AtomicU8);

impl Beginning {
    /// The handler is about to begin; returns whether it may.
    #[must_use]
    pub fn begin(&self) -> bool {
        self.decide(BEGUN)
    }

    /// The stream is about to end without its handler; returns whether the handler never begins. Otherwise it has begun.
    #[must_use]
    pub fn give_up(&self) -> bool {
        self.decide(NEVER)
    }

    /// The code with which the stream is refused. A code that says that the call has not run is one only if the handler
    /// never begins.
    #[must_use]
    pub fn refusal(&self, code: Code) -> Code {
        if code.has_not_run() && !self.give_up() { Code::NoAnswer } else { code }
    }

    fn decide(&self, to: u8) -> bool {
        match self.0.compare_exchange(OPEN, to, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => true,
            Err(decided) => decided == to,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_begun_is_never_said_not_to_have_run() {
        let begun = Beginning::default();
        assert!(begun.begin() && !begun.give_up() && begun.begin());
        for code in [Code::Deadline, Code::TooLarge, Code::Draining, Code::Malformed] {
            assert_eq!(begun.refusal(code), Code::NoAnswer);
        }
        assert_eq!(begun.refusal(Code::Panicked), Code::Panicked);
    }

    #[test]
    fn a_handler_whose_stream_was_given_up_or_refused_never_begins() {
        let late = Beginning::default();
        assert!(late.give_up() && late.give_up() && !late.begin());
        let refused = Beginning::default();
        assert_eq!(refused.refusal(Code::Deadline), Code::Deadline);
        assert!(!refused.begin());
    }

    #[test]
    fn of_two_threads_one_decides() {
        for _ in 0..100 {
            let beginning = Beginning::default();
            let (begun, given_up) = std::thread::scope(|scope| {
                let begins = scope.spawn(|| beginning.begin());
                (beginning.give_up(), begins.join().unwrap())
            });
            assert!(begun != given_up);
        }
    }
}
