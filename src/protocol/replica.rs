//! This node's map and its copies of all other maps: the machine inside the storage actor.
//!
//! Pure: time is an input, and the changes to persist and the frames to send are outputs. Only the owner
//! writes a map; copies of other nodes' maps are changed only by updates, and only as [`NodeMap::apply`]
//! allows.

use std::{
    collections::BTreeMap,
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use imbl::OrdMap;

use super::{
    bulk::Bulk,
    event::Event,
    gossip::{Gossip, Have},
    id::NodeId,
    map::{MapLimits, NodeMap},
    push::Push,
    questions::Questions,
    record::NodeRecord,
    route::{Output, SchedulerInput, StorageInput},
    rules::Rules,
    sketch::Sketch,
    sketch::SketchKey,
    time::Time,
    view::NodeView,
    wave::Waves,
};

mod accusations;
mod ageing;
mod applying;
mod batching;
mod beginning;
mod cadence;
mod census;
mod chaining;
mod clock;
mod exchanging;
mod forgotten;
mod gating;
mod marks;
mod news;
mod opinion;
mod outcome;
mod outgoing;
mod own;
mod published;
mod pulling;
mod quotas;
mod receiving;
mod reconciliation;
mod returned;
mod returning;
mod revoked;
mod revoking;
mod sealing;
mod serving;
mod signing;
mod starting;
mod tombstones;
mod turns;
mod writing;

use accusations::Accusations;
pub use batching::TURN_MAX;
pub use cadence::{CADENCE_BUSY, CADENCE_MAX, CADENCE_OF_LAG, CADENCE_OF_ONE};
use clock::Clock;
use forgotten::Forgotten;
use outgoing::tell;
use own::Own;
pub use published::CopyPool;
use published::Published;
use quotas::Quotas;
use returned::ReturnedPeers;
use revoked::Revoked;
use signing::Signing;

pub use super::delta::BATCH_BYTES_MAX;
pub use marks::{MARK_MAX, MARKS_MAX};
pub use quotas::{
    ACCUSATIONS_PER_SECOND, ACCUSATIONS_SAVED_MAX, LIVES_PER_MINUTE, LIVES_SAVED_MAX,
    OWN_HEADS_PER_SECOND, OWN_HEADS_SAVED_MAX, RELAYS_PER_PEER, REVOCATIONS_PER_SECOND,
    REVOCATIONS_SAVED_MAX, VERDICTS_PER_SECOND, VERDICTS_SAVED_MAX, WAVES_PER_PEER,
};

/// The least number of lines of a digest for which a sketch is sent instead: 32 cells take 490 bytes, and the
/// sketch one more trip across the network; the lines of 64 nodes take 1,700.
pub const SKETCH_LINES_MIN: usize = 64;

/// The maps as readers see them.
pub type Views = OrdMap<NodeId, Arc<NodeView>>;

/// The limits of the owner's map and of the copies, and how long they are kept.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// This node.
    pub node: NodeId,
    /// The node's record at the start.
    pub record: NodeRecord,
    /// The limits of one node's map.
    pub limits: MapLimits,
    /// Most nodes to be known at once.
    pub peers_max: usize,
    /// Most bytes of one delta, unless a single version is larger.
    pub delta_bytes: usize,
    /// Most entries of one delta, unless a single version has more.
    pub delta_entries: usize,
    /// How long a tombstone is kept at least.
    pub tombstone_grace: Duration,
    /// How long a dead peer is kept. A node that stood still for longer drops its state of others.
    pub forget_after: Duration,
    /// How often a heartbeat is expected.
    pub interval: Duration,
    /// The hash key of the cluster's sketches. Nodes with different keys exchange full digests.
    pub sketch_key: SketchKey,
    /// The rules in force.
    pub rules: Rules,
}

/// All that a node knows.
#[derive(Debug)]
pub struct Replica {
    config: ReplicaConfig,
    own: Own,
    copies: BTreeMap<NodeId, Arc<NodeMap>>,
    forgotten: Forgotten,
    published: Published,
    clock: Clock,
    /// The updates to send, and their receivers.
    push: Push,
    bulk: Bulk,
    /// The waves that count the nodes with a version.
    waves: Waves,
    /// The questions under way about which nodes hear a peer.
    questions: Questions,
    accusations: Accusations,
    signing: Signing,
    revoked: Revoked,
    /// How much work others may still cause: generations of theirs to begin, verdicts to take over.
    quotas: Quotas,
    /// The peers that came back with less state than they had, and reports of others about this node's own
    /// past.
    returned: ReturnedPeers,
}

impl Replica {
    /// This node's name.
    #[must_use]
    pub const fn node(&self) -> &NodeId {
        &self.config.node
    }

    /// This node's own map.
    #[must_use]
    pub const fn own(&self) -> &NodeMap {
        &self.own.map
    }

    /// The copy of a peer's map.
    #[must_use]
    pub fn copy(&self, peer: &NodeId) -> Option<&NodeMap> {
        self.copies.get(peer).map(Arc::as_ref)
    }

    /// All peers known.
    pub fn peers(&self) -> impl Iterator<Item = (&NodeId, &NodeMap)> {
        self.copies.iter().map(|(node, map)| (node, &**map))
    }

    /// Takes over copies that another node of this process holds, without sending them. `sums`: the sketch of
    /// them and this node's own line, if it is known.
    pub fn adopt(&mut self, copies: BTreeMap<NodeId, Arc<NodeMap>>, sums: Option<Sketch>) {
        self.copies = copies;
        self.published.outdate();
        match sums {
            Some(sums) => self.published.set_sketch(sums),
            None => self.sum_all(),
        }
    }

