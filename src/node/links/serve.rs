//! One connection after its introduction: its exchanges, its heartbeats, its end.

use std::{sync::Arc, time::Duration};

use tokio::sync::OwnedSemaphorePermit;

use super::{
    closing::{close, close_with, closed, is_ordinary, rejection},
    context::Context,
    exchange, expiry,
    frames::STREAM_SHED,
    link::Link,
    revoked::close_if_revoked,
    streams,
    table::Registered,
};
use crate::{
    net::{Connection, Ended},
    protocol::{
        close::{Close, Closing},
        id::Generation,
        peering::{ConnectionId, PeeringInput, REPLACED, REPLACED_GRACE},
        rates::Traffic,
        route::Counter,
        session::Met,
    },
};

/// Takes a connection whose peer was admitted; returns the one to use for its peer.
pub(super) fn adopt(
    context: &Context,
    connection: Arc<dyn Connection>,
    met: Met,
    own: Generation,
    dialed: bool,
) -> Option<Arc<Link>> {
    let (links, host) = (&context.links, context.host());
    let link = match links.register(connection, met, own, dialed) {
        Registered::Kept(link) => link,
        Registered::Renewed(link, old) => {
            if let Some(old) = old {
                context.spawner.spawn(retire(host.config().quic.exchange_timeout, old));
            }
            link
        }
        Registered::Duplicate(link) => return link,
        Registered::Gone => return None,
    };
    tracing::debug!(node = %host.node(), peer = %link.peer, dialed, "connected");
    // The certificate may have been revoked during the introduction.
    if let Some(tls) = context.endpoint.tls()
        && close_if_revoked(host, tls, &link, &host.revocations())
    {
        links.ended(&link);
        return None;
    }
    links.handle(PeeringInput::Frame(link.id));
    context.spawner.spawn(serve(context.clone(), Arc::clone(&link)));
    Some(link)
}

/// Serves the connections that the previous actor has left.
pub(crate) fn resume(context: &Context) {
    for link in context.links.open() {
        context.spawner.spawn(serve(context.clone(), link));
    }
}

/// Closes a connection once no exchange is in progress on it: otherwise the last frame of one would be lost.
pub(crate) fn finish(context: &Context, connection: ConnectionId, closing: Closing) {
    let link = context.links.by_id(connection);
    let Some(link) = link else { return };
    let patience = context.host().config().quic.exchange_timeout;
    context.spawner.spawn(async move {
        let _ = tokio::time::timeout(patience, link.idle()).await;
        close(link.connection.as_ref(), &closing);
    });
}

/// Closes a connection that another one has replaced, once data in flight has arrived.
async fn retire(patience: Duration, link: Arc<Link>) {
    let _ = tokio::time::timeout(patience, link.idle()).await;
    tokio::time::sleep(REPLACED_GRACE).await;
    close_with(link.connection.as_ref(), Close::Duplicate, REPLACED);
}

/// Serves a connection until it ends.
async fn serve(context: Context, link: Arc<Link>) {
    let (links, host) = (&context.links, context.host());
    let ended = tokio::select! {
        biased;
        ended = exchanges(&context, &link) => ended,
        ended = streams::hear(links, &link) => ended,
        ended = streams::send(links, &link) => ended,
        ended = datagrams(&context, &link) => ended,
        ended = expiry::watch(&context, &link) => ended,
    };
    links.ended(&link);
    let peer = &link.peer;
    let closed = closed(&ended);
    if let Some(generation) = closed.and_then(|closed| closed.later_generation()) {
        host.told_of_self(peer, generation);
    } else if let Some((label, words)) = rejection(&ended) {
        if let Some(statement) = closed.and_then(|closed| closed.revocation()) {
            host.told_revocation(peer, statement);
        }
        host.cut(peer, true, label, words);
    } else if !is_ordinary(&ended) {
        tracing::debug!(node = %host.node(), %peer, reason = %ended, "connection lost");
    }
}

/// Answers exchanges. An exchange without a free slot is shed: the peer retries. Every peer gets one slot before any
/// peer gets a second: the number of open exchanges determines how many more a peer may open.
async fn exchanges(context: &Context, link: &Arc<Link>) -> Ended {
    let (links, host) = (&context.links, context.host());
    let rate = Traffic::Exchange(host.config().quic.exchanges_per_peer);
    loop {
        let mut stream = match link.connection.accept().await {
            Ok(stream) => stream,
            Err(ended) => return ended,
        };
        let admitted = links.admits(link, rate);
        match permit(context, link).filter(|_| admitted) {
            Some(permit) => {
                let (links, link) = (Arc::clone(links), Arc::clone(link));
                context.spawner.spawn(async move {
                    exchange::answer(&links, &link, stream).await;
                    drop(permit);
                });
            }
            None => {
                host.count(Counter::ExchangesShed);
                stream.0.reset(STREAM_SHED);
                stream.1.stop(STREAM_SHED);
            }
        }
    }
}

/// Half of the slots are reserved for peers without an exchange in progress, on any connection. So a few peers that
/// open many exchanges and finish none do not keep out the others.
fn permit(context: &Context, link: &Link) -> Option<(OwnedSemaphorePermit, Arc<()>)> {
    let exchanges = context.links.exchanges();
    let reserved = context.host().config().quic.exchanges / 2;
    let (held, first) = link.share.answer();
    (first || exchanges.available_permits() > reserved)
        .then(|| Arc::clone(exchanges).try_acquire_owned().ok())
        .flatten()
        .map(|permit| (permit, held))
}

async fn datagrams(context: &Context, link: &Link) -> Ended {
    loop {
        match link.connection.receive_datagram().await {
            Ok(datagram) => {
                let input = PeeringInput::Datagram(link.id, datagram);
                context.links.handle(input);
            }
            Err(ended) => return ended,
        }
    }
}
