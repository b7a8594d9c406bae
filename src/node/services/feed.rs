//! Feeds the directory of services with what storage and detector publish.

use crate::{
    node::{
        shared::Shared,
        views::{Lives, Maps},
    },
    protocol::{
        entry::Value,
        event::{Event, Problem},
        id::NodeId,
        record::Status,
        route::Counter,
        service::{
            directory::{DirectoryOutput, Seen},
            link_end::LinkEnd,
            manifest::MANIFEST_KEY,
        },
        state::PeerState,
        time::Time,
    },
};

impl Shared {
    /// Which datacenters are unreachable has changed.
    pub(crate) fn reach_changed(&self) -> Vec<Event> {
        let maps = self.published.maps.load_full();
        self.services_seen(maps.keys())
    }

    /// Storage or the detector has published something new of these nodes. Calls to nodes that have ended fail before
    /// this returns. Returns the events to report.
    pub(crate) fn services_seen<'a>(&self, nodes: impl Iterator<Item = &'a NodeId>) -> Vec<Event> {
        let (maps, lives) = (self.published.maps.load(), self.published.lives.load());
        let unreachable = self.published.unreachable.load();
        let now = self.clock.now();
        let view = View { maps: &maps, lives: &lives, now, own: &self.config.node };
        let seen = nodes.map(|node| {
            let seen = view.of(node).map(|mut seen| {
                if seen.state.is_live() && unreachable.contains(seen.datacenter) {
                    seen.state = PeerState::Unreachable;
                }
                seen
            });
            (node, seen)
        });
        let addresses = |node: &NodeId| addresses(&maps, node);
        let out = self.services.outbound.watched.update(seen, addresses);
        out.into_iter().filter_map(|output| self.services_changed(output)).collect()
    }

    /// Shows clients from now on what nodes offer to them.
    pub(crate) fn show_to_clients(&self) {
        let _publishing = self.published.publishing();
        let maps = self.published.maps.load_full();
        let addresses = |node: &NodeId| addresses(&maps, node);
        self.services.outbound.watched.begin_client_directory(maps.keys(), addresses);
    }

    fn services_changed(&self, output: DirectoryOutput) -> Option<Event> {
        match output {
            DirectoryOutput::Ended { node, generation, why } => {
                self.services.end_peer(&node, generation, &LinkEnd::Gone(why));
            }
            DirectoryOutput::BadManifest { node, error } => {
                self.count(Counter::ManifestsRefused);
                let reason = error.to_string();
                return Some(Event::Error(Problem::BadManifest { peer: node, reason }));
            }
            DirectoryOutput::Joined(_, provider) | DirectoryOutput::Changed(_, provider) => {
                if !provider.suspect {
                    self.services.outbound.forget_failures(&provider.node);
                }
            }
            DirectoryOutput::Left { .. } | DirectoryOutput::Returned { .. } => {}
        }
        None
    }
}

/// The addresses in the record of a node, best first.
fn addresses(maps: &Maps, node: &NodeId) -> Vec<String> {
    let record = maps.get(node).and_then(|map| map.record.as_ref());
    record.map_or_else(Vec::new, |(_, record)| record.addresses.clone())
}

/// What readers know.
struct View<'a> {
    maps: &'a Maps,
    lives: &'a Lives,
    now: Time,
    own: &'a NodeId,
}

impl<'a> View<'a> {
    fn of(&self, node: &NodeId) -> Option<Seen<'a>> {
        let map = self.maps.get(node)?;
        let (_, record) = map.record.as_ref()?;
        let state = if node == self.own {
            if record.status == Status::Left { PeerState::Left } else { PeerState::Live }
        } else {
            // The state of another generation says nothing about this one.
            let life = self.lives.get(node).filter(|life| life.generation == map.generation);
            life.map_or(PeerState::Unheard, |life| life.state)
        };
        let manifest: Option<&Value> =
            map.entries.get(MANIFEST_KEY).and_then(|entry| entry.visible(self.now));
        Some(Seen { generation: map.generation, datacenter: &record.datacenter, state, manifest })
    }
}
