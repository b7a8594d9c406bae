//! Questions that every member answers: one small request costs the whole cluster.
//!
//! Each client has a budget, so that a client with role `read` cannot keep a large cluster busy. The owner of the socket has
//! none, and turns of its own.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gossipmonger::protocol::time::Time;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{clock::Clock, error::CliError};

/// The turns, and what each client has asked.
#[derive(Debug)]
pub(super) struct Gatherings {
    owner: Semaphore,
    clients: Semaphore,
    accounts: Mutex<BTreeMap<String, Account>>,
    clock: Clock,
}

#[derive(Debug)]
struct Account {
    /// Its questions that are in progress or wait.
    open: usize,
    /// When what it has asked is paid for.
    paid: Time,
}

/// A client's place for a question in progress; returned when dropped.
#[derive(Debug)]
pub(super) struct Asking<'a> {
    gatherings: &'a Gatherings,
    client: Option<String>,
}

/// A turn to ask; returned when dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    _permit: SemaphorePermit<'a>,
    _asking: Asking<'a>,
}

impl Default for Gatherings {
    fn default() -> Self {
        Self {
            owner: Semaphore::new(GATHERINGS_MAX),
            clients: Semaphore::new(GATHERINGS_MAX),
            accounts: Mutex::default(),
            clock: Clock::start(),
        }
    }
}

impl Gatherings {
    /// A turn to ask so many members for a client, or for the owner. Waits for it.
    ///
    /// # Errors
    /// The client asks too much.
    pub(super) async fn turn(
        &self,
        client: Option<&str>,
        members: usize,
    ) -> Result<Turn<'_>, CliError> {
        let asking = self.ask(client, members, self.clock.now())?;
        let turns = if client.is_some() { &self.clients } else { &self.owner };
        let permit = turns.acquire().await.map_err(CliError::failed)?;
        Ok(Turn { _permit: permit, _asking: asking })
    }

    /// A place to ask so many members for some time.
    ///
    /// # Errors
    /// The client asks too much.
    pub(super) fn place(
        &self,
        client: Option<&str>,
        members: usize,
    ) -> Result<Asking<'_>, CliError> {
        self.ask(client, members, self.clock.now())
    }

    fn ask(&self, client: Option<&str>, members: usize, now: Time) -> Result<Asking<'_>, CliError> {
        let Some(client) = client else { return Ok(Asking { gatherings: self, client: None }) };
        let mut accounts = self.lock();
        // Who owes nothing needs no account.
        accounts.retain(|_, account| account.open > 0 || account.paid > now);
        let account = accounts.entry(client.to_owned()).or_insert(Account { open: 0, paid: now });
        if account.open >= ASKED_PER_CLIENT {
            return Err(CliError::failed(format!(
                "{ASKED_PER_CLIENT} questions of this client to all members are in progress, the most that \
                 may: wait for their answers"
            )));
        }
        let debt = account.paid.since(now);
        if debt > DEBT_MAX {
            let wait = (debt - DEBT_MAX).as_secs() + 1;
            return Err(CliError::failed(format!(
                "this client has asked {QUESTIONS_PER_SECOND} members a second for {DEBT_MAX:?}, the most \
                 that may: ask again in {wait} s"
            )));
        }
        let cost = Duration::from_secs(members as u64) / QUESTIONS_PER_SECOND;
        account.paid = account.paid.max(now) + cost;
        account.open += 1;
        Ok(Asking { gatherings: self, client: Some(client.to_owned()) })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Account>> {
        // No code under the lock can panic halfway.
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let Some(client) = &self.client else { return };
        if let Some(account) = self.gatherings.lock().get_mut(client) {
            account.open = account.open.saturating_sub(1);
        }
    }
}

/// Questions to all members at once, of clients and of the owner; further ones wait. Each asks up to 64 members at a time.
const GATHERINGS_MAX: usize = 2;
/// Questions of one client to all members that are in progress or wait.
const ASKED_PER_CLIENT: usize = 4;
/// Members that one client may ask in a second, on the average.
const QUESTIONS_PER_SECOND: u32 = 200;
/// A client that was quiet may ask as much at once as in this time.
const DEBT_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_origin(Duration::from_secs(seconds))
    }

    #[test]
    fn one_client_makes_a_large_cluster_answer_so_often_and_the_owner_and_others_are_free() {
        let gatherings = Gatherings::default();
        let asked = |client, now| {
            let accepted = |_: &_| gatherings.ask(client, 1_000, now).is_ok();
            (0..100).filter(accepted).count()
        };
        // 5 s each: seven fit into the debt.
        assert_eq!(asked(Some("a"), at(1)), 7);
        let refused = gatherings.ask(Some("a"), 1_000, at(1)).unwrap_err().to_string();
        assert!(refused.contains("ask again in 6 s"), "{refused}");
        assert_eq!(asked(Some("a"), at(61)), 7);
        assert_eq!(asked(Some("b"), at(61)), 7);
        assert_eq!(asked(None, at(61)), 100);
        // In a small cluster nobody notices.
        let small = (0..100).filter(|_| gatherings.ask(Some("c"), 5, at(61)).is_ok());
        assert_eq!(small.count(), 100);
        drop(gatherings.ask(Some("d"), 1, at(200)));
        assert_eq!(gatherings.lock().len(), 1, "who owes nothing is forgotten");
    }

    #[tokio::test]
    async fn the_questions_of_a_client_that_wait_keep_neither_the_owner_nor_more_than_their_places()
    {
        let gatherings = Gatherings::default();
        let _running = (
            gatherings.turn(Some("a"), 1).await.unwrap(),
            gatherings.turn(Some("a"), 1).await.unwrap(),
        );
        let waiting = || tokio::time::timeout(Duration::ZERO, gatherings.turn(Some("a"), 1));
        assert!(waiting().await.is_err(), "it waits, and gives up");
        let held: Vec<_> = (0..2).map(|_| gatherings.place(Some("a"), 1).unwrap()).collect();
        assert!(gatherings.place(Some("a"), 1).is_err());
        gatherings.turn(None, 1).await.unwrap();
        drop(held);
        assert!(gatherings.place(Some("a"), 1).is_ok());
    }
}
