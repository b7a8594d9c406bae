//! Watches one peer: its heartbeats and ours, the misses, and the probes that distinguish silence from packet
//! loss.
//!
//! On each edge there is one heartbeat in an interval, sent by the end that dialed; its acknowledgement is
//! the sign of life of the other end. A heartbeat that stays unanswered, or that is overdue, is a miss: from
//! then on the peer is probed in quick succession, until it is heard or phi, the improbability of so much bad
//! luck, exceeds the limit of this node.

use std::{iter::repeat, ops::Range, time::Duration};

use super::{
    phi::{PHI_MAX, PhiEstimate, PhiWindow},
    reason::Evidence,
    route::Sign,
    time::Time,
};

mod edge;
mod miss;
mod path;
mod renewal;

pub use edge::TICKS_PER_INTERVAL;
pub use miss::{PROBES_MAX, QUICK_PROBES};

use edge::Edge;
use miss::Miss;
use path::Path;
use renewal::Renewal;

/// How long to wait for an answer beyond the round trip before it is missed: QUIC delays an acknowledgement
/// by 25 ms (RFC 9000 section 18.2), and repeats lost packets after some more.
pub const ACK_DELAY: Duration = Duration::from_millis(25);
/// The least time between two probes; it applies with the shortest intervals.
pub const PROBE_SPACING: Duration = Duration::from_millis(5);
/// See [`PROBE_SPACING`].
pub const PROBE_SPACING_MIN: Duration = Duration::from_millis(3);
/// A peer that refutes us again and again gets up to 32 times as long before it is missed.
pub const DOUBTS_MAX: u32 = 5;

/// The scale of the judgement.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// How often a heartbeat is expected.
    pub interval: Duration,
    /// How long a peer that was never heard may take.
    pub join_grace: Duration,
    /// The level of suspicion at which this node is convinced.
    pub dead_peer_phi: f64,
    /// How slow this node considers itself: 0 is normal. All times of the judgement are 1 + `health` times as
    /// long, and nothing else depends on it.
    pub health: u32,
    /// How late this node was served within the last interval at worst, if that is late at all; otherwise
    /// zero.
    pub lag: Duration,
    /// There are so few edges that one heartbeat on each would leave long gaps between them: the end that did
    /// not dial sends one as well, half an interval after the other's.
    pub few: bool,
    /// See [`Rules::linear_patience`](super::rules::Rules::linear_patience).
    pub linear: bool,
}

impl Scale {
    /// How many times as long as usual everything may take.
    #[must_use]
    pub const fn slowness(&self) -> u32 {
        1 + self.health
    }
}

/// The packet to send to the peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// A heartbeat.
    pub beat: bool,
    /// A probe.
    pub probe: bool,
}

/// Watches a peer that this node observes itself.
#[derive(Debug)]
pub struct Watch {
    window: PhiWindow,
    /// When this node began to observe it.
    since: Time,
    /// It was heard at least once.
    heard: bool,
    /// How often it has refuted us since it was last heard here: the path between us is broken, not the peer.
    doubts: u32,
    /// Whether this node has a vote on it.
    judged: bool,
    edge: Edge,
    path: Path,
    /// When it was last sent the report about it.
    confronted: Option<Time>,
    /// How slow the peer finds itself.
    health: u8,
    miss: Option<Box<Miss>>,
    /// When it was last heard here, whatever others report.
    answered: Time,
    /// The nodes with bridges have been informed that it is not heard.
    reported: bool,
    renewal: Renewal,
}

impl Watch {
    /// A peer that this node observes from now on.
    #[must_use]
    pub fn new(now: Time, interval: Duration, judged: bool) -> Self {
        Self {
            window: PhiWindow::new(now, interval),
            since: now,
            heard: false,
            doubts: 0,
            judged,
            edge: Edge::default(),
            path: Path::new(),
            confronted: None,
            health: 0,
            miss: None,
            answered: now,
            reported: false,
            renewal: Renewal::default(),
        }
    }

