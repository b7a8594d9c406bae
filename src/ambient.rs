//! What a node takes from its surroundings: the wall clock, and random numbers.
//!
//! They are those of the system, unless the feature `testkit` is on and a test has given the node others: a clock that
//! it sets, and numbers that follow from its seed. Keys and certificates always take the system's.

#[cfg(feature = "testkit")]
pub(crate) mod losses;
pub(crate) mod lost;

use std::time::SystemTime;
#[cfg(feature = "testkit")]
use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rand::Rng;
#[cfg(feature = "testkit")]
use rand::{SeedableRng, TryRng, rngs::SmallRng};

#[cfg(feature = "testkit")]
use self::losses::Losses;
use self::lost::Lost;
use crate::{clock::Clock, protocol::id::NodeId};

/// The surroundings of one node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ambient {
    #[cfg(feature = "testkit")]
    given: Option<Arc<Given>>,
}

impl Ambient {
    /// The wall clock. Reports about the dates of certificates have to agree with TLS, which reads that of the system.
    pub(crate) fn wall(&self) -> SystemTime {
        #[cfg(feature = "testkit")]
        if let Some(given) = &self.given {
            return given.wall();
        }
        Clock::wall()
    }

    /// Random numbers.
    #[cfg(not(feature = "testkit"))]
    pub(crate) fn rng(&self) -> impl Rng + use<> {
        rand::rng()
    }

    /// Random numbers.
    #[cfg(feature = "testkit")]
    pub(crate) fn rng(&self) -> impl Rng + use<> {
        self.given.clone().map_or_else(|| Draws::System(rand::rng()), Draws::Given)
    }

    /// Whether a test loses this of the next call of `from` to `to`.
    #[cfg(feature = "testkit")]
    pub(crate) fn loses(&self, what: Lost, from: &NodeId, to: &NodeId) -> bool {
        let given = self.given.as_ref();
        given.is_some_and(|given| given.losses.draw((from, to), what, &mut self.rng()))
    }

    /// Nothing is lost on a connection that lasts.
    #[cfg(not(feature = "testkit"))]
    pub(crate) const fn loses(&self, _: Lost, _: &NodeId, _: &NodeId) -> bool {
        false
    }

    /// A seed for a machine.
    pub(crate) fn seed(&self) -> u64 {
        self.rng().next_u64()
    }
}

/// Surroundings that a test gives to a node.
#[cfg(feature = "testkit")]
#[derive(Debug)]
pub(crate) struct Given {
    clock: Clock,
    wall: Mutex<SystemTime>,
    rng: Mutex<SmallRng>,
    losses: Arc<Losses>,
}

#[cfg(feature = "testkit")]
impl Given {
    /// The wall clock shows `wall` when `clock` is at its origin; all random numbers follow from `seed`.
    pub(crate) fn new(
        clock: Clock,
        wall: SystemTime,
        seed: u64,
        losses: &Arc<Losses>,
    ) -> Arc<Self> {
        let rng = Mutex::new(SmallRng::seed_from_u64(seed));
        Arc::new(Self { clock, wall: Mutex::new(wall), rng, losses: Arc::clone(losses) })
    }

    /// The same for a node.
    pub(crate) fn ambient(self: &Arc<Self>) -> Ambient {
        Ambient { given: Some(Arc::clone(self)) }
    }

    /// What the wall clock shows now. It goes on with tokio's clock.
    pub(crate) fn wall(&self) -> SystemTime {
        *self.wall.lock().unwrap_or_else(PoisonError::into_inner) + self.passed()
    }

    /// Sets the wall clock.
    pub(crate) fn set_wall(&self, to: SystemTime) {
        *self.wall.lock().unwrap_or_else(PoisonError::into_inner) = to - self.passed();
    }

    fn passed(&self) -> Duration {
        self.clock.now().since_origin()
    }
}

/// Either of both.
#[cfg(feature = "testkit")]
enum Draws {
    System(rand::rngs::ThreadRng),
    Given(Arc<Given>),
}

#[cfg(feature = "testkit")]
impl Draws {
    fn with<T>(&mut self, draw: impl FnOnce(&mut dyn Rng) -> T) -> T {
        match self {
            Self::System(rng) => draw(rng),
            Self::Given(given) => {
                draw(&mut *given.rng.lock().unwrap_or_else(PoisonError::into_inner))
            }
        }
    }
}

#[cfg(feature = "testkit")]
impl TryRng for Draws {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.with(|rng| rng.next_u32()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.with(|rng| rng.next_u64()))
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        self.with(|rng| rng.fill_bytes(to));
        Ok(())
    }
}
