//! `why`: the state transitions of a peer as this agent sees it, and their reasons.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gossipmonger::{
    Cut, DialFailure, Foreign, Snapshot,
    protocol::{
        id::NodeId,
        phi::LOSS_MIN,
        reason::{Evidence, Transition},
        revocation::Revocations,
        time::Time,
    },
    unstable::date,
};
use serde::{Deserialize, Serialize};

use super::{
    admin::{Request, State, measured, rounded},
    client,
    error::CliError,
    output,
    remote::Target,
    revocations::{RevocationView, Revoked},
};
use crate::clock::Clock;

/// Show why a node is live, suspect or dead: the last state changes, each with its evidence. Or show which providers
/// of a service get calls of the agent's node, and why the others do not.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gossipmonger --dir a why b
  gossipmonger --dir a why b --json
  gossipmonger --dir a why stock/2")]
pub(crate) struct Why {
    /// The node, or the service as NAME/MAJOR.
    #[arg(value_name = "NODE|NAME/MAJOR")]
    subject: Subject,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// What is explained. No name of a node has a slash.
#[derive(Clone, Debug)]
enum Subject {
    Node(NodeId),
    Service(String),
}

impl std::str::FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('/') {
            let service = super::services::parsed(text).map_err(|error| error.to_string())?;
            return Ok(Self::Service(service.to_string()));
        }
        NodeId::new(text).map(Self::Node).map_err(|error| error.to_string())
    }
}

/// The state of a node, and how it came about.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WhyView {
    node: NodeId,
    state: State,
    /// `None`: the agent measures none, since the node is dead, has left or is unreachable.
    phi: Option<f64>,
    local: bool,
    /// Oldest first.
    changes: Vec<Change>,
    /// Why the connection with it was last closed on purpose; `None` if it never was.
    cut: Option<CutView>,
    /// Why it was not reached when it was last dialed: one entry for each way that was tried.
    #[serde(default)]
    dials: Vec<DialView>,
    /// When it was last removed before `forget_after`; `None` if it never was.
    removed: Option<RemovedView>,
    /// Which of its certificates are revoked, if any are.
    revoked: Option<RevocationView>,
}

/// What the agent remembers of a node, whether it knows the node now or not.
#[derive(Debug, Default)]
pub(crate) struct Past {
    /// Why the connection with it was last closed on purpose.
    pub(crate) cut: Option<Cut>,
    /// Why it was not reached when it was last dialed.
    pub(crate) dials: Vec<DialView>,
    /// When it was last removed, and the node that reported it; `None` if an operator asked this agent.
    pub(crate) removal: Option<(Time, Option<NodeId>)>,
}

/// A node was removed.
#[derive(Debug, Serialize, Deserialize)]
struct RemovedView {
    at: Foreign,
    age_ms: u64,
    /// The node that reported it; `None`: an operator asked this agent.
    by: Option<NodeId>,
}

/// A connection was closed on purpose.
#[derive(Debug, Serialize, Deserialize)]
struct CutView {
    at: Foreign,
    age_ms: u64,
    /// Whether the node closed it, not this agent.
    by_peer: bool,
    /// The label under which refusals are counted.
    label: Foreign,
    reason: Foreign,
}

/// An attempt to reach an address failed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DialView {
    at: Foreign,
    age_ms: u64,
    /// As it was configured or advertised.
    address: Foreign,
    /// What it was resolved to.
    to: Option<Foreign>,
    /// The address of the agent from which it dialed.
    from: Option<Foreign>,
    reason: Foreign,
    /// The whole attempt as a sentence.
    sentence: Foreign,
}

/// One state transition of a node.
#[derive(Debug, Serialize, Deserialize)]
struct Change {
    /// By RFC 3339 with milliseconds, computed from the age and the agent's present wall clock.
    at: Foreign,
    age_ms: u64,
    from: State,
    to: State,
    cause: Foreign,
    /// The cause as a sentence, with the node as its subject.
    sentence: Foreign,
    phi: f64,
    observers: Vec<NodeId>,
    /// How long the agent itself had stood still shortly before.
    stall_ms: f64,
    /// How slow the agent considered itself, from 0 to 8.
    #[serde(default)]
    slowness: u32,
    /// How late the agent's node was served.
    #[serde(default)]
    lag_ms: f64,
    /// How many times as long as usual the agent takes to judge the node.
    #[serde(default)]
    factor: u32,
    /// `None`: the agent does not hear the node itself; others reported it.
    evidence: Option<EvidenceView>,
}

/// What the agent itself heard.
#[derive(Debug, Serialize, Deserialize)]
struct EvidenceView {
    heard: bool,
    silence_ms: f64,
    connection: Connection,
    rtt_ms: Option<f64>,
    /// The part of the packets that is lost; `None`: it was not measured.
    loss: Option<f64>,
    unanswered_probes: u32,
}

