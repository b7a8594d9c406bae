//! Those who dial us.

use std::sync::Arc;

use quinn::{Connection, ConnectionError, Incoming};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Shared,
    admission::Admission,
    clients,
    close::Close,
    expiry::Proof,
    introduce::{self, Introduction},
    serve,
    table::Link,
    tasks::Spawner,
};
use crate::{
    protocol::{id::NodeId, route::Counter},
    tls::{RefusedBy, Rejection, Verdict},
    transport::{NodeLink, exchange::FrameError, quic::peer},
};

/// The label of a handshake that took too long.
const TIMEOUT: &str = "timeout";

/// Accepts on one endpoint for as long as it is open.
pub(super) async fn accept(
    shared: Arc<Shared>,
    node: NodeLink,
    spawner: Spawner,
    endpoint: quinn::Endpoint,
) {
    let mut admission = Admission::new(node.config().quic, Arc::clone(&shared.handshakes));
    while let Some(incoming) = endpoint.accept().await {
        let admitted = admission.admit(incoming, shared.connections(), &node);
        if let Some((incoming, permit)) = admitted {
            let (shared, node, own) = (Arc::clone(&shared), node.clone(), spawner.clone());
            spawner.spawn(handshake(shared, node, own, incoming, permit));
        }
    }
}

/// From the first packet to the introduction, within one deadline.
async fn handshake(
    shared: Arc<Shared>,
    node: NodeLink,
    spawner: Spawner,
    incoming: Incoming,
    _permit: OwnedSemaphorePermit,
) {
    let remote = incoming.remote_address();
    let (crypto, verdict) = if shared.clients.are_served() {
        shared.tls.accept_with_clients()
    } else {
        shared.tls.accept()
    };
    let mut server = shared.server.clone();
    server.crypto = crypto;
    let (mut reached, own, shown) = (None, node.generation(), shared.tls.identity());
    let introduced = async {
        let connecting =
            incoming.accept_with(Arc::new(server)).map_err(Introduction::Connection)?;
        let connection = connecting.await.map_err(Introduction::Connection)?;
        reached = Some(connection.clone());
        if clients::is_client(&connection) {
            return Ok((connection, None));
        }
        let met = introduce::accepting(&node, &connection, &shared).await?;
        Ok::<_, Introduction>((connection, Some(met)))
    };
    let deadline = node.config().quic.handshake_timeout;
    match tokio::time::timeout(deadline, introduced).await {
        Ok(Ok((connection, None))) => clients::welcome(&shared, &node, &spawner, connection),
        Ok(Ok((connection, Some(met)))) => {
            node.count(Counter::ConnectionsAccepted);
            // A handshake that went through has shown a certificate.
            let Some(proof) = Proof::new(&shared.tls, &shown, &connection) else { return };
            let share = node.share(&met.node);
            let limits = (shared.room.for_peer(&share), share, Arc::clone(&shared.conduct));
            let link = Link::new(&node, connection, met, own, false, limits, proof);
            serve::adopt(&shared, &node, &spawner, link);
        }
        Ok(Err(error)) => {
            node.count(Counter::HandshakesFailed);
            if let Some(connection) = reached.filter(|_| error.is_misbehaviour()) {
                offended(&shared, &node, &connection, &error);
            }
            let (peer, remote) = (remote.ip().to_string(), remote.to_string());
            tell(&node, Remote { peer: &peer, shown: &remote }, &error, &verdict);
        }
        Err(_) => {
            node.count(Counter::HandshakesFailed);
            match reached {
                Some(connection) => too_late(&node, &remote.to_string(), &connection),
                None => node.counters().refuse(TIMEOUT),
            }
        }
    }
}

/// Holds first words that are none against the one who has proved its name before.
fn offended(shared: &Shared, node: &NodeLink, connection: &Connection, error: &Introduction) {
    let Ok(name) = shared.tls.peer_name(connection) else { return };
    shared.conduct.bar(&name.node, node.now(), node.config().quic.bar, &error.to_string());
    node.cut_off(&name.node, &error.to_string());
}

/// Ends a connection whose peer has proved who it is, and then said nothing.
pub(super) fn too_late(node: &NodeLink, remote: &str, connection: &Connection) {
    Close::Timeout.connection(connection, "no introduction in time");
    let name =
        peer::peer_name(connection).map_or_else(|_| "it".to_owned(), |name| name.to_string());
    let reason = format!("{name} did not introduce itself in time; it hangs or is overloaded");
    node.refused(remote, TIMEOUT, reason);
}

/// The other end of a connection that has failed.
#[derive(Clone, Copy)]
pub(super) struct Remote<'a> {
    /// What is the same when it comes again: of one that has dialed, not its port.
    pub(super) peer: &'a str,
    /// For people.
    pub(super) shown: &'a str,
}

/// Counts why somebody is not connected, and tells the operator what he can do something about.
pub(super) fn tell(node: &NodeLink, remote: Remote<'_>, error: &Introduction, verdict: &Verdict) {
    let refused = |label, reason: &dyn std::fmt::Display| {
        node.refused_of(remote.peer, remote.shown.to_owned(), label, reason);
    };
    match error {
        Introduction::Unwelcome(crate::transport::Unwelcome::Ourselves) => {}
        Introduction::Unwelcome(unwelcome) => refused(unwelcome.as_str(), unwelcome),
        Introduction::Connection(reason) => tell_unproved(node, remote, reason, verdict),
        Introduction::Ended { by, reason } => tell_reason(node, remote, by, reason, verdict),
        Introduction::Frame(FrameError::Stalled) => refused(TIMEOUT, error),
        Introduction::Barred { .. } => refused("barred", error),
        Introduction::Client(_) => refused(Rejection::ClientCertificate.as_str(), error),
        Introduction::NoHello => {
            node.count(Counter::FramesRefused);
            refused("misbehaviour", error);
        }
        Introduction::Frame(_) | Introduction::Name(_) => refused("misbehaviour", error),
    }
}

/// Of somebody who has proved no name only our own verifier's word is told; what it says itself is
/// counted.
fn tell_unproved(node: &NodeLink, remote: Remote<'_>, reason: &ConnectionError, verdict: &Verdict) {
    match verdict.refusal(reason) {
        Some(refusal) if refusal.by == RefusedBy::Us => {
            node.refused_of(remote.peer, remote.shown.to_owned(), refusal.reason.as_str(), refusal);
        }
        None if Close::is_our_end(reason) => {
            tracing::debug!(node = %node.node(), remote = remote.shown, %reason, "no connection");
        }
        _ => {
            node.unproved();
            tracing::debug!(node = %node.node(), remote = remote.shown, "ended by somebody who has proved no name");
        }
    }
}

/// What a node that has proved its name says.
fn tell_reason(
    node: &NodeLink,
    remote: Remote<'_>,
    by: &NodeId,
    reason: &ConnectionError,
    verdict: &Verdict,
) {
    let Remote { peer, shown } = remote;
    if let Some(generation) = Close::later_life(reason) {
        node.told_of_self(by, generation);
    } else if let Some(refusal) = verdict.refusal(reason) {
        node.refused_of(peer, shown.to_owned(), refusal.reason.as_str(), refusal);
    } else if let Some((label, words)) = Close::told(reason) {
        node.refused_of(peer, shown.to_owned(), label, words);
    } else if !Close::is_ordinary(reason) {
        tracing::debug!(node = %node.node(), remote = shown, %reason, "no connection");
    }
}
