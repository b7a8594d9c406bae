//! One connection to a member, as its tasks see it. The state of the connection is in
//! [`Peering`](crate::protocol::peering::Peering).

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::sync::Notify;

use super::{super::share::Share, room::Room};
use crate::{
    net::{Connection, ledger::Entered},
    protocol::{id::NodeId, peering::ConnectionId},
};

/// A connection to a peer that was admitted.
#[derive(Debug)]
pub(crate) struct Link {
    pub(super) id: ConnectionId,
    pub(super) connection: Arc<dyn Connection>,
    pub(super) peer: NodeId,
    pub(super) dialed: bool,
    pub(super) room: Room,
    /// What the peer may consume, over all of its connections.
    pub(super) share: Arc<Share>,
    /// Frames wait to be sent.
    pub(super) filled: Notify,
    /// What it carries is counted until its end.
    _entered: Entered,
    /// Exchanges in progress on this connection, and the end of the last one.
    exchanges: AtomicU32,
    idle: Notify,
}

/// An exchange in progress; it ends when dropped.
#[derive(Debug)]
pub(super) struct Underway(Arc<Link>);

impl Drop for Underway {
    fn drop(&mut self) {
        if self.0.exchanges.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

impl Link {
    pub(super) fn new(
        id: ConnectionId,
        connection: Arc<dyn Connection>,
        peer: NodeId,
        dialed: bool,
        (room, share): (Room, Arc<Share>),
        entered: Entered,
    ) -> Self {
        Self {
            id,
            connection,
            peer,
            dialed,
            room,
            share,
            filled: Notify::new(),
            _entered: entered,
            exchanges: AtomicU32::new(0),
            idle: Notify::new(),
        }
    }

    /// An exchange begins: the connection must not be closed before its end.
    pub(super) fn begin(self: &Arc<Self>) -> Underway {
        self.exchanges.fetch_add(1, Ordering::AcqRel);
        Underway(Arc::clone(self))
    }

    /// Waits until no exchange is in progress.
    pub(super) async fn idle(&self) {
        loop {
            let mut ended = pin!(self.idle.notified());
            ended.as_mut().enable();
            if self.exchanges.load(Ordering::Acquire) == 0 {
                return;
            }
            ended.await;
        }
    }
}
