//! Those whom we dial.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use quinn::{ClientConfig, Connection, ConnectionError};
use tokio::{sync::Notify, task::JoinSet};

use super::{
    Shared,
    accept::{Remote, tell, too_late},
    candidates::{self, ADDRESSES_MAX, CANDIDATES_MAX, Candidate, Ways},
    close::Close,
    expiry::Proof,
    introduce::{self, Introduction},
    serve,
    socket::Socket,
    table::Link,
    tasks::Spawner,
};
use crate::{
    dials::DialFailure,
    protocol::{
        id::{Generation, NodeId},
        route::{Counter, Target},
        time::Time,
    },
    tls::{Expect, Identity, Refusal, RefusedBy, Rejection, SERVER_NAME, Verdict},
    transport::{NodeLink, UNPROVED, Unwelcome},
};

/// How much later than the way before it the next way to a target is tried, unless that has failed.
const STAGGER: Duration = Duration::from_millis(500);
/// How long a name may take to be resolved.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// A handshake is given so long before it is begun anew: until its first packet is repeated.
const HURRY_AFTER: Duration = Duration::from_secs(1);

/// Why somebody there may not talk to us.
const OTHER_VERSION: &str = "somebody there, who has proved no name, ended the handshake and says \
     that it has no version of the protocol in common with us; if it is a node of this cluster, bring both to \
     neighbouring releases";

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
        race(&shared, &node, &spawner, &[address.to_string()], Some(peer), None).await;
    }
}

/// Tries addresses until somebody welcomes us.
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
    race(shared, node, spawner, addresses, wanted, hurry).await
}

/// Dials by all ways to the addresses, each a little later than the one before, and keeps why they led
/// nowhere.
async fn race(
    shared: &Arc<Shared>,
    node: &NodeLink,
    spawner: &Spawner,
    addresses: &[String],
    wanted: Option<&NodeId>,
    hurry: Option<&Notify>,
) -> Dialed {
    let mut race = Race {
        shared,
        node,
        spawner,
        addresses,
        unheard_of: !node.has_dial_failures(addresses),
        wanted,
        names: JoinSet::new(),
        waiting: Ways::default(),
        running: JoinSet::new(),
        begun: Vec::new(),
        last: node.now(),
        failures: Vec::new(),
        answered: None,
    };
    for address in addresses {
        match address.parse() {
            Ok(to) => race.add(address, to),
            Err(_) => drop(race.names.spawn(resolve(Arc::clone(shared), address.clone()))),
        }
    }
    let dialed = race.run(hurry).await;
    let failures = if dialed.link.is_some() { Vec::new() } else { race.failures };
    node.note_dials(addresses, failures);
    dialed
}

/// The ways to one target, and how far we are with them.
struct Race<'a> {
    shared: &'a Arc<Shared>,
    node: &'a NodeLink,
    spawner: &'a Spawner,
    addresses: &'a [String],
    /// Nothing is kept of an earlier attempt.
    unheard_of: bool,
    wanted: Option<&'a NodeId>,
    names: JoinSet<(String, Result<Vec<SocketAddr>, String>)>,
    waiting: Ways,
    running: JoinSet<Attempt>,
    /// Those of `running`.
    begun: Vec<Candidate>,
    /// When the last one was begun.
    last: Time,
    failures: Vec<DialFailure>,
    /// Who has answered.
    answered: Option<NodeId>,
}

/// A handshake that has ended.
struct Attempt {
    way: Candidate,
    begun: Time,
    own: Generation,
    shown: Identity,
    verdict: Verdict,
    result: Result<Connection, Failure>,
}

/// What a race waits for.
enum Step {
    Named(String, Result<Vec<SocketAddr>, String>),
    Ended(Box<Attempt>),
    /// The next one may be begun.
    Next,
    /// Those that have waited are better begun anew.
    Again,
    /// A packet was refused by the system.
    Unsent,
    /// A task of ours panicked or was cancelled.
    Lost,
}

