//! One connection after its introduction: its exchanges, its heartbeats, its end.

use std::{sync::Arc, time::Duration};

use quinn::{RecvStream, SendStream};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Shared,
    close::{Close, STREAM_SHED},
    expiry,
    frames::StreamFrames,
    gossip,
    table::{Link, REPLACED, Registered},
    tasks::Spawner,
};
use crate::{
    clock::Clock,
    protocol::{
        message::{Call, Heartbeat},
        route::{Counter, Sign},
    },
    transport::{
        NodeLink,
        exchange::answer,
        share::{Share, Traffic},
    },
};

/// Datagrams that are no heartbeats until a peer is cut off.
const MALFORMED_MAX: u32 = 16;
/// What is on its way on a connection that was replaced has so long to arrive.
const REPLACED_GRACE: Duration = Duration::from_secs(2);

/// Takes a connection that has just been introduced; gives the one to be used for its peer.
pub(super) fn adopt(
    shared: &Arc<Shared>,
    node: &NodeLink,
    spawner: &Spawner,
    link: Link,
) -> Option<Arc<Link>> {
    let kept = match shared.table.register(node, link) {
        Registered::Kept(link) => link,
        Registered::Renewed(link, old) => {
            spawner.spawn(retire(node.config().quic.exchange_timeout, old));
            link
        }
        Registered::Duplicate(link) => return Some(link),
        Registered::Stale | Registered::Ended => return None,
    };
    // It may have been revoked while it introduced itself.
    if kept.close_if_revoked(node, &shared.tls, &node.revocations()) {
        shared.table.remove(node, &kept);
        return None;
    }
    let (met, link) = (kept.met(), Arc::clone(&kept));
    node.heard(&met.node, met.generation, Sign::Traffic, node.now());
    spawner.spawn(serve(Arc::clone(shared), node.clone(), spawner.clone(), link));
    Some(kept)
}

/// Closes a connection that another one has taken the place of, once what is on its way has arrived.
async fn retire(patience: Duration, link: Arc<Link>) {
    let _ = tokio::time::timeout(patience, link.idle()).await;
    tokio::time::sleep(REPLACED_GRACE).await;
    Close::Duplicate.connection(&link.connection, REPLACED);
}

/// Serves a connection until it ends.
pub(super) async fn serve(shared: Arc<Shared>, node: NodeLink, spawner: Spawner, link: Arc<Link>) {
    let reason = tokio::select! {
        reason = streams(&shared, &node, &spawner, &link) => reason,
        reason = gossip::hear(&node, &link) => reason,
        reason = gossip::tell(&node, &link) => reason,
        reason = heartbeats(&node, &link) => reason,
        reason = expiry::watch(&shared, &node, &spawner, &link) => reason,
    };
    shared.table.remove(&node, &link);
    let peer = link.node();
    if let Some(generation) = Close::later_life(&reason) {
        node.told_of_self(peer, generation);
    } else if let Some((label, words)) = Close::told(&reason) {
        if let Some(statement) = Close::revocation(&reason) {
            node.told_revocation(peer, statement);
        }
        node.cut(peer, true, label, words);
    } else if !Close::is_ordinary(&reason) {
        tracing::debug!(node = %node.node(), %peer, %reason, "connection lost");
    }
}

/// Answers exchanges. One that finds no room is shed: the peer comes again. A peer has one in any
/// case before another has its second: what is open already says how many it may open.
async fn streams(
    shared: &Arc<Shared>,
    node: &NodeLink,
    spawner: &Spawner,
    link: &Arc<Link>,
) -> quinn::ConnectionError {
    let rate = Traffic::Exchange(node.config().quic.exchanges_per_peer);
    loop {
        let mut stream = match link.connection.accept_bi().await {
            Ok(stream) => stream,
            Err(reason) => return reason,
        };
        let pays = link.share.pays(node.now(), rate);
        if !pays {
            link.throttle(node, "more exchanges than it may begin in a second");
        }
        match permit(shared, node, &link.share).filter(|_| pays) {
            Some(permit) => {
                let (node, link) = (node.clone(), Arc::clone(link));
                spawner.spawn(async move {
                    answer_one(node, link, stream).await;
                    drop(permit);
                });
            }
            None => {
                node.count(Counter::ExchangesShed);
                let _ = stream.0.reset(STREAM_SHED);
                let _ = stream.1.stop(STREAM_SHED);
            }
        }
    }
}

/// Half of the room is for peers that have no exchange under way, on whatever connection, so that a few
/// who open many and finish none do not keep out the others.
fn permit(
    shared: &Shared,
    node: &NodeLink,
    share: &Share,
) -> Option<(OwnedSemaphorePermit, Arc<()>)> {
    let reserved = node.config().quic.exchanges / 2;
    let (held, first) = share.answer();
    (first || shared.exchanges.available_permits() > reserved)
        .then(|| Arc::clone(&shared.exchanges).try_acquire_owned().ok())
        .flatten()
        .map(|permit| (permit, held))
}

async fn answer_one(node: NodeLink, link: Arc<Link>, stream: (SendStream, RecvStream)) {
    let _underway = link.begin();
    let mut frames = StreamFrames::new(stream, &link, &node);
    match answer(&node, &link.met(), &mut frames).await {
        Ok(()) => {
            frames.finish();
            node.count(Counter::ExchangesAnswered);
        }
        Err(error) => {
            node.count(Counter::ExchangesFailed);
            frames.abort();
            if error.is_misbehaviour() {
                link.cut_off(&node, &error);
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
        if !link.share.pays(at, Traffic::Heartbeat) {
            node.count(Counter::FramesRefused);
            link.throttle(node, "more heartbeats than 500 a second");
            continue;
        }
        let Ok(heartbeat) = Heartbeat::decode(&datagram) else {
            node.count(Counter::FramesMalformed);
            malformed += 1;
            if malformed >= MALFORMED_MAX {
                link.cut_off(node, &"datagrams that are no heartbeats");
                return link.connection.closed().await;
            }
            continue;
        };
        // Believed, it would outlive its sender: whoever has the name later would count as an
        // earlier life.
        if heartbeat.generation.is_absurd(Clock::wall()) {
            node.count(Counter::FramesRefused);
            continue;
        }
        node.count(Counter::HeartbeatsReceived);
        if link.takes_health(heartbeat.health) {
            node.told_health(link.node(), heartbeat.health);
        }
        let later = link.raise(heartbeat.generation);
        match heartbeat.call {
            // Those who look at the connections find it: no actor is woken for it.
            Call::Beat => link.beaten(at),
            Call::Probe => {
                link.beaten(at);
                let echo = Heartbeat {
                    generation: node.generation(),
                    call: Call::Echo,
                    health: 0,
                    ..heartbeat
                };
                let _ = link.connection.send_datagram(echo.encode().into());
            }
            Call::Echo => {
                let sign = Sign::Echo(heartbeat.sequence);
                node.heard(link.node(), heartbeat.generation, sign, at);
            }
        }
        if later {
            node.heard(link.node(), heartbeat.generation, Sign::Traffic, at);
        }
    }
}
