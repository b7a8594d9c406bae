//! Peers that dial this node.

use std::sync::Arc;

use super::{
    super::{clients::guest, services},
    context::Context,
    introduce::{self, Introduction},
    refused::{Remote, TIMEOUT, tell, too_late},
    serve,
    table::Links,
};
use crate::{
    lateness::TooLate,
    net::{Connection, Incoming, Protocol},
    protocol::{
        peering::PeeringInput,
        route::Counter,
        served::{ACCEPTOR_MAX, DIALER_MAX},
        timing::Timing,
    },
};

/// Accepts connections as long as the endpoint is open.
pub(crate) async fn accept(context: Context) {
    while let Some(incoming) = context.endpoint.accept().await {
        context.spawner.spawn(handshake(context.clone(), incoming));
    }
}

/// Runs a handshake from the first packet to the introduction, within one deadline.
async fn handshake(context: Context, incoming: Incoming) {
    let host = context.host();
    let Incoming { remote, host: source, handshake, place: _place } = incoming;
    let (mut reached, own) = (None, host.generation());
    let deadline = host.config().quic.handshake_timeout;
    host.count(Counter::HandshakesTaken);
    let begun = host.now();
    let introduced = async {
        // The peer has proved nothing yet, so that our lateness must not give it time.
        let proving = host.lateness().within(deadline, deadline * ACCEPTOR_MAX, handshake);
        let connection = match proving.await? {
            Ok(connection) => reached.insert(connection),
            Err(ended) => return Ok(Err(Introduction::Connection(ended))),
        };
        host.count(Counter::HandshakesAnswered);
        host.counters().took(Timing::HandshakeAccepted, host.now().since(begun));
        if connection.protocol() != Protocol::Gossip {
            return Ok(Ok(None));
        }
        Ok(introduce::accepting(&context.links, connection).await.map(Some))
    };
    let introduced = host.lateness().within(deadline, deadline * DIALER_MAX, introduced).await;
    match (introduced.flatten(), reached) {
        (Ok(Ok(None)), Some(connection)) if connection.protocol() == Protocol::Services => {
            let (host, services) = (host.clone(), Arc::clone(host.services()));
            context.spawner.spawn(services::serve::welcome(host, services, connection));
        }
        (Ok(Ok(None)), Some(connection)) => guest::welcome(&context, connection),
        (Ok(Ok(Some(met))), Some(connection)) => {
            host.count(Counter::ConnectionsAccepted);
            serve::adopt(&context, connection, met, own, false);
        }
        (Ok(Ok(_)), None) => {}
        (Ok(Err(error)), reached) => {
            host.count(Counter::HandshakesFailed);
            if let Some(connection) = reached.filter(|_| error.is_misbehaviour()) {
                offended(&context.links, connection.as_ref(), &error);
            }
            tell(host, Remote { peer: &source, shown: &remote }, &error);
        }
        (Err(TooLate), reached) => {
            host.count(Counter::HandshakesFailed);
            host.count(Counter::HandshakesAbandoned);
            match reached {
                Some(connection) => too_late(host, &remote, connection.as_ref()),
                None => host.counters().refuse(TIMEOUT),
            }
        }
    }
}

/// Penalizes a peer, which has proved its name before, if its first frame is not an introduction.
fn offended(links: &Links, connection: &dyn Connection, error: &Introduction) {
    if let Some(name) = &connection.peer().name {
        let offended = PeeringInput::Offended(name.node.clone(), error.to_string());
        links.handle(offended);
    }
}
