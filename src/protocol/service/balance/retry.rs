//! Whether a call that failed is tried again.
//!
//! A call runs at most once: it is tried again only if the error says that it has not run, or if its method is
//! declared idempotent. A [`RetryBudget`] bounds how many calls retries add, so that they do not multiply the load of
//! an outage: a token bucket that calls fill and retries drain, as Finagle's `RetryBudget` and the retry throttling of
//! gRPC (proposal A6), whose figures it has.

use std::time::Duration;

/// How often a call is tried, the first time included.
pub const ATTEMPTS: u32 = 3;
/// Retries that a handle may make before it has made any calls, and the most that it may save up.
pub const RETRIES_SAVED_MAX: u32 = 10;
/// Of so many calls one may be tried again: 10 %.
pub const CALLS_PER_RETRY: u32 = 10;

/// What an error says about whether the call ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// It did not run, and another provider may run it: overloaded, draining, not connected.
    NotRun,
    /// It did not run, and no provider would: forbidden, too large, malformed, a limit of the caller itself.
    Refused,
    /// It was sent, and it is unknown whether it ran.
    Unknown,
    /// It ran, and gave no answer.
    Failed,
}

/// A failed attempt, and what there is for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// What the error says.
    pub class: Class,
    /// Whether the method may run twice.
    pub idempotent: bool,
    /// Whether the attempt failed by a verdict of membership: the node died, restarted or left, or its offer ended.
    /// Such an error is no sign of load.
    pub verdict: bool,
    /// How often the call was tried, this attempt included.
    pub attempts: u32,
    /// What is left until the deadline of the call.
    pub left: Duration,
    /// How long to wait for the next provider, as [`Pick::wait`](super::Pick::wait) says; `None` if there is none that
    /// was not tried.
    pub next: Option<Duration>,
}

/// What to do after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Try the next provider now.
    AtOnce,
    /// Only overloaded providers are left: try the next one after this long.
    After(Duration),
    /// The caller gets the error.
    GiveUp(GiveUp),
}

/// Why a call is not tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GiveUp {
    /// No provider would run it.
    Refused,
    /// It may have run, and must not run twice.
    MayHaveRun,
    /// It ran.
    Ran,
    /// It was tried [`ATTEMPTS`] times.
    Attempts,
    /// The deadline has passed, or would pass before the next provider wants calls.
    Deadline,
    /// Every provider was tried.
    NobodyElse,
    /// Too many calls of this handle were tried again.
    Budget,
}

impl Attempt {
    /// What to do. `budget` says whether the budget has a retry left; a retry after a verdict needs none.
    #[must_use]
    pub fn decide(&self, budget: bool) -> Retry {
        let why = match (self.class, self.next) {
            (Class::Refused, _) => GiveUp::Refused,
            (Class::Failed, _) => GiveUp::Ran,
            (Class::Unknown, _) if !self.idempotent => GiveUp::MayHaveRun,
            _ if self.attempts >= ATTEMPTS => GiveUp::Attempts,
            _ if self.left.is_zero() => GiveUp::Deadline,
            (_, None) => GiveUp::NobodyElse,
            (_, Some(wait)) if wait >= self.left => GiveUp::Deadline,
            _ if !budget && !self.verdict => GiveUp::Budget,
            (_, Some(Duration::ZERO)) => return Retry::AtOnce,
            (_, Some(wait)) => return Retry::After(wait),
        };
        Retry::GiveUp(why)
    }
}

/// How many calls one handle may still try again: never more than one in [`CALLS_PER_RETRY`] of its calls, plus
/// [`RETRIES_SAVED_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// In calls, so that they are whole numbers.
    saved: u32,
}

impl RetryBudget {
    /// A full one.
    #[must_use]
    pub const fn new() -> Self {
        Self { saved: RETRIES_SAVED_MAX * CALLS_PER_RETRY }
    }

    /// The handle makes a call. Its retries are not calls.
    pub fn called(&mut self) {
        self.saved = (self.saved + 1).min(RETRIES_SAVED_MAX * CALLS_PER_RETRY);
    }

    /// Whether there is a retry left.
    #[must_use]
    pub const fn has_retry(&self) -> bool {
        self.saved >= CALLS_PER_RETRY
    }

    /// Takes one retry, if there is one; for a hedged call as well.
    #[must_use]
    pub const fn pays(&mut self) -> bool {
        let pays = self.has_retry();
        if pays {
            self.saved -= CALLS_PER_RETRY;
        }
        pays
    }

