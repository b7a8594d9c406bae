//! The agent's side for clients of other machines: what the socket serves, as far as a role permits.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use gossipmonger::transport::{
    BoxFuture,
    quic::clients::{ClientHandler, Visitor},
};
use quinn::{RecvStream, SendStream};

use super::server::{Agent, Caller, Who};

/// Serves clients for as long as the agent is there.
pub(super) struct Desk(Weak<Agent>);

impl Desk {
    pub(super) fn new(agent: &Arc<Agent>) -> Self {
        Self(Arc::downgrade(agent))
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

impl ClientHandler for Desk {
    fn answer(
        &self,
        visitor: Visitor,
        (send, receive): (SendStream, RecvStream),
    ) -> BoxFuture<'static, ()> {
        let agent = self.0.upgrade();
        Box::pin(async move {
            let Some(agent) = agent else { return };
            let mut caller = Caller::new(receive, send, Who::Client(visitor));
            if let Err(error) = caller.serve(&agent).await {
                tracing::debug!("a client's request broke off: {error}");
                return;
            }
            let (mut send, leaves) = caller.into_parts();
            let _ = send.finish();
            // It fails if the client is gone, which is as good.
            let _ = tokio::time::timeout(TAKE_TIMEOUT, send.stopped()).await;
            if leaves {
                // Only now: the connection goes with the node, and the answer would go with it.
                agent.node.shutdown().await;
            }
        })
    }
}

/// How long a client may take to receive the end of its answer.
const TAKE_TIMEOUT: Duration = Duration::from_secs(5);
