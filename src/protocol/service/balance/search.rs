//! The search for two candidates to compare.
//!
//! Positions are drawn at random, so it looks at [`DRAWS_MAX`] candidates at most, however many there are. Only if so
//! many draws find too few that are usable does it look at all of them: with half of the candidates unusable that
//! happens in one of 4,000 picks.

use std::time::Duration;

use rand::{Rng, RngExt};

use super::{
    ask::{Ask, NoPick, Standing},
    candidates::{Candidate, Candidates, Sequence},
    distance::Distances,
    figures::Figures,
};
use crate::protocol::{id::Datacenter, time::Time};

/// Candidates that one pick looks at in one datacenter before it looks at all there.
pub const DRAWS_MAX: usize = 16;
/// The nearest datacenter is enough if it has so many usable candidates: a single one would get all calls, however slow
/// it is. A comparison needs as many.
pub const NEAR_MIN: usize = 2;

/// A candidate, its datacenter, and the round trip there if that is known and counts.
#[derive(Debug)]
pub(super) struct Found<'a, C> {
    pub(super) provider: &'a C,
    datacenter: &'a Datacenter,
    pub(super) round_trip: Option<Duration>,
}

/// What a search has found: two candidates of one kind to compare, or a single one.
#[derive(Debug)]
pub(super) struct Choice<'a, C> {
    pub(super) standing: Standing,
    pub(super) first: Found<'a, C>,
    pub(super) second: Option<Found<'a, C>>,
}

/// A sequence of candidates to draw from.
pub(super) trait Pool<'a, C: 'a> {
    fn len(&self) -> usize;
    fn get(&self, position: usize) -> Option<Found<'a, C>>;
    fn iter(&self) -> impl Iterator<Item = Found<'a, C>>;
}

/// The candidates of one datacenter.
#[derive(Debug)]
pub(super) struct Within<'a, S> {
    datacenter: &'a Datacenter,
    sequence: &'a S,
    round_trip: Option<Duration>,
}

/// The candidates of all datacenters, as if they were one: nobody is far before a call has shown it. A round trip that
/// was measured on a busy link would keep all calls away, and nothing would correct it.
#[derive(Debug)]
pub(super) struct Everywhere<'a, L>(&'a L);

/// What was found so far.
#[derive(Debug)]
pub(super) struct Search<'a, 's, C> {
    ask: &'s Ask<'s>,
    figures: &'s Figures,
    now: Time,
    sound: Two<'a, C>,
    overloaded: Two<'a, C>,
    suspect: Two<'a, C>,
    refused: Refused,
}

/// Up to two of those that were shown, each with the same probability.
#[derive(Debug)]
struct Two<'a, C> {
    first: Option<Found<'a, C>>,
    second: Option<Found<'a, C>>,
    shown: usize,
}

/// How many candidates cannot be used, by reason.
#[derive(Debug, Default)]
struct Refused {
    draining: usize,
    tried: usize,
    /// The largest minor version among those that are too old.
    offered: Option<u16>,
}

impl<'a, 's, C: Candidate> Search<'a, 's, C> {
    pub(super) fn new(ask: &'s Ask<'s>, figures: &'s Figures, now: Time) -> Self {
        let (sound, overloaded, suspect) = Default::default();
        Self { ask, figures, now, sound, overloaded, suspect, refused: Refused::default() }
    }

    /// Whether there are two candidates of the best kind.
    pub(super) fn is_over(&self) -> bool {
        self.sound.len() >= NEAR_MIN
    }

    /// Looks for the candidates that are still missing. Those of an earlier, nearer pool stay.
    pub(super) fn look<R: Rng + ?Sized>(&mut self, pool: &impl Pool<'a, C>, rng: &mut R) {
        if !self.draw(pool, rng) {
            self.scan(pool.iter(), rng);
        }
    }

    /// Looks at this candidate alone.
    pub(super) fn only<R: Rng + ?Sized>(
        &mut self,
        provider: &'a C,
        datacenter: &'a Datacenter,
        rng: &mut R,
    ) {
        self.scan(std::iter::once(Found { provider, datacenter, round_trip: None }), rng);
    }

