//! What a node keeps for its operator: counters, the last failures, and how often it reports the same.

use std::{
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
};

use arc_swap::ArcSwapOption;

use super::{cuts::Cuts, neighbours::Neighbours, repeats::Repeats};
use crate::{
    clock::Clock,
    counters::Counters,
    dials::DialFailures,
    latest::Latest,
    net::ledger::Ledger,
    protocol::{
        event::{Behind, Event, Problem},
        id::{NodeId, Version},
        time::Time,
    },
    slot::Slot,
};

/// Refusals of connections and news that are reported to the operator in one second; all are counted.
pub(crate) const REFUSALS_TOLD_MAX: u32 = 10;

/// The queues of the connections with members.
pub(crate) trait Outboxes: fmt::Debug + Send + Sync {
    /// How many frames of gossip wait to be sent, and their bytes.
    fn waiting(&self) -> (usize, usize);
}

/// What one node keeps for its operator.
#[derive(Debug)]
pub(crate) struct Diagnostics {
    pub(crate) counters: Arc<Counters>,
    /// What its connections have carried.
    pub(crate) ledger: Arc<Ledger>,
    /// The last write through a handle that the store has: its version, and when it was begun.
    pub(crate) written: Slot<(Version, Time)>,
    /// What waits to be sent to members: their connections are made after this.
    pub(crate) outboxes: OnceLock<Weak<dyn Outboxes>>,
    /// Why connections were last ended on purpose.
    pub(crate) cuts: Cuts,
    /// What connections have measured.
    pub(crate) neighbours: Neighbours,
    /// Why addresses could not be reached.
    pub(crate) dials: DialFailures,
    /// The largest loss at the start of this node that any peer reports.
    pub(crate) behind: ArcSwapOption<Behind>,
    /// The peers last removed, and the node that sent each removal; `None` if it was requested here.
    pub(crate) removals: Latest<Option<NodeId>>,
    /// The recent log lines.
    repeats: Repeats,
    /// The second in which refusals were last reported, and how many: those that repeat, and those that
    /// are new.
    refusals: Mutex<[(u64, u32); 2]>,
}

impl Diagnostics {
    pub(crate) fn new(counters: Arc<Counters>) -> Self {
        Self {
            counters,
            ledger: Arc::default(),
            written: Slot::default(),
            outboxes: OnceLock::new(),
            cuts: Cuts::default(),
            neighbours: Neighbours::default(),
            dials: DialFailures::default(),
            behind: ArcSwapOption::empty(),
            removals: Latest::default(),
            repeats: Repeats::default(),
            refusals: Mutex::default(),
        }
    }

    /// Keeps what an event says; returns the problem to log as well.
    pub(crate) fn note(&self, event: &Event, clock: Clock) -> Option<Problem> {
        match event {
            // The component that found it has logged it, or the end of the node logs it at a higher level.
            Event::Error(
                Problem::Connection { .. }
                | Problem::Displaced { .. }
                | Problem::Revoked { .. }
                | Problem::Failed { .. },
            ) => None,
            Event::Error(problem) => {
                if let Problem::Behind(behind) = problem {
                    self.behind.store(Some(Arc::new(behind.clone())));
                }
                Some(problem.clone())
            }
            Event::PeerRemoved { peer, by } => {
                self.removals.note(peer, clock.now(), by.clone());
                None
            }
            _ => None,
        }
    }

    /// Whether to report that a peer's data was refused: once in a while for each kind and peer. All of
    /// it is counted.
    pub(crate) fn may_tell(&self, problem: &Problem, now: Time) -> bool {
        let (label, from) = match problem {
            Problem::NewsRefused { from, .. } => ("news", from),
            Problem::RevocationRefused { from, .. } => ("revocation", from),
            _ => return true,
        };
        self.is_new(label, from.as_str(), now) && self.may_tell_refusal(true, now)
    }

    /// Whether no refusal of this kind was reported about this peer lately.
    pub(crate) fn is_new(&self, label: &'static str, peer: &str, now: Time) -> bool {
        self.repeats.is_new(label, peer, now)
    }

    /// Whether one more refusal may be reported in this second. A peer that is refused repeatedly
    /// takes no room from new refusals.
    pub(crate) fn may_tell_refusal(&self, is_new: bool, now: Time) -> bool {
        let second = now.since_origin().as_secs();
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let told = &mut refusals[usize::from(is_new)];
        if told.0 != second {
            *told = (second, 0);
        }
        told.1 = told.1.saturating_add(1);
        told.1 <= REFUSALS_TOLD_MAX
    }
}
