//! What work costs, and where it is done: the processors of a run. They are off by default.
//!
//! A processor does one piece of work after the other, in the order in which they came. What happens to a node
//! meanwhile waits, its timers included: a node that has too much to do is late. Each node has a processor of its own,
//! or all nodes share one run queue, as the nodes of one machine do. Heartbeats that a run leaves out cost nothing.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::{event::What, network::STREAM_BYTES, queue::micros};
use crate::protocol::id::{Generation, NodeId};

/// What work costs, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Costs {
    /// The four pieces of a handshake with two certificates: the first flight of the end that dials, the answer of the
    /// other end, what the first makes of that, and the end of it at the other.
    pub handshake: [u64; 4],
    /// To sign a write.
    pub sign: u64,
    /// To check the signature on the news of one owner.
    pub verify: u64,
    /// To check the credential of an owner, once for each processor.
    pub credential: u64,
    /// To handle a frame, whatever is in it.
    pub frame: u64,
    /// Each KiB of a frame.
    pub kib: u64,
    /// The news of one owner that were not known.
    pub delta: u64,
    /// Each of its entries.
    pub entry: u64,
    /// The news of one owner that were known.
    pub duplicate: u64,
    /// To receive a packet.
    pub receive: u64,
    /// To send a packet.
    pub send: u64,
    /// A call of a machine whose time has come, and each passage of a handshake through the run queue.
    pub tick: u64,
}

impl Costs {
    /// Round figures for one core of an x86-64 server; their ratios matter, not their sum. A handshake takes what
    /// `gossipmonger bench handshake` shows for both ends. A signature and its check are those of Ed25519. The costs of
    /// packets and frames are a model, not a measurement.
    #[must_use]
    pub const fn typical() -> Self {
        Self {
            handshake: [150, 650, 500, 300],
            sign: 18,
            verify: 30,
            credential: 120,
            frame: 12,
            kib: 1,
            delta: 6,
            entry: 2,
            duplicate: 2,
            receive: 9,
            send: 8,
            tick: 4,
        }
    }

    /// What an event costs as such; its handlers add what they find in it.
    pub(super) fn of(&self, what: &What, bill: &mut Worked) {
        let mut frame = |len: usize| {
            bill.add(Work::Frames, self.frame + self.kib * (len as u64 / 1_024));
            bill.add(Work::Packets, self.receive * len.div_ceil(STREAM_BYTES).max(1) as u64);
        };
        match what {
            What::Gossip { bytes, .. } => frame(bytes.len()),
            What::Frame { payload, .. } => frame(payload.len()),
            What::Datagram { .. } | What::Acknowledged { .. } | What::Closed { .. } => {
                bill.add(Work::Packets, self.receive);
            }
            _ => {}
        }
    }
}

/// The kinds of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Handshakes, without their packets.
    Handshakes,
    /// To send and receive packets.
    Packets,
    /// To read frames.
    Frames,
    /// To apply news, or to find that they are known.
    News,
    /// Signatures and their checks, credentials included.
    Signatures,
    /// Machines whose time has come.
    Timers,
}

impl Work {
    /// All kinds.
    pub const ALL: [Self; 6] =
        [Self::Handshakes, Self::Packets, Self::Frames, Self::News, Self::Signatures, Self::Timers];

    /// Its name in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Handshakes => "handshakes",
            Self::Packets => "packets",
            Self::Frames => "frames",
            Self::News => "news",
            Self::Signatures => "signatures",
            Self::Timers => "timers",
        }
    }
}

/// Work, by its kind, in microseconds of one core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Worked([u64; Work::ALL.len()]);

impl Worked {
    pub(super) fn add(&mut self, work: Work, cost: u64) {
        self.0[work as usize] += cost;
    }

    /// Of one kind.
    #[must_use]
    pub const fn of(&self, work: Work) -> u64 {
        self.0[work as usize]
    }

    /// Of all kinds.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The work since an earlier reading.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self(std::array::from_fn(|kind| self.0[kind] - earlier.0[kind]))
    }
}

/// Which processors the nodes of a run have.
#[derive(Clone, Debug)]
pub struct Processors {
    /// What work costs.
    pub costs: Costs,
    /// How many cores each node has, or all of them share. A part of one is a slower core. Of infinitely many none is
    /// ever busy: work is counted and takes no time.
    pub cores: f64,
    /// All nodes have one run queue, as those of one machine have.
    pub shared: bool,
    /// Nodes with a processor of their own of so many cores, in either case.
    pub apart: BTreeMap<usize, f64>,
    /// Who else works on all processors.
    pub hog: Option<Hog>,
}

