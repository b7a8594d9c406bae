//! What one caller may hold for a long time: a place among the watchers, and the time for an answer.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Most callers that watch at once, so that watchers shut out no other caller.
pub(super) const WATCHERS_MAX: usize = 32;
/// Most clients among them: the other places are for the owner of the directory.
pub(super) const CLIENT_WATCHERS_MAX: usize = 24;
/// Most watchers of one client, on all of its connections.
pub(super) const WATCHERS_PER_CLIENT: usize = 8;
/// The least rate at which a caller takes an answer of many lines, in bytes a second: the answer is a state of the
/// whole cluster, which stays in memory until the answer is sent.
pub(super) const ANSWER_BYTES_PER_SECOND_MIN: usize = 32 << 10;

/// The places of the watchers.
#[derive(Clone, Debug, Default)]
pub(super) struct Watchers(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    owner: usize,
    clients: BTreeMap<String, usize>,
}

/// A place; returned when dropped.
#[derive(Debug)]
pub(super) struct Place {
    watchers: Watchers,
    client: Option<String>,
}

impl Watchers {
    /// A place for the client of this name, or for the owner; `None` if the client has its maximum, or all are taken.
    pub(super) fn take(&self, client: Option<&str>) -> Option<Place> {
        let mut taken = self.lock();
        let clients: usize = taken.clients.values().sum();
        if taken.owner + clients >= WATCHERS_MAX {
            return None;
        }
        match client {
            None => taken.owner += 1,
            Some(name) => {
                let own = taken.clients.get(name).copied().unwrap_or(0);
                if own >= WATCHERS_PER_CLIENT || clients >= CLIENT_WATCHERS_MAX {
                    return None;
                }
                taken.clients.insert(name.to_owned(), own + 1);
            }
        }
        drop(taken);
        Some(Place { watchers: self.clone(), client: client.map(str::to_owned) })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // No code under the lock can panic halfway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.watchers.lock();
        let Some(name) = &self.client else {
            taken.owner = taken.owner.saturating_sub(1);
            return;
        };
        match taken.clients.get_mut(name) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(taken.clients.remove(name)),
        }
    }
}

/// The time limit for an answer after this many bytes, if one line may take `patience`.
pub(super) fn answer_time(patience: Duration, written: usize) -> Duration {
    let seconds = written as f64 / ANSWER_BYTES_PER_SECOND_MIN as f64;
    patience + Duration::from_secs_f64(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_takes_no_place_of_others_and_clients_none_of_the_owner() {
        let watchers = Watchers::default();
        let take =
            |name: Option<&str>| std::iter::from_fn(|| watchers.take(name)).collect::<Vec<_>>();
        let first = take(Some("a"));
        assert_eq!(first.len(), WATCHERS_PER_CLIENT);
        let mut held = Vec::new();
        for name in ["b", "c", "d", "e"] {
            held.extend(take(Some(name)));
        }
        assert_eq!(first.len() + held.len(), CLIENT_WATCHERS_MAX);
        let own = take(None);
        assert_eq!(own.len(), WATCHERS_MAX - CLIENT_WATCHERS_MAX);
        assert!(watchers.take(Some("a")).is_none() && watchers.take(None).is_none());
        drop((first, own));
        assert_eq!(take(Some("a")).len(), WATCHERS_PER_CLIENT, "what was given back is free");
    }

    #[test]
    fn an_answer_that_drips_is_given_up_and_one_that_moves_is_not() {
        let patience = Duration::from_secs(30);
        // One line every 29 seconds.
        let dripping = (1..1_000_u32).take_while(|lines| {
            Duration::from_secs(29) * *lines <= answer_time(patience, 200 * *lines as usize)
        });
        assert_eq!(dripping.count(), 1);
        let moving = (1..1_000_u32).all(|second| {
            let written = ANSWER_BYTES_PER_SECOND_MIN * second as usize;
            Duration::from_secs(1) * second <= answer_time(patience, written)
        });
        assert!(moving);
    }
}
