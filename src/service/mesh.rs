//! ractor's own clusters, over the connections of this cluster.
//!
//! `ractor_cluster` gives remote actors an ordinary [`ActorRef`], process groups over several nodes (`ractor::pg`), and
//! monitors. It has no membership, and its connections are TCP. A [`Mesh`] gives it both: the nodes that offer the same
//! group are connected with each other as they come and go, over authenticated QUIC streams. Certificates name the nodes.
//!
//! ```no_run
//! # use gossipmonger::{Gossipmonger, service::mesh::{Mesh, MeshError, MeshOptions}};
//! # async fn start(node: &Gossipmonger) -> Result<(), MeshError> {
//! let mesh = Mesh::start(node, MeshOptions::new("shops")).await?;
//! // `ractor::pg::join`, `pg::get_members`, `pg::monitor` now cover all nodes of the mesh.
//! # drop(mesh);
//! # Ok(())
//! # }
//! ```
//!
//! **Trust.** All nodes of a mesh trust each other: a node may send any message to any actor of another node that has
//! a remote message type. Where that is too much, use services: [`offer`](Gossipmonger::offer) names who may call.
//!
//! **One for a process.** Process groups and actor ids are those of the whole process, so a process can be in one mesh.
//!
//! **What upstream leaves open.** Messages to a node whose connection takes none wait in a queue without a limit. If that
//! lasts for [`STALL`], the session ends, and the queue with it. References to actors of a session that has ended
//! never work again; look the actors up again when a session is ready ([`Mesh::watch`]).

// The way of a session: `running` watches who offers the mesh, `peers` decides who dials whom and when, `dialing` opens the
// stream that carries it, `guard` reads along (names and lengths of frames), `stall` writes along, `upstream` starts
// ractor_cluster's server without a way in from outside.
mod changes;
mod dialing;
mod error;
mod events;
mod figures;
mod guard;
mod messages;
mod name;
mod peers;
mod running;
mod sessions;
mod stall;
mod upstream;

use std::{collections::BTreeSet, sync::Arc};

use ractor::{Actor, ActorCell, ActorRef};
/// The version of ractor_cluster that a mesh runs: for the derive macro of remote messages, `RactorClusterMessage`.
pub use ractor_cluster;
use tokio::{sync::watch, task::JoinHandle};

pub use self::{
    changes::MeshChanges,
    error::MeshError,
    figures::MeshFigures,
    guard::FRAME_BYTES_MAX,
    name::{GROUP_BYTES_MAX, MESH_SERVICE},
    peers::{MESH_MAX, REDIAL_MAX, REDIAL_MIN, REFUSED_PAUSE},
    stall::STALL,
};
use self::{
    messages::MeshMessage,
    running::{Arguments, Running},
};
use crate::{node::Gossipmonger, protocol::id::NodeId};

/// How a mesh is started.
#[derive(Clone, Debug)]
pub struct MeshOptions {
    group: String,
    supervisor: Option<ActorCell>,
}

impl MeshOptions {
    /// A mesh of the nodes that name this group: 1 to [`GROUP_BYTES_MAX`] bytes.
    pub fn new(group: impl Into<String>) -> Self {
        Self { group: group.into(), supervisor: None }
    }

    /// The mesh is a child of this actor, which gets an event if it fails.
    #[must_use]
    pub fn supervised_by(mut self, supervisor: ActorCell) -> Self {
        self.supervisor = Some(supervisor);
        self
    }
}

/// The part of one node in a mesh. Dropping it leaves the mesh: its sessions end, and references to remote actors with
/// them.
#[derive(Debug)]
pub struct Mesh {
    actor: ActorRef<MeshMessage>,
    runs: Option<JoinHandle<()>>,
    ready: MeshChanges,
    figures: Arc<MeshFigures>,
}

impl Mesh {
    /// Joins the mesh of a group. It returns once this node has announced it; sessions follow.
    ///
    /// # Errors
    /// [`MeshError`]: the group has a bad name, this process is in a mesh already, the service could not be
    /// announced, or ractor's server did not start.
    pub async fn start(node: &Gossipmonger, options: MeshOptions) -> Result<Self, MeshError> {
        if !name::is_group(&options.group) {
            return Err(MeshError::Group { bytes: options.group.len() });
        }
        let (ready, figures) = (watch::Sender::default(), Arc::<MeshFigures>::default());
        let mesh_ready = ready.subscribe();
        let arguments = Arguments {
            node: node.clone(),
            group: options.group,
            ready,
            figures: Arc::clone(&figures),
            alone: running::Alone::take()?,
        };
        let spawned = match options.supervisor {
            Some(supervisor) => Actor::spawn_linked(None, Running, arguments, supervisor).await,
            None => Actor::spawn(None, Running, arguments).await,
        };
        let (actor, runs) = spawned.map_err(MeshError::of)?;
        Ok(Self { actor, runs: Some(runs), ready: MeshChanges(mesh_ready), figures })
    }

    /// The nodes whose actors can be reached now, by name: their sessions have exchanged their process groups.
    #[must_use]
    pub fn ready(&self) -> BTreeSet<NodeId> {
        self.ready.now()
    }

    /// Watches [`Mesh::ready`]. A node that restarts leaves the set and comes back: then the references to its earlier
    /// actors are void, and the process groups contain its new ones.
    #[must_use]
    pub fn watch(&self) -> MeshChanges {
        let mut changes = self.ready.clone();
        changes.0.mark_changed();
        changes
    }

    /// What sessions ended of, and which were refused.
    #[must_use]
    pub fn figures(&self) -> &MeshFigures {
        &self.figures
    }

    /// Leaves the mesh, and waits until all sessions have ended.
    pub async fn stop(mut self) {
        self.actor.stop(None);
        if let Some(runs) = self.runs.take() {
            // It fails if the actor has panicked: it has ended then as well.
            drop(runs.await);
        }
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.actor.stop(None);
    }
}
