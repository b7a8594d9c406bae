//! What the tasks of a client share: its directory and its connections.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use rand::RngExt;

use super::{options::ClientOptions, row::CheckedRow};
use crate::{
    ambient::Ambient,
    clock::Clock,
    counters::Counters,
    net::Endpoint,
    node::services::{outbound::Outbound, tags::Tags},
    protocol::{
        id::{Datacenter, NodeId},
        service::{directory::DirectoryOutput, link_end::LinkEnd},
    },
    slot::Slot,
    tls::CallerTls,
};

/// Most nodes that a client keeps.
pub(super) const NODES_MAX: usize = 16_384;

/// Each address that was tried, and why no directory was read there.
pub(super) type Failures = Vec<(String, String)>;

/// What the tasks of a client share.
pub(super) struct Inner {
    pub(super) name: String,
    pub(super) tls: CallerTls,
    pub(super) endpoint: Arc<dyn Endpoint>,
    pub(super) outbound: Arc<Outbound>,
    pub(super) counters: Arc<Counters>,
    pub(super) dial_timeout: Duration,
    pub(super) home: OnceLock<Datacenter>,
    nodes: Mutex<Nodes>,
    /// The node from which the directory is read.
    host: Mutex<Option<NodeId>>,
    /// The result of the first look for one.
    pub(super) first: Slot<Result<(), Failures>>,
    pub(super) end: Slot<()>,
}

/// The nodes in the directory.
#[derive(Debug, Default)]
struct Nodes {
    known: BTreeSet<NodeId>,
    addresses: BTreeMap<NodeId, Vec<String>>,
}

impl Inner {
    pub(super) fn new(
        name: String,
        (tls, endpoint): (CallerTls, Arc<dyn Endpoint>),
        counters: Arc<Counters>,
        options: ClientOptions,
        clock: Clock,
    ) -> Self {
        // A client has no generation that tells its calls from those of an earlier process.
        let tags = Tags::from(rand::rng().random::<u64>() >> 1);
        let home = options.datacenter.map_or_else(OnceLock::new, OnceLock::from);
        Self {
            name,
            tls,
            endpoint,
            outbound: Arc::new(Outbound::new(
                options.limits,
                (clock, Ambient::default()),
                tags,
                None,
            )),
            counters,
            dial_timeout: options.quic.handshake_timeout,
            home,
            nodes: Mutex::default(),
            host: Mutex::default(),
            first: Slot::default(),
            end: Slot::default(),
        }
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces all that is known by the directory of a node.
    pub(super) fn replace(&self, rows: &[CheckedRow]) {
        *self.nodes() = Nodes::default();
        self.note(rows);
        let out = self.outbound.watched.replace(rows.iter().map(CheckedRow::seen));
        self.changed(out);
        self.end_outlived(rows);
    }

    /// Takes some rows of the directory of a node.
    pub(super) fn update(&self, rows: &[CheckedRow]) {
        self.note(rows);
        let seen = rows.iter().map(CheckedRow::seen);
        let out = self.outbound.watched.update(seen, |_| Vec::new());
        self.changed(out);
        self.end_outlived(rows);
    }

    /// Of processes that the directory has not known it cannot say that they have ended.
    fn end_outlived(&self, rows: &[CheckedRow]) {
        for row in rows {
            let (generation, why) = row.outlived();
            self.outbound.end_peer(&row.node, generation, &LinkEnd::Gone(why));
        }
    }

    /// Whether it knows more nodes than it keeps.
    pub(super) fn is_full(&self) -> bool {
        self.nodes().known.len() > NODES_MAX
    }

    fn note(&self, rows: &[CheckedRow]) {
        let mut nodes = self.nodes();
        for row in rows {
            match row.seen().1 {
                Some(_) => drop(nodes.known.insert(row.node.clone())),
                None => drop(nodes.known.remove(&row.node)),
            }
            match row.addresses.is_empty() {
                true => drop(nodes.addresses.remove(&row.node)),
                false => drop(nodes.addresses.insert(row.node.clone(), row.addresses.clone())),
            }
        }
    }

    fn changed(&self, out: Vec<DirectoryOutput>) {
        for output in out {
            match output {
                DirectoryOutput::Ended { node, generation, why } => {
                    self.outbound.end_peer(&node, generation, &LinkEnd::Gone(why));
                }
                DirectoryOutput::Joined(_, provider) | DirectoryOutput::Changed(_, provider) => {
                    if !provider.suspect {
                        self.outbound.forget_failures(&provider.node);
                    }
                }
                DirectoryOutput::Left { .. }
                | DirectoryOutput::Returned { .. }
                | DirectoryOutput::BadManifest { .. } => {}
            }
        }
    }

    /// The addresses of a node, best first.
    pub(super) fn addresses_of(&self, node: &NodeId) -> Vec<String> {
        self.nodes().addresses.get(node).cloned().unwrap_or_default()
    }

    /// The host from now on; `None` if it is lost.
    pub(super) fn set_host(&self, host: Option<(NodeId, Option<Datacenter>)>) {
        let host = host.map(|(node, datacenter)| {
            if let Some(datacenter) = datacenter {
                let _ = self.home.set(datacenter);
            }
            node
        });
        *self.host.lock().unwrap_or_else(PoisonError::into_inner) = host;
    }

    /// The node from which the directory is read.
    pub(super) fn host(&self) -> Option<NodeId> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("name", &self.name).finish_non_exhaustive()
    }
}