impl Race<'_> {
    async fn run(&mut self, mut hurry: Option<&Notify>) -> Dialed {
        let (mut next, unsent) = (true, &self.shared.unsent);
        loop {
            let noted = unsent.notified();
            tokio::pin!(noted);
            noted.as_mut().enable();
            if (next || self.running.is_empty() || self.nothing_leaves())
                && let Some(dialed) = self.begin_next()
            {
                return dialed;
            }
            next = false;
            if self.running.is_empty() && self.names.is_empty() {
                return Dialed { link: None, node: self.answered.take() };
            }
            let wait = STAGGER.saturating_sub(self.node.now().since(self.last));
            let step = tokio::select! {
                biased;
                Some(ended) = self.running.join_next() => {
                    ended.map_or(Step::Lost, |attempt| Step::Ended(Box::new(attempt)))
                }
                Some(named) = self.names.join_next() => {
                    named.map_or(Step::Lost, |(name, found)| Step::Named(name, found))
                }
                () = told_to_hurry(self.node, hurry, self.last) => Step::Again,
                () = noted => Step::Unsent,
                () = tokio::time::sleep(wait), if !self.waiting.is_empty() => Step::Next,
            };
            match step {
                Step::Next => next = true,
                Step::Unsent => {}
                Step::Named(name, Ok(found)) => {
                    found.into_iter().for_each(|to| self.add(&name, to));
                }
                Step::Named(name, Err(reason)) => self.fails(&name, None, None, reason),
                Step::Ended(attempt) => {
                    self.begun.retain(|way| *way != attempt.way);
                    if let Some(dialed) = self.settle(*attempt, &mut hurry).await {
                        return dialed;
                    }
                }
                Step::Again => {
                    hurry = None;
                    self.running = JoinSet::new();
                    self.waiting.again(std::mem::take(&mut self.begun));
                }
                // What it was to do has failed.
                Step::Lost if self.running.is_empty() => self.begun.clear(),
                Step::Lost => {}
            }
        }
    }

    /// Takes all ways to an address.
    fn add(&mut self, address: &str, to: SocketAddr) {
        let sockets: Vec<_> =
            self.shared.endpoints.iter().map(|(_, socket)| socket.address()).collect();
        let source = if sockets.len() > 1 { candidates::source(to) } else { None };
        let ways = Candidate::all(address, to, &sockets, source);
        if ways.is_empty() {
            let family = if to.is_ipv4() { "IPv4" } else { "IPv6" };
            let reason = format!("this node listens on no {family} address");
            return self.fails(address, Some(to), None, reason);
        }
        let first = ways.first().cloned();
        if !self.waiting.add(ways) {
            let reason = format!("not tried: the target has more than {ADDRESSES_MAX} addresses");
            self.fails(address, Some(to), first.as_ref(), reason);
        }
    }

    /// Whether the system has refused the packets of all that run.
    fn nothing_leaves(&self) -> bool {
        let refused = |way: &Candidate| self.socket(way).why_unsent(way.to).is_some();
        !self.waiting.is_empty() && self.begun.iter().all(refused)
    }

    fn socket(&self, way: &Candidate) -> &Socket {
        &self.shared.endpoints[way.socket].1
    }

    /// Begins the next handshake, if one is left; gives the connection that there is already.
    fn begin_next(&mut self) -> Option<Dialed> {
        let Some(way) = self.waiting.next() else {
            for way in self.waiting.left_out() {
                let reason = format!(
                    "not tried from here and from the sockets after it: {CANDIDATES_MAX} ways are tried for \
                     one target"
                );
                self.fails(&way.address, Some(way.to), Some(&way), reason);
            }
            return None;
        };
        let (shared, node) = (self.shared, self.node);
        // Whoever we dialed there answers there.
        let met = shared.table.dialed_at(node, way.to).filter(|_| self.wanted.is_none());
        if let Some(link) = met {
            return Some(Dialed { node: Some(link.node().clone()), link: Some(link) });
        }
        self.last = node.now();
        let (own, shown, begun) = (node.generation(), shared.tls.identity(), self.last);
        let (crypto, verdict) = shared.tls.dial(match self.wanted {
            Some(peer) => Expect::Node(peer.clone()),
            None => Expect::AnyNode,
        });
        let mut client = ClientConfig::new(crypto);
        client.transport_config(Arc::clone(&shared.dialing));
        self.socket(&way).forget_unsent(way.to);
        let from = self.socket(&way).address();
        tracing::debug!(node = %node.node(), remote = remote(&way), %from, "dialing");
        let connecting = shared.endpoints[way.socket].0.connect_with(client, way.to, SERVER_NAME);
        let deadline = node.config().quic.handshake_timeout;
        self.begun.push(way.clone());
        self.running.spawn(async move {
            let result = match connecting {
                Err(error) => Err(Failure::Unreachable(error.to_string())),
                Ok(connecting) => match tokio::time::timeout(deadline, connecting).await {
                    Ok(connected) => connected.map_err(|e| Introduction::Connection(e).into()),
                    Err(_) => Err(Failure::Silent(deadline)),
                },
            };
            Attempt { way, begun, own, shown, verdict, result }
        });
        None
    }

    /// Introduces us where a handshake went through.
    async fn settle(&mut self, attempt: Attempt, hurry: &mut Option<&Notify>) -> Option<Dialed> {
        let Attempt { way, begun, own, shown, verdict, result } = attempt;
        let (shared, node) = (self.shared, self.node);
        let connection = match result {
            Ok(connection) => connection,
            Err(failure) => return self.failed(&way, &failure, &verdict, None),
        };
        let patience = node.config().quic.handshake_timeout;
        let left = patience.saturating_sub(node.now().since(begun));
        let introduction = introduce::dialing(node, &connection, self.wanted, shared);
        let introduced = tokio::select! {
            biased;
            introduced = tokio::time::timeout(left, introduction) => introduced,
            () = told_to_hurry(node, *hurry, begun) => {
                *hurry = None;
                self.waiting.again(vec![way]);
                return None;
            }
        };
        match introduced {
            Ok(Ok(met)) => {
                node.count(Counter::ConnectionsDialed);
                let who = Some(met.node.clone());
                // A handshake that went through has shown a certificate.
                let Some(proof) = Proof::new(&shared.tls, &shown, &connection) else {
                    return Some(NOBODY);
                };
                let share = node.share(&met.node);
                let limits = (shared.room.for_peer(&share), share, Arc::clone(&shared.conduct));
                let link = Link::new(node, connection, met, own, true, limits, proof);
                let link = serve::adopt(shared, node, self.spawner, link);
                Some(Dialed { link, node: who })
            }
            Ok(Err(introduction)) => {
                self.failed(&way, &introduction.into(), &verdict, Some(&connection))
            }
            Err(_) => {
                node.count(Counter::DialsFailed);
                too_late(node, &remote(&way), &connection);
                let reason = format!("it did not introduce itself within {patience:?}");
                self.fails(&way.address, Some(way.to), Some(&way), reason);
                self.answers(&way);
                None
            }
        }
    }

    /// What comes of a way that led nowhere: mostly nothing.
    fn failed(
        &mut self,
        way: &Candidate,
        failure: &Failure,
        verdict: &Verdict,
        reached: Option<&Connection>,
    ) -> Option<Dialed> {
        let (node, remote) = (self.node, remote(way));
        if let Some(dialed) = reached.and_then(|ended| replaced(self.shared, ended)) {
            return Some(dialed);
        }
        let reason = match failure {
            // Our own address among the seeds is no fault.
            Failure::Introduction(Introduction::Unwelcome(Unwelcome::Ourselves)) => {
                self.answered.get_or_insert_with(|| node.node().clone());
                self.answers(way);
                return None;
            }
            Failure::Introduction(Introduction::Connection(reason))
                if is_of_another_version(reason) =>
            {
                node.refused(&remote, UNPROVED, OTHER_VERSION);
                self.answers(way);
                OTHER_VERSION.to_owned()
            }
            Failure::Introduction(introduction) => {
                let remote = Remote { peer: &remote, shown: &remote };
                tell(node, remote, introduction, verdict);
                self.answers(way);
                words(introduction, verdict)
            }
            Failure::Silent(_) => match self.socket(way).why_unsent(way.to) {
                Some(reason) => format!("the system refuses to send there: {reason}"),
                None => failure.to_string(),
            },
            Failure::Unreachable(_) => failure.to_string(),
        };
        node.count(Counter::DialsFailed);
        self.fails(&way.address, Some(way.to), Some(way), reason);
        None
    }

    /// Somebody has answered at this address: no other socket gets another answer.
    fn answers(&mut self, answered: &Candidate) {
        self.waiting.answers(answered.to);
    }

    /// Keeps why a way led nowhere.
    fn fails(
        &mut self,
        address: &str,
        to: Option<SocketAddr>,
        way: Option<&Candidate>,
        reason: String,
    ) {
        if way.is_none() {
            self.node.count(Counter::DialsFailed);
        }
        let from = way.map(|way| self.socket(way).address());
        let at = self.node.now();
        let failure = DialFailure { at, address: address.to_owned(), to, from, reason };
        tracing::debug!(node = %self.node.node(), "cannot be dialed: {failure}");
        self.failures.push(failure);
        if self.unheard_of {
            // The other ways may take long to fail, and until then there would be no reason at all.
            self.node.note_dials(self.addresses, self.failures.clone());
        }
    }
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

