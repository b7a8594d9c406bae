//! Those whom we dial.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use quinn::{ClientConfig, Connection, Endpoint};
use tokio::sync::Notify;

use super::{
    Shared,
    accept::{tell, too_late},
    close::Close,
    expiry::Proof,
    introduce::{self, Introduction},
    serve,
    table::Link,
    tasks::Spawner,
};
use crate::{
    protocol::{
        id::NodeId,
        route::{Counter, Target},
        time::Time,
    },
    tls::{Expect, SERVER_NAME, Verdict},
    transport::{NodeLink, Unwelcome},
};

/// Addresses tried for one target, names resolved.
const ATTEMPTS_MAX: usize = 8;
/// How long a name may take to be resolved.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// A handshake is given so long before it is begun anew: until its first packet is repeated.
const HURRY_AFTER: Duration = Duration::from_secs(1);

/// What came of dialing: the connection, and who answered, if anybody did.
pub(super) struct Dialed {
    pub(super) link: Option<Arc<Link>>,
    pub(super) node: Option<NodeId>,
}

const NOBODY: Dialed = Dialed { link: None, node: None };

/// The connection to a target: the one there is, or a new one.
pub(super) async fn reach(
    shared: &Arc<Shared>,
    node: &NodeLink,
    spawner: &Spawner,
    target: &Target,
) -> Dialed {
    match target {
        Target::Peer(peer) => reach_peer(shared, node, spawner, peer).await,
        Target::Address(address) => {
            let addresses = [address.clone()];
            dial_any(shared, node, spawner, &addresses, None, None).await
        }
    }
}

async fn reach_peer(
    shared: &Arc<Shared>,
    node: &NodeLink,
    spawner: &Spawner,
    peer: &NodeId,
) -> Dialed {
    if let Some(link) = shared.table.fresh(node, peer) {
        return Dialed { node: Some(peer.clone()), link: Some(link) };
    }
    if shared.conduct.barred(peer, node.now()).is_some() {
        // It would be turned away, by us.
        return NOBODY;
    }
    let Some(claim) = shared.table.dialing(peer) else {
        shared.table.dialed(peer).await;
        let link = shared.table.link(peer);
        return Dialed { node: link.is_some().then(|| peer.clone()), link };
    };
    let (addresses, hurry) = (node.addresses(peer), Some(&*claim.hurry));
    let dialed = dial_any(shared, node, spawner, &addresses, Some(peer), hurry).await;
    match shared.table.link(peer) {
        // What has waited for long may yet be answered.
        Some(link) if dialed.link.is_none() => {
            Dialed { node: Some(peer.clone()), link: Some(link) }
        }
        _ => dialed,
    }
}

/// Dials a peer once more over which there is a connection already: either end has a new certificate.
pub(super) async fn renew(shared: Arc<Shared>, node: NodeLink, spawner: Spawner, link: Arc<Link>) {
    let (peer, address) = (link.node(), link.connection.remote_address());
    if let Some(_claim) = shared.table.dialing(peer) {
        dial(&shared, &node, &spawner, &address.to_string(), address, Some(peer)).await;
    }
}

/// Tries addresses in turn until somebody welcomes us.
async fn dial_any(
    shared: &Arc<Shared>,
    node: &NodeLink,
    spawner: &Spawner,
    addresses: &[String],
    wanted: Option<&NodeId>,
    hurry: Option<&Notify>,
) -> Dialed {
    let Ok(_permit) = shared.dials.acquire().await else { return NOBODY };
    // Waiting for the claim or the permit may have taken a while.
    if let Some(link) = wanted.and_then(|peer| shared.table.fresh(node, peer)) {
        return Dialed { node: Some(link.node().clone()), link: Some(link) };
    }
    let mut tried = 0;
    let mut answered = None;
    for address in addresses {
        for resolved in resolve(address).await {
            tried += 1;
            if tried > ATTEMPTS_MAX {
                return Dialed { link: None, node: answered };
            }
            // Whoever we dialed there answers there.
            let met = shared.table.dialed_at(node, resolved).filter(|_| wanted.is_none());
            if let Some(link) = met {
                return Dialed { node: Some(link.node().clone()), link: Some(link) };
            }
            let begun = node.now();
            let dialed = tokio::select! {
                biased;
                dialed = dial(shared, node, spawner, address, resolved, wanted) => dialed,
                () = told_to_hurry(node, hurry, begun) => {
                    dial(shared, node, spawner, address, resolved, wanted).await
                }
            };
            if dialed.link.is_some() {
                return dialed;
            }
            answered = answered.or(dialed.node);
        }
    }
    Dialed { link: None, node: answered }
}

