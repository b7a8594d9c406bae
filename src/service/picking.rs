//! Where the next attempt of a call goes.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use rand::RngExt;

use super::{
    Method,
    calling::{Callee, Target},
    error::NotRun,
    place::Where,
};
use crate::{
    node::services::paths::MEASURED_EVERY,
    protocol::{
        id::{Generation, NodeId},
        service::{
            balance::{Ask, Bounds, Prefer},
            directory::Provider,
        },
        time::Time,
    },
};

impl Callee {
    /// Whether a provider is one of the nodes that may answer, as it says itself.
    pub(super) fn trusts(&self, provider: &Provider) -> bool {
        let only = self.only.as_ref();
        only.is_none_or(|only| only.has(&provider.node, Some(&provider.datacenter)))
    }

    /// The node to which a key belongs, if a call of this kind may go there.
    pub(super) fn owner(&self, place: &Where, method: &Method, node: &NodeId) -> Option<Target> {
        let found = self.listing(|listing| listing.find(node).cloned())?;
        let is_preferred = match place {
            Where::Any(Prefer::Datacenter(wanted)) => found.datacenter == *wanted,
            Where::Any(Prefer::Here) => self.here(node).is_some(),
            _ => true,
        };
        let usable = found.minor >= method.since && !found.draining && is_preferred;
        let Provider { node, generation, .. } =
            Some(found).filter(|found| usable && self.trusts(found))?;
        Some(Target { node, generation, wait: Duration::ZERO, at: self.now() })
    }

    /// Another provider than these, if the call may go to any.
    pub(super) fn another(
        &self,
        place: &Where,
        method: &Method,
        tried: &[NodeId],
    ) -> Option<Target> {
        match place {
            Where::Any(_) => self.target(place, method, tried, self.now()).ok(),
            Where::At(..) | Where::Exposed(_) => None,
        }
    }

    /// Whether a registration of the service is known to be over. The node itself does not know of whom a caller
    /// thinks, since the name and the major version are all that a connection names.
    fn check_epoch(&self, node: &NodeId, generation: Generation, epoch: u32) -> Result<(), NotRun> {
        let listings = self.side.outbound().watched.listings();
        let listed = listings.get(&self.id).and_then(|listing| listing.find(node));
        let is_other =
            listed.is_some_and(|found| found.generation == generation && found.epoch != epoch);
        let restarted = self.here(node).is_some_and(|here| generation != here.generation());
        match is_other || restarted {
            true => Err(NotRun::NoSuchService),
            false => Ok(()),
        }
    }

    /// Where the next attempt goes.
    pub(super) fn target(
        &self,
        place: &Where,
        method: &Method,
        tried: &[NodeId],
        at: Time,
    ) -> Result<Target, NotRun> {
        if self.side.has_ended() {
            return Err(NotRun::Stopped);
        }
        let prefer = match place {
            Where::At(node, generation, epoch) => {
                self.check_epoch(node, *generation, *epoch)?;
                return Ok(Target {
                    node: node.clone(),
                    generation: *generation,
                    wait: Duration::ZERO,
                    at,
                });
            }
            Where::Exposed(exposed) => {
                let (node, generation) = (exposed.node.clone(), exposed.generation);
                let restarted =
                    self.here(&node).is_some_and(|here| generation != here.generation());
                if exposed.has_ended() || restarted {
                    return Err(NotRun::NoSuchService);
                }
                return Ok(Target { node, generation, wait: Duration::ZERO, at });
            }
            Where::Any(prefer) => prefer,
        };
        self.pick((prefer, method.since), tried, at, |provider, wait| {
            let Provider { node, generation, .. } = provider;
            Target { node: node.clone(), generation: *generation, wait, at }
        })
    }

    /// Picks a provider of this minor version at least; `take` gets it, and how long it wants to be left alone.
    pub(super) fn pick<T>(
        &self,
        (prefer, since): (&Prefer, u16),
        tried: &[NodeId],
        now: Time,
        take: impl FnOnce(&Provider, Duration) -> T,
    ) -> Result<T, NotRun> {
        let listings = self.side.outbound().watched.listings();
        let listing = listings.get(&self.id).ok_or(NotRun::NoProvider)?;
        self.measure(now);
        let suspicion = |node: &NodeId| self.side.suspicion(node, now);
        let picked = self.balance(|balance| {
            let pick = |bounds| {
                let ask = Ask { since, prefer, tried, bounds };
                balance.pick(listing, &ask, now, &mut self.side.outbound().ambient.rng(), suspicion)
            };
            let (bounds, otherwise) = self.bounds();
            let pick = match otherwise {
                None => pick(bounds),
                Some(otherwise) => pick(bounds).or_else(|_| pick(otherwise)),
            }?;
            Ok(take(pick.provider, pick.wait))
        });
        picked.map_err(|why| NotRun::no_pick(why, self.id.major))
    }

    /// Gives the balance the distances of the datacenters from time to time.
    fn measure(&self, now: Time) {
        let nanos = |time: Time| u64::try_from(time.since_origin().as_nanos()).unwrap_or(u64::MAX);
        if nanos(now) >= self.measures_at.load(Relaxed) {
            self.measures_at.store(nanos(now + MEASURED_EVERY), Relaxed);
            self.balance(|balance| self.side.outbound().paths.feed(now, balance));
        }
    }

    /// The nodes that may answer.
    pub(super) fn trusted(&self) -> Bounds<'_> {
        Bounds { only: self.only.as_deref(), ..Bounds::default() }
    }

    /// The nodes that one call may go to, drawn by their share. If none of them can take it, the others may.
    fn bounds(&self) -> (Bounds<'_>, Option<Bounds<'_>>) {
        let trusted = self.trusted();
        let Some(share) = &self.share else { return (trusted, None) };
        let inside = Bounds { also: Some(&share.of), ..trusted };
        let outside = Bounds { except: Some(&share.of), ..trusted };
        match self.side.outbound().ambient.rng().random_bool(share.part) {
            true => (inside, Some(outside)),
            false => (outside, Some(inside)),
        }
    }
}
