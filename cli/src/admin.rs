//! The protocol between the program and a running agent, over the Unix socket in the agent's directory, or over QUIC as
//! a client with its own certificate. Any process that can open the socket counts as the node's owner; the role of a
//! client limits what it may do (`access.rs`).
//!
//! Lines of JSON in UTF-8, each of at most [`LINE_BYTES_MAX`] bytes. A connection to the socket, or a
//! bidirectional stream of a QUIC connection, carries one request,
//!
//! ```text
//! {"v":1,"do":"set","key":"color","value":"green"}
//! ```
//!
//! and its answer: any number of `{"item":...}`, then one `{"done":...}` or
//! `{"error":{"code":"not_found","message":"..."}}`. `item` and `done` contain what the program prints with `--json`,
//! so `docs/cli.md` describes both.
//!
//! A reader that is too slow for `watch` or `events` gets `{"item":{"event":"lagged","missed":N}}` and the next event:
//! the agent queues no more for it than `event_queue`.

use std::{collections::BTreeMap, path::PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use gossipmonger::{
    Foreign, Member,
    issuer::TokenView,
    protocol::{
        entry::{Key, Value},
        event::{Behind, Event, ProtocolEvent},
        id::{ClusterId, Datacenter, Generation, NodeId, Version},
        reason::Reason,
        returning::Returned,
        revocation,
        state::PeerState,
    },
    service::{Listed, ServiceChange},
    unstable::date,
};
use serde::{Deserialize, Serialize};

use super::{
    error::{CliError, Exit},
    spread::Wait,
    why::DialView,
};
use crate::clock::Clock;

/// The version of this protocol; the agent refuses any other.
pub(crate) const VERSION: u32 = 1;
/// The longest line: the largest value allowed (4 MiB), each byte of it escaped as six, and the rest.
pub(crate) const LINE_BYTES_MAX: usize = 6 * (4 << 20) + (64 << 10);
/// The name of the socket in the agent's directory.
pub(crate) const SOCKET: &str = "gossipmonger.sock";

/// A request's line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) v: u32,
    #[serde(flatten)]
    pub(crate) request: Request,
}

