//! Calls during the demo: every node offers a service, and two nodes keep calling it, wherever it is offered.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gossipmonger::{
    Gossipmonger,
    protocol::id::NodeId,
    service::{Access, CallError, CallFailure, Offer, OfferError, Prefer},
};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

/// Asks which node answers.
#[derive(Debug, Serialize, Deserialize)]
struct Greet;

/// The node that answers, and how often it has started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Greeting {
    node: String,
    life: u64,
}

gossipmonger::service! {
    /// Says which node answers.
    struct Greeter = "greeter", 1.0;
    1: call Greet -> Greeting;
}

/// Offers the service at a node.
pub(super) async fn offer(node: &Gossipmonger, life: u64) -> Result<Offer, OfferError> {
    let greeting = Greeting { node: node.node().to_string(), life };
    let builder = node.offer::<Greeter>(Access::members()).call(move |_: Greet, _| {
        let greeting = greeting.clone();
        async move { greeting }
    });
    builder.start().await
}

/// How all calls so far have ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) answered: u64,
    /// Of these, by each life of each node.
    by: BTreeMap<(String, u64), u64>,
    /// Failed, and have certainly not run.
    pub(super) not_run: u64,
    /// Failed, and may have run.
    pub(super) may_have_run: u64,
    /// The first failure at each node, and how many there were.
    failures: BTreeMap<Option<NodeId>, (String, u64)>,
}

/// The calls of the demo.
#[derive(Debug, Default)]
pub(super) struct Calls {
    counts: Arc<Mutex<Counts>>,
    callers: JoinSet<()>,
}

impl Calls {
    /// Has a node call from now on.
    pub(super) fn begin(&mut self, node: &Gossipmonger) {
        for _ in 0..AT_ONCE {
            let (node, counts) = (node.clone(), Arc::clone(&self.counts));
            self.callers.spawn(async move {
                let greeter = node.service::<Greeter>().prefer(Prefer::Anywhere);
                loop {
                    let ended = greeter.call(Greet).await;
                    lock(&counts).note(ended);
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
    }

    /// Ends the callers.
    pub(super) async fn end(&mut self) {
        self.callers.shutdown().await;
    }

    pub(super) fn counts(&self) -> Counts {
        lock(&self.counts).clone()
    }
}

fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Counts {
    fn note(&mut self, ended: Result<Greeting, CallError>) {
        let error = match ended {
            Ok(Greeting { node, life }) => {
                self.answered += 1;
                *self.by.entry((node, life)).or_default() += 1;
                return;
            }
            Err(error) => error,
        };
        let has_not_run = matches!(error.failure(), CallFailure::NotRun(_));
        *(if has_not_run { &mut self.not_run } else { &mut self.may_have_run }) += 1;
        let failed = self.failures.entry(error.node().cloned());
        failed.or_insert_with(|| (error.to_string(), 0)).1 += 1;
    }

    /// How many nodes have answered.
    pub(super) fn nodes(&self) -> usize {
        let mut nodes: Vec<_> = self.by.keys().map(|(node, _)| node).collect();
        nodes.dedup();
        nodes.len()
    }

    /// What was wrong, if `killed` is the node that was killed and came back: only calls to that node may have failed,
    /// and it is called again after its return.
    pub(super) fn faults(&self, killed: &NodeId) -> Vec<String> {
        let mut faults = Vec::new();
        for (node, (first, times)) in &self.failures {
            if node.as_ref() != Some(killed) {
                let node = node.as_ref().map_or("no node", NodeId::as_str);
                faults.push(format!("{times} calls have failed at {node}, the first one: {first}"));
            }
        }
        if !self.by.contains_key(&(killed.to_string(), 2)) {
            faults.push(format!("{killed} has answered no call after its return"));
        }
        faults
    }
}

/// Calls that one node has under way at once: one that waits for a node that is silent must not hold up the others.
const AT_ONCE: usize = 4;
/// Between two calls.
const PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(node: &str, life: u64) -> Result<Greeting, CallError> {
        Ok(Greeting { node: node.to_owned(), life })
    }

    #[test]
    fn a_node_that_is_not_called_again_is_a_fault() {
        let mut counts = Counts::default();
        let killed = NodeId::new("b").unwrap();
        for (node, life) in [("a", 1), ("b", 1), ("b", 1)] {
            counts.note(answer(node, life));
        }
        assert_eq!((counts.answered, counts.nodes()), (3, 2));
        assert_eq!(counts.faults(&killed), ["b has answered no call after its return"]);
        counts.note(answer("b", 2));
        assert!(counts.faults(&killed).is_empty());
        assert_eq!(counts.nodes(), 2);
    }

    #[test]
    fn only_calls_to_the_node_that_was_killed_may_fail() {
        let mut counts = Counts::default();
        for life in [1, 2] {
            counts.note(answer("b", life));
        }
        let failed = ("lost".to_owned(), 7);
        counts.failures.insert(NodeId::new("b").ok(), failed.clone());
        assert!(counts.faults(&NodeId::new("b").unwrap()).is_empty());
        counts.failures.insert(NodeId::new("a").ok(), failed);
        let faults = counts.faults(&NodeId::new("b").unwrap());
        assert_eq!(faults, ["7 calls have failed at a, the first one: lost"]);
    }
}
