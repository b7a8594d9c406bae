//! The actors of one node that are called by number.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use rand::{Rng, RngExt};
use tokio::sync::Notify;

use super::offered::Offered;
use crate::protocol::service::exposed::{ENDED_MAX, EXPOSED_MAX};

/// The exposed actors, and those that were exposed.
#[derive(Debug, Default)]
pub(crate) struct Exposed {
    table: RwLock<Table>,
    /// One has ended.
    ended: Notify,
}

#[derive(Debug, Default)]
struct Table {
    present: HashMap<u64, Arc<dyn Offered>>,
    ended: HashSet<u64>,
    /// The same, in the order of their ends.
    order: VecDeque<u64>,
    /// The node drains: nothing is exposed any more.
    closed: bool,
}

/// Why an actor is not exposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotExposed {
    /// The node exposes as many as it may.
    TooMany,
    /// The node takes no new requests any more.
    Draining,
}

/// What a node knows of a number.
#[derive(Debug)]
pub(crate) enum Numbered {
    /// An actor has it.
    Present(Arc<dyn Offered>),
    /// An actor had it.
    Ended,
    /// No actor had it, or so long ago that it is forgotten.
    Unknown,
}

impl Exposed {
    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives an actor a number.
    pub(crate) fn add(
        &self,
        offered: Arc<dyn Offered>,
        rng: &mut impl Rng,
    ) -> Result<u64, NotExposed> {
        let mut table = self.write();
        if table.closed {
            return Err(NotExposed::Draining);
        }
        if table.present.len() >= EXPOSED_MAX {
            return Err(NotExposed::TooMany);
        }
        loop {
            let number = rng.random();
            if !table.present.contains_key(&number) && !table.ended.contains(&number) {
                table.present.insert(number, offered);
                return Ok(number);
            }
        }
    }

    /// The actor of this number has ended.
    pub(crate) fn remove(&self, number: u64) {
        let mut table = self.write();
        if table.present.remove(&number).is_none() {
            return;
        }
        if table.order.len() >= ENDED_MAX
            && let Some(oldest) = table.order.pop_front()
        {
            table.ended.remove(&oldest);
        }
        table.ended.insert(number);
        table.order.push_back(number);
        drop(table);
        self.ended.notify_waiters();
    }

    pub(crate) fn find(&self, number: u64) -> Numbered {
        let table = self.read();
        match table.present.get(&number) {
            Some(offered) => Numbered::Present(Arc::clone(offered)),
            None if table.ended.contains(&number) => Numbered::Ended,
            None => Numbered::Unknown,
        }
    }

    /// Exposes nothing more from now on; returns what is exposed.
    pub(crate) fn close(&self) -> Vec<Arc<dyn Offered>> {
        let mut table = self.write();
        table.closed = true;
        table.present.values().cloned().collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.read().present.is_empty()
    }

    /// Waits until no actor has this number.
    pub(crate) async fn is_over(&self, number: u64) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if !matches!(self.find(number), Numbered::Present(_)) {
                return;
            }
            ended.await;
        }
    }
}
