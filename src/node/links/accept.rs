//! Peers that dial this node.

use super::{
    super::{clients, host::Host},
    Context, close_with,
    frames::FrameError,
    introduce::{self, Introduction, closed, is_ordinary, rejection},
    serve,
};
use crate::{
    net::{Connection, Ended, Incoming, Protocol},
    protocol::{
        close::Close, id::NodeId, peering::PeeringInput, route::Counter, session::Unwelcome,
    },
    tls::{RefusedBy, Rejection},
};

/// The label of a handshake that took too long.
const TIMEOUT: &str = "timeout";

/// Accepts connections as long as the endpoint is open.
pub(crate) async fn accept(context: Context) {
    while let Some(incoming) = context.endpoint.accept().await {
        context.spawner.spawn(handshake(context.clone(), incoming));
    }
}

/// Runs a handshake from the first packet to the introduction, within one deadline.
async fn handshake(context: Context, incoming: Incoming) {
    let host = &context.host;
    let Incoming { remote, host: source, handshake, place: _place } = incoming;
    let (mut reached, own) = (None, host.generation());
    let introduced = async {
        let connection = handshake.await.map_err(Introduction::Connection)?;
        let connection = reached.insert(connection);
        if connection.protocol() == Protocol::Clients {
            return Ok(None);
        }
        introduce::accepting(host, connection).await.map(Some)
    };
    let deadline = host.config().quic.handshake_timeout;
    let introduced = tokio::time::timeout(deadline, introduced).await;
    match (introduced, reached) {
        (Ok(Ok(None)), Some(connection)) => clients::welcome(&context, connection),
        (Ok(Ok(Some(met))), Some(connection)) => {
            host.count(Counter::ConnectionsAccepted);
            serve::adopt(&context, connection, met, own, false);
        }
        (Ok(Ok(_)), None) => {}
        (Ok(Err(error)), reached) => {
            host.count(Counter::HandshakesFailed);
            if let Some(connection) = reached.filter(|_| error.is_misbehaviour()) {
                offended(host, connection.as_ref(), &error);
            }
            tell(host, Remote { peer: &source, shown: &remote }, &error);
        }
        (Err(_), reached) => {
            host.count(Counter::HandshakesFailed);
            match reached {
                Some(connection) => too_late(host, &remote, connection.as_ref()),
                None => host.counters().refuse(TIMEOUT),
            }
        }
    }
}

/// Penalizes a peer, which has proved its name before, if its first frame is not an introduction.
fn offended(host: &Host, connection: &dyn Connection, error: &Introduction) {
    if let Some(name) = &connection.peer().name {
        let offended = PeeringInput::Offended(name.node.clone(), error.to_string());
        host.links().handle(host, offended);
    }
}

/// Ends a connection whose peer has proved its name, and then sent nothing.
pub(super) fn too_late(host: &Host, remote: &str, connection: &dyn Connection) {
    close_with(connection, Close::Timeout, "no introduction in time");
    let name = &connection.peer().name;
    let name = name.as_ref().map_or_else(|| "it".to_owned(), ToString::to_string);
    let reason = format!("{name} did not introduce itself in time; it hangs or is overloaded");
    host.refused(remote, TIMEOUT, reason);
}

/// The remote end of a failed connection.
#[derive(Clone, Copy)]
pub(super) struct Remote<'a> {
    /// The part that stays the same when it retries: for a peer that has dialed, the address without its port.
    pub(super) peer: &'a str,
    /// For log lines.
    pub(super) shown: &'a str,
}

/// Counts why a peer is not connected, and reports to the operator the causes that he can remove.
pub(super) fn tell(host: &Host, remote: Remote<'_>, error: &Introduction) {
    let refused = |label, reason: &dyn std::fmt::Display| {
        host.refused_of(remote.peer, remote.shown.to_owned(), label, reason);
    };
    match error {
        Introduction::Unwelcome(Unwelcome::Ourselves) => {}
        Introduction::Unwelcome(unwelcome) => refused(unwelcome.as_str(), unwelcome),
        Introduction::Connection(ended) => tell_unproved(host, remote, ended),
        Introduction::Ended { by, reason } => tell_reason(host, remote, by, reason),
        Introduction::Frame(FrameError::Stalled) => refused(TIMEOUT, error),
        Introduction::Barred { .. } => refused("barred", error),
        Introduction::Client(_) => refused(Rejection::ClientCertificate.as_str(), error),
        Introduction::NoHello => {
            host.count(Counter::FramesRefused);
            refused("misbehaviour", error);
        }
        Introduction::Frame(_) | Introduction::Nameless => refused("misbehaviour", error),
    }
}

/// For a peer without a proved name only our own verifier's reason is reported; the peer's own words are only counted.
fn tell_unproved(host: &Host, remote: Remote<'_>, ended: &Ended) {
    match ended.refusal() {
        Some(refusal) if refusal.by == RefusedBy::Us => {
            host.refused_of(remote.peer, remote.shown.to_owned(), refusal.reason.as_str(), refusal);
        }
        None if ended.is_our_end() => {
            tracing::debug!(node = %host.node(), remote = remote.shown, reason = %ended, "no connection");
        }
        _ => {
            host.unproved();
            tracing::debug!(node = %host.node(), remote = remote.shown, "ended by somebody who has proved no name");
        }
    }
}

/// Reports the reason of a node that has proved its name.
fn tell_reason(host: &Host, remote: Remote<'_>, by: &NodeId, ended: &Ended) {
    let Remote { peer, shown } = remote;
    if let Some(generation) = closed(ended).and_then(|closed| closed.later_generation()) {
        host.told_of_self(by, generation);
    } else if let Some(refusal) = ended.refusal() {
        host.refused_of(peer, shown.to_owned(), refusal.reason.as_str(), refusal);
    } else if let Some((label, words)) = rejection(ended) {
        host.refused_of(peer, shown.to_owned(), label, words);
    } else if !is_ordinary(ended) {
        tracing::debug!(node = %host.node(), remote = shown, reason = %ended, "no connection");
    }
}