    /// What to do after a failed attempt. Takes a retry if the answer is to try again, unless a verdict of membership
    /// ended the attempt.
    #[must_use]
    pub fn decide(&mut self, attempt: &Attempt) -> Retry {
        let retry = attempt.decide(self.has_retry());
        if matches!(retry, Retry::GiveUp(_)) || attempt.verdict || self.pays() {
            return retry;
        }
        Retry::GiveUp(GiveUp::Budget)
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const WAIT: Duration = Duration::from_millis(200);
    const ATTEMPT: Attempt = Attempt {
        class: Class::NotRun,
        idempotent: false,
        verdict: false,
        attempts: 1,
        left: SECOND,
        next: Some(Duration::ZERO),
    };

    /// What is to be done by the text of the design, said in another way: the first line that fits counts.
    fn expected(attempt: &Attempt, budget: bool) -> Retry {
        let may = match attempt.class {
            Class::NotRun => Ok(()),
            Class::Refused => Err(GiveUp::Refused),
            Class::Unknown => attempt.idempotent.then_some(()).ok_or(GiveUp::MayHaveRun),
            Class::Failed => Err(GiveUp::Ran),
        };
        let more = (attempt.attempts < 3).then_some(()).ok_or(GiveUp::Attempts);
        let lives = (attempt.left > Duration::ZERO).then_some(()).ok_or(GiveUp::Deadline);
        let next = attempt.next.ok_or(GiveUp::NobodyElse);
        let in_time = |wait: Duration| {
            if wait < attempt.left { Ok(wait) } else { Err(GiveUp::Deadline) }
        };
        let paid = (budget || attempt.verdict).then_some(()).ok_or(GiveUp::Budget);
        let wait = may.and(more).and(lives).and(next).and_then(in_time);
        match wait.and_then(|wait| paid.map(|()| wait)) {
            Err(why) => Retry::GiveUp(why),
            Ok(Duration::ZERO) => Retry::AtOnce,
            Ok(wait) => Retry::After(wait),
        }
    }

    #[test]
    fn every_case_of_the_rule() {
        let mut cases = 0;
        let bools = [false, true];
        for class in [Class::NotRun, Class::Refused, Class::Unknown, Class::Failed] {
            for (idempotent, verdict) in bools.into_iter().flat_map(|a| bools.map(|b| (a, b))) {
                for attempts in 1..=ATTEMPTS + 1 {
                    for left in [Duration::ZERO, WAIT, SECOND] {
                        for next in [None, Some(Duration::ZERO), Some(WAIT)] {
                            let attempt =
                                Attempt { class, idempotent, verdict, attempts, left, next };
                            for budget in bools {
                                let decided = attempt.decide(budget);
                                assert_eq!(decided, expected(&attempt, budget), "{attempt:?}");
                                cases += 1;
                            }
                        }
                    }
                }
            }
        }
        assert_eq!(cases, 4 * 4 * 4 * 3 * 3 * 2);
    }

    #[test]
    fn one_case_of_each_kind() {
        use Retry::{After, AtOnce, GiveUp as Give};
        let with = |change: fn(&mut Attempt)| {
            let mut attempt = ATTEMPT;
            change(&mut attempt);
            attempt
        };
        for (attempt, budget, retry) in [
            (with(|a| a.class = Class::Refused), true, Give(GiveUp::Refused)),
            (with(|a| a.class = Class::Failed), true, Give(GiveUp::Ran)),
            (with(|a| a.class = Class::Unknown), true, Give(GiveUp::MayHaveRun)),
            (with(|a| a.attempts = 3), true, Give(GiveUp::Attempts)),
            (with(|a| a.left = Duration::ZERO), true, Give(GiveUp::Deadline)),
            (with(|a| a.next = None), true, Give(GiveUp::NobodyElse)),
            (with(|a| (a.next, a.left) = (Some(WAIT), WAIT)), true, Give(GiveUp::Deadline)),
            (ATTEMPT, false, Give(GiveUp::Budget)),
            (ATTEMPT, true, AtOnce),
            (with(|a| a.attempts = 2), true, AtOnce),
            (with(|a| a.verdict = true), false, AtOnce),
            (with(|a| a.next = Some(WAIT)), true, After(WAIT)),
            (with(|a| (a.class, a.idempotent) = (Class::Unknown, true)), true, AtOnce),
            (
                with(|a| (a.class, a.verdict) = (Class::Unknown, true)),
                true,
                Give(GiveUp::MayHaveRun),
            ),
        ] {
            assert_eq!(attempt.decide(budget), retry, "{attempt:?} {budget}");
        }
    }

    #[test]
    fn a_total_outage_never_exceeds_the_budget() {
        let mut budget = RetryBudget::new();
        let mut retries = 0;
        for calls in 1..=10_000 {
            budget.called();
            for attempts in 1..=ATTEMPTS {
                let failed = Attempt { attempts, ..ATTEMPT };
                match budget.decide(&failed) {
                    Retry::GiveUp(_) => break,
                    Retry::AtOnce | Retry::After(_) => retries += 1,
                }
            }
            assert!(retries <= RETRIES_SAVED_MAX + calls / CALLS_PER_RETRY, "{retries} of {calls}");
        }
        // All of it may be used, but for what the first call could not add to a full bucket.
        assert!((1_009..=1_010).contains(&retries), "{retries}");
    }

    #[test]
    fn quiet_times_save_up_no_more_than_the_limit() {
        let mut budget = RetryBudget::new();
        (0..10_000).for_each(|_| budget.called());
        assert_eq!((0..100).filter(|_| budget.pays()).count(), 10);
        assert!(!budget.has_retry());
    }

    #[test]
    fn a_verdict_and_giving_up_cost_nothing() {
        let mut budget = RetryBudget::new();
        for _ in 0..100 {
            let verdict = Attempt { verdict: true, ..ATTEMPT };
            assert_eq!(budget.decide(&verdict), Retry::AtOnce);
            let last = Attempt { attempts: ATTEMPTS, ..ATTEMPT };
            assert_eq!(budget.decide(&last), Retry::GiveUp(GiveUp::Attempts));
        }
        assert_eq!(budget, RetryBudget::new());
    }
}