    /// The peer has a new generation: what was heard before has no meaning any more, the connections stay as
    /// they were reported.
    pub fn renew(&mut self, now: Time, interval: Duration) {
        let renewal = Renewal::new(now, self.is_heard_lately(now, interval));
        let (edge, reported) = (self.edge.unused(), self.reported);
        *self = Self { edge, reported, renewal, ..Self::new(now, interval, self.judged) };
    }

    /// Whether it was heard here within the last intervals, and is not missed.
    #[must_use]
    pub fn is_heard_lately(&self, now: Time, interval: Duration) -> bool {
        let silence = self.window.silence(now);
        self.heard && self.miss.is_none() && silence <= interval * OVERLAP_INTERVALS
    }

    /// Whether the earlier generation was still heard when the present one was learned of.
    #[must_use]
    pub const fn overlaps(&self) -> bool {
        self.renewal.overlaps()
    }

    /// A packet of an earlier generation was heard. Returns whether that generation goes on beside the
    /// present one, so that the packet was not only delayed. It returns so once for each generation.
    pub fn hears_earlier(&mut self, at: Time, interval: Duration) -> bool {
        self.renewal.hears_earlier(at, interval * OVERLAP_INTERVALS)
    }

    /// Whether this node has a vote on the peer.
    #[must_use]
    pub const fn is_judged(&self) -> bool {
        self.judged
    }

    /// Sets whether it has.
    pub const fn set_judged(&mut self, judged: bool) {
        self.judged = judged;
    }

    /// A connection was opened or closed.
    pub fn linked(&mut self, up: bool, dialed: bool) {
        self.edge.linked(up, dialed);
        self.path.break_off();
    }

    /// Whether this end sends the heartbeats.
    #[must_use]
    pub const fn is_ours_to_beat(&self) -> bool {
        self.edge.is_ours_to_beat()
    }

    /// The tick of an interval in which this end sends them, if it does.
    #[must_use]
    pub const fn slot(&self) -> Option<u64> {
        self.edge.slot()
    }

