//! One connection after its introduction: its exchanges, its heartbeats, its end.

use std::{sync::Arc, time::Duration};

use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Shared,
    close::Close,
    frames::StreamFrames,
    table::{Link, Registered},
    tasks::Spawner,
};
use crate::{
    actors::clock::Clock,
    protocol::{
        message::Heartbeat,
        route::{Counter, Sign},
    },
    tls,
    transport::{Met, NodeLink, exchange::answer},
};

/// Datagrams that are no heartbeats until a peer is cut off.
const MALFORMED_MAX: u32 = 16;
/// A certificate's end is looked for at least so often, since the wall clock may be set.
const EXPIRY_LOOK: Duration = Duration::from_secs(600);

/// Takes a connection that has just been introduced; gives the one to be used for its peer.
pub(super) fn adopt(
    shared: &Arc<Shared>,
    node: &NodeLink,
    spawner: &Spawner,
    connection: Connection,
    met: Met,
    dialed: bool,
) -> Option<Link> {
    let link = Link::new(connection, met, dialed);
    match shared.table.register(node.node(), link) {
        Registered::Kept(link) => {
            let met = link.met();
            node.heard(&met.node, met.generation, Sign::Traffic, node.now());
            spawner.spawn(serve(Arc::clone(shared), node.clone(), spawner.clone(), link.clone()));
            Some(link)
        }
        Registered::Duplicate(link) => Some(link),
        Registered::Stale => None,
    }
}

/// Serves a connection until it ends.
pub(super) async fn serve(shared: Arc<Shared>, node: NodeLink, spawner: Spawner, link: Link) {
    let reason = tokio::select! {
        reason = streams(&shared, &node, &spawner, &link) => reason,
        reason = heartbeats(&node, &link) => reason,
        reason = expiry(&link.connection) => reason,
    };
    shared.table.remove(&link);
    let peer = link.met().node;
    if let Some((label, words)) = Close::told(&reason) {
        node.refused(&peer, label, words);
    } else if !Close::is_ordinary(&reason) {
        tracing::debug!(node = %node.node(), %peer, %reason, "connection lost");
    }
}

/// Answers exchanges. One that finds no room is shed: the peer comes again.
async fn streams(
    shared: &Arc<Shared>,
    node: &NodeLink,
    spawner: &Spawner,
    link: &Link,
) -> quinn::ConnectionError {
    loop {
        let stream = match link.connection.accept_bi().await {
            Ok(stream) => stream,
            Err(reason) => return reason,
        };
        match Arc::clone(&shared.exchanges).try_acquire_owned() {
            Ok(permit) => {
                let (shared, node, link) = (Arc::clone(shared), node.clone(), link.clone());
                spawner.spawn(answer_one(shared, node, link, stream, permit));
            }
            // Dropping the stream resets it.
            Err(_) => node.count(Counter::ExchangesShed),
        }
    }
}

async fn answer_one(
    shared: Arc<Shared>,
    node: NodeLink,
    link: Link,
    stream: (SendStream, RecvStream),
    _permit: OwnedSemaphorePermit,
) {
    let mut frames = StreamFrames::new(stream, &shared.room, &node);
    match answer(&node, &link.met(), &mut frames).await {
        Ok(()) => {
            frames.finish();
            node.count(Counter::ExchangesAnswered);
        }
        Err(error) => {
            node.count(Counter::ExchangesFailed);
            if error.is_misbehaviour() {
                let peer = link.met().node;
                node.refused(&peer, "misbehaviour", format!("cut off: {error}"));
                Close::Misbehaviour.connection(&link.connection, &error.to_string());
            }
        }
    }
}

async fn heartbeats(node: &NodeLink, link: &Link) -> quinn::ConnectionError {
    let mut malformed = 0;
    loop {
        let datagram = match link.connection.read_datagram().await {
            Ok(datagram) => datagram,
            Err(reason) => return reason,
        };
        let at = node.now();
        let Ok(heartbeat) = Heartbeat::decode(&datagram) else {
            node.count(Counter::FramesMalformed);
            malformed += 1;
            if malformed >= MALFORMED_MAX {
                let peer = link.met().node;
                node.refused(&peer, "misbehaviour", "cut off: its datagrams are no heartbeats");
                Close::Misbehaviour
                    .connection(&link.connection, "datagrams that are no heartbeats");
            }
            continue;
        };
        node.count(Counter::HeartbeatsReceived);
        link.raise(heartbeat.generation);
        node.heard(&link.met().node, heartbeat.generation, Sign::Heartbeat, at);
    }
}

/// A connection survives the end of its certificate, so we end it.
async fn expiry(connection: &Connection) -> quinn::ConnectionError {
    loop {
        let left = tls::peer_certificate(connection)
            .ok()
            .and_then(|certificate| certificate.expires_in(Clock::wall()));
        match left {
            Some(left) => tokio::time::sleep(left.min(EXPIRY_LOOK)).await,
            None => {
                Close::Expired.connection(connection, "your certificate has expired: renew it");
                return connection.closed().await;
            }
        }
    }
}
