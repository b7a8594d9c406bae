//! Which provider a call goes to, and whether a failed call is tried again.
//!
//! A pick draws two providers at random and takes the one with the lower score: the power of two choices
//! (Mitzenmacher, "The power of two choices in randomized load balancing", IEEE TPDS 2001). Compared with one random
//! choice the longest queue becomes exponentially shorter. Compared with the best of all, callers with the same figures
//! do not all turn to the same provider, and the work does not grow with the number of providers. The score is the
//! number of outstanding calls times the mean latency, as in Finagle's least-loaded balancers, times how full the
//! provider says it is, divided by its weight.
//!
//! A weight is a divisor of the score and no share: two choices cannot give 1 % of the calls to one of three providers,
//! since it is drawn in two of three picks and then wins whenever the other one is busier.
//!
//! [`Balance`] holds the figures of one caller and one service. It never probes: all it knows comes from calls, from
//! replies and from links that exist anyway. [`retry`] has the rule for failed calls, [`by_key`] the provider for a key.

use std::time::Duration;

use rand::{Rng, RngExt};

use super::super::{
    id::{Datacenter, NodeId},
    time::Time,
};

mod ask;
pub mod candidates;
mod distance;
mod figures;
mod rendezvous;
pub mod retry;
mod search;
mod trusted;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod spread;
#[cfg(test)]
mod tests;

pub use self::{
    ask::{Ask, NoPick, Outcome, Pick, Prefer, Standing},
    distance::DATACENTERS_MAX,
    figures::{FADES_IN, FAILED_COUNTS_AS, FIGURES_MAX, GAIN_MIN, LATENCY_MIN, OVERLOADED_FOR},
    rendezvous::by_key,
    search::{DRAWS_MAX, NEAR_MIN},
    trusted::{Bounds, NodeSet},
};
use self::{
    candidates::{Candidate, Candidates, Sequence},
    distance::Distances,
    figures::Figures,
    search::{Choice, Everywhere, Found, Search, Within},
};

/// What one caller knows of the providers of one service.
#[derive(Debug)]
pub struct Balance {
    /// The node that calls, unless a client does.
    node: Option<NodeId>,
    distances: Distances,
    figures: Figures,
}

impl Balance {
    /// Of a caller that is this node, in this datacenter, and has made no call.
    #[must_use]
    pub fn new(node: NodeId, datacenter: Datacenter) -> Self {
        let distances = Distances::new(Some(datacenter));
        Self { node: Some(node), distances, figures: Figures::default() }
    }

    /// Of a caller that is no node, whose calls stay in this datacenter if they can, and which has made no call.
    #[must_use]
    pub fn outside(datacenter: Option<Datacenter>) -> Self {
        Self { node: None, distances: Distances::new(datacenter), figures: Figures::default() }
    }