/// A request to the agent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(crate) enum Request {
    /// Done: [`Written`].
    Set {
        key: String,
        #[serde(flatten)]
        value: Bytes,
        ttl_ms: Option<u64>,
    },
    /// Done: [`SpreadView`](super::spread::SpreadView), once so many nodes have this version of the agent's own node.
    Await { version: Version, wait: Wait, within_ms: u64 },
    /// Items: [`BehindRow`](super::spread::BehindRow); done: [`Nothing`].
    Behind,
    /// Items: [`NoticeView`](super::notices::NoticeView), of all members; done: [`Nothing`].
    Event {
        name: String,
        #[serde(flatten)]
        value: Bytes,
    },
    /// As `event`, with the answers.
    Query {
        name: String,
        #[serde(flatten)]
        value: Bytes,
    },
    /// Items: [`KeyView`](super::all_keys::KeyView), of one node or of all; done: [`Nothing`].
    Keys { node: Option<NodeId>, prefix: String },
    /// Done: [`Written`].
    Delete { key: String },
    /// Done: [`Entry`].
    Get { node: NodeId, key: String },
    /// Items: [`Entry`]; done: [`Nothing`].
    List { node: NodeId, prefix: String },
    /// Items: [`MemberView`]; done: [`Nothing`].
    Members,
    /// Items: [`OfferView`](super::services::OfferView); done: [`Nothing`].
    Services,
    /// Items: [`CallerView`](super::services::CallerView), of one service (`NAME/MAJOR`) or of all; done: [`Nothing`].
    Callers { service: Option<String> },
    /// Done: [`Replied`](super::call::Replied). The question is the value.
    Call {
        node: NodeId,
        service: String,
        method: u16,
        #[serde(flatten)]
        question: Bytes,
        within_ms: u64,
    },
    /// Items: [`ProviderView`](super::why_service::ProviderView) of a service (`NAME/MAJOR`); done: [`Nothing`].
    WhyService { service: String },
    /// Done: [`WhyView`](super::why::WhyView).
    Why { node: NodeId },
    /// Items: [`PathView`](super::paths::PathView), of the agent's own connections; done: [`Nothing`].
    Paths,
    /// Done: [`RttView`](super::paths::RttView).
    Rtt { node: NodeId },
    /// Items: [`ReachView`](super::paths::ReachView), of all members; done: [`Nothing`].
    Reachability,
    /// Done: [`ProbeView`](super::probe::ProbeView): so many calls to the agent of a node, one after the other, each with
    /// so many bytes.
    Probe { node: NodeId, calls: u32, bytes: usize },
    /// Items: [`CopiesView`](super::probe::CopiesView): the copies of keys of the agent's own node that all members have;
    /// done: [`Nothing`].
    Copies { prefix: String },
    /// Items: [`ConfigRow`](super::effective::ConfigRow); done: [`Nothing`].
    Config,
    /// Items: [`LogItem`](super::monitor::LogItem); done, when the node ends: [`Nothing`].
    Monitor { level: String },
    /// Items: the last lines of the log, as text; done: [`Nothing`].
    LogTail,
    /// Done: [`Info`].
    Info,
    /// Items: [`Happening`]; done, when the node ends: [`Nothing`].
    Watch { prefix: String, existing: bool },
    /// Items: [`Happening`]; done, when the node ends: [`Nothing`]. With `user` only those of `event` and `query`.
    Events {
        protocol: bool,
        #[serde(default)]
        user: bool,
    },
    /// Done: [`Left`].
    Leave,
    /// Done: [`Tags`].
    Tags,
    /// Done: [`Tags`].
    ChangeTags { set: BTreeMap<String, String>, delete: Vec<String> },
    /// Done: [`Nothing`].
    Maintain { on: bool },
    /// Done: [`Nothing`].
    Remove { node: NodeId },
    /// Done: [`Reloaded`].
    Reload,
    /// Done: [`Revoked`](super::revocations::Revoked). The statement is in hexadecimal; without one the agent signs
    /// one, if it is an issuer.
    Revoke { node: NodeId, statement: Option<String> },
    /// Items: [`RevocationView`](super::revocations::RevocationView); done: [`Nothing`].
    Revocations,
    /// Done: [`TokenMade`].
    CreateToken { node: Option<NodeId>, datacenter: Option<Datacenter>, ttl_ms: u64, uses: u32 },
    /// Done: [`Tokens`].
    Tokens,
    /// Done: [`TokenRow`].
    RevokeToken { id: String },
    /// Done: [`Renewed`].
    Renew,
}

impl Request {
    /// The subject of the request, for the log: a key, a node, names of tags.
    pub(crate) fn subject(&self) -> String {
        match self {
            Self::Set { key, .. } | Self::Delete { key } => format!("{key:?}"),
            Self::Monitor { level } => level.clone(),
            Self::Event { name, .. } | Self::Query { name, .. } => format!("{name:?}"),
            Self::Get { node, key } => format!("{node} {key:?}"),
            Self::List { node, .. }
            | Self::Why { node }
            | Self::Rtt { node }
            | Self::Probe { node, .. }
            | Self::Remove { node }
            | Self::Revoke { node, .. } => node.to_string(),
            Self::Call { node, service, method, .. } => format!("{node} {service:?} {method}"),
            Self::Callers { service: Some(service) } | Self::WhyService { service } => {
                format!("{service:?}")
            }
            Self::ChangeTags { set, delete } => {
                format!("{:?}", set.keys().chain(delete).collect::<Vec<_>>())
            }
            _ => String::new(),
        }
    }
}

/// An answer's line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer<I, D> {
    Item(I),
    Done(D),
    Error(Failure),
}

/// The request failed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) message: Foreign,
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Code {
    Failed,
    Usage,
    NotFound,
    /// The client's role does not permit it.
    Forbidden,
    /// The certificate, the key or the roots cannot be used.
    Credentials,
}

/// The value of a key: `"value"` if it is UTF-8, otherwise `"base64"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Bytes {
    #[serde(rename = "value")]
    Text(String),
    #[serde(rename = "base64")]
    Base64(String),
}

/// A write was stored.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Written {
    pub(crate) version: Version,
}

/// A key and its value.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) node: NodeId,
    pub(crate) key: String,
    #[serde(flatten)]
    pub(crate) value: Bytes,
}

