//! One connection of a client: its place, its requests, its end.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use super::{
    Visitor,
    limits::{
        ADMIN_PLACES, CLIENTS_MAX, CONNECTIONS_PER_CLIENT, IDLE_TIMEOUTS, REQUESTS_PER_CONNECTION,
    },
};
use crate::{
    net::{Connection, Stream},
    node::links::{closing::close_with, context::Context, frames::STREAM_SHED},
    protocol::{close::Close, route::Counter},
    tls::{Client, Refusal, Rejection, Tls},
};

/// Bytes in flight to this node from one client.
const RECEIVE_WINDOW: u32 = 512 << 10;
/// Streams that one client may have open at once on one connection: those of requests in progress, and some that wait.
const STREAMS: u32 = 32;
/// A certificate's expiry is checked at least this often, since the wall clock may be set.
const EXPIRY_LOOK: Duration = Duration::from_secs(600);
/// The label of clients refused because of the limit.
const TOO_MANY: &str = "clients_max";

/// Serves a client until it disconnects, or is no longer allowed.
pub(crate) fn welcome(context: &Context, connection: Arc<dyn Connection>) {
    let Some(tls) = context.endpoint.tls().cloned() else { return };
    let (host, clients) = (context.host(), context.host().clients());
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
        let _entered = self.context.host().enter(None, &self.connection);
        self.connection.set_receive_window(RECEIVE_WINDOW);
        self.connection.set_streams(STREAMS, 0);
        let mut recheck = self.context.host().clients().rechecks();
        let mut reloads = self.tls.reloads();
        let room = Arc::new(Semaphore::new(REQUESTS_PER_CONNECTION));
        loop {
            let stream = tokio::select! {
                biased;
                _ = self.connection.closed() => return,
                _ = recheck.changed() => None,
                _ = reloads.changed() => None,
                () = self.expiry() => None,
                // Last: of a busy client there is always one.
                stream = self.request(&room) => stream,
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
            let patience = self.context.host().config().quic.idle_timeout * IDLE_TIMEOUTS;
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
        let host = self.context.host();
        let handler = host.clients().handler();
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
        let left = expires.and_then(|end| end.duration_since(self.context.host().wall()).ok());
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
        self.context.host().refused_of(&peer, remote, refusal.reason.as_str(), refusal);
        close_with(self.connection.as_ref(), close, words);
    }
}

/// A client has sent no request for too long.
struct Idle;

const NO_ROLE: &str = "your certificate gives you no role: get one by cert issue --client NAME \
                       --role ROLE, or let the agent's table [clients] name its URI";