/// Which end dialed the connection that should have carried signs of life.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Connection {
    Dialed,
    Accepted,
    None,
}

pub(crate) fn why(agent: &Target, args: Why) -> Result<(), CliError> {
    let node = match args.subject {
        Subject::Node(node) => node,
        Subject::Service(service) => return super::why_service::why(agent, service, args.json),
    };
    let why: WhyView = client::call(agent, Request::Why { node })?;
    if args.json {
        return output::json(&why);
    }
    output::line(&why.summary())?;
    if let Some(cut) = &why.cut {
        output::line(&cut.sentence())?;
    }
    for dial in &why.dials {
        output::line(&dial.sentence())?;
    }
    if let Some(removed) = &why.removed {
        output::line(&removed.sentence())?;
    }
    if why.changes.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = why.changes.iter().map(Change::row).collect();
    output::table(
        ["WHEN", "AGO", "CHANGE", "PHI", "SILENCE", "PATH", "AGENT", "OBSERVERS", "WHY"],
        &rows,
    )
}

impl WhyView {
    /// `None`: no such node is known.
    pub(crate) fn new(
        snapshot: &Snapshot,
        node: &NodeId,
        past: Past,
        revocations: &Revocations,
    ) -> Option<Self> {
        let revoked = Revoked::of(revocations, node).map(|revoked| revoked.view);
        let cut = past.cut.map(|cut| CutView::new(snapshot, cut));
        let removed = past.removal.map(|removal| RemovedView::new(snapshot, removal));
        let Some(member) = snapshot.member(node) else {
            let state = match (&revoked, &removed) {
                (Some(_), _) => State::Revoked,
                (None, Some(_)) => State::Removed,
                (None, None) => return None,
            };
            let (node, changes) = (node.clone(), Vec::new());
            return Some(Self {
                node,
                state,
                phi: None,
                local: false,
                changes,
                cut,
                dials: past.dials,
                removed,
                revoked,
            });
        };
        let changes = snapshot.why(node).into_iter().flat_map(|history| history.iter());
        Some(Self {
            node: member.node,
            state: member.state.into(),
            phi: measured(member.state, member.phi),
            local: member.local,
            changes: changes.map(|change| Change::new(snapshot, change)).collect(),
            cut,
            dials: past.dials,
            removed,
            revoked,
        })
    }

    fn summary(&self) -> String {
        let Self { node, phi, .. } = self;
        let state = self.state.as_str();
        if let (State::Revoked, Some(view)) = (self.state, &self.revoked) {
            return format!(
                "{node} is revoked: its certificates valid from {} or earlier are refused until {}, and \
                 what was known of it is forgotten (authority {})",
                view.cutoff, view.expires, view.issuer
            );
        }
        if self.state == State::Removed {
            return format!("{node} is not known: it was removed, and forgotten before its time");
        }
        // The table below shows the rest of its history.
        match self.changes.iter().rev().find(|change| change.from != change.to) {
            _ if self.local => format!("{node} is this node itself"),
            None if !self.changes.is_empty() => format!("{node} is {state} since this node met it"),
            None => format!("{node} is {state}; nothing has changed since this node met it"),
            Some(last) => {
                let Change { sentence, at, .. } = last;
                let phi = phi.map_or_else(String::new, |phi| format!(", phi {phi:.2}"));
                format!("{node} is {state} since {at}{phi}: it {sentence}")
            }
        }
    }
}

impl CutView {
    fn new(snapshot: &Snapshot, cut: Cut) -> Self {
        let Cut { at, by_peer, label, reason, .. } = cut;
        let (at, age_ms) = when(snapshot, at);
        Self { at, age_ms, by_peer, label: label.into(), reason: reason.into() }
    }

    fn sentence(&self) -> String {
        let Self { age_ms, label, reason, .. } = self;
        let by = if self.by_peer { "it" } else { "this node" };
        let ago = shown_time(*age_ms as f64);
        format!("its connection was last cut {ago} ago by {by} ({label}): {reason}")
    }
}

impl DialView {
    pub(crate) fn new(snapshot: &Snapshot, failure: &DialFailure) -> Self {
        let (at, age_ms) = when(snapshot, failure.at);
        Self {
            at,
            age_ms,
            address: failure.address.clone().into(),
            to: failure.to.map(|to| to.to_string().into()),
            from: failure.from.map(|from| from.to_string().into()),
            reason: failure.reason.clone().into(),
            sentence: failure.to_string().into(),
        }
    }

    /// The explanation for people.
    pub(crate) fn sentence(&self) -> String {
        format!("not reached {} ago at {}", shown_time(self.age_ms as f64), self.sentence)
    }
}

impl RemovedView {
    fn new(snapshot: &Snapshot, (at, by): (Time, Option<NodeId>)) -> Self {
        let (at, age_ms) = when(snapshot, at);
        Self { at, age_ms, by }
    }

