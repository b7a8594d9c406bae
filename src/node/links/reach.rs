//! Dials peers.

use std::sync::Arc;

use tokio::sync::Notify;

use super::{
    super::host::{Host, UNPROVED},
    closing::{closed, rejection},
    context::Context,
    introduce::{self, Introduction},
    link::Link,
    refused::{Remote, tell, too_late},
    serve,
};
use crate::{
    dials::DialFailure,
    lateness::TooLate,
    net::{BoxFuture, Connection, Dial, Dialed as Next, Ended, Protocol, Way},
    protocol::{
        close::Close,
        id::{Generation, NodeId},
        peering::HURRY_AFTER,
        route::{Counter, Target},
        served::DIALER_MAX,
        session::Unwelcome,
        time::Time,
    },
    tls::{RefusedBy, Rejection},
};

/// The peer refuses to communicate.
const OTHER_VERSION: &str = "somebody there, who has proved no name, ended the handshake and says \
     that it has no version of the protocol in common with us; if it is a node of this cluster, bring both to \
     neighbouring releases";

/// The result of dialing: the connection, and the node that answered, if one did.
pub(super) struct Dialed {
    pub(super) link: Option<Arc<Link>>,
    pub(super) node: Option<NodeId>,
    /// There is no connection, only because the target is too busy for a handshake.
    pub(super) busy: bool,
}

const NOBODY: Dialed = Dialed { link: None, node: None, busy: false };

impl Dialed {
    fn to(link: Arc<Link>) -> Self {
        Self { node: Some(link.peer.clone()), link: Some(link), busy: false }
    }
}

/// Connects to a peer; the result is reported in every case.
pub(crate) fn dial(context: &Context, peer: NodeId) {
    let own = context.clone();
    context.spawner.spawn(async move {
        let dialed = reach(&own, &Target::Peer(peer.clone())).await;
        if dialed.busy {
            own.host().dial_busy(&peer);
        } else if dialed.link.is_none() {
            own.host().dial_failed(&peer);
        }
    });
}

/// Other nodes report that a peer is alive. A handshake or a connection that waited while the peer was considered
/// dead may wait as long again: QUIC doubles its timeouts, and sends nothing new while its window is full of lost
/// packets. So the handshake is started over, or another connection is dialed in place of a `stale` one.
pub(crate) fn hurry(context: &Context, peer: NodeId, stale: bool) {
    if context.links.claims().hurry(&peer) || !stale {
        return;
    }
    context.host().count(Counter::ConnectionsRenewed);
    tracing::debug!(node = %context.host().node(), %peer, "silent connection to a peer that lives");
    let own = context.clone();
    // The silent one stays until a new one is open.
    context.spawner.spawn(async move { drop(reach(&own, &Target::Peer(peer)).await) });
}

/// The connection to a target: the open one, or a new one.
pub(super) async fn reach(context: &Context, target: &Target) -> Dialed {
    match target {
        Target::Peer(peer) => reach_peer(context, peer).await,
        Target::Address(address) => {
            dial_any(context, std::slice::from_ref(address), None, None).await
        }
    }
}

async fn reach_peer(context: &Context, peer: &NodeId) -> Dialed {
    let (links, host) = (&context.links, context.host());
    if let Some(link) = links.fresh(peer) {
        return Dialed::to(link);
    }
    if links.barred(peer).is_some() {
        // We would refuse it.
        return NOBODY;
    }
    let Some(claim) = links.claims().claim(peer) else {
        links.claims().released(peer).await;
        return links.link(peer).map_or(NOBODY, Dialed::to);
    };
    let (addresses, hurry) = (host.addresses(peer), Some(&*claim.hurry));
    let dialed = dial_any(context, &addresses, Some(peer), hurry).await;
    match links.link(peer) {
        // A connection that has been silent for long may still answer.
        Some(link) if dialed.link.is_none() => Dialed::to(link),
        _ => dialed,
    }
}

/// Dials a connected peer once more: either end has a new certificate.
pub(crate) fn renew(context: Context, link: Arc<Link>) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let address = link.connection.remote();
        if let Some(_claim) = context.links.claims().claim(&link.peer) {
            race(&context, &[address], Some(&link.peer), None).await;
        }
    })
}