/// A node, as the agent sees it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MemberView {
    pub(crate) node: NodeId,
    pub(crate) datacenter: Datacenter,
    /// The first of `addresses`.
    pub(crate) address: Option<Foreign>,
    pub(crate) state: State,
    /// `None`: the agent measures none, since the node is dead, has left or is unreachable.
    pub(crate) phi: Option<f64>,
    pub(crate) version: Version,
    pub(crate) generation: Generation,
    pub(crate) keys: usize,
    pub(crate) addresses: Vec<Foreign>,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) local: bool,
    /// Until when its certificate is valid, by RFC 3339.
    pub(crate) not_after: Option<Foreign>,
    /// The certificate must be renewed soon.
    pub(crate) expires_soon: bool,
    /// Its services take no new calls: it is in maintenance, or is about to end.
    #[serde(default)]
    pub(crate) draining: bool,
}

/// What is thought of a node.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Known by name, not heard yet.
    Joining,
    /// Heard, and not missed.
    Live,
    /// Missed for longer than usual.
    Suspect,
    /// In a datacenter where nobody is heard any more.
    Unreachable,
    /// Missed for too long.
    Dead,
    /// Gone on purpose.
    Left,
    /// Forgotten, since its certificate was revoked. Only `why` says so.
    #[value(skip)]
    Revoked,
    /// Forgotten, since it was removed. Only `why` says so.
    #[value(skip)]
    Removed,
}

/// The agent itself.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Info {
    pub(crate) node: NodeId,
    pub(crate) cluster: ClusterId,
    pub(crate) datacenter: Datacenter,
    pub(crate) addresses: Vec<Foreign>,
    pub(crate) generation: Generation,
    pub(crate) version: Version,
    pub(crate) keys: usize,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) members: BTreeMap<State, usize>,
    pub(crate) program: Foreign,
    pub(crate) pid: u32,
    pub(crate) directory: String,
    pub(crate) store: Foreign,
    pub(crate) metrics: Option<Foreign>,
    /// The HTTP interface, if there is one on TCP.
    #[serde(default)]
    pub(crate) http: Option<HttpView>,
    pub(crate) gossip_interval_ms: u64,
    pub(crate) dead_peer_phi: f64,
    /// How slow the agent finds itself; 0 is normal.
    pub(crate) health: u32,
    pub(crate) seeds: Vec<String>,
    /// Why seeds were not reached when they were last dialed: one entry for each way that was tried.
    #[serde(default)]
    pub(crate) seed_failures: Vec<DialView>,
    pub(crate) certificate: CertificateView,
    /// Why the certificate, key and roots in the files are not active.
    pub(crate) certificate_problem: Option<Foreign>,
    /// The number of nodes whose certificates must be renewed soon.
    pub(crate) certificates_expiring: usize,
    /// What to do about them.
    pub(crate) certificate_warning: Option<Foreign>,
    /// The writes of the agent that its store lost; `None` if no peer reports any.
    pub(crate) behind: Option<BehindView>,
    pub(crate) counters: BTreeMap<String, u64>,
    pub(crate) refusals: BTreeMap<String, u64>,
}

/// Where the agent's HTTP interface is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct HttpView {
    pub(crate) url: String,
    /// The file of the tokens.
    pub(crate) tokens: PathBuf,
}

/// What the agent lost, as a peer reports it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BehindView {
    /// The generation that the peer knew.
    pub(crate) generation: Generation,
    pub(crate) versions: u64,
    pub(crate) told_by: NodeId,
}

/// A certificate; dates by RFC 3339.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CertificateView {
    /// The URI of the node or client; `None` for a CA.
    pub(crate) name: Option<Foreign>,
    pub(crate) subject: Foreign,
    pub(crate) issuer: Foreign,
    pub(crate) serial: Foreign,
    pub(crate) not_before: Foreign,
    pub(crate) not_after: Foreign,
    /// When its chain expires: at `not_after`, or earlier if an intermediate above it expires earlier.
    pub(crate) expires: Foreign,
    /// SHA-256 of the whole certificate, in hexadecimal.
    pub(crate) fingerprint: Foreign,
    pub(crate) authority: bool,
}

