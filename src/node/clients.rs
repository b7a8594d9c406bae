//! Clients: connections that send this node requests, and are not part of the cluster.
//!
//! They use their own protocol (ALPN) on the node's own port. Every request goes to the
//! [`ClientHandler`], one stream per request; none of it reaches the gossip. This module does not
//! interpret requests. Without a handler clients are refused in the handshake.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use tokio::sync::{Semaphore, watch};

use super::links::{Context, STREAM_SHED, close_with};
use crate::{
    clock::Clock,
    net::{BoxFuture, Connection, Stream},
    protocol::{close::Close, route::Counter},
    tls::{Client, Refusal, Rejection, Role, Tls},
};

/// Clients connected at once.
pub const CLIENTS_MAX: usize = 32;
/// Of these, the places reserved for clients of role `admin`: clients that may only read or watch cannot
/// keep an operator out.
pub const ADMIN_PLACES: usize = 8;
/// Connections of one client, so that one client cannot shut out the others.
pub const CONNECTIONS_PER_CLIENT: usize = 8;
/// Concurrent requests on one connection.
pub const REQUESTS_PER_CONNECTION: usize = 8;
/// A client without an open request is disconnected after this many times the `idle_timeout` of
/// [`QuicLimits`](crate::net::limits::QuicLimits): it has kept its connection alive without use.
pub const IDLE_TIMEOUTS: u32 = 2;
/// Bytes in flight to this node from one client.
const RECEIVE_WINDOW: u32 = 512 << 10;
/// A certificate's expiry is checked at least this often, since the wall clock may be set.
const EXPIRY_LOOK: Duration = Duration::from_secs(600);
/// The label of clients refused because of the limit.
const TOO_MANY: &str = "clients_max";

/// What a node does for clients; see
/// [`Gossipmonger::serve_clients`](crate::Gossipmonger::serve_clients).
pub trait ClientHandler: fmt::Debug + Send + Sync + 'static {
    /// Answers one request: a stream that a client has opened. The client's identity is verified at this moment; when
    /// it stops being valid, the connection is closed and with it the stream.
    fn answer(&self, visitor: Visitor, stream: Stream) -> BoxFuture<'static, ()>;
}