    fn sentence(&self) -> String {
        let ago = shown_time(self.age_ms as f64);
        match &self.by {
            Some(by) => format!("it was last removed {ago} ago: {by} told this agent so"),
            None => format!("it was last removed {ago} ago, as was asked at this agent"),
        }
    }
}

impl Change {
    fn new(snapshot: &Snapshot, transition: &Transition) -> Self {
        let Transition { at, from, to, reason } = transition;
        let (at, age_ms) = when(snapshot, *at);
        Self {
            at,
            age_ms,
            from: (*from).into(),
            to: (*to).into(),
            cause: reason.cause.as_str().into(),
            sentence: match &reason.deed {
                Some(deed) => format!("{} ({deed})", reason.cause.as_sentence()).into(),
                None => reason.cause.as_sentence().into(),
            },
            phi: rounded(reason.phi),
            observers: reason.observers.to_vec(),
            stall_ms: millis(reason.stall),
            slowness: reason.slowness,
            lag_ms: millis(reason.lag),
            factor: reason.factor,
            evidence: reason.evidence.as_ref().map(EvidenceView::new),
        }
    }

    fn row(&self) -> [String; 9] {
        let evidence = self.evidence.as_ref();
        [
            self.at.to_string(),
            shown_time(self.age_ms as f64),
            format!("{} -> {}", self.from.as_str(), self.to.as_str()),
            format!("{:.2}", self.phi),
            evidence.map_or_else(|| "-".to_owned(), |seen| shown_time(seen.silence_ms)),
            evidence.map_or_else(|| "-".to_owned(), EvidenceView::path),
            self.own_state(),
            names(&self.observers),
            self.sentence.to_string(),
        ]
    }

    /// What made the agent more patient than usual, or a dash.
    fn own_state(&self) -> String {
        let mut shown = Vec::new();
        if self.stall_ms > 0.0 {
            shown.push(format!("stood still {}", shown_time(self.stall_ms)));
        }
        if self.lag_ms > 0.0 {
            shown.push(format!("late {}", shown_time(self.lag_ms)));
        }
        if self.slowness > 0 {
            shown.push(format!("slowness {}", self.slowness));
        }
        if self.factor > 1 {
            shown.push(format!("patience x{}", self.factor));
        }
        if shown.is_empty() { "-".to_owned() } else { shown.join(", ") }
    }
}

impl EvidenceView {
    fn new(evidence: &Evidence) -> Self {
        Self {
            heard: evidence.heard,
            silence_ms: millis(evidence.silence),
            connection: match evidence.dialed {
                Some(true) => Connection::Dialed,
                Some(false) => Connection::Accepted,
                None => Connection::None,
            },
            rtt_ms: evidence.rtt.map(millis),
            // The minimum that phi assumes is not a measurement.
            loss: Some(evidence.loss).filter(|loss| *loss > LOSS_MIN).map(rounded),
            unanswered_probes: evidence.probes,
        }
    }

    fn path(&self) -> String {
        let mut path = match self.connection {
            Connection::Dialed => "dialed".to_owned(),
            Connection::Accepted => "accepted".to_owned(),
            Connection::None => "no connection".to_owned(),
        };
        if !self.heard {
            path.push_str(", never heard");
        }
        if let Some(rtt) = self.rtt_ms {
            path.push_str(&format!(", rtt {rtt} ms"));
        }
        if let Some(loss) = self.loss {
            path.push_str(&format!(", loss {:.1} %", loss * 100.0));
        }
        if self.unanswered_probes > 0 {
            path.push_str(&format!(", {} probes unanswered", self.unanswered_probes));
        }
        path
    }
}

/// Names separated by commas, or a dash.
pub(crate) fn names(nodes: &[NodeId]) -> String {
    if nodes.is_empty() {
        return "-".to_owned();
    }
    nodes.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", ")
}

