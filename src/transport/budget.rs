//! How many bytes may go to one peer, and to all peers of another datacenter together.
//!
//! What is about who is there never waits; it goes into debt. News waits until there is no debt, which
//! makes the connection congested and lets newer values take the place of older ones. What a node
//! lacks that is far behind waits for half of what may be saved up, so that it takes only what news
//! leaves. A frame is never cut for a budget: the debt it makes is paid off before the next.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::protocol::bucket::{BURST_SECONDS, Bucket};
use crate::protocol::{gossip::Class, id::Datacenter, time::Time};

/// The budgets of one node.
#[derive(Debug)]
pub(crate) struct Budgets {
    local: Datacenter,
    push: f64,
    wan: f64,
    /// One for each datacenter that a peer was met of; those beyond [`WANS_MAX`] share one.
    wans: Mutex<BTreeMap<Option<Datacenter>, Arc<Budget>>>,
}

/// Bytes a second.
#[derive(Debug)]
pub(crate) struct Budget {
    rate: f64,
    bucket: Mutex<Bucket>,
}

/// What may go to one peer.
#[derive(Clone, Debug)]
pub(crate) struct Allowance {
    push: Arc<Budget>,
    wan: Option<Arc<Budget>>,
}

impl Budgets {
    /// `push` and `wan` in bytes a second: what may go to one peer, and to all of another datacenter.
    pub(crate) fn new(local: Datacenter, push: usize, wan: usize) -> Self {
        Self { local, push: push as f64, wan: wan as f64, wans: Mutex::default() }
    }

    /// What may go to a new peer of this datacenter.
    pub(crate) fn allowance(&self, datacenter: &Datacenter, now: Time) -> Allowance {
        let wan = (*datacenter != self.local).then(|| {
            let mut wans = self.wans.lock().unwrap_or_else(PoisonError::into_inner);
            let name = Some(datacenter.clone());
            let room = wans.len() < WANS_MAX || wans.contains_key(&name);
            let wan = wans.entry(name.filter(|_| room));
            Arc::clone(wan.or_insert_with(|| Arc::new(Budget::new(self.wan, now))))
        });
        Allowance { push: Arc::new(Budget::new(self.push, now)), wan }
    }
}

impl Allowance {
    /// How long this has to wait; `None` if it may go.
    pub(crate) fn wait(&self, now: Time, class: Class) -> Option<Duration> {
        let wan = self.wan.as_ref().and_then(|wan| wan.wait(now, class));
        match class {
            Class::Liveness => None,
            Class::State => self.push.wait(now, class).max(wan),
            Class::Bulk => wan,
        }
    }

    /// It goes.
    pub(crate) fn charge(&self, now: Time, class: Class, bytes: usize) {
        if class != Class::Bulk {
            self.push.charge(now, bytes);
        }
        if let Some(wan) = &self.wan {
            wan.charge(now, bytes);
        }
    }
}

impl Budget {
    fn new(rate: f64, now: Time) -> Self {
        Self { rate, bucket: Mutex::new(Bucket::full(now, rate)) }
    }

    fn wait(&self, now: Time, class: Class) -> Option<Duration> {
        let kept = match class {
            Class::Liveness => return None,
            Class::State => 0.0,
            Class::Bulk => self.rate * BURST_SECONDS / 2.0,
        };
        let missing = kept - self.lock(|bucket| bucket.tokens_at(now, self.rate));
        (missing > 0.0).then(|| Duration::from_secs_f64(missing / self.rate).max(WAIT_MIN))
    }

    fn charge(&self, now: Time, bytes: usize) {
        self.lock(|bucket| bucket.charge(now, self.rate, bytes as f64));
    }

    fn lock<T>(&self, use_it: impl FnOnce(&mut Bucket) -> T) -> T {
        // Nothing under the lock can panic half way.
        use_it(&mut self.bucket.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Most datacenters with a budget of their own. Where certificates do not name the datacenter a member
/// names it itself, and could have as many budgets as it makes up names.
const WANS_MAX: usize = 256;
/// Timers are no finer than this.
const WAIT_MIN: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: usize = 1 << 20;

    #[test]
    fn lets_news_wait_for_its_debt_and_liveness_for_nothing() {
        let (allowance, now) = (allowance("there"), Time::ZERO);
        assert_eq!(allowance.wait(now, Class::State), None);
        allowance.charge(now, Class::State, 4 * RATE);
        let wait = allowance.wait(now, Class::State).unwrap();
        assert_eq!(wait, Duration::from_secs(2));
        assert_eq!(allowance.wait(now, Class::Liveness), None);
        assert_eq!(allowance.wait(now + wait, Class::State), None);
    }

    #[test]
    fn leaves_bulk_what_news_does_not_take() {
        let (allowance, now) = (allowance("there"), Time::ZERO);
        allowance.charge(now, Class::Bulk, RATE + 1);
        assert!(allowance.wait(now, Class::Bulk).is_some());
        assert_eq!(allowance.wait(now, Class::State), None);
        // News at the whole rate leaves nothing, however long it goes on.
        let mut later = now;
        for _ in 0..1_000 {
            later = later + Duration::from_millis(10);
            allowance.charge(later, Class::State, RATE / 100 + 1);
            assert!(allowance.wait(later, Class::Bulk).is_some());
        }
        assert_eq!(allowance.wait(later + Duration::from_secs(1), Class::Bulk), None);
    }

    #[test]
    fn counts_bulk_only_between_datacenters() {
        let (allowance, now) = (allowance("here"), Time::ZERO);
        allowance.charge(now, Class::Bulk, 100 * RATE);
        assert_eq!(allowance.wait(now, Class::Bulk), None);
        assert_eq!(allowance.wait(now, Class::State), None);
    }

    #[test]
    fn shares_the_budget_between_the_peers_of_a_datacenter() {
        let budgets = budgets();
        let (there, now) = (Datacenter::new("there").unwrap(), Time::ZERO);
        let (one, other) = (budgets.allowance(&there, now), budgets.allowance(&there, now));
        one.charge(now, Class::State, 4 * RATE);
        assert!(other.wait(now, Class::State).is_some());
        let elsewhere = budgets.allowance(&Datacenter::new("elsewhere").unwrap(), now);
        assert_eq!(elsewhere.wait(now, Class::State), None);
    }

    #[test]
    fn made_up_datacenters_share_one_budget_beyond_the_limit() {
        let (budgets, now) = (budgets(), Time::ZERO);
        let met = |n: usize| budgets.allowance(&Datacenter::new(&format!("d{n}")).unwrap(), now);
        let allowances: Vec<_> = (0..2 * WANS_MAX).map(met).collect();
        assert_eq!(budgets.wans.lock().unwrap().len(), WANS_MAX + 1);
        allowances[WANS_MAX].charge(now, Class::State, 4 * RATE);
        assert!(allowances[2 * WANS_MAX - 1].wait(now, Class::State).is_some());
        assert_eq!(allowances[0].wait(now, Class::State), None);
    }

    fn allowance(datacenter: &str) -> Allowance {
        budgets().allowance(&Datacenter::new(datacenter).unwrap(), Time::ZERO)
    }

    fn budgets() -> Budgets {
        Budgets {
            local: Datacenter::new("here").unwrap(),
            push: RATE as f64,
            wan: RATE as f64,
            wans: Mutex::default(),
        }
    }
}