/// What else runs on a machine for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hog {
    /// The part of each processor that it takes.
    pub share: f64,
    /// From when, in the time of the run.
    pub from: Duration,
    /// Until when.
    pub until: Duration,
}

impl Processors {
    /// Each node has so many cores.
    #[must_use]
    pub const fn each(cores: f64) -> Self {
        Self { costs: Costs::typical(), cores, shared: false, apart: BTreeMap::new(), hog: None }
    }

    /// All nodes share so many cores.
    #[must_use]
    pub fn shared(cores: f64) -> Self {
        Self { shared: true, ..Self::each(cores) }
    }
}

/// The processors at work.
#[derive(Debug)]
pub(super) struct Cpu {
    pub(super) settings: Processors,
    places: BTreeMap<usize, Place>,
    /// What the present event costs.
    pub(super) bill: Worked,
    /// The work of all nodes.
    pub(super) worked: Worked,
    /// The longest that any piece of it waited, in microseconds.
    pub(super) latest: u64,
    /// The same in each [`LAG_SPAN`] of the run.
    pub(super) lags: Vec<u64>,
    /// Whose credentials were checked, and where.
    vetted: BTreeSet<(usize, NodeId, Generation)>,
}

/// A processor, and what waits for it.
#[derive(Debug)]
struct Place {
    /// Until when each of its cores works.
    busy: Vec<u64>,
    /// Of a core of usual speed.
    speed: f64,
    waiting: VecDeque<Waiting>,
    /// When it goes on with what waits, if that is settled.
    goes_on: Option<u64>,
}

/// A piece of work whose turn has not come.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) slot: usize,
    pub(super) since: u64,
    pub(super) what: What,
}

impl Cpu {
    pub(super) const fn new(settings: Processors) -> Self {
        Self {
            settings,
            places: BTreeMap::new(),
            bill: Worked([0; Work::ALL.len()]),
            worked: Worked([0; Work::ALL.len()]),
            latest: 0,
            lags: Vec::new(),
            vetted: BTreeSet::new(),
        }
    }

    /// Where the work of a machine is done.
    pub(super) fn place_of(&self, slot: usize) -> usize {
        let own = !self.settings.shared || self.settings.apart.contains_key(&slot);
        if own { slot + 1 } else { 0 }
    }

    fn place(&mut self, place: usize) -> &mut Place {
        let settings = &self.settings;
        self.places.entry(place).or_insert_with(|| {
            let apart = place.checked_sub(1).and_then(|slot| settings.apart.get(&slot));
            Place::new(apart.copied().unwrap_or(settings.cores))
        })
    }

    /// Takes an event of a node: gives it back if there is time for it now, otherwise it waits.
    pub(super) fn take(&mut self, slot: usize, now: u64, what: What) -> Option<Waiting> {
        let place = self.place_of(slot);
        let place = self.place(place);
        let new = Waiting { slot, since: now, what };
        if place.waiting.is_empty() && place.free() <= now {
            return Some(new);
        }
        place.waiting.push_back(new);
        None
    }

    /// The next event that waits at a place, if it goes on now.
    pub(super) fn next(&mut self, place: usize, now: u64) -> Option<Waiting> {
        let place = self.place(place);
        place.goes_on.take_if(|at| *at <= now)?;
        if place.free() > now { None } else { place.waiting.pop_front() }
    }

    /// When a place goes on with what waits, unless that is settled or nothing waits.
    pub(super) fn settle(&mut self, place: usize) -> Option<u64> {
        let place = self.place(place);
        if place.goes_on.is_some() || place.waiting.is_empty() {
            return None;
        }
        place.goes_on = Some(place.free());
        place.goes_on
    }

    /// A piece of work had waited for so long when its turn came.
    pub(super) fn waited(&mut self, now: u64, wait: u64) {
        self.latest = self.latest.max(wait);
        let span = usize::try_from(now / LAG_SPAN).unwrap_or(0);
        if self.lags.len() <= span {
            self.lags.resize(span + 1, 0);
        }
        self.lags[span] = self.lags[span].max(wait);
    }

    /// The work on the bill is done at a place from now on.
    pub(super) fn work(&mut self, place: usize, now: u64) {
        let bill = std::mem::take(&mut self.bill);
        for kind in Work::ALL {
            self.worked.add(kind, bill.of(kind));
        }
        let hog = self.settings.hog;
        let place = self.place(place);
        let took = bill.sum() as f64 / place.speed;
        let ends = match hog {
            Some(hog) => hog.ends(now, took),
            None => now + took.round() as u64,
        };
        if let Some(first) = place.busy.iter_mut().min() {
            *first = ends.max(*first);
        }
    }