/// An event.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Happening {
    /// From here on the stream misses nothing. Always the first.
    Watching,
    NewPeer {
        peer: NodeId,
    },
    PeerChanged {
        peer: NodeId,
        generation: Generation,
    },
    PeerLive {
        peer: NodeId,
        cause: String,
    },
    PeerSuspect {
        peer: NodeId,
        phi: f64,
        #[serde(flatten)]
        blame: Blame,
    },
    PeerDead {
        peer: NodeId,
        phi: f64,
        #[serde(flatten)]
        blame: Blame,
    },
    PeerLeft {
        peer: NodeId,
        cause: String,
    },
    PeerReturned {
        peer: NodeId,
        generation: Generation,
        /// `after_leaving`, `behind` or `twice`.
        how: Foreign,
        /// The same as a sentence, with the node as its subject.
        sentence: Foreign,
        /// The generation that was known; null after leaving.
        earlier: Option<Generation>,
        /// How many versions of it are lost; null unless `how` is `behind`.
        versions: Option<u64>,
    },
    PeerRemoved {
        peer: NodeId,
        /// The node that reported it; `None`: it was removed at this agent.
        by: Option<NodeId>,
    },
    PeerRevoked {
        peer: NodeId,
        /// By RFC 3339: nodes refuse certificates that are valid from then or earlier.
        cutoff: String,
    },
    PeerForgotten {
        peer: NodeId,
    },
    DatacenterUnreachable {
        datacenter: Datacenter,
    },
    DatacenterReachable {
        datacenter: Datacenter,
    },
    ServiceJoined {
        peer: NodeId,
        service: Foreign,
        /// Major and minor version.
        version: Foreign,
    },
    /// The offer drains or does not, its node is suspect or is not, for example.
    ServiceChanged {
        peer: NodeId,
        service: Foreign,
        version: Foreign,
        draining: bool,
        suspect: bool,
        weight: u8,
    },
    ServiceLeft {
        peer: NodeId,
        service: Foreign,
        version: Foreign,
        /// `withdrawn`, `restarted`, `node_left`, `node_dead`, `node_forgotten` or `unreachable`.
        cause: Foreign,
        /// The cause as a sentence.
        sentence: Foreign,
    },
    Updated {
        peer: NodeId,
        key: String,
        #[serde(flatten)]
        value: Bytes,
        generation: Generation,
        version: Version,
    },
    Deleted {
        peer: NodeId,
        key: String,
        generation: Generation,
        version: Version,
    },
    /// An operator said `event`.
    UserEvent {
        from: NodeId,
        name: Foreign,
        #[serde(flatten)]
        value: Bytes,
    },
    /// An operator said `query`; the agent has answered.
    UserQuery {
        from: NodeId,
        name: Foreign,
        #[serde(flatten)]
        value: Bytes,
    },
    Error {
        message: String,
    },
    /// The reader missed this many events, because it was too slow.
    Lagged {
        missed: u64,
    },
    DigestSent {
        peer: NodeId,
        nodes: usize,
    },
    DigestReceived {
        peer: NodeId,
        nodes: usize,
    },
    DeltasSent {
        peer: NodeId,
        nodes: usize,
        entries: usize,
    },
    DeltasReceived {
        peer: NodeId,
        nodes: usize,
        entries: usize,
    },
    UnknownPeer {
        peer: NodeId,
    },
}

/// Why a node is considered silent, and by which nodes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Blame {
    /// [`Cause::as_str`].
    pub(crate) cause: Foreign,
    /// The cause as a sentence, with the peer as its subject.
    pub(crate) sentence: Foreign,
    /// The nodes that agreed on it.
    pub(crate) observers: Vec<NodeId>,
}

/// The node has left.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Left {
    /// How many peers have acknowledged the message.
    pub(crate) acknowledged: usize,
}

/// The node's tags.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Tags {
    pub(crate) tags: BTreeMap<String, String>,
}

/// What a reload did.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Reloaded {
    /// What has changed and is active.
    pub(crate) applied: Vec<String>,
    /// What has changed and needs a restart.
    pub(crate) restart_needed: Vec<String>,
}