/// Tries addresses until a node accepts us.
async fn dial_any(
    context: &Context,
    addresses: &[String],
    wanted: Option<&NodeId>,
    hurry: Option<&Notify>,
) -> Dialed {
    let links = &context.links;
    let Ok(_permit) = links.claims().permit().await else { return NOBODY };
    // The wait for the claim or the permit may have been long.
    if let Some(link) = wanted.and_then(|peer| links.fresh(peer)) {
        return Dialed::to(link);
    }
    race(context, addresses, wanted, hurry).await
}

/// Dials the addresses over all paths, and keeps the reasons of failures.
async fn race(
    context: &Context,
    addresses: &[String],
    wanted: Option<&NodeId>,
    hurry: Option<&Notify>,
) -> Dialed {
    let host = context.host();
    let mut race = Race {
        context,
        addresses,
        unheard_of: !host.has_dial_failures(addresses),
        wanted,
        own: host.generation(),
        dial: context.endpoint.dial(addresses, wanted, Protocol::Gossip),
        failures: Vec::new(),
        answered: None,
        busy: false,
    };
    let dialed = race.run(hurry).await;
    let failures = if dialed.link.is_some() { Vec::new() } else { race.failures };
    host.note_dials(addresses, failures);
    dialed
}

/// One target, and what is known of the paths to it.
struct Race<'a> {
    context: &'a Context,
    addresses: &'a [String],
    /// No failure of an earlier attempt is kept.
    unheard_of: bool,
    wanted: Option<&'a NodeId>,
    /// The generation of this node at the start.
    own: Generation,
    dial: Box<dyn Dial>,
    failures: Vec<DialFailure>,
    /// The node that has answered.
    answered: Option<NodeId>,
    /// A path ended because the target is too busy.
    busy: bool,
}

