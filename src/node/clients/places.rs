//! The places of client connections, which are limited, and the handler of their requests.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use tokio::sync::watch;

use super::{
    ClientHandler,
    limits::{ADMIN_PLACES, CLIENTS_MAX, CONNECTIONS_PER_CLIENT},
};
use crate::tls::Role;

/// The client connections of one node.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    handler: OnceLock<Arc<dyn ClientHandler>>,
    connected: Mutex<Connected>,
    /// Changes when every client's certificate has to be checked again.
    recheck: watch::Sender<u64>,
}

/// The number of connections.
#[derive(Debug, Default)]
struct Connected {
    /// By the client's name.
    by_name: BTreeMap<String, usize>,
    /// Of clients that connected with another role than `admin`.
    others: usize,
}

impl Clients {
    /// Serves clients from now on. Only the first handler counts.
    pub(crate) fn handle(&self, handler: Arc<dyn ClientHandler>) -> bool {
        self.handler.set(handler).is_ok()
    }

    /// The handler of requests, once there is one.
    pub(super) fn handler(&self) -> Option<&Arc<dyn ClientHandler>> {
        self.handler.get()
    }

    /// Changes when every client's certificate has to be checked again.
    pub(in crate::node) fn rechecks(&self) -> watch::Receiver<u64> {
        self.recheck.subscribe()
    }

    /// Checks the certificates of all connected clients again: roots, roles or revocations have
    /// changed.
    pub(crate) fn recheck(&self) {
        self.recheck.send_modify(|times| *times += 1);
    }

    /// Takes a place; `None` if this client in this role gets none.
    pub(super) fn enter(self: &Arc<Self>, name: &str, role: Role) -> Option<Place> {
        let mut connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        let other = !role.permits(Role::Admin);
        let own = connected.by_name.get(name).copied().unwrap_or(0);
        let all = connected.by_name.values().sum::<usize>();
        if own >= CONNECTIONS_PER_CLIENT
            || all >= CLIENTS_MAX
            || other && connected.others >= CLIENTS_MAX - ADMIN_PLACES
        {
            return None;
        }
        connected.by_name.insert(name.to_owned(), own + 1);
        connected.others += usize::from(other);
        Some(Place { clients: Arc::clone(self), name: name.to_owned(), other })
    }
}

/// The place of one connection; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    clients: Arc<Clients>,
    name: String,
    /// It counts among the others, even if the client's role has changed since.
    other: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut connected = self.clients.connected.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = connected.by_name.get_mut(&self.name) {
            *own -= 1;
            if *own == 0 {
                connected.by_name.remove(&self.name);
            }
        }
        connected.others -= usize::from(self.other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_may_only_read_keep_no_operator_out() {
        let clients = Arc::new(Clients::default());
        let mut held = Vec::new();
        for client in ["a", "b", "c", "d"] {
            held.extend((0..CONNECTIONS_PER_CLIENT).map(|_| clients.enter(client, Role::Read)));
        }
        assert_eq!(held.iter().flatten().count(), CLIENTS_MAX - ADMIN_PLACES);
        assert!(clients.enter("e", Role::Watch).is_none());
        let own = |n: usize| (0..n).filter_map(|_| clients.enter("op", Role::Admin)).collect();
        let operator: Vec<_> = own(CONNECTIONS_PER_CLIENT + 1);
        assert_eq!(operator.len(), CONNECTIONS_PER_CLIENT);
        drop(held);
        assert!(clients.enter("e", Role::Watch).is_some());
        drop(operator);
        let connected = clients.connected.lock().unwrap();
        assert!(connected.by_name.is_empty() && connected.others == 0, "{connected:?}");
    }
}
