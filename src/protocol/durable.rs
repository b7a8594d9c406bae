//! The state that a node needs after a restart, as data: the changes that a machine asks for, and their sum.
//! A store keeps them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::SystemTime,
};

use super::{
    entry::{Key, Value},
    id::{ClusterId, Datacenter, Generation, NodeId, Version},
    revocation::Revocation,
};

/// One step of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The owner of this state. Written once.
    Identity {
        /// The cluster the node belongs to.
        cluster: ClusterId,
        /// The node.
        node: NodeId,
    },
    /// How far the node's writes reach.
    Head(Head),
    /// A key was written or deleted.
    Put {
        /// The key.
        key: Key,
        /// What the key holds now.
        entry: StoredEntry,
    },
    /// A tombstone was collected: the key is to be removed.
    Remove(Key),
    /// The node's tags were changed while it ran.
    Tags(BTreeMap<String, String>),
    /// The node left on purpose (or, `false`, joined again).
    Left(bool),
    /// A peer became known or changed its addresses.
    Peer(KnownPeer),
    /// A peer was forgotten.
    ForgetPeer(NodeId),
    /// The endpoint's long-lived keys.
    EndpointKeys(EndpointKeys),
    /// Certificates were revoked.
    Revocation(Revocation),
    /// A revocation is covered by others, or is over.
    DropRevocation(Revocation),
}

/// Everything a store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The owner of this state; `None` for a new store.
    pub identity: Option<(ClusterId, NodeId)>,
    /// How far the node's writes reached.
    pub head: Head,
    /// The node's own keys, tombstones included.
    pub entries: BTreeMap<Key, StoredEntry>,
    /// Tags set while the node ran; `None`: those of the configuration apply.
    pub tags: Option<BTreeMap<String, String>>,
    /// Whether the node left on purpose.
    pub left: bool,
    /// Peers known at the time, dead ones included: addresses to dial.
    pub peers: BTreeMap<NodeId, KnownPeer>,
    /// The endpoint's long-lived keys.
    pub endpoint_keys: Option<EndpointKeys>,
    /// The revocations known. Their signatures were verified when they arrived.
    pub revocations: BTreeSet<Revocation>,
}

/// How far a node's writes reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The generation of the last run.
    pub generation: Generation,
    /// The version of the last write.
    pub max_version: Version,
    /// Up to which version tombstones may have been dropped.
    pub gc_floor: Version,
    /// Earlier generations that this state continues, newest first, each with its last version.
    pub ancestry: Vec<(Generation, Version)>,
}

/// One key's state, with times on the wall clock, since other clocks do not survive a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEntry {
    /// When it was written, in the order of writes.
    pub version: Version,
    /// The value; `None` is a tombstone.
    pub value: Option<Value>,
    /// When it expires, by the wall clock, to the millisecond.
    pub expires: Option<SystemTime>,
}

/// A peer as an address to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownPeer {
    /// Its name.
    pub node: NodeId,
    /// Its datacenter.
    pub datacenter: Datacenter,
    /// Where it can be dialed: `host:port` each.
    pub addresses: Vec<String>,
    /// The last generation heard of.
    pub generation: Generation,
    /// Whether it had announced that it leaves.
    pub dead: bool,
}

/// Secrets by which peers notice a restart at once (RFC 9000 section 10.3). Random, private.
#[derive(Clone, PartialEq, Eq)]
pub struct EndpointKeys {
    /// Key of the stateless reset tokens.
    pub reset: [u8; 64],
    /// Key of the connection ids.
    pub connection_id: u64,
}

impl fmt::Debug for EndpointKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EndpointKeys(..)")
    }
}

impl Stored {
    /// Applies one change in memory, for a store that keeps a `Stored`.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Identity { cluster, node } => {
                self.identity = Some((cluster.clone(), node.clone()));
            }
            Change::Head(head) => self.head = head.clone(),
            Change::Put { key, entry } => {
                self.entries.insert(key.clone(), entry.clone());
            }
            Change::Remove(key) => {
                self.entries.remove(key);
            }
            Change::Tags(tags) => self.tags = Some(tags.clone()),
            Change::Left(left) => self.left = *left,
            Change::Peer(peer) => {
                self.peers.insert(peer.node.clone(), peer.clone());
            }
            Change::ForgetPeer(node) => {
                self.peers.remove(node);
            }
            Change::EndpointKeys(keys) => self.endpoint_keys = Some(keys.clone()),
            Change::Revocation(statement) => {
                self.revocations.insert(statement.clone());
            }
            Change::DropRevocation(statement) => {
                self.revocations.remove(statement);
            }
        }
    }
}
