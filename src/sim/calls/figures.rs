//! What callers saw: how long calls took, how they failed, and what a death cost.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::protocol::{id::Generation, service::failure::CallFailure};

/// What callers of a run saw. Times are in microseconds.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// How long each answered call took, in the order of their ends.
    pub took: Vec<u64>,
    /// Answers in each tenth of a second.
    pub answers: Vec<u32>,
    /// Calls that failed, by kind (`not_run`, `unknown`, `failed`) and reason.
    pub failures: BTreeMap<(&'static str, String), u64>,
    /// Attempts after the first.
    pub retried: u64,
    /// Attempts beside the first.
    pub hedged: u64,
    /// Processes that died.
    pub deaths: Vec<Death>,
    /// When a process found that another one is dead, by process and death.
    verdicts: BTreeMap<(usize, usize), u64>,
    /// The death for which a call has waited last.
    waited: BTreeMap<usize, usize>,
}

/// What a death cost.
#[derive(Clone, Debug)]
pub struct Death {
    /// The node, by its number.
    pub node: usize,
    generation: Generation,
    /// When it died.
    pub at: u64,
    /// Attempts that were made there and had no answer when the node died, or that were begun later.
    pub waited: u64,
    /// Those of them that a verdict ended, or the news that the node has restarted.
    pub by_verdict: u64,
    /// How long after the death the last of the attempts ended.
    pub last: u64,
    /// How long after its caller's verdict each call ended that had waited until then.
    pub after_verdict: Vec<u64>,
}

/// The span in which answers are counted, in microseconds.
pub const SPAN: u64 = 100_000;

impl Figures {
    /// A process has died.
    pub(super) fn died(&mut self, at: u64, (node, generation): (usize, Generation)) {
        let after_verdict = Vec::new();
        let (waited, by_verdict, last) = (0, 0, 0);
        self.deaths.push(Death { node, generation, at, waited, by_verdict, last, after_verdict });
    }

    /// A process finds that a node is dead.
    pub(super) fn found_dead(&mut self, now: u64, process: usize, node: (usize, Generation)) {
        if let Some(death) = self.death_of(node) {
            self.verdicts.entry((process, death)).or_insert(now);
        }
    }

    /// An attempt has ended without an answer.
    pub(super) fn failed(
        &mut self,
        call: usize,
        now: u64,
        target: (usize, Generation),
        verdict: bool,
    ) {
        let Some(number) = self.death_of(target) else { return };
        let death = &mut self.deaths[number];
        death.waited += 1;
        death.by_verdict += u64::from(verdict);
        death.last = death.last.max(now - death.at);
        self.waited.insert(call, number);
    }

    /// A call has ended: its process, when it began, and now.
    pub(super) fn ended(
        &mut self,
        call: usize,
        (process, made, now): (usize, u64, u64),
        result: &Result<Bytes, CallFailure>,
    ) {
        let waited = self.waited.remove(&call);
        let verdict =
            waited.and_then(|death| Some((death, *self.verdicts.get(&(process, death))?)));
        if let Some((death, verdict)) = verdict.filter(|(_, verdict)| *verdict >= made) {
            self.deaths[death].after_verdict.push(now - verdict);
        }
        match result {
            Ok(_) => {
                self.took.push(now - made);
                let span = (now / SPAN) as usize;
                if self.answers.len() <= span {
                    self.answers.resize(span + 1, 0);
                }
                self.answers[span] += 1;
            }
            Err(failure) => *self.failures.entry(reason(failure)).or_default() += 1,
        }
    }

    fn death_of(&self, (node, generation): (usize, Generation)) -> Option<usize> {
        let of_it = |death: &Death| death.node == node && death.generation == generation;
        self.deaths.iter().position(of_it)
    }
}

/// What a failure means, and the name of its reason.
fn reason(failure: &CallFailure) -> (&'static str, String) {
    let name = |why: &dyn std::fmt::Debug| {
        format!("{why:?}").chars().take_while(char::is_ascii_alphanumeric).collect()
    };
    match failure {
        CallFailure::NotRun(why) => ("not_run", name(why)),
        CallFailure::Unknown(why) => ("unknown", name(why)),
        CallFailure::Failed(why) => ("failed", name(why)),
    }
}