    /// Whether it is heard as usual and the round trip is known: only heartbeats are to be sent.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.heard && self.miss.is_none() && self.path.rtt().is_some()
    }

    /// In which tick of an interval they are.
    pub const fn set_slot(&mut self, slot: u64) {
        self.edge.set_slot(slot);
    }

    /// The loss that the connection has measured. While the peer is silent everything is lost: that says
    /// nothing about the path.
    pub const fn set_loss(&mut self, loss: f64) {
        if self.miss.is_none() {
            self.path.set_loss(loss);
        }
    }

    /// How slow the peer finds itself.
    pub const fn set_health(&mut self, health: u8) {
        self.health = health;
    }

    /// Whether it was ever heard.
    #[must_use]
    pub const fn is_heard(&self) -> bool {
        self.heard
    }

    /// It counts as heard, according to an earlier detector or to other nodes.
    pub const fn assume_heard(&mut self) {
        self.heard = true;
    }

    /// Whether its being heard again has no consequences.
    #[must_use]
    pub const fn is_quiet(&self) -> bool {
        self.miss.is_none() && !self.reported
    }

    /// Whether there was a miss and nothing has been heard since.
    #[must_use]
    pub const fn is_missing(&self) -> bool {
        self.miss.is_some()
    }

    /// Whether a probe was not answered in time either, so that more than one packet was late.
    #[must_use]
    pub fn is_doubted(&self) -> bool {
        self.miss.as_ref().is_some_and(|miss| miss.lapsed() > 0)
    }

    /// Since when.
    #[must_use]
    pub fn missing_since(&self) -> Option<Time> {
        self.miss.as_ref().map(|miss| miss.since())
    }

    /// When it was last heard.
    #[must_use]
    pub fn last_heard(&self) -> Option<Time> {
        self.heard.then(|| self.window.estimate().last_heard)
    }

    /// When it was last heard here, whatever others report; or since when it is observed.
    #[must_use]
    pub const fn last_answer(&self) -> Time {
        self.answered
    }

    /// Whether it has been silent for so long that the nodes with bridges have to be informed, and they have
    /// not been yet. For other peers the judgement does this.
    pub fn falls_silent(&mut self, now: Time, scale: &Scale) -> bool {
        let patience = scale.interval * SILENT_INTERVALS + self.patience(scale);
        let silent = !self.judged && !self.reported && now.since(self.answered) >= patience;
        self.reported |= silent;
        silent
    }

    /// Whether the nodes with bridges have to be informed that it is heard again.
    pub const fn speaks_again(&mut self) -> bool {
        std::mem::replace(&mut self.reported, false)
    }

    /// Whether they were informed that it is not heard.
    #[must_use]
    pub const fn is_reported(&self) -> bool {
        self.reported
    }

    /// Whether it has been heard so recently that nothing is missing.
    #[must_use]
    pub fn hears(&self, now: Time, scale: &Scale) -> bool {
        let patience = scale.interval + self.patience(scale);
        self.heard && self.miss.is_none() && self.window.silence(now) <= patience
    }

    /// Something was heard.
    pub fn hear(&mut self, sign: Sign, at: Time) {
        if let Sign::Echo(number) = sign {
            let miss = self.miss.as_deref();
            let waiting = miss.into_iter().flat_map(Miss::waiting).chain(self.path.measuring());
            let late = miss.into_iter().flat_map(Miss::late);
            let found = waiting
                .zip(repeat(false))
                .chain(late.zip(repeat(true)))
                .find(|((sent, _), _)| *sent == number);
            if let Some((when, late)) = found.map(|((_, when), late)| (*when, late)) {
                self.path.measure(at.since(when), late);
            }
        }
        if let Some(miss) = &self.miss {
            if at >= miss.since() {
                if miss.is_ours() {
                    self.path.missed();
                }
                self.miss = None;
            }
        } else if self.edge.unanswered().is_some() || sign == Sign::Heartbeat {
            // At either end of the edge this happens once in an interval.
            self.path.kept();
        }
        self.edge.answered(at);
        self.heard = true;
        self.answered = self.answered.max(at);
        self.doubts = 0;
        match sign {
            Sign::Heartbeat => self.window.heartbeat(at),
            Sign::Traffic | Sign::Echo(_) => self.window.heard(at),
        }
    }

    /// It has refuted a suspicion, or others hear it: it lives, and the path to it is broken.
    pub fn vouched(&mut self, now: Time) {
        self.doubts = (self.doubts + 1).min(DOUBTS_MAX);
        self.window.pause();
        self.window.heard(now);
        self.since = now;
        self.miss = None;
        self.edge.acquit();
    }

    /// Whether to send it the report about it now, so that it can refute that.
    pub fn may_confront(&mut self, now: Time, interval: Duration) -> bool {
        if self.confronted.is_some_and(|at| now.since(at) < interval) {
            return false;
        }
        self.confronted = Some(now);
        true
    }

    /// The next heartbeat ends no interval: there was an outage.
    pub const fn pause(&mut self) {
        self.window.pause();
    }

    /// Excludes this time from the silence: this process itself stood still and could not hear.
    pub fn excuse(&mut self, stalled: Duration, now: Time) {
        let later = |at: Time| (at + stalled).min(now);
        self.since = later(self.since);
        self.answered = later(self.answered);
        self.window.excuse(stalled, now);
        self.edge.excuse(stalled, now);
        self.path.break_off();
        if let Some(miss) = &mut self.miss {
            miss.excuse(stalled, now);
        }
    }

    /// Time passes; `ticks`: those that are due, counted from the origin. Returns the packets to send;
    /// `number` is that of the probe.
    pub fn tick(&mut self, now: Time, ticks: Range<u64>, number: u64, scale: &Scale) -> Due {
        let mut due = Due::default();
        let whole = !ticks.is_empty();
        let ours = self.edge.is_due(ticks);
        if ours || (whole && self.is_between_beats(now, scale)) {
            due.beat = true;
            self.edge.beat(now);
        }
        if self.miss.as_ref().is_none_or(|miss| !miss.is_ours()) && self.is_overdue(now, scale) {
            self.begin_miss(now, true);
        }
        if let Some(miss) = &mut self.miss {
            let (rtt, late) = (self.path.rtt(), !scale.lag.is_zero());
            miss.lapse(now, answer_wait(rtt, scale, self.health));
            if self.edge.is_up() && miss.is_due(now, late) {
                due.probe = true;
                let slow = scale.interval / 10 * if scale.linear { scale.slowness() } else { 1 };
                miss.probe(now, number, spacing(rtt, scale), slow, late);
            }
        } else if whole && self.edge.is_up() && self.is_to_be_measured(now, scale) {
            due.probe = true;
            self.path.begin(number, now);
        }
        due
    }

    /// When it has to be checked again before the next tick.
    #[must_use]
    pub fn next_look(&self, scale: &Scale) -> Option<Time> {
        let miss = self.miss.as_ref()?;
        let lapse = miss.next_lapse(answer_wait(self.path.rtt(), scale, self.health));
        let probes = self.edge.is_up() && miss.has_room(!scale.lag.is_zero());
        let probe = probes.then_some(miss.next());
        [lapse, probe].into_iter().flatten().min()
    }

    /// From now on it is probed, since another node asks.
    pub fn begin_probing(&mut self, now: Time) {
        self.begin_miss(now, false);
    }

    fn begin_miss(&mut self, since: Time, ours: bool) {
        self.miss.get_or_insert_with(|| Box::new(Miss::new(since))).note(ours);
    }

    /// The level of suspicion. A node that considers itself slow expects everything later, so its level grows
    /// as much more slowly.
    #[must_use]
    pub fn phi(&self, now: Time, scale: &Scale) -> f64 {
        let slowness = if scale.linear { f64::from(scale.slowness()) } else { 1.0 };
        if !self.heard {
            let silent = now.since(self.since).as_secs_f64();
            let grace = scale.join_grace.as_secs_f64() * slowness;
            return scale.dead_peer_phi * silent / grace.max(f64::EPSILON);
        }
        let usual = self.estimate();
        let (mean, deviation) = (usual.mean * slowness, usual.deviation * slowness);
        PhiEstimate { mean, deviation, ..usual }.phi(now)
    }

    /// How many times as long as usual the judgement takes: for this node's own slowness, or since the peer
    /// has refuted it.
    #[must_use]
    pub fn patience_factor(&self, scale: &Scale) -> u32 {
        scale.slowness() << self.doubts.min(GRAVE_DOUBTS)
    }

    /// Whether this node is convinced that it is gone.
    #[must_use]
    pub fn convinces(&self, now: Time, scale: &Scale) -> bool {
        // It was reported live just now: a new connection needs some time, and much on a busy machine.
        if self.doubts > 0 && now.since(self.since) < scale.interval * RECONNECT_INTERVALS {
            return false;
        }
        if !self.heard || self.miss.is_some() {
            // The own slowness, and that of the peer, are in the times already.
            let patience = if scale.linear {
                f64::from(1 << self.doubts.min(GRAVE_DOUBTS))
            } else {
                f64::from(self.patience_factor(scale))
                    * (1.0 + f64::from(self.health.min(PEER_HEALTH_MAX)) / 2.0)
            };
            // Beyond the end of the scale no node would ever be convinced.
            let enough = (scale.dead_peer_phi * patience).min(PHI_MAX);
            return self.phi(now, scale) >= enough;
        }
        false
    }

    /// The figures behind the judgement of its silence.
    #[must_use]
    pub fn estimate(&self) -> PhiEstimate {
        let lapsed = self.miss.as_ref().map_or(0, |miss| miss.lapsed());
        PhiEstimate { loss: self.path.loss(), lapsed, ..self.window.estimate() }
    }

    /// The figures behind a judgement.
    #[must_use]
    pub fn evidence(&self, now: Time) -> Evidence {
        Evidence {
            silence: if self.heard { self.window.silence(now) } else { now.since(self.since) },
            heard: self.heard,
            dialed: self.edge.dialed(),
            rtt: self.path.rtt(),
            loss: self.path.loss(),
            probes: self.miss.as_ref().map_or(0, |miss| miss.lapsed()),
        }
    }

    /// Whether the other end's heartbeat was half an interval ago, so that ours comes between two of them.
    fn is_between_beats(&self, now: Time, scale: &Scale) -> bool {
        let half = scale.interval / 2;
        let sent = |at: Time| now.since(at) < half + scale.interval / 4;
        scale.few
            && self.judged
            && self.edge.dialed() == Some(false)
            && self.window.last_heartbeat().is_some_and(|at| now.since(at) >= half)
            && !self.edge.sent().is_some_and(sent)
    }

    /// Whether it is overdue.
    #[must_use]
    pub fn is_overdue(&self, now: Time, scale: &Scale) -> bool {
        let (patience, doubted) = (self.patience(scale), 1 << self.doubts);
        if !self.heard {
            return now.since(self.since) >= scale.join_grace * doubted / 4 * 3;
        }
        // A peer that has refuted us is not probed at each heartbeat.
        let unanswered = |sent| self.doubts == 0 && now.since(sent) >= patience;
        self.edge.unanswered().is_some_and(unanswered)
            || self.window.silence(now) >= (scale.interval + patience) * doubted
    }

    fn is_to_be_measured(&self, now: Time, scale: &Scale) -> bool {
        let with_beat = self.edge.sent().is_none_or(|sent| sent == now);
        let often = self.is_ours_to_beat() && self.edge.beats() % MEASURE_BEATS == 1;
        self.path.is_to_be_measured(now, scale.interval, with_beat, often)
    }

    /// How late an answer may be.
    fn patience(&self, scale: &Scale) -> Duration {
        let rtt = self.path.rtt().unwrap_or(RTT_UNKNOWN);
        let answered = rtt + rtt / 2 + ACK_DELAY + SLACK;
        answered.max(scale.interval / 10) * scale.slowness()
    }
}

