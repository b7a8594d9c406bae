//! The rules by which other libraries judge silence, applied to the same gossiped heartbeats.
//!
//! All three fit one exponential distribution to the times between the heartbeats that they receive, whichever node
//! relays them, and differ in what they count and in the scale. The windows are kept as sums: once one is full, each
//! new interval replaces an average one.

/// What one node has heard of another, for all rules.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// When the last heartbeat arrived: the last of any kind, and the last of a new round.
    last: [Tick; 2],
    sums: [f32; RULES],
    counts: [u16; RULES],
    /// The highest threshold crossed since the last heartbeat, for each rule.
    pub(super) levels: [u8; RULES],
}

/// A time, in tenths of a millisecond.
pub(super) type Tick = u32;

/// A rule of another library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// The original package: -log10 of the exponential tail, over the last 100 intervals.
    Phi,
    /// chitchat 0.13: elapsed time / mean, smoothed by five intervals of 5 s. Its heartbeat counts
    /// every message, not only rounds.
    Chitchat,
    /// Cassandra: -log10 of the exponential tail, over 1,000 intervals, none above twice the round.
    Cassandra,
}

/// The number of rules.
pub(super) const RULES: usize = 3;
/// The thresholds: 1 to this.
pub(super) const LEVELS: usize = 16;

impl Rule {
    pub(super) const ALL: [Self; RULES] = [Self::Phi, Self::Chitchat, Self::Cassandra];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Phi => "phi",
            Self::Chitchat => "chitchat",
            Self::Cassandra => "cassandra",
        }
    }

    /// Which of the two kinds of heartbeats the rule counts.
    const fn kind(self) -> usize {
        match self {
            Self::Chitchat => EVERY_MESSAGE,
            Self::Phi | Self::Cassandra => EVERY_ROUND,
        }
    }
}

impl Window {
    /// Nothing was heard yet.
    pub(super) const NEW: Self =
        Self { last: [NEVER; 2], sums: [0.0; RULES], counts: [0; RULES], levels: [0; RULES] };

    /// A higher heartbeat was received; `round`: it is of a later round. `interval`: the length of a round.
    pub(super) fn hear(&mut self, now: Tick, round: bool, interval: Tick) {
        let since = |last: Tick| (last != NEVER).then(|| now.saturating_sub(last));
        for rule in Rule::ALL.into_iter().filter(|rule| round || rule.kind() == EVERY_MESSAGE) {
            let n = rule as usize;
            let elapsed = since(self.last[rule.kind()]);
            let (sample, most) = match rule {
                Rule::Phi => (elapsed.or(Some(DEFAULT_INTERVAL)), 100),
                Rule::Chitchat => (elapsed.filter(|elapsed| *elapsed <= CHITCHAT_MAX), 1_000),
                Rule::Cassandra => (
                    elapsed.map_or(Some(2 * interval), |e| Some(e).filter(|e| *e <= 2 * interval)),
                    1_000,
                ),
            };
            self.levels[n] = 0;
            let Some(sample) = sample else { continue };
            if self.counts[n] == 0 && rule == Rule::Phi {
                (self.sums[n], self.counts[n]) = (DEFAULT_INTERVAL as f32, 1);
            }
            if self.counts[n] == most {
                self.sums[n] -= self.sums[n] / f32::from(most);
            } else {
                self.counts[n] += 1;
            }
            self.sums[n] += sample as f32;
        }
        self.last[EVERY_MESSAGE] = now;
        if round {
            self.last[EVERY_ROUND] = now;
        }
    }

    /// The level of suspicion; none before the first intervals.
    pub(super) fn phi(&self, rule: Rule, now: Tick) -> Option<f32> {
        let n = rule as usize;
        if self.counts[n] == 0 {
            return None;
        }
        let (sum, count) = (self.sums[n], f32::from(self.counts[n]));
        let elapsed = now.saturating_sub(self.last[rule.kind()]) as f32;
        Some(match rule {
            Rule::Chitchat => {
                elapsed * (count + PRIOR_WEIGHT) / (sum + PRIOR_WEIGHT * PRIOR_INTERVAL)
            }
            Rule::Phi | Rule::Cassandra => elapsed * count / sum * std::f32::consts::LOG10_E,
        })
    }
}

/// Indices of `Window::last`.
const EVERY_MESSAGE: usize = 0;
const EVERY_ROUND: usize = 1;
const NEVER: Tick = Tick::MAX;
/// The original's interval before it has measured one: 750 ms.
const DEFAULT_INTERVAL: Tick = 7_500;
/// chitchat ignores intervals above 10 s, and assumes 5 intervals of 5 s at the start.
const CHITCHAT_MAX: Tick = 100_000;
const PRIOR_INTERVAL: f32 = 50_000.0;
const PRIOR_WEIGHT: f32 = 5.0;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Tick = 10_000;

    /// A window of this many heartbeats, one a second.
    fn steady(beats: Tick) -> (Window, Tick) {
        let mut window = Window::NEW;
        (0..beats).for_each(|n| window.hear(n * SECOND, true, SECOND));
        (window, (beats - 1) * SECOND)
    }

    #[test]
    fn nothing_is_judged_before_it_was_heard() {
        assert!(Rule::ALL.iter().all(|rule| Window::NEW.phi(*rule, 99 * SECOND).is_none()));
        let (once, _) = steady(1);
        assert_eq!(once.phi(Rule::Chitchat, 99 * SECOND), None, "two heartbeats are an interval");
    }

    #[test]
    fn the_exponential_takes_eighteen_intervals_to_eight() {
        let (window, last) = steady(2_000);
        for rule in [Rule::Phi, Rule::Cassandra] {
            let phi = |after: f32| window.phi(rule, last + (after * SECOND as f32) as Tick);
            assert!(phi(18.3) < Some(8.0) && phi(18.6) > Some(8.0), "{rule:?} {:?}", phi(18.4));
        }
        let chitchat = |after| window.phi(Rule::Chitchat, last + after * SECOND);
        assert!(chitchat(7) < Some(8.0) && chitchat(9) > Some(8.0), "{:?}", chitchat(8));
    }

    #[test]
    fn the_prior_of_chitchat_makes_it_patient_in_the_beginning() {
        let (window, last) = steady(10);
        let phi = |after| window.phi(Rule::Chitchat, last + after * SECOND);
        assert!(phi(15) < Some(8.0) && phi(25) > Some(8.0), "{:?}", phi(20));
    }

    #[test]
    fn an_outage_widens_only_the_window_of_the_original() {
        let (mut window, last) = steady(50);
        let mean = |window: &Window, rule| {
            window.sums[rule as usize] / f32::from(window.counts[rule as usize])
        };
        let before = Rule::ALL.map(|rule| mean(&window, rule));
        window.hear(last + 60 * SECOND, true, SECOND);
        let after = Rule::ALL.map(|rule| mean(&window, rule));
        let same = |rule: Rule| (before[rule as usize] - after[rule as usize]).abs() < 1e-3;
        assert!(!same(Rule::Phi) && same(Rule::Chitchat) && same(Rule::Cassandra), "{after:?}");
    }
}
