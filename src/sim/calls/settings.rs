//! What all nodes of a run have in common, and which rule is broken on purpose.

use std::time::Duration;

use crate::protocol::service::{calls::LaneLimits, room::RoomLimits};

/// The settings of a run.
#[derive(Clone, Debug)]
pub struct Settings {
    pub nodes: usize,
    /// Callers that are no members: they know what one node, their host, tells them.
    pub clients: usize,
    /// The first so many nodes offer services.
    pub providers: usize,
    pub services: usize,
    pub traffic: Traffic,
    /// The time within which calls begin.
    pub duration: Duration,
    /// How many datacenters the nodes are spread over.
    pub datacenters: usize,
    pub latency: Latency,
    pub lane: LaneLimits,
    pub room: RoomLimits,
    /// Bytes of answers that wait at a callee, above which it reads no requests.
    pub answer_bytes: usize,
    /// Bytes in flight on a connection, in each direction.
    pub window: usize,
    /// The longest body.
    pub body_max: usize,
    /// The longest time of a handler.
    pub work: Duration,
    /// With even traffic idempotent calls are asked a second time after so long; `None`: never.
    pub hedge: Option<Duration>,
    /// The time within which a node learns of a change.
    pub spread: Duration,
    /// After a death so much passes until the first nodes suspect it, and until they find it dead; the others follow
    /// within `spread`.
    pub suspect_after: Duration,
    pub dead_after: Duration,
    /// How long a silent end of a connection is not noticed.
    pub idle_timeout: Duration,
    /// When a dial is given up.
    pub dial_timeout: Duration,
    pub drain: Duration,
    pub faults: Faults,
    pub mutation: Option<Mutation>,
    /// Keeps a history of all that happens.
    pub history: bool,
}

/// What nodes call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// So many calls and casts at random times, with whatever a caller may do wrong; handlers fail.
    Any(usize),
    /// Every node calls so often, the nearest providers; handlers answer. Half of the calls are idempotent.
    Even {
        /// The time between two calls of a node.
        period: Duration,
        /// The deadline of a call.
        deadline: Duration,
    },
}

/// How long a packet is under way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Latency {
    /// A time for each pair of nodes, up to 20 ms.
    Pairs,
    /// By datacenter.
    Sites {
        /// A round trip between two datacenters; inside one it is half a millisecond.
        wan_rtt: Duration,
        /// The part of the packets that is lost. Each is sent again.
        loss: f64,
    },
}

/// How often something befalls the nodes in a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub deaths: usize,
    pub drains: usize,
    pub breaks: usize,
    pub cuts: usize,
    pub pauses: usize,
    pub wrong_verdicts: usize,
}

/// A rule that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// The end of some attempts is lost.
    LoseCompletion,
    /// Some calls end twice.
    EndTwice,
    /// Some requests are handed to the handler twice.
    RunTwice,
    /// A request that is refused runs all the same.
    RunRefused,
    /// Two casts that arrive together change places.
    SwapCasts,
    /// Some casts are lost in the middle of a lane.
    LoseCasts,
    /// All casts are lost from the middle of the run on.
    LoseLastCasts,
    /// A dead verdict does not end the link.
    IgnoreDeath,
    /// A later generation does not end the link.
    IgnoreRestart,
    /// A node that drains does not wait for what runs.
    LeaveEarly,
    /// The room of an offer has no limit.
    IgnoreRoom,
    /// A lane takes more calls than it may.
    IgnoreLane,
    /// A failed call is tried again without a budget.
    RetryFreely,
    /// Some updates of the directory are lost.
    LoseUpdates,
    /// Keys belong to providers by their place in the listing.
    KeysByPlace,
    /// A second node is asked for any call.
    HedgeAnything,
    /// The second node may be one that was asked before.
    HedgeAnywhere,
    /// Clients are shown offers that admit none.
    ShowAll,
    /// Clients are admitted by offers that admit none.
    AdmitAll,
    /// Some changes are not told to clients.
    TellLess,
    /// A stream whose handler has begun is refused as if it had not.
    RefuseBegun,
    /// Some items of a stream are lost.
    LoseItems,
    /// The last item of a caller is lost.
    LoseLastItem,
    /// A stream ends only when the callee says so, not at its deadline.
    WaitForStreams,
    /// The handler of a stream is never stopped.
    KeepHandlers,
    /// Some answers go to another stream.
    MixStreams,
}

impl Mutation {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::LoseCompletion,
        Self::EndTwice,
        Self::RunTwice,
        Self::RunRefused,
        Self::SwapCasts,
        Self::LoseCasts,
        Self::LoseLastCasts,
        Self::IgnoreDeath,
        Self::IgnoreRestart,
        Self::LeaveEarly,
        Self::IgnoreRoom,
        Self::IgnoreLane,
        Self::RetryFreely,
        Self::LoseUpdates,
        Self::KeysByPlace,
        Self::HedgeAnything,
        Self::HedgeAnywhere,
        Self::ShowAll,
        Self::AdmitAll,
        Self::TellLess,
        Self::RefuseBegun,
        Self::LoseItems,
        Self::LoseLastItem,
        Self::WaitForStreams,
        Self::KeepHandlers,
        Self::MixStreams,
    ];
}