/// A new token.
#[derive(Serialize, Deserialize)]
pub(crate) struct TokenMade {
    /// A secret: its holder may join.
    pub(crate) token: String,
    #[serde(flatten)]
    pub(crate) row: TokenRow,
}

impl std::fmt::Debug for TokenMade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenMade").field("row", &self.row).finish_non_exhaustive()
    }
}

/// A token; dates by RFC 3339.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TokenRow {
    pub(crate) id: Foreign,
    /// `good`, `used`, `expired` or `revoked`.
    pub(crate) state: Foreign,
    pub(crate) node: Option<NodeId>,
    pub(crate) datacenter: Option<Datacenter>,
    pub(crate) created: Foreign,
    pub(crate) expires: Foreign,
    pub(crate) uses: u32,
    pub(crate) used: u32,
    /// The last nodes that it admitted.
    pub(crate) by: Vec<NodeId>,
}

/// All tokens.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Tokens {
    pub(crate) tokens: Vec<TokenRow>,
}

/// The agent has a new certificate.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Renewed {
    pub(crate) certificate: CertificateView,
}

/// An answer without content.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Nothing {}

impl Bytes {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Base64(STANDARD.encode(bytes)),
        }
    }

    /// The bytes; fails if the base64 is invalid.
    pub(crate) fn into_bytes(self) -> Result<Vec<u8>, CliError> {
        match self {
            Self::Text(text) => Ok(text.into_bytes()),
            Self::Base64(text) => STANDARD
                .decode(text)
                .map_err(|error| CliError::usage(format!("the value is not base64: {error}"))),
        }
    }
}

impl Entry {
    pub(crate) fn new(node: &NodeId, key: &Key, value: &Value) -> Self {
        Self { node: node.clone(), key: key.to_string(), value: Bytes::of(value) }
    }
}

impl Blame {
    fn of(reason: &Reason) -> Self {
        Self {
            cause: reason.cause.as_str().into(),
            sentence: reason.cause.as_sentence().into(),
            observers: reason.observers.to_vec(),
        }
    }

    /// The explanation for people.
    pub(crate) fn explained(&self) -> String {
        if self.observers.is_empty() {
            self.sentence.to_string()
        } else {
            format!("{} (by {})", self.sentence, super::why::names(&self.observers))
        }
    }
}

impl MemberView {
    /// `draining`: whether its services take no new calls.
    pub(crate) fn new(member: Member, draining: bool) -> Self {
        let expires_soon = member.expires_soon(Clock::wall());
        Self {
            node: member.node,
            datacenter: member.datacenter,
            address: member.addresses.first().map(|address| address.as_str().into()),
            state: member.state.into(),
            phi: measured(member.state, member.phi),
            version: member.version,
            generation: member.generation,
            keys: member.keys,
            addresses: member.addresses.into_iter().map(Foreign::from).collect(),
            not_after: member.not_after.map(|until| date(until).into()),
            expires_soon,
            tags: member.tags,
            local: member.local,
            draining,
        }
    }
}

impl From<TokenView> for TokenRow {
    fn from(view: TokenView) -> Self {
        Self {
            id: view.id.to_string().into(),
            state: view.state.as_str().into(),
            node: view.terms.node,
            datacenter: view.terms.datacenter,
            created: date(view.created).into(),
            expires: date(view.expires).into(),
            uses: view.terms.uses,
            used: view.used,
            by: view.by,
        }
    }
}

impl State {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Live => "live",
            Self::Suspect => "suspect",
            Self::Unreachable => "unreachable",
            Self::Dead => "dead",
            Self::Left => "left",
            Self::Revoked => "revoked",
            Self::Removed => "removed",
        }
    }
}

impl From<PeerState> for State {
    fn from(state: PeerState) -> Self {
        match state {
            PeerState::Unheard => Self::Joining,
            PeerState::Live => Self::Live,
            PeerState::Suspect => Self::Suspect,
            PeerState::Dead => Self::Dead,
            PeerState::Left => Self::Left,
            // Neither live nor dead.
            _ => Self::Unreachable,
        }
    }
}

impl BehindView {
    pub(crate) fn new(behind: &Behind) -> Self {
        let Behind { generation, versions, told_by, .. } = behind.clone();
        Self { generation, versions, told_by }
    }