    /// Whether a credential is new where the work of a machine is done.
    pub(super) fn vets(&mut self, slot: usize, owner: &NodeId, generation: Generation) -> bool {
        let place = self.place_of(slot);
        self.vetted.insert((place, owner.clone(), generation))
    }

    /// The process of a node is gone, with all that waited for it.
    pub(super) fn forget(&mut self, slot: usize) {
        let place = self.place_of(slot);
        self.place(place).waiting.retain(|waiting| waiting.slot != slot);
    }
}

impl Place {
    fn new(cores: f64) -> Self {
        let count = if cores.is_finite() { cores.ceil().max(1.0) } else { 1.0 };
        let busy = vec![0; count as usize];
        Self { busy, speed: cores / count, waiting: VecDeque::new(), goes_on: None }
    }

    /// When its next core has time.
    fn free(&self) -> u64 {
        self.busy.iter().copied().min().unwrap_or(0)
    }
}

impl Hog {
    /// When work that takes so long by itself ends, in microseconds.
    fn ends(&self, start: u64, took: f64) -> u64 {
        let (from, until) = (micros(self.from), micros(self.until));
        let before = from.saturating_sub(start) as f64;
        if took <= before || start >= until {
            return start + took.round() as u64;
        }
        let (begins, left) = (start.max(from), took - before);
        let rate = 1.0 - self.share;
        let within = (until - begins) as f64 * rate;
        if left <= within {
            return begins + (left / rate).round() as u64;
        }
        until + (left - within).round() as u64
    }
}

/// The lag of a run is kept for each span of this length, in microseconds.
pub const LAG_SPAN: u64 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(slot: usize) -> What {
        What::Pump { wire: slot as u64, end: 0 }
    }

    fn works(cpu: &mut Cpu, slot: usize, now: u64, cost: u64) {
        let place = cpu.place_of(slot);
        cpu.bill.add(Work::Frames, cost);
        cpu.work(place, now);
    }

    #[test]
    fn what_shares_a_core_waits_for_all_that_came_before() {
        let mut cpu = Cpu::new(Processors::shared(0.5));
        assert!(cpu.take(3, 100, frame(3)).is_some());
        works(&mut cpu, 3, 100, 50);
        assert!(cpu.take(4, 110, frame(4)).is_none());
        assert!(cpu.take(3, 120, frame(3)).is_none());
        assert_eq!(cpu.settle(0), Some(200), "half a core takes twice as long");
        assert_eq!(cpu.settle(0), None, "it is settled");
        assert_eq!(cpu.next(0, 200).map(|next| (next.slot, next.since)), Some((4, 110)));
        cpu.forget(3);
        assert_eq!(cpu.settle(0), None, "what waited is gone with its process");
    }

    #[test]
    fn two_cores_do_two_things_at_once_and_an_own_one_waits_for_nobody() {
        let apart = BTreeMap::from([(9, 0.05)]);
        let mut cpu = Cpu::new(Processors { apart, ..Processors::shared(2.0) });
        for slot in [1, 2] {
            assert!(cpu.take(slot, 0, frame(slot)).is_some());
            works(&mut cpu, slot, 0, 50);
        }
        assert!(cpu.take(3, 0, frame(3)).is_none());
        assert!(cpu.take(9, 0, frame(9)).is_some());
        works(&mut cpu, 9, 0, 50);
        assert!(cpu.take(9, 0, frame(9)).is_none());
        assert_eq!((cpu.settle(0), cpu.settle(10)), (Some(50), Some(1_000)));
    }

    #[test]
    fn work_takes_no_time_where_it_is_only_counted() {
        let mut cpu = Cpu::new(Processors::each(f64::INFINITY));
        for _ in 0..3 {
            assert!(cpu.take(1, 7, frame(1)).is_some());
            works(&mut cpu, 1, 7, 5_000);
        }
        assert_eq!(cpu.worked.sum(), 15_000);
    }

    #[test]
    fn a_hog_leaves_the_rest_of_its_time() {
        let [from, until] = [1, 3].map(Duration::from_millis);
        let hog = Hog { share: 0.9, from, until };
        assert_eq!(hog.ends(0, 1_000.0), 1_000);
        assert_eq!(hog.ends(0, 1_100.0), 2_000);
        assert_eq!(hog.ends(2_000, 50.0), 2_500);
        assert_eq!(hog.ends(2_000, 300.0), 3_200);
        assert_eq!(hog.ends(3_000, 300.0), 3_300);
    }
}