/// Asks the system for the addresses of a name, on a thread where it may block. The thread goes on when
/// it takes too long, and keeps its permit.
async fn resolve(shared: Arc<Shared>, name: String) -> (String, Result<Vec<SocketAddr>, String>) {
    let asked = async {
        let Ok(permit) = Arc::clone(&shared.names).acquire_owned().await else {
            return Ok(Vec::new());
        };
        let name = name.clone();
        let found = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let found = name.to_socket_addrs()?;
            Ok(found.take(ADDRESSES_MAX).collect())
        });
        found.await.unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
    };
    let found = match tokio::time::timeout(RESOLVE_TIMEOUT, asked).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => Err(format!("the name does not resolve: {error}")),
        Err(_) => {
            Err(format!("no answer within {RESOLVE_TIMEOUT:?} to which address the name has"))
        }
    };
    (name, found)
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Unreachable(String),
    #[error("no answer within {0:?}")]
    Silent(Duration),
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
fn remote(way: &Candidate) -> String {
    let (name, shown) = (&way.address, way.to.to_string());
    if *name == shown { shown } else { format!("{name} ({shown})") }
}

/// Why an introduction failed, for an operator.
fn words(introduction: &Introduction, verdict: &Verdict) -> String {
    match introduction {
        Introduction::Connection(reason) => match verdict.refusal(reason) {
            Some(refusal) if refusal.by == RefusedBy::Us => refusal.to_string(),
            _ if Close::is_our_end(reason) => reason.to_string(),
            // Its words prove nothing.
            _ => "somebody there, who has proved no name, ended the handshake".to_owned(),
        },
        Introduction::Ended { reason, .. } => {
            match (verdict.refusal(reason), Close::told(reason)) {
                (Some(refusal), _) => refusal.to_string(),
                (None, Some((_, words))) => words,
                (None, None) => reason.to_string(),
            }
        }
        other => other.to_string(),
    }
}

/// Who has no version of the protocol in common with us says so before it shows a certificate. Where we
/// have dialed that is worth telling all the same, as what it is: nobody proved it.
fn is_of_another_version(reason: &ConnectionError) -> bool {
    Refusal::of(reason).is_some_and(|refusal| {
        refusal.by == RefusedBy::Peer && refusal.reason == Rejection::NoCommonVersion
    })
}
