//! The start of a generation: what the store kept, and the copies of an earlier storage actor.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use imbl::OrdMap;

use super::{
    Replica, ReplicaConfig,
    accusations::Accusations,
    clock::Clock,
    forgotten::Forgotten,
    gating::Gating,
    own::{Expiries, Own, Pace},
    published::Published,
    quotas::Quotas,
    returned::ReturnedPeers,
    revoked::Revoked,
    signing::Signing,
    tombstones::Tombstones,
};
use crate::protocol::{
    bulk::Bulk,
    claim::OwnName,
    durable::{Stored, StoredEntry},
    entry::{Content, Entry, Key},
    id::{Generation, NodeId},
    map::NodeMap,
    push::Push,
    questions::Questions,
    route::Output,
    time::Time,
    view::NodeView,
    wave::Waves,
};

impl Replica {
    /// Starts a new generation of the node with the state that the store kept, and with the copies that an
    /// earlier storage actor of this process had published, if there was one. The first output persists the
    /// new generation; nothing may be sent before that is done.
    #[must_use]
    pub fn start(
        config: ReplicaConfig,
        stored: Stored,
        copies: &OrdMap<NodeId, Arc<NodeView>>,
        renewed: bool,
        now: Time,
        wall: SystemTime,
        out: &mut Vec<Output>,
    ) -> Self {
        let unmet = stored.peers.keys().cloned().collect();
        let own = Own {
            map: NodeMap::default(),
            name: OwnName::new(renewed),
            expiries: Expiries::default(),
            tombstones: Tombstones::new(now, config.tombstone_grace, config.limits.keys),
            pace: Pace::new(now, &config.rules),
        };
        let place = config.record.datacenter.clone();
        let push = Push::new(now, config.node.clone(), place, config.rules);
        let mut this = Self {
            own,
            copies: BTreeMap::new(),
            forgotten: Forgotten::new(unmet, now + config.forget_after),
            published: Published::new(config.sketch_key),
            clock: Clock::new(now, wall, config.forget_after),
            push,
            bulk: Bulk::default(),
            waves: Waves::default(),
            questions: Questions::new(now),
            accusations: Accusations::default(),
            signing: Signing::default(),
            revoked: Revoked::new(now, stored.revocations.iter().cloned()),
            quotas: Quotas::new(Gating::new(&config.node, config.rules)),
            returned: ReturnedPeers::default(),
            config,
        };
        this.own.map = this.restored(stored, now, wall);
        for (node, view) in copies.iter().filter(|(node, _)| **node != this.config.node) {
            if this.revoked.union.ends(node, view.generation) {
                continue;
            }
            this.copies.insert(node.clone(), Arc::new(NodeMap::from_view(view)));
            this.forgotten.met(node);
            this.published.show(node.clone());
        }
        let record = this.config.record.clone();
        let persist = this.write_record(record);
        this.sum_all();
        out.push(Output::Persist(persist));
        if !this.revoked.union.is_empty() {
            out.push(Output::Revoked(Arc::clone(&this.revoked.union)));
        }
        this.tick(now, out);
        this
    }

    fn restored(&mut self, stored: Stored, now: Time, wall: SystemTime) -> NodeMap {
        let head = stored.head;
        let by_clock = Generation::of(wall);
        let mut map = NodeMap::new(head.generation, head.ancestry);
        for (key, entry) in stored.entries {
            self.restore_entry(&mut map, now, wall, key, entry);
        }
        map.restore(head.max_version, head.gc_floor);
        map.forget_batches();
        self.own.tombstones.restore(now, &map);
        if head.generation == Generation::ZERO {
            return NodeMap::new(by_clock.max(Generation(1)), Vec::new());
        }
        map.renew(by_clock.max(head.generation.next()));
        if let Some(tags) = stored.tags {
            self.config.record.tags = tags;
        }
        map
    }

    fn restore_entry(
        &mut self,
        map: &mut NodeMap,
        now: Time,
        wall: SystemTime,
        key: Key,
        entry: StoredEntry,
    ) {
        let expires = entry.expires.map(|at| now + at.duration_since(wall).unwrap_or_default());
        if let Some(at) = expires {
            self.own.expiries.insert(at, key.clone());
        }
        let content = match entry.value {
            Some(value) => Content::Value { value, expires },
            None => Content::Tombstone,
        };
        map.write(key, Entry { version: entry.version, content });
    }
}