/// When something happened, by the present wall clock, and how many milliseconds ago.
pub(crate) fn when(snapshot: &Snapshot, at: Time) -> (Foreign, u64) {
    let age = snapshot.now().since(at);
    let wall = Clock::wall().checked_sub(age).map(moment).unwrap_or_default();
    (wall.into(), u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}

/// RFC 3339 with milliseconds: several changes within one second can be ordered against the log.
fn moment(at: SystemTime) -> String {
    let millis = at.duration_since(UNIX_EPOCH).unwrap_or_default().subsec_millis();
    format!("{}.{millis:03}Z", date(at).trim_end_matches('Z'))
}

fn millis(time: Duration) -> f64 {
    rounded(time.as_secs_f64() * 1000.0)
}

fn shown_time(millis: f64) -> String {
    let seconds = millis / 1000.0;
    match seconds {
        0.0..1.0 => format!("{millis:.0} ms"),
        1.0..120.0 => format!("{seconds:.1} s"),
        120.0..7200.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use gossipmonger::protocol::{
        reason::{Cause, Reason},
        state::PeerState,
    };

    fn snapshot(now: Duration) -> Snapshot {
        Snapshot::empty(NodeId::new("a").unwrap(), Time::from_origin(now))
    }

    #[test]
    fn refuses_to_explain_who_is_unknown() {
        let nobody = NodeId::new("nobody").unwrap();
        let none = Revocations::default();
        let past = Past::default();
        assert!(WhyView::new(&snapshot(Duration::ZERO), &nobody, past, &none).is_none());
    }

    #[test]
    fn says_who_has_told_of_the_removal_of_a_node_that_is_not_known_any_more() {
        let (node, none) = (NodeId::new("c").unwrap(), Revocations::default());
        let removal = Some((Time::from_origin(Duration::from_secs(4)), NodeId::new("b").ok()));
        let past = Past { removal, ..Past::default() };
        let why = WhyView::new(&snapshot(Duration::from_secs(10)), &node, past, &none).unwrap();
        assert_eq!(
            why.removed.as_ref().unwrap().sentence(),
            "it was last removed 6.0 s ago: b told this agent so"
        );
        let json = serde_json::to_value(&why).unwrap();
        assert_eq!((&json["state"], &json["removed"]["by"]), (&"removed".into(), &"b".into()));
    }

    #[test]
    fn a_deed_is_shown_with_what_followed_from_it() {
        let mut reason = Reason::of(Cause::CutOff);
        reason.deed = Some("more roots than 200 a second, again and again".into());
        let at = Time::from_origin(Duration::from_secs(10));
        let (from, to, reason) = (PeerState::Live, PeerState::Live, Arc::new(reason));
        let transition = Transition { at, from, to, reason };
        let change = Change::new(&snapshot(Duration::from_secs(11)), &transition);
        assert_eq!(
            change.row()[8],
            "did not keep to the protocol and was cut off by this node (more roots than 200 a \
             second, again and again)"
        );
        assert_eq!(serde_json::to_value(&change).unwrap()["cause"], "cut_off");
    }

    #[test]
    fn a_loss_that_was_not_measured_is_not_shown() {
        let evidence = |loss| {
            let mut evidence = Evidence::default();
            (evidence.heard, evidence.dialed, evidence.loss) = (true, Some(false), loss);
            evidence
        };
        assert_eq!(EvidenceView::new(&evidence(LOSS_MIN)).path(), "accepted");
        assert_eq!(EvidenceView::new(&evidence(0.02)).path(), "accepted, loss 2.0 %");
        let json = serde_json::to_value(EvidenceView::new(&evidence(LOSS_MIN))).unwrap();
        assert_eq!(json["loss"], serde_json::Value::Null);
    }

    #[test]
    fn times_of_one_second_can_be_ordered() {
        let at =
            |millis: u64| moment(UNIX_EPOCH + Duration::from_millis(1_795_883_134_000 + millis));
        assert_eq!(at(40), "2026-11-28T16:25:34.040Z");
        assert!(at(40) < at(100) && at(100) < at(999));
    }

    #[test]
    fn a_change_is_shown_with_all_that_is_known_of_it() {
        let mut evidence = Evidence::default();
        evidence.silence = Duration::from_millis(1_234);
        evidence.heard = true;
        evidence.dialed = Some(true);
        evidence.rtt = Some(Duration::from_micros(400));
        evidence.loss = 0.05;
        evidence.probes = 5;
        let mut reason = Reason::of(Cause::Quorum);
        reason.phi = 8.914;
        reason.evidence = Some(evidence);
        reason.observers = ["a", "c"].map(|name| NodeId::new(name).unwrap()).into();
        reason.stall = Duration::from_millis(300);
        (reason.slowness, reason.lag, reason.factor) = (3, Duration::from_millis(60), 4);
        let transition = Transition {
            at: Time::from_origin(Duration::from_secs(10)),
            from: PeerState::Live,
            to: PeerState::Suspect,
            reason: Arc::new(reason),
        };
        let change = Change::new(&snapshot(Duration::from_secs(100)), &transition);
        assert_eq!(change.age_ms, 90_000);
        let row = change.row();
        let why = "is not heard by enough of those who should hear it";
        assert_eq!(
            row[1..],
            [
                "90.0 s",
                "live -> suspect",
                "8.91",
                "1.2 s",
                "dialed, rtt 0.4 ms, loss 5.0 %, 5 probes unanswered",
                "stood still 300 ms, late 60 ms, slowness 3, patience x4",
                "a, c",
                why
            ]
        );
        let json = serde_json::to_value(&change).unwrap();
        assert_eq!(json["evidence"]["connection"], "dialed");
        assert_eq!(json["cause"], "quorum");
    }
}
