//! The places of TCP connections. If all are taken, the oldest unauthenticated connection is closed, so that
//! many of those keep out no authenticated client. If all are authenticated, the oldest one of the client with the most is.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use gossipmonger::protocol::time::Time;
use tokio::task::{AbortHandle, JoinSet};

use super::connection::Link;
use crate::clock::Clock;

/// Most connections at once.
pub(super) const CONNECTIONS_MAX: usize = 128;
/// Most of them from one address.
pub(super) const CONNECTIONS_PER_SOURCE: usize = 64;
/// Handshakes that one address may begin in a second.
pub(super) const BEGUN_PER_SECOND: u32 = 32;
/// Addresses whose beginnings are counted; more than these share one count.
const SOURCES_MAX: usize = 1_024;

/// The open connections.
#[derive(Debug)]
pub(super) struct Places {
    tasks: JoinSet<u64>,
    /// By age.
    open: BTreeMap<u64, Open>,
    next: u64,
    begun: BTreeMap<IpAddr, u32>,
    since: Time,
    clock: Clock,
}

#[derive(Debug)]
struct Open {
    source: IpAddr,
    link: Link,
    task: AbortHandle,
}

impl Default for Places {
    fn default() -> Self {
        let clock = Clock::start();
        Self {
            tasks: JoinSet::new(),
            open: BTreeMap::new(),
            next: 0,
            begun: BTreeMap::new(),
            since: clock.now(),
            clock,
        }
    }
}

impl Places {
    /// Serves a connection, if there is room for it or can be made; otherwise drops it. `costly`: it costs a handshake.
    pub(super) fn take<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        costly: bool,
        address: SocketAddr,
        serve: impl FnOnce(Link) -> F,
    ) -> bool {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            match ended {
                Ok((_, place)) => drop(self.open.remove(&place)),
                Err(error) => self.open.retain(|_, open| open.task.id() != error.id()),
            }
        }
        let source = address.ip();
        if costly && !self.may_begin(source) || !self.has_room(source) {
            return false;
        }
        let link = Link::remote(address, None);
        let (place, serving) = (self.next, serve(link.clone()));
        self.next += 1;
        let task = self.tasks.spawn(async move {
            serving.await;
            place
        });
        self.open.insert(place, Open { source, link, task });
        true
    }

    fn may_begin(&mut self, source: IpAddr) -> bool {
        let now = self.clock.now();
        if now.since(self.since) >= Duration::from_secs(1) {
            (self.since, self.begun) = (now, BTreeMap::new());
        }
        let full = self.begun.len() >= SOURCES_MAX && !self.begun.contains_key(&source);
        let counted = if full { IpAddr::from([0; 16]) } else { source };
        let begun = self.begun.entry(counted).or_default();
        *begun += 1;
        *begun <= BEGUN_PER_SECOND
    }

    /// Makes room if need be.
    fn has_room(&mut self, source: IpAddr) -> bool {
        let of_source = self.open.values().filter(|open| open.source == source).count();
        let crowded = of_source >= CONNECTIONS_PER_SOURCE;
        if !crowded && self.open.len() < CONNECTIONS_MAX {
            return true;
        }
        let mut held = BTreeMap::<Option<&str>, usize>::new();
        let candidates = || self.open.iter().filter(|(_, open)| !crowded || open.source == source);
        for (_, open) in candidates() {
            *held.entry(open.link.client()).or_default() += 1;
        }
        let most = match held.get(&None) {
            Some(_) => None,
            // A client gives up no connection for its first one.
            None => match held.into_iter().max_by_key(|(_, connections)| *connections) {
                Some((client, 2..)) => client,
                _ => return false,
            },
        };
        let oldest = candidates().find(|(_, open)| open.link.client() == most);
        let oldest = oldest.map(|(place, _)| *place);
        let Some(open) = oldest.and_then(|place| self.open.remove(&place)) else { return false };
        open.task.abort();
        true
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use gossipmonger::tls::Role;

    use super::*;
    use crate::agent::server::{Guest, Who};

    fn prove(open: &Open, name: &str) {
        let (name, remote) = (name.to_owned(), String::new());
        open.link.known(&Who::Guest(Guest { name, role: Role::Read, remote }));
    }

    fn from(host: u8) -> SocketAddr {
        ([10, 0, 0, host], 1).into()
    }

    #[tokio::test]
    async fn who_has_proved_itself_keeps_its_place_and_the_oldest_other_makes_room() {
        let mut places = Places::default();
        let take = |places: &mut Places, host| places.take(true, from(host), |_| pending());
        assert!(take(&mut places, 1));
        places.open.values().for_each(|open| prove(open, "first"));
        for n in 1..CONNECTIONS_MAX {
            assert!(take(&mut places, 2 + (n % 100) as u8));
        }
        let second = *places.open.keys().nth(1).unwrap();
        assert!(take(&mut places, 200));
        assert_eq!(places.open.len(), CONNECTIONS_MAX);
        assert!(places.open.contains_key(&0) && !places.open.contains_key(&second));
        for (n, open) in places.open.values().enumerate() {
            prove(open, &n.to_string());
        }
        assert!(!take(&mut places, 201), "nobody makes room who is known and has no second one");
    }

    #[tokio::test]
    async fn one_client_at_many_addresses_shuts_out_no_other_one() {
        let mut places = Places::default();
        let take = |places: &mut Places, host| places.take(false, from(host), |_| pending());
        assert!(take(&mut places, 1));
        places.open.values().for_each(|open| prove(open, "other"));
        for n in 0..2 * CONNECTIONS_MAX {
            assert!(take(&mut places, 2 + (n % 4) as u8));
            places.open.values().for_each(|open| prove(open, "many"));
        }
        assert_eq!(places.open.len(), CONNECTIONS_MAX);
        assert_eq!(places.open[&0].link.client(), Some("other"));
        assert!(take(&mut places, 1), "one of those makes room");
    }

    #[tokio::test]
    async fn one_address_takes_its_part_and_begins_so_many_in_a_second() {
        let mut places = Places::default();
        let begun = (0..200).filter(|_| places.take(true, from(1), |_| pending())).count();
        assert_eq!(begun, BEGUN_PER_SECOND as usize);
        for _ in 0..200 {
            places.take(false, from(1), |_| pending());
        }
        let open = places.open.values().filter(|open| open.source == from(1).ip()).count();
        assert_eq!(open, CONNECTIONS_PER_SOURCE);
        assert!(places.take(true, from(2), |_| pending()));
    }

    #[tokio::test]
    async fn a_connection_that_has_ended_gives_its_place_back() {
        let mut places = Places::default();
        for n in 0..3_u8 {
            assert!(places.take(true, from(n), |_| async {}));
            while !places.tasks.is_empty() && places.open.len() > 1 {
                tokio::task::yield_now().await;
                places.take(false, from(n), |_| async {});
            }
        }
        assert!(places.open.len() <= 3);
    }
}
