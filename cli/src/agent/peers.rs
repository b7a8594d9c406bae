//! The service `gossipmonger.agent`: what agents ask each other, for operators' questions about the whole cluster.
//!
//! Only members may call it. Nothing in it changes anything at the node that answers.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use gossipmonger::{
    Gossipmonger, Member,
    protocol::{
        id::{Datacenter, Generation, NodeId, Version},
        state::PeerState,
    },
    service::{Access, Call, Caller, Context, GATHER_MAX, Offer, OfferError, Service},
};
use serde::{Deserialize, Serialize};

use super::{
    notices::{self, Notices},
    reload::own_tags,
};
use crate::{
    admin::{State, rounded},
    probe::sum,
};

gossipmonger::service! {
    /// What agents ask each other.
    pub(super) struct Agents = "gossipmonger.agent", 1.1;
    1: call Ping -> (), idempotent;
    2: call AskPaths -> Paths, idempotent;
    3: call AskHeld -> Option<Held>, idempotent;
    4: call Notice -> Result<Noticed, String>;
    5: call Probe -> Probed, idempotent, since 1;
    6: call AskCopies -> Copies, idempotent, since 1;
}

/// Asks for nothing: the caller measures the time.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ping;

/// Asks what the node hears.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AskPaths;

/// Asks up to which version the node has the map of another one.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AskHeld {
    pub(super) owner: NodeId,
}

/// Bytes that the node counts.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Probe {
    pub(super) number: u64,
    pub(super) payload: String,
}

/// What the node has received of a [`Probe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Probed {
    pub(super) number: u64,
    pub(super) bytes: u64,
    pub(super) sum: u64,
}

/// Asks for the copies of a node's keys.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AskCopies {
    pub(super) owner: NodeId,
    pub(super) prefix: String,
}

/// Copies of a node's keys.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Copies {
    /// Each key, and the [`sum`] of its value.
    pub(super) sums: Vec<(String, u64)>,
    /// How many are left out, since there were too many.
    pub(super) omitted: u32,
}

/// An event or a query of an operator at the agent that calls.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Notice {
    pub(super) name: String,
    pub(super) payload: Vec<u8>,
    pub(super) query: bool,
}

/// A notice was taken.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Noticed {
    /// How many read it.
    pub(super) readers: u32,
    /// To a query: the tag of its name.
    pub(super) tag: Option<String>,
}

/// What a node hears: its open gossip connections, and the members that it considers not live.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Paths {
    pub(super) paths: Vec<PathRow>,
    /// Names and states; `joining` counts too.
    pub(super) not_live: Vec<(NodeId, String)>,
    /// How many paths and members are left out, since there were too many.
    pub(super) omitted: u32,
}

/// One open gossip connection.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PathRow {
    pub(super) peer: NodeId,
    pub(super) datacenter: Datacenter,
    pub(super) round_trip_us: Option<u64>,
    pub(super) window: Option<u64>,
    pub(super) sent: u64,
    pub(super) lost: u64,
    /// In thousandths; `None`: the node does not observe the peer.
    pub(super) phi_milli: Option<u64>,
}

/// How far a node has the map of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) generation: Generation,
    pub(super) version: Version,
}

/// Offers the service.
pub(super) async fn offer(node: &Gossipmonger, notices: Arc<Notices>) -> Result<Offer, OfferError> {
    let (hears, holds, tagged) = (node.clone(), node.clone(), node.clone());
    let copies = node.clone();
    node.offer::<Agents>(Access::members())
        .room(RUNNING_MAX, WAITING_MAX)
        .call(|_: Ping, _| async {})
        .call(move |_: AskPaths, _| {
            let paths = Paths::of(&hears);
            async move { paths }
        })
        .call(move |AskHeld { owner }: AskHeld, _| {
            let held = held(&holds, &owner);
            async move { held }
        })
        .call(move |notice: Notice, context| {
            let taken = take(&tagged, &notices, notice, &context);
            async move { taken }
        })
        .call(|probe: Probe, _| async move { Probed::of(&probe) })
        .call(move |ask: AskCopies, _| {
            let found = Copies::of(&copies, &ask);
            async move { found }
        })
        .start_built_in()
        .await
}

fn take(
    node: &Gossipmonger,
    notices: &Notices,
    notice: Notice,
    context: &Context,
) -> Result<Noticed, String> {
    let Caller::Node { node: from, .. } = context.caller() else {
        return Err("only members may say this".to_owned());
    };
    let Notice { name, payload, query } = notice;
    let tag = query.then(|| own_tags(node).remove(&name)).flatten();
    let notice = notices::Notice { from: from.clone(), name, payload, query };
    Ok(Noticed { readers: notices.take(notice)?, tag })
}