    /// From now on copies are shared with other nodes of this process, as far as they are equal, and nothing
    /// is kept for readers: [`Replica::view`] shows no change, and a digest is made again each time. For
    /// simulations with thousands of nodes in one process.
    pub fn share_copies(&mut self, pool: Arc<dyn CopyPool>) {
        self.published.share(pool);
    }

    /// The sum of all that is known here.
    #[must_use]
    pub const fn root(&self) -> u64 {
        self.published.sketch().root()
    }

    /// How many peers are known.
    #[must_use]
    pub fn peer_count(&self) -> usize {
        self.copies.len()
    }

    /// Whether this process has begun a later generation because of its name, with a proof.
    #[must_use]
    pub const fn renewed(&self) -> bool {
        self.own.name.renewed()
    }

    /// The same, with a proof or after claims of several members.
    #[must_use]
    pub const fn has_answered_for_its_name(&self) -> bool {
        self.own.name.has_answered()
    }

    /// Sets the seed of the numbers of this node's questions: 32 random bytes, which must stay secret.
    pub const fn set_secret(&mut self, secret: [u8; 32]) {
        self.questions.set_key(secret);
    }

    /// Sets the present time of the wall clock. It may have been set since the start: a machine without a
    /// battery begins in 1970, where every generation of other nodes lies absurdly far ahead.
    pub fn set_wall(&mut self, now: Time, wall: SystemTime) {
        self.clock.set_wall(now, wall);
    }

    /// Handles a message that needs no reply.
    pub fn handle(&mut self, now: Time, input: StorageInput, out: &mut Vec<Output>) {
        self.drop_if_overslept(now, out);
        self.tell_problems(out);
        self.clock.batching.begin(matches!(input, StorageInput::Tick | StorageInput::Tell));
        match input {
            StorageInput::Tick => self.tick(now, out),
            StorageInput::Tell => self.clock.batching.come(),
            StorageInput::BeginRound(targets) => self.begin_round(targets, out),
            // Every peer that is up to date reports our own generation.
            StorageInput::HeardOfSelf(generation, _) if generation <= self.own.map.generation() => {
            }
            StorageInput::HeardOfSelf(generation, by) => {
                self.heard_of_self(now, generation, by, out);
            }
            StorageInput::Back(peer) => self.confront(&peer, out),
            StorageInput::Accuse(peer, generation, verdict, observers) => {
                self.accuse(&peer, generation, verdict, &observers, out);
            }
            StorageInput::Ask(peer, generation) => self.ask(now, peer, generation, out),
            StorageInput::Answer(ask, hears) => self.answer_question(ask, hears, out),
            StorageInput::Retire(peer, generation) => self.retire(peer, generation),
            StorageInput::Forget(peer, generation) => self.forget(now, &peer, generation, out),
            StorageInput::Remove { peer, by } => self.remove(now, &peer, by, out),
            StorageInput::Linked(peer, up) => {
                if !up {
                    let swells = self.waves.unlinked(now, &peer);
                    self.swell(now, swells, out);
                }
                // This generation may have begun, or gone on, while no peer could be reached.
                if up {
                    let (node, map) = (self.config.node.clone(), &self.own.map);
                    let (generation, version) = (map.generation(), map.max_version());
                    tell(
                        vec![peer.clone()],
                        Gossip::Have(vec![Have { node, generation, version }]),
                        out,
                    );
                    self.tell_revocation_sum(vec![peer.clone()], out);
                    self.tell_past(&peer, out);
                }
                self.push.linked(now, peer, up);
            }
            StorageInput::Congested(peer, congested) => self.congested(now, &peer, congested, out),
            StorageInput::Gossip(from, gossip) => self.gossip(now, &from, *gossip, out),
            StorageInput::TellRoot => {
                out.push(Output::Scheduler(SchedulerInput::OwnRoot(
                    self.published.sketch().root(),
                )));
            }
            StorageInput::Edges(edges) => self.push.lead(edges),
            StorageInput::Shed(peer, owners) => self.push.shed(now, &peer, owners),
            StorageInput::Severed(from) => self.sever(now, from, out),
            StorageInput::BulkBroken(peer) => self.bulk.broken(&peer),
            StorageInput::Lag(lag) => {
                self.clock.set_lag(now, lag);
                self.own.pace.set_lag(lag);
                self.release_waves(now, out);
            }
        }
        self.tell_news(now, out);
        self.clock.batching.end();
    }

    /// How late this node is served, as it was told last.
    #[must_use]
    pub const fn lag(&self) -> Duration {
        self.clock.lag()
    }

    fn tell_problems(&mut self, out: &mut Vec<Output>) {
        out.extend(self.signing.take_untold().map(|problem| Output::Event(Event::Error(problem))));
    }

    /// The maps as readers may have them now; `None` if nothing changed since the last call.
    pub fn view(&mut self) -> Option<Views> {
        self.view_and_changes().map(|(view, _)| view)
    }

    /// As [`Replica::view`], with the nodes whose maps have changed since.
    pub fn view_and_changes(&mut self) -> Option<(Views, BTreeSet<NodeId>)> {
        let changed = self.published.take_changed();
        if changed.is_empty() {
            return None;
        }
        for node in &changed {
            let view = self.map_of(node).map(NodeMap::view);
            self.published.set_view(node.clone(), view);
        }
        Some((self.published.view().clone(), changed))
    }
}