/// Until a handshake that has waited for an answer for a while is better begun anew: QUIC sends the
/// first packet after 0, 1, 3 and 7 s, so one begun in an outage is late after it.
async fn told_to_hurry(node: &NodeLink, hurry: Option<&Notify>, begun: Time) {
    let Some(hurry) = hurry else { return std::future::pending().await };
    loop {
        hurry.notified().await;
        if node.now().since(begun) >= HURRY_AFTER {
            return;
        }
    }
}

async fn resolve(address: &str) -> Vec<SocketAddr> {
    let resolved = tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host(address)).await;
    match resolved {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => {
            tracing::debug!(address, %error, "cannot be resolved");
            Vec::new()
        }
        Err(_) => {
            tracing::debug!(address, "not resolved in time");
            Vec::new()
        }
    }
}

async fn dial(
    shared: &Arc<Shared>,
    node: &NodeLink,
    spawner: &Spawner,
    name: &str,
    address: SocketAddr,
    wanted: Option<&NodeId>,
) -> Dialed {
    let Some(endpoint) = endpoint_for(shared, address) else {
        node.count(Counter::DialsFailed);
        tracing::debug!(node = %node.node(), %address, "we listen on no address of that family");
        return NOBODY;
    };
    let (crypto, verdict) = shared.tls.dial(match wanted {
        Some(peer) => Expect::Node(peer.clone()),
        None => Expect::AnyNode,
    });
    let mut client = ClientConfig::new(crypto);
    client.transport_config(Arc::clone(&shared.dialing));
    let remote = remote(name, address);
    let (mut reached, own, shown) = (None, node.generation(), shared.tls.identity());
    tracing::debug!(node = %node.node(), remote, "dialing");
    let introduced = async {
        let connecting = endpoint
            .connect_with(client, address, SERVER_NAME)
            .map_err(|error| Failure::Unreachable(error.to_string()))?;
        let connection = connecting.await.map_err(Introduction::Connection)?;
        reached = Some(connection.clone());
        let met = introduce::dialing(node, &connection, wanted, shared).await?;
        Ok::<_, Failure>((connection, met))
    };
    let deadline = node.config().quic.handshake_timeout;
    match tokio::time::timeout(deadline, introduced).await {
        Ok(Ok((connection, met))) => {
            node.count(Counter::ConnectionsDialed);
            let who = Some(met.node.clone());
            // A handshake that went through has shown a certificate.
            let Some(proof) = Proof::new(&shared.tls, &shown, &connection) else { return NOBODY };
            let share = node.share(&met.node);
            let limits = (shared.room.for_peer(&share), share, Arc::clone(&shared.conduct));
            let link = Link::new(node, connection, met, own, true, limits, proof);
            let link = serve::adopt(shared, node, spawner, link);
            Dialed { link, node: who }
        }
        Ok(Err(failure)) => match reached.and_then(|ended| replaced(shared, &ended)) {
            Some(dialed) => dialed,
            None => failed(node, &remote, &failure, &verdict),
        },
        Err(_) => {
            node.count(Counter::DialsFailed);
            tracing::debug!(node = %node.node(), remote, "no answer in time");
            if let Some(connection) = reached {
                too_late(node, &remote, &connection);
            }
            NOBODY
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Unreachable(String),
    #[error("{0}")]
    Introduction(#[from] Introduction),
}

/// The peer has closed the connection in favour of the one that it dialed at the same time: its
/// welcome may not have arrived, and yet it answers here.
fn replaced(shared: &Shared, ended: &Connection) -> Option<Dialed> {
    let reason = ended.close_reason()?;
    if !Close::Duplicate.is_told(&reason) {
        return None;
    }
    let peer = shared.tls.peer_name(ended).ok()?.node;
    Some(Dialed { link: shared.table.link(&peer), node: Some(peer) })
}

/// The address as it was given, and what it was resolved to.
fn remote(name: &str, address: SocketAddr) -> String {
    let shown = address.to_string();
    if name == shown { shown } else { format!("{name} ({shown})") }
}

fn failed(node: &NodeLink, remote: &str, failure: &Failure, verdict: &Verdict) -> Dialed {
    match failure {
        // Our own address among the seeds is no fault.
        Failure::Introduction(Introduction::Unwelcome(Unwelcome::Ourselves)) => {
            Dialed { link: None, node: Some(node.node().clone()) }
        }
        Failure::Introduction(introduction) => {
            node.count(Counter::DialsFailed);
            tell(node, remote, introduction, verdict);
            NOBODY
        }
        Failure::Unreachable(reason) => {
            node.count(Counter::DialsFailed);
            tracing::debug!(node = %node.node(), remote, reason, "cannot be dialed");
            NOBODY
        }
    }
}

/// An endpoint of the address's family.
fn endpoint_for(shared: &Shared, address: SocketAddr) -> Option<Endpoint> {
    let mut endpoints = shared.endpoints.iter();
    let found = endpoints.find(|(_, socket)| socket.address().is_ipv4() == address.is_ipv4());
    found.map(|(endpoint, _)| endpoint.clone())
}