fn held(node: &Gossipmonger, owner: &NodeId) -> Option<Held> {
    let (generation, version) = node.snapshot().version(owner)?;
    Some(Held { generation, version })
}

impl Probed {
    pub(super) fn of(probe: &Probe) -> Self {
        let payload = probe.payload.as_bytes();
        Self { number: probe.number, bytes: payload.len() as u64, sum: sum(payload) }
    }
}

impl Copies {
    /// What this node has.
    fn of(node: &Gossipmonger, ask: &AskCopies) -> Self {
        let snapshot = node.snapshot();
        let mut found = snapshot.prefix(&ask.owner, &ask.prefix);
        let sums = found.by_ref().take(COPIES_MAX);
        let sums = sums.map(|(key, value)| (key.to_string(), sum(value))).collect();
        Self { sums, omitted: u32::try_from(found.count()).unwrap_or(u32::MAX) }
    }
}

impl Paths {
    /// What this node hears.
    pub(super) fn of(node: &Gossipmonger) -> Self {
        let (paths, snapshot) = (node.paths(), node.snapshot());
        let not_live: Vec<_> =
            snapshot.peers().filter(|peer| peer.state != PeerState::Live).collect();
        let more =
            paths.len().saturating_sub(PATHS_MAX) + not_live.len().saturating_sub(NOT_LIVE_MAX);
        let paths = paths.into_iter().take(PATHS_MAX).map(|path| PathRow {
            phi_milli: node.phi(&path.peer).map(|phi| (rounded(phi) * 1000.0) as u64),
            peer: path.peer,
            datacenter: path.datacenter,
            round_trip_us: path.round_trip.map(micros),
            window: path.congestion_window,
            sent: path.packets_sent,
            lost: path.packets_lost,
        });
        let not_live = not_live.into_iter().take(NOT_LIVE_MAX);
        let not_live =
            not_live.map(|peer| (peer.node, State::from(peer.state).as_str().to_owned()));
        Self {
            paths: paths.collect(),
            not_live: not_live.collect(),
            omitted: u32::try_from(more).unwrap_or(u32::MAX),
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Why a member has not answered.
#[derive(Debug)]
pub(super) struct Silent {
    /// Whether it was asked.
    pub(super) asked: bool,
    pub(super) why: String,
}

/// Asks all members; of each that has not left, its answer or why there is none, by name.
pub(super) async fn gather<M>(
    node: &Gossipmonger,
    ask: &M,
) -> Vec<(Member, Result<M::Reply, Silent>)>
where
    M: Call<Service = Agents>,
{
    let members: Vec<_> = node.snapshot().members().collect();
    let answers = node.service::<Agents>().gather(ask, WITHIN).await;
    let mut answers: BTreeMap<_, _> = answers.into_iter().collect();
    let members = members.into_iter().filter(|member| member.state != PeerState::Left);
    let gathered = members.map(|member| {
        let answer = match answers.remove(&member.node) {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(error)) => Err(Silent { asked: true, why: error.to_string() }),
            None => Err(Silent { asked: false, why: why_not_asked(node, &member) }),
        };
        (member, answer)
    });
    gathered.collect()
}

/// Why a member was not among those that were asked.
fn why_not_asked(node: &Gossipmonger, member: &Member) -> String {
    let state = State::from(member.state);
    if !matches!(state, State::Live | State::Suspect) {
        return format!("not asked: this agent sees it {}", state.as_str());
    }
    let offers = |offer: &gossipmonger::service::Listed| {
        offer.node == member.node && offer.service.as_str() == Agents::NAME
    };
    match node.offered().iter().any(offers) {
        true => format!("not asked: no more than {GATHER_MAX} members are"),
        false => "it offers no gossipmonger.agent/1: it is no agent, or an older one".to_owned(),
    }
}

/// How long one member may take to answer.
pub(super) const WITHIN: Duration = Duration::from_secs(3);
/// Questions that are answered at once, and that wait.
const RUNNING_MAX: usize = 8;
const WAITING_MAX: usize = 128;
/// Paths that one answer has: each needs some 100 bytes. A node has about ten neighbours.
const PATHS_MAX: usize = 512;
/// Keys in one answer about copies: each needs at most some 520 bytes.
const COPIES_MAX: usize = 128;
/// Members that are not live in one answer.
const NOT_LIVE_MAX: usize = 256;