/// A client and its address.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Visitor {
    /// Its name and role.
    pub client: Client,
    /// Its address. It proves nothing.
    pub remote: String,
}

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

    /// Checks the certificates of all connected clients again: roots, roles or revocations have
    /// changed.
    pub(crate) fn recheck(&self) {
        self.recheck.send_modify(|times| *times += 1);
    }

    /// Takes a place; `None` if this client in this role gets none.
    fn enter(self: &Arc<Self>, name: &str, role: Role) -> Option<Place> {
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
struct Place {
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

/// Serves a client until it disconnects, or is no longer allowed.
pub(crate) fn welcome(context: &Context, connection: Arc<dyn Connection>) {
    let Some(tls) = context.endpoint.tls().cloned() else { return };
    let (host, clients) = (context.host.clone(), context.host.clients());
    let guest = Guest { context: context.clone(), tls, connection };
    let client = match guest.identify() {
        Ok(client) => client,
        Err(refusal) => return guest.send_away(&refusal),
    };
    let Some(place) = clients.enter(&client.name, client.role) else {
        let reason = format!(
            "{client} is one client too many: {CLIENTS_MAX} may be connected, {ADMIN_PLACES} of them only of \
             role admin, and {CONNECTIONS_PER_CLIENT} times the same"
        );
        host.refused_of(&client.name, guest.connection.remote(), TOO_MANY, reason);
        let words = "too many clients: come again later";
        return close_with(guest.connection.as_ref(), Close::Busy, words);
    };
    host.count(Counter::ClientsAccepted);
    context.spawner.spawn(async move {
        guest.serve().await;
        drop(place);
    });
}

/// One connection of a client.
struct Guest {
    context: Context,
    tls: Tls,
    connection: Arc<dyn Connection>,
}

impl Guest {
    async fn serve(&self) {
        self.connection.set_receive_window(RECEIVE_WINDOW);
        let mut recheck = self.context.host.clients().recheck.subscribe();
        let mut reloads = self.tls.reloads();
        let room = Arc::new(Semaphore::new(REQUESTS_PER_CONNECTION));
        loop {
            let stream = tokio::select! {
                stream = self.request(&room) => stream,
                _ = recheck.changed() => None,
                _ = reloads.changed() => None,
                () = self.expiry() => None,
                _ = self.connection.closed() => return,
            };
            // Checked for each request: the result of the handshake may be out of date.
            let client = match self.identify() {
                Ok(client) => client,
                Err(refusal) => return self.send_away(&refusal),
            };
            match stream {
                Some(Ok(stream)) => self.answer(client, stream, &room),
                Some(Err(Idle)) => {
                    let words = "idle for too long";
                    return close_with(self.connection.as_ref(), Close::Unneeded, words);
                }
                None => {}
            }
        }
    }

    /// The next request, once a slot is free for it.
    async fn request(&self, room: &Arc<Semaphore>) -> Option<Result<Stream, Idle>> {
        loop {
            let idle = room.available_permits() == REQUESTS_PER_CONNECTION;
            let permit = room.acquire().await;
            drop(permit);
            let next = self.connection.accept();
            let patience = self.context.host.config().quic.idle_timeout * IDLE_TIMEOUTS;
            match tokio::time::timeout(patience, next).await {
                Ok(Ok(stream)) => return Some(Ok(stream)),
                // The connection has ended, which the caller detects itself.
                Ok(Err(_)) => std::future::pending().await,
                Err(_) if idle && room.available_permits() == REQUESTS_PER_CONNECTION => {
                    return Some(Err(Idle));
                }
                Err(_) => {}
            }
        }
    }

    fn answer(&self, client: Client, mut stream: Stream, room: &Arc<Semaphore>) {
        let host = &self.context.host;
        let handler = host.clients().handler.get();
        let permit = Arc::clone(room).try_acquire_owned();
        let (Some(handler), Ok(permit)) = (handler, permit) else {
            stream.0.reset(STREAM_SHED);
            return stream.1.stop(STREAM_SHED);
        };
        host.count(Counter::ClientRequests);
        let visitor = Visitor { client, remote: self.connection.remote() };
        let answered = handler.answer(visitor, stream);
        self.context.spawner.spawn(async move {
            answered.await;
            drop(permit);
        });
    }

    /// The client, by the roots, roles and dates of now.
    fn identify(&self) -> Result<Client, Refusal> {
        self.tls.client(&self.connection.peer().chain)
    }

    /// Returns when the certificate has expired, or sooner.
    async fn expiry(&self) {
        let expires = self.connection.peer().proof.theirs.expires;
        let left = expires.and_then(|end| end.duration_since(Clock::wall()).ok());
        tokio::time::sleep(left.unwrap_or_default().min(EXPIRY_LOOK)).await;
    }

    fn send_away(&self, refusal: &Refusal) {
        let (close, words) = match refusal.reason {
            Rejection::Expired => (Close::Expired, "your certificate has expired: renew it"),
            Rejection::Revoked => (Close::Revoked, "your certificate was revoked"),
            Rejection::NoRole => (Close::Unwelcome, NO_ROLE),
            _ => (Close::Unwelcome, "your certificate is not accepted any more"),
        };
        let remote = self.connection.remote();
        // Its port differs each time.
        let peer = remote.rsplit_once(':').map_or(&*remote, |(host, _)| host).to_owned();
        self.context.host.refused_of(&peer, remote, refusal.reason.as_str(), refusal);
        close_with(self.connection.as_ref(), close, words);
    }
}

/// A client has sent no request for too long.
struct Idle;

const NO_ROLE: &str = "your certificate gives you no role: get one by cert issue --client NAME \
                       --role ROLE, or let the agent's table [clients] name its URI";

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
