//! What ractor's server reports of its sessions, as messages to the actor of the mesh.

use ractor::ActorRef;
use ractor_cluster::{NodeEventSubscription, node::NodeServerSessionInformation};

use super::messages::MeshMessage;

/// Sessions are told apart by their label, which is the `peer_addr` of their reports.
pub(super) struct Events(pub(super) ActorRef<MeshMessage>);

impl Events {
    /// It fails while the mesh ends.
    fn tell(&self, message: MeshMessage) {
        drop(self.0.cast(message));
    }
}

impl NodeEventSubscription for Events {
    fn node_session_opened(&self, session: NodeServerSessionInformation) {
        self.tell(MeshMessage::SessionOpened(session.peer_addr, session.actor));
    }

    fn node_session_disconnected(&self, session: NodeServerSessionInformation) {
        self.tell(MeshMessage::SessionEnded(session.peer_addr));
    }

    // The name was compared before the session saw it.
    fn node_session_authenticated(&self, _: NodeServerSessionInformation) {}

    fn node_session_ready(&self, session: NodeServerSessionInformation) {
        self.tell(MeshMessage::SessionReady(session.peer_addr));
    }
}
