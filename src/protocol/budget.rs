//! How many bytes may go to one peer, and to all peers of another datacenter together.
//!
//! Liveness frames never wait; they go into debt. News waits until there is no debt: that makes the connection
//! congested and lets newer values replace older ones. Bulk, which brings a node up to date that is far behind,
//! waits for half of what may be saved up, so that it takes only what news leaves. A frame is never cut for a
//! budget: its debt is paid off before the next frame.

use std::{collections::BTreeMap, time::Duration};

use super::{
    bucket::{BURST_SECONDS, Bucket},
    gossip::Class,
    id::Datacenter,
    time::Time,
};

/// The budgets of one node, in bytes a second.
#[derive(Debug)]
pub(super) struct Budgets {
    local: Datacenter,
    push: f64,
    wan: f64,
    /// One for each datacenter of a peer; the datacenters beyond [`WANS_MAX`] share one.
    wans: BTreeMap<Option<Datacenter>, Bucket>,
}

/// The budget of one connection.
#[derive(Debug)]
pub(super) struct Allowance {
    push: Bucket,
    /// The key of the budget that it shares with others; `None` inside the own datacenter.
    wan: Option<Option<Datacenter>>,
}

impl Budgets {
    /// `push` and `wan` in bytes a second: to one peer, and to all peers of another datacenter.
    pub(super) fn new(local: Datacenter, push: usize, wan: usize) -> Self {
        Self { local, push: push as f64, wan: wan as f64, wans: BTreeMap::new() }
    }

    /// The budget of a new connection to a peer of this datacenter.
    pub(super) fn allowance(&mut self, datacenter: &Datacenter, now: Time) -> Allowance {
        let wan = (*datacenter != self.local).then(|| {
            let name = Some(datacenter.clone());
            let room = self.wans.len() < WANS_MAX || self.wans.contains_key(&name);
            let name = name.filter(|_| room);
            self.wans.entry(name.clone()).or_insert_with(|| Bucket::full(now, self.wan));
            name
        });
        Allowance { push: Bucket::full(now, self.push), wan }
    }

    /// How long a frame of this class has to wait; `None` if it may go.
    pub(super) fn wait(&self, of: &Allowance, now: Time, class: Class) -> Option<Duration> {
        let wan = of.wan.as_ref().and_then(|name| self.wans.get(name));
        let wan = wan.and_then(|bucket| wait(bucket, self.wan, now, class));
        match class {
            Class::Liveness => None,
            Class::State => wait(&of.push, self.push, now, class).max(wan),
            Class::Bulk => wan,
        }
    }

    /// A frame goes.
    pub(super) fn charge(&mut self, of: &mut Allowance, now: Time, class: Class, bytes: usize) {
        if class != Class::Bulk {
            of.push.charge(now, self.push, bytes as f64);
        }
        if let Some(bucket) = of.wan.as_ref().and_then(|name| self.wans.get_mut(name)) {
            bucket.charge(now, self.wan, bytes as f64);
        }
    }
}

fn wait(bucket: &Bucket, rate: f64, now: Time, class: Class) -> Option<Duration> {
    let kept = match class {
        Class::Liveness => return None,
        Class::State => 0.0,
        Class::Bulk => rate * BURST_SECONDS / 2.0,
    };
    bucket.wait(now, rate, rate * BURST_SECONDS, kept)
}

/// Most datacenters with a budget of their own. Where certificates do not name the datacenter a member names it
/// itself, and could have as many budgets as it makes up names.
const WANS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: usize = 1 << 20;

    #[test]
    fn lets_news_wait_for_its_debt_and_liveness_for_nothing() {
        let (mut budgets, now) = (budgets(), Time::ZERO);
        let mut one = allowance(&mut budgets, "there");
        assert_eq!(budgets.wait(&one, now, Class::State), None);
        budgets.charge(&mut one, now, Class::State, 4 * RATE);
        let wait = budgets.wait(&one, now, Class::State).unwrap();
        assert_eq!(wait, Duration::from_secs(2));
        assert_eq!(budgets.wait(&one, now, Class::Liveness), None);
        assert_eq!(budgets.wait(&one, now + wait, Class::State), None);
    }

    #[test]
    fn leaves_bulk_what_news_does_not_take() {
        let (mut budgets, now) = (budgets(), Time::ZERO);
        let mut one = allowance(&mut budgets, "there");
        budgets.charge(&mut one, now, Class::Bulk, RATE + 1);
        assert!(budgets.wait(&one, now, Class::Bulk).is_some());
        assert_eq!(budgets.wait(&one, now, Class::State), None);
        // News at the whole rate leaves nothing, however long it goes on.
        let mut later = now;
        for _ in 0..1_000 {
            later = later + Duration::from_millis(10);
            budgets.charge(&mut one, later, Class::State, RATE / 100 + 1);
            assert!(budgets.wait(&one, later, Class::Bulk).is_some());
        }
        assert_eq!(budgets.wait(&one, later + Duration::from_secs(1), Class::Bulk), None);
    }

    #[test]
    fn counts_bulk_only_between_datacenters() {
        let (mut budgets, now) = (budgets(), Time::ZERO);
        let mut one = allowance(&mut budgets, "here");
        budgets.charge(&mut one, now, Class::Bulk, 100 * RATE);
        assert_eq!(budgets.wait(&one, now, Class::Bulk), None);
        assert_eq!(budgets.wait(&one, now, Class::State), None);
    }

    #[test]
    fn shares_the_budget_between_the_peers_of_a_datacenter() {
        let (mut budgets, now) = (budgets(), Time::ZERO);
        let mut one = allowance(&mut budgets, "there");
        let other = allowance(&mut budgets, "there");
        budgets.charge(&mut one, now, Class::State, 4 * RATE);
        assert!(budgets.wait(&other, now, Class::State).is_some());
        let elsewhere = allowance(&mut budgets, "elsewhere");
        assert_eq!(budgets.wait(&elsewhere, now, Class::State), None);
    }

    #[test]
    fn made_up_datacenters_share_one_budget_beyond_the_limit() {
        let (mut budgets, now) = (budgets(), Time::ZERO);
        let mut met: Vec<_> =
            (0..2 * WANS_MAX).map(|n| allowance(&mut budgets, &format!("d{n}"))).collect();
        assert_eq!(budgets.wans.len(), WANS_MAX + 1);
        budgets.charge(&mut met[WANS_MAX], now, Class::State, 4 * RATE);
        assert!(budgets.wait(&met[2 * WANS_MAX - 1], now, Class::State).is_some());
        assert_eq!(budgets.wait(&met[0], now, Class::State), None);
    }

    fn allowance(budgets: &mut Budgets, datacenter: &str) -> Allowance {
        budgets.allowance(&Datacenter::new(datacenter).unwrap(), Time::ZERO)
    }

    fn budgets() -> Budgets {
        Budgets::new(Datacenter::new("here").unwrap(), RATE, RATE)
    }
}