    pub(crate) fn sentence(self) -> String {
        let Self { generation, versions, told_by } = self;
        format!(
            "{versions} versions of generation {generation}, which {told_by} knew (see the log)"
        )
    }
}

impl From<Event> for Happening {
    fn from(event: Event) -> Self {
        match event {
            Event::NewPeer { peer } => Self::NewPeer { peer },
            Event::PeerChanged { peer, generation } => Self::PeerChanged { peer, generation },
            Event::PeerLive { peer, reason } => {
                Self::PeerLive { peer, cause: reason.cause.as_str().to_owned() }
            }
            Event::PeerSuspect { peer, reason } => {
                Self::PeerSuspect { peer, phi: rounded(reason.phi), blame: Blame::of(&reason) }
            }
            Event::PeerDead { peer, reason } => {
                Self::PeerDead { peer, phi: rounded(reason.phi), blame: Blame::of(&reason) }
            }
            Event::PeerLeft { peer, reason } => {
                Self::PeerLeft { peer, cause: reason.cause.as_str().to_owned() }
            }
            Event::PeerReturned { peer, generation, how } => {
                let (earlier, versions) = match how {
                    Returned::Behind { earlier, versions } => (Some(earlier), Some(versions)),
                    Returned::Twice { earlier } => (Some(earlier), None),
                    _ => (None, None),
                };
                let (how, sentence) = (how.as_str().into(), how.to_string().into());
                Self::PeerReturned { peer, generation, how, sentence, earlier, versions }
            }
            Event::PeerRemoved { peer, by } => Self::PeerRemoved { peer, by },
            Event::PeerRevoked { peer, cutoff } => {
                Self::PeerRevoked { peer, cutoff: revocation::date(cutoff) }
            }
            Event::PeerForgotten { peer } => Self::PeerForgotten { peer },
            Event::DatacenterUnreachable { datacenter } => {
                Self::DatacenterUnreachable { datacenter }
            }
            Event::DatacenterReachable { datacenter } => Self::DatacenterReachable { datacenter },
            Event::Updated { peer, key, value, generation, version } => {
                let (key, value) = (key.to_string(), Bytes::of(&value));
                Self::Updated { peer, key, value, generation, version }
            }
            Event::Deleted { peer, key, generation, version } => {
                Self::Deleted { peer, key: key.to_string(), generation, version }
            }
            Event::Error(problem) => Self::Error { message: problem.to_string() },
            other => Self::Error { message: format!("{other:?}") },
        }
    }
}

impl From<ServiceChange> for Happening {
    fn from(change: ServiceChange) -> Self {
        let named = |offer: Listed| {
            (offer.node, offer.service.to_string().into(), offer.version.to_string().into())
        };
        match change {
            ServiceChange::Joined(offer) => {
                let (peer, service, version) = named(offer);
                Self::ServiceJoined { peer, service, version }
            }
            ServiceChange::Changed(offer) => {
                let Listed { draining, suspect, weight, .. } = offer;
                let (peer, service, version) = named(offer);
                Self::ServiceChanged { peer, service, version, draining, suspect, weight }
            }
            ServiceChange::Left { offer, why } => {
                let (peer, service, version) = named(offer);
                let (cause, sentence) = (why.as_str().into(), why.to_string().into());
                Self::ServiceLeft { peer, service, version, cause, sentence }
            }
            other => Self::Error { message: format!("{other:?}") },
        }
    }
}

impl From<ProtocolEvent> for Happening {
    fn from(event: ProtocolEvent) -> Self {
        match event {
            ProtocolEvent::DigestSent { peer, digest } => {
                Self::DigestSent { peer, nodes: digest.entries.len() }
            }
            ProtocolEvent::DigestReceived { peer, digest } => {
                Self::DigestReceived { peer, nodes: digest.entries.len() }
            }
            ProtocolEvent::DeltasSent { peer, delta } => {
                Self::DeltasSent { peer, nodes: delta.nodes.len(), entries: delta.len() }
            }
            ProtocolEvent::DeltasReceived { peer, delta } => {
                Self::DeltasReceived { peer, nodes: delta.nodes.len(), entries: delta.len() }
            }
            ProtocolEvent::UnknownPeer { peer } => Self::UnknownPeer { peer },
            other => Self::Error { message: format!("{other:?}") },
        }
    }
}