fn spacing(rtt: Option<Duration>, scale: &Scale) -> Duration {
    let rtt = rtt.unwrap_or(RTT_UNKNOWN);
    let least = (scale.interval / 66).clamp(PROBE_SPACING_MIN, PROBE_SPACING);
    (rtt + rtt / 2).max(least) * scale.slowness()
}

/// How long an echo is waited for: longer if the peer considers itself slow, and not less than this node
/// itself needs to read it.
fn answer_wait(rtt: Option<Duration>, scale: &Scale, peer_health: u8) -> Duration {
    let peer = u32::from(peer_health.min(PEER_HEALTH_MAX));
    let wait = spacing(rtt, scale);
    let wait = if scale.linear { wait + wait * peer / 2 } else { wait * (1 + peer) };
    wait.max(scale.lag)
}

/// A bridge is silent if nothing has come over it for this many intervals: some probes were lost then.
const SILENT_INTERVALS: u32 = 2;
/// A generation that was heard within this many intervals goes on; packets in flight arrive within them.
const OVERLAP_INTERVALS: u32 = 2;
/// As long as nothing has been measured.
const RTT_UNKNOWN: Duration = Duration::from_millis(50);
/// Beyond the round trip and the delay of the acknowledgement.
const SLACK: Duration = Duration::from_millis(5);
/// The round trip is measured once in this many heartbeats.
const MEASURE_BEATS: u32 = 32;
/// For this many intervals a peer that was reported live is not given up: a handshake may take that long,
/// with some reserve.
const RECONNECT_INTERVALS: u32 = 6;
/// How often the time to be convinced is doubled for a peer that refutes us.
const GRAVE_DOUBTS: u32 = 3;
/// The highest slowness that is accepted from a peer.
const PEER_HEALTH_MAX: u8 = 2;