    /// The provider that a call goes to. The caller says so by [`Balance::began`] when it sends the call.
    ///
    /// `suspicion` gives phi of a neighbour, divided by the phi at which it is dead; 0 for a node that is not a
    /// neighbour.
    ///
    /// It looks at [`DRAWS_MAX`] candidates of a datacenter, and only if too few of these are usable, at all.
    ///
    /// # Errors
    /// [`NoPick`] says why there is no provider. Nothing has changed.
    pub fn pick<'a, L: Candidates, R: Rng + ?Sized>(
        &self,
        candidates: &'a L,
        ask: &Ask<'_>,
        now: Time,
        rng: &mut R,
        suspicion: impl Fn(&NodeId) -> f64,
    ) -> Result<Pick<'a, L::Item>, NoPick> {
        let mut search = Search::new(ask, &self.figures, now);
        match ask.prefer {
            Prefer::Nearest => self.nearest(candidates, &mut search, rng),
            Prefer::Anywhere => search.look(&Everywhere::new(candidates), rng),
            Prefer::Here => {
                let home = self.distances.home().and_then(|home| candidates.within(home));
                if let Some(((home, sequence), node)) = home.zip(self.node.as_ref())
                    && let Some(own) = sequence.find(node)
                {
                    search.only(own, home, rng);
                }
            }
            Prefer::Datacenter(datacenter) => {
                if let Some((datacenter, sequence)) = candidates.within(datacenter) {
                    search.look(&Within::new(datacenter, sequence, &self.distances), rng);
                }
            }
        }
        let Choice { standing, first, second } = search.end()?;
        let score = |found: &Found<'_, L::Item>| self.score(found, now, &suspicion);
        let better = match second {
            Some(second) if is_less(score(&second), score(&first), rng) => second,
            _ => first,
        };
        let pause = || self.figures.overloaded(now, better.provider.node()).unwrap_or_default();
        let wait = if standing == Standing::Overloaded { pause() } else { Duration::ZERO };
        Ok(Pick { provider: better.provider, standing, wait })
    }

    /// A call was sent to a node.
    pub fn began(&mut self, now: Time, node: &NodeId) {
        self.figures.began(now, node);
    }

    /// A call to a node ended, this long after it was sent. `load` is the byte of the reply that says how full the
    /// service is, 255 being the most.
    pub fn ended(
        &mut self,
        now: Time,
        node: &NodeId,
        latency: Duration,
        load: Option<u8>,
        outcome: Outcome,
    ) {
        self.figures.ended(now, node, latency, load, outcome);
    }

    /// The round trip of a link to a node of another datacenter.
    pub fn measured(&mut self, now: Time, datacenter: &Datacenter, round_trip: Duration) {
        self.distances.measure(now, datacenter, round_trip);
    }

    /// The calls to a node that have not ended.
    #[must_use]
    pub fn outstanding(&self, node: &NodeId) -> u32 {
        self.figures.outstanding(node)
    }

    /// How many nodes this caller has figures of: [`FIGURES_MAX`] at most.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.figures.len()
    }

    /// The candidates by datacenter, the nearest first.
    pub fn order<'a, L: Candidates>(&self, candidates: &'a L) -> Vec<&'a L::Sequence> {
        let mut all = Vec::new();
        let mut next = self.distances.next(candidates, None);
        while let Some((datacenter, sequence)) = next {
            all.push(sequence);
            next = self.distances.next(candidates, Some(datacenter));
        }
        all
    }

    /// One datacenter after another, the nearest first, until two candidates are found. If the nearest has only one, it
    /// is compared with one of the next: the calls that are too many for it go there.
    fn nearest<'a, L: Candidates, R: Rng + ?Sized>(
        &self,
        candidates: &'a L,
        search: &mut Search<'a, '_, L::Item>,
        rng: &mut R,
    ) {
        let mut next = self.distances.next(candidates, None);
        while let Some((datacenter, sequence)) = next {
            search.look(&Within::new(datacenter, sequence, &self.distances), rng);
            if search.is_over() {
                return;
            }
            next = self.distances.next(candidates, Some(datacenter));
        }
    }

    /// In seconds of work that a call would wait for; the lower the better.
    fn score<C: Candidate>(
        &self,
        found: &Found<'_, C>,
        now: Time,
        suspicion: &impl Fn(&NodeId) -> f64,
    ) -> f64 {
        let node = found.provider.node();
        let cost = self.figures.cost(now, node, found.round_trip);
        cost / f64::from(found.provider.weight().max(1)) * (1.0 + suspicion(node).max(0.0))
    }
}

/// Equal scores, as of nodes that nothing is known of, are decided by chance.
fn is_less<R: Rng + ?Sized>(one: f64, other: f64, rng: &mut R) -> bool {
    match one.total_cmp(&other) {
        std::cmp::Ordering::Less => true,
        std::cmp::Ordering::Equal => rng.random(),
        std::cmp::Ordering::Greater => false,
    }
}
