//! What the connections of one node have carried, by the datacenter of the peer: those that are open, and the last
//! figures of those that have ended. So the sums only grow.

use std::{
    collections::BTreeMap,
    ops::AddAssign,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{Connection, Protocol, Traffic};
use crate::protocol::id::Datacenter;

/// Most datacenters with a row of their own: a certificate may leave it to the node to name its datacenter. Further ones
/// share one row for each protocol.
pub const DATACENTERS_MAX: usize = 256;

/// The connections of one node for one protocol with peers of one datacenter.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// `None`: all datacenters that have no row of their own, and clients, which have none.
    pub(crate) datacenter: Option<Datacenter>,
    pub(crate) protocol: Protocol,
    /// Those that are open.
    pub(crate) open: usize,
    /// Of all since the start of the node.
    pub(crate) traffic: Traffic,
    /// Of those that are open and have measured it.
    pub(crate) round_trips: Vec<Duration>,
}

/// The ledger of one node.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    open: BTreeMap<u64, (Account, Arc<dyn Connection>)>,
    ended: BTreeMap<Account, Traffic>,
}

type Account = (Option<Datacenter>, Protocol);

/// A connection in the ledger; it counts as ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Entered {
    ledger: Arc<Ledger>,
    number: u64,
}

impl Ledger {
    /// Enters a connection.
    pub(crate) fn enter(
        self: &Arc<Self>,
        datacenter: Option<&Datacenter>,
        connection: &Arc<dyn Connection>,
    ) -> Entered {
        let mut entries = self.lock();
        let account = entries.account(datacenter, connection.protocol());
        let number = entries.next;
        entries.next += 1;
        entries.ended.entry(account.clone()).or_default();
        entries.open.insert(number, (account, Arc::clone(connection)));
        drop(entries);
        Entered { ledger: Arc::clone(self), number }
    }

    /// All rows, by datacenter.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let entries = self.lock();
        let row = |(account, traffic): (&Account, &Traffic)| {
            let (datacenter, protocol) = account.clone();
            let row = Row { datacenter, protocol, open: 0, traffic: *traffic, round_trips: vec![] };
            (account.clone(), row)
        };
        let mut rows: BTreeMap<Account, Row> = entries.ended.iter().map(row).collect();
        for (account, connection) in entries.open.values() {
            let Some(row) = rows.get_mut(account) else { continue };
            row.traffic += connection.traffic();
            if connection.is_open() {
                row.open += 1;
                row.round_trips.extend(connection.round_trip());
            }
        }
        drop(entries);
        rows.into_values().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn account(&self, datacenter: Option<&Datacenter>, protocol: Protocol) -> Account {
        let own = (datacenter.cloned(), protocol);
        let of_protocol = |(_, of): &&Account| *of == protocol;
        let has_room = self.ended.keys().filter(of_protocol).count() < DATACENTERS_MAX;
        if has_room || self.ended.contains_key(&own) { own } else { (None, protocol) }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut entries = self.ledger.lock();
        if let Some((account, connection)) = entries.open.remove(&self.number) {
            *entries.ended.entry(account).or_default() += connection.traffic();
            drop(entries);
            // Not under the lock: the last reference may end the connection.
            drop(connection);
        }
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, more: Self) {
        self.bytes_sent += more.bytes_sent;
        self.bytes_received += more.bytes_received;
        self.packets_sent += more.packets_sent;
        self.packets_received += more.packets_received;
        self.packets_lost += more.packets_lost;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::net::quiet::Quiet;

    fn shared(connection: &Arc<Quiet>) -> Arc<dyn Connection> {
        Arc::clone(connection) as Arc<dyn Connection>
    }

    #[test]
    fn what_a_connection_has_carried_stays_when_it_ends() {
        let ledger = Arc::new(Ledger::default());
        let (one, two) = (Quiet::until(None, None), Quiet::until(None, None));
        let eu = Datacenter::new("eu").unwrap();
        let first = ledger.enter(Some(&eu), &shared(&one));
        let second = ledger.enter(Some(&eu), &shared(&two));
        one.sent.store(100, Ordering::Relaxed);
        two.sent.store(10, Ordering::Relaxed);
        let read = || {
            let rows = ledger.rows();
            assert_eq!(rows.len(), 1, "{rows:?}");
            (rows[0].traffic.bytes_sent, rows[0].open, rows[0].round_trips.len())
        };
        assert_eq!(read(), (110, 2, 2));
        one.sent.store(150, Ordering::Relaxed);
        drop(first);
        assert_eq!(read(), (160, 1, 1));
        drop(second);
        assert_eq!(read(), (160, 0, 0));
        // The ledger keeps no connection that has ended.
        assert_eq!(Arc::strong_count(&one), 1);
    }

    #[test]
    fn made_up_datacenters_share_one_row_beyond_the_limit() {
        let ledger = Arc::new(Ledger::default());
        let connection = Quiet::until(None, None);
        connection.sent.store(1, Ordering::Relaxed);
        let entered: Vec<_> = (0..4 * DATACENTERS_MAX)
            .map(|n| {
                let datacenter = Datacenter::new(&format!("d{n}")).unwrap();
                ledger.enter(Some(&datacenter), &shared(&connection))
            })
            .collect();
        let rows = ledger.rows();
        assert_eq!(rows.len(), DATACENTERS_MAX + 1);
        let other = rows.iter().find(|row| row.datacenter.is_none()).unwrap();
        assert_eq!(other.open, 3 * DATACENTERS_MAX);
        drop(entered);
        let sent: u64 = ledger.rows().iter().map(|row| row.traffic.bytes_sent).sum();
        assert_eq!(sent, 4 * DATACENTERS_MAX as u64);
    }
}