impl From<Failure> for CliError {
    fn from(failure: Failure) -> Self {
        let exit = match failure.code {
            Code::Failed => Exit::Failed,
            Code::Usage | Code::Forbidden => Exit::Usage,
            Code::NotFound => Exit::NotFound,
            Code::Credentials => Exit::Credentials,
        };
        Self::new(exit, failure.message)
    }
}

impl From<&CliError> for Failure {
    fn from(error: &CliError) -> Self {
        let code = match error.exit() {
            Exit::Usage => Code::Usage,
            Exit::NotFound => Code::NotFound,
            Exit::Credentials => Code::Credentials,
            _ => Code::Failed,
        };
        Self { code, message: error.to_string().into() }
    }
}

/// The level of suspicion, if the agent measures one: it measures none for a node that is dead, has left or is
/// unreachable.
pub(crate) fn measured(state: PeerState, phi: f64) -> Option<f64> {
    match state {
        PeerState::Dead | PeerState::Left | PeerState::Unreachable => None,
        _ => Some(rounded(phi)),
    }
}

/// Three digits are enough for a person, and keep lines short.
pub(crate) fn rounded(phi: f64) -> f64 {
    (phi * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_called_as_in_the_library() {
        use PeerState::{Dead, Left, Live, Suspect, Unheard, Unreachable};
        for state in [Unheard, Live, Suspect, Unreachable, Dead, Left] {
            assert_eq!(State::from(state).as_str(), state.as_str());
        }
    }

    #[test]
    fn refuses_a_request_that_it_does_not_know() {
        assert!(serde_json::from_str::<Line>(r#"{"v":1,"do":"explode"}"#).is_err());
        assert!(serde_json::from_str::<Line>(r#"{"v":1,"do":"set","key":"k"}"#).is_err());
    }

    proptest::proptest! {
        // C90
        #[test]
        fn never_panics_on_whatever_a_client_says(
            bytes: Vec<u8>,
            name in "[a-z_]{1,12}",
            text in "[\"{}\\[\\]:,a-z0-9\\\\]{0,60}",
        ) {
            let _ = serde_json::from_slice::<Line>(&bytes);
            for line in [
                format!("{{\"v\":1,\"do\":\"{name}\",{text}}}"),
                format!("{{\"v\":1,\"do\":\"set\",\"key\":{text},\"base64\":\"{text}\"}}"),
            ] {
                if let Ok(Line { request, .. }) = serde_json::from_str(&line) {
                    let _ = (request.rule(), request.subject());
                }
            }
        }
    }

    #[test]
    fn refuses_base64_that_is_none() {
        assert!(Bytes::Base64("?".to_owned()).into_bytes().is_err());
    }

    #[test]
    fn writes_a_request_as_it_is_documented() {
        let set =
            Request::Set { key: "color".to_owned(), value: Bytes::of(b"green"), ttl_ms: None };
        let line = serde_json::to_string(&Line { v: VERSION, request: set }).unwrap();
        assert_eq!(line, r#"{"v":1,"do":"set","key":"color","value":"green","ttl_ms":null}"#);
        let line = r#"{"v":1,"do":"set","key":"color","value":"green"}"#;
        assert!(serde_json::from_str::<Line>(line).is_ok());
    }

    #[test]
    fn gives_every_value_back() {
        for bytes in [&b"green"[..], b"", &[0xff, 0, 1], "\u{0}\"\\\n".as_bytes()] {
            let text = serde_json::to_string(&Bytes::of(bytes)).unwrap();
            let read: Bytes = serde_json::from_str(&text).unwrap();
            assert_eq!(read.into_bytes().unwrap(), bytes);
        }
    }

    #[test]
    fn the_largest_value_fits_into_a_line() {
        let value = Bytes::of(&vec![0; 4 << 20]);
        let request = Request::Set { key: "\0".repeat(512), value, ttl_ms: Some(u64::MAX) };
        let line = serde_json::to_string(&Line { v: VERSION, request }).unwrap();
        assert!(line.len() < LINE_BYTES_MAX, "{}", line.len());
    }
}