    /// The best candidates, or why there is none.
    pub(super) fn end(self) -> Result<Choice<'a, C>, NoPick> {
        let best = [
            (Standing::Sound, self.sound),
            (Standing::Overloaded, self.overloaded),
            (Standing::Suspect, self.suspect),
        ];
        let mut best = best.into_iter().filter_map(|(standing, found)| {
            found.first.map(|first| Choice { standing, first, second: found.second })
        });
        best.next().ok_or_else(|| self.refused.why())
    }

    /// Draws positions; whether that found all that is missing. Otherwise nothing has changed.
    fn draw<R: Rng + ?Sized>(&mut self, pool: &impl Pool<'a, C>, rng: &mut R) -> bool {
        let missing = NEAR_MIN - self.sound.len();
        if pool.len() <= missing {
            return false;
        }
        let mut held: Option<(usize, Found<'a, C>)> = None;
        for _ in 0..DRAWS_MAX {
            let position = rng.random_range(0..pool.len());
            if held.as_ref().is_some_and(|(at, _)| *at == position) {
                continue;
            }
            let Some(found) = pool.get(position) else { continue };
            if !matches!(self.standing(&found), Ok(Standing::Sound)) {
                continue;
            }
            match held.take() {
                None if missing > 1 => held = Some((position, found)),
                None => {
                    self.sound.second = Some(found);
                    return true;
                }
                Some((_, first)) => {
                    self.sound = Two { first: Some(first), second: Some(found), shown: 2 };
                    return true;
                }
            }
        }
        false
    }

    /// Looks at all candidates of a pool.
    fn scan<R: Rng + ?Sized>(&mut self, all: impl Iterator<Item = Found<'a, C>>, rng: &mut R) {
        let mut sound = Two::default();
        for found in all {
            match self.standing(&found) {
                Ok(Standing::Sound) => sound.show(found, rng),
                Ok(Standing::Overloaded) => self.overloaded.show(found, rng),
                Ok(Standing::Suspect) => self.suspect.show(found, rng),
                Err(why) => self.refused.count(why),
            }
        }
        if self.sound.first.is_none() {
            self.sound = sound;
        } else {
            // One seat is free. Two candidates always sit in their order, so chance decides between them.
            let Two { first, second, .. } = sound;
            self.sound.second = if rng.random() { first.or(second) } else { second.or(first) };
        }
    }

    fn standing(&self, found: &Found<'a, C>) -> Result<Standing, NoPick> {
        let candidate = found.provider;
        if !self.ask.bounds.admit(candidate.node(), found.datacenter) {
            return Err(NoPick::NoProvider);
        }
        if candidate.minor() < self.ask.since {
            return Err(NoPick::TooOld { offered: candidate.minor() });
        }
        if candidate.draining() {
            return Err(NoPick::Draining);
        }
        if self.ask.tried.contains(candidate.node()) {
            return Err(NoPick::Tried);
        }
        if candidate.suspect() {
            return Ok(Standing::Suspect);
        }
        let overloaded = self.figures.overloaded(self.now, candidate.node()).is_some();
        Ok(if overloaded { Standing::Overloaded } else { Standing::Sound })
    }
}

impl<'a, S> Within<'a, S> {
    pub(super) fn new(datacenter: &'a Datacenter, sequence: &'a S, distances: &Distances) -> Self {
        Self { datacenter, sequence, round_trip: distances.round_trip(datacenter) }
    }
}

impl<'a, S: Sequence> Pool<'a, S::Item> for Within<'a, S> {
    fn len(&self) -> usize {
        self.sequence.len()
    }

    fn get(&self, position: usize) -> Option<Found<'a, S::Item>> {
        let provider = self.sequence.get(position)?;
        Some(Found { provider, datacenter: self.datacenter, round_trip: self.round_trip })
    }

    fn iter(&self) -> impl Iterator<Item = Found<'a, S::Item>> {
        let found =
            |provider| Found { provider, datacenter: self.datacenter, round_trip: self.round_trip };
        self.sequence.iter().map(found)
    }
}

impl<'a, L> Everywhere<'a, L> {
    pub(super) const fn new(candidates: &'a L) -> Self {
        Self(candidates)
    }
}

impl<'a, L: Candidates> Pool<'a, L::Item> for Everywhere<'a, L> {
    fn len(&self) -> usize {
        self.0.datacenters().map(|(_, sequence)| sequence.len()).sum()
    }

    fn get(&self, mut position: usize) -> Option<Found<'a, L::Item>> {
        for (datacenter, sequence) in self.0.datacenters() {
            match position.checked_sub(sequence.len()) {
                None => {
                    let provider = sequence.get(position)?;
                    return Some(Found { provider, datacenter, round_trip: None });
                }
                Some(rest) => position = rest,
            }
        }
        None
    }

    fn iter(&self) -> impl Iterator<Item = Found<'a, L::Item>> {
        self.0.datacenters().flat_map(|(datacenter, sequence)| {
            sequence.iter().map(move |provider| Found { provider, datacenter, round_trip: None })
        })
    }
}

impl<C> Default for Two<'_, C> {
    fn default() -> Self {
        Self { first: None, second: None, shown: 0 }
    }
}

impl<'a, C> Two<'a, C> {
    fn len(&self) -> usize {
        usize::from(self.first.is_some()) + usize::from(self.second.is_some())
    }

    /// Vitter's algorithm R ("Random sampling with a reservoir", ACM TOMS 1985), for two.
    fn show<R: Rng + ?Sized>(&mut self, found: Found<'a, C>, rng: &mut R) {
        self.shown += 1;
        let seat = if self.shown <= 2 { self.shown - 1 } else { rng.random_range(0..self.shown) };
        match seat {
            0 => self.first = Some(found),
            1 => self.second = Some(found),
            _ => {}
        }
    }
}

impl Refused {
    fn count(&mut self, why: NoPick) {
        match why {
            NoPick::TooOld { offered } => self.offered = self.offered.max(Some(offered)),
            NoPick::Draining => self.draining += 1,
            NoPick::Tried => self.tried += 1,
            NoPick::NoProvider => {}
        }
    }

    /// The reason of those candidates that came nearest to being used.
    fn why(&self) -> NoPick {
        match self.offered {
            _ if self.tried > 0 => NoPick::Tried,
            _ if self.draining > 0 => NoPick::Draining,
            Some(offered) => NoPick::TooOld { offered },
            None => NoPick::NoProvider,
        }
    }
}