impl Race<'_> {
    async fn run(&mut self, mut hurry: Option<&Notify>) -> Dialed {
        loop {
            let begun = self.begun();
            let next = tokio::select! {
                biased;
                next = self.dial.next() => next,
                () = told_to_hurry(self.context.host(), hurry, begun) => {
                    hurry = None;
                    self.dial.again(None);
                    continue;
                }
            };
            let Some(next) = next else {
                let busy = self.busy && self.answered.is_none();
                return Dialed { link: None, node: self.answered.take(), busy };
            };
            let dialed = match next {
                Next::About(way) => self.known(&way),
                Next::Reached(way, connection) => self.introduce(way, connection, &mut hurry).await,
                Next::Refused(way, ended @ Ended::Busy) => {
                    self.busy = true;
                    self.dial.answered(&way);
                    self.fails(&way, ended.to_string());
                    None
                }
                Next::Refused(way, ended) => {
                    self.failed(&way, &Introduction::Connection(ended), None)
                }
                Next::Failed(way, reason) => {
                    self.context.host().count(Counter::DialsFailed);
                    self.fails(&way, reason);
                    None
                }
                Next::Untried(way, reason) => {
                    self.fails(&way, reason);
                    None
                }
            };
            if let Some(dialed) = dialed {
                return dialed;
            }
        }
    }

    /// When the last handshake was begun.
    fn begun(&self) -> Time {
        let now = self.context.host().now();
        Time::from_origin(now.since_origin().saturating_sub(self.dial.since_last()))
    }

    /// The node that answers there, if this node has dialed it there before.
    fn known(&self, way: &Way) -> Option<Dialed> {
        let link = self.context.links.dialed_at(&way.remote()).filter(|_| self.wanted.is_none())?;
        Some(Dialed::to(link))
    }

    /// Introduces this node after a completed handshake.
    async fn introduce(
        &mut self,
        way: Way,
        connection: Arc<dyn Connection>,
        hurry: &mut Option<&Notify>,
    ) -> Option<Dialed> {
        let host = self.context.host();
        let (patience, lateness) = (host.config().quic.handshake_timeout, host.lateness());
        let begun = self.begun();
        let introduction = introduce::dialing(&self.context.links, &connection, self.wanted);
        let introduced = tokio::select! {
            biased;
            introduced = lateness.within(patience, patience * DIALER_MAX, introduction) => introduced,
            () = told_to_hurry(host, *hurry, begun) => {
                *hurry = None;
                self.dial.again(Some(&way));
                return None;
            }
        };
        match introduced {
            Ok(Ok(met)) => {
                host.count(Counter::ConnectionsDialed);
                let node = Some(met.node.clone());
                let link = serve::adopt(self.context, connection, met, self.own, true);
                Some(Dialed { link, node, busy: false })
            }
            Ok(Err(introduction)) => self.failed(&way, &introduction, Some(&connection)),
            Err(TooLate) => {
                host.count(Counter::DialsFailed);
                too_late(host, &way.to_string(), connection.as_ref());
                let reason = format!("it did not introduce itself within {patience:?}");
                self.fails(&way, reason);
                self.dial.answered(&way);
                None
            }
        }
    }

    /// Handles a failed path: usually there is nothing to do.
    fn failed(
        &mut self,
        way: &Way,
        introduction: &Introduction,
        reached: Option<&Arc<dyn Connection>>,
    ) -> Option<Dialed> {
        let host = self.context.host();
        if let Some(dialed) = reached.and_then(|ended| self.replaced(ended.as_ref())) {
            return Some(dialed);
        }
        let shown = way.to_string();
        let reason = match introduction {
            // Our own address among the seeds is not an error.
            Introduction::Unwelcome(Unwelcome::Ourselves) => {
                self.answered.get_or_insert_with(|| host.node().clone());
                self.dial.answered(way);
                return None;
            }
            Introduction::Connection(ended) if is_of_another_version(ended) => {
                host.refused(&shown, UNPROVED, OTHER_VERSION);
                OTHER_VERSION.to_owned()
            }
            introduction => {
                tell(host, Remote { peer: &shown, shown: &shown }, introduction);
                words(introduction)
            }
        };
        self.dial.answered(way);
        host.count(Counter::DialsFailed);
        self.fails(way, reason);
        None
    }

    /// The peer has closed the connection in favour of the one that it dialed at the same time: its welcome may not
    /// have arrived, but the peer is reachable here.
    fn replaced(&self, connection: &dyn Connection) -> Option<Dialed> {
        let ended = connection.ended()?;
        closed(&ended).filter(|closed| closed.is(Close::Duplicate))?;
        let peer = connection.peer().name.as_ref()?.node.clone();
        let link = self.context.links.link(&peer);
        Some(Dialed { link, node: Some(peer), busy: false })
    }

    /// Keeps the reason why a path failed.
    fn fails(&mut self, way: &Way, reason: String) {
        let host = self.context.host();
        let address = way.address.clone();
        let failure = DialFailure { at: host.now(), address, to: way.to, from: way.from, reason };
        tracing::debug!(node = %host.node(), "cannot be dialed: {failure}");
        self.failures.push(failure);
        if self.unheard_of {
            // The other paths may take long to fail, and until then no reason would be shown.
            host.note_dials(self.addresses, self.failures.clone());
        }
    }
}

/// Waits until a handshake that has waited for a while should start over: QUIC sends the first packet after 0, 1, 3
/// and 7 s, so a handshake that began in an outage completes late after it.
async fn told_to_hurry(host: &Host, hurry: Option<&Notify>, begun: Time) {
    let Some(hurry) = hurry else { return std::future::pending().await };
    loop {
        hurry.notified().await;
        if host.now().since(begun) >= HURRY_AFTER {
            return;
        }
    }
}

/// Why an introduction failed, for an operator.
fn words(introduction: &Introduction) -> String {
    match introduction {
        Introduction::Connection(ended) => match ended.refusal() {
            Some(refusal) if refusal.by == RefusedBy::Us => refusal.to_string(),
            _ if ended.is_our_end() => ended.to_string(),
            // Its words prove nothing.
            _ => "somebody there, who has proved no name, ended the handshake".to_owned(),
        },
        Introduction::Ended { reason, .. } => match (reason.refusal(), rejection(reason)) {
            (Some(refusal), _) => refusal.to_string(),
            (None, Some((_, words))) => words,
            (None, None) => reason.to_string(),
        },
        other => other.to_string(),
    }
}

/// A peer without a protocol version in common with us says so before it shows a certificate. If we have dialed it,
/// that is reported even so, marked as unproved.
fn is_of_another_version(ended: &Ended) -> bool {
    ended.refusal().is_some_and(|refusal| {
        refusal.by == RefusedBy::Peer && refusal.reason == Rejection::NoCommonVersion
    })
}
