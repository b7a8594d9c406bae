//! Both ends of a session that is being opened.

use std::io;

use ractor::ActorRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
    time::timeout,
};

use super::{
    messages::{Bytes, MeshMessage},
    peers::{Dialed, MESH_MAX, Refused},
    sessions::{Join, MeshService, OPENING},
};
use crate::{
    node::Gossipmonger,
    protocol::id::{Generation, NodeId},
    service::{
        Access, Caller, Context, Offer, OfferError, Remote,
        stream::{ByteReceiver, ByteSender},
    },
};

/// The first byte that the called node sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Answer {
    Welcome = 0,
    /// It is in another group, or has all sessions that it may have.
    Refused = 1,
    /// Not now, or not in this direction.
    Later = 2,
}

type Pair = (ByteSender, ByteReceiver);

/// Offers sessions to the members of a group.
pub(super) async fn offer(
    node: &Gossipmonger,
    group: String,
    mesh: ActorRef<MeshMessage>,
) -> Result<Offer, OfferError> {
    let handler = move |join: Join, (mut tx, rx): Pair, context: Context| {
        let (mesh, same) = (mesh.clone(), join.group == group);
        let caller = context.caller().clone();
        async move {
            let Caller::Node { node, generation, .. } = caller else {
                return Err(io::ErrorKind::PermissionDenied.into());
            };
            let (taken, verdict) = oneshot::channel();
            let arrived = MeshMessage::Arrived(node.clone(), generation, taken);
            let answer = match same && mesh.cast(arrived).is_ok() {
                false => Answer::Refused,
                true => match verdict.await {
                    Ok(Ok(())) => Answer::Welcome,
                    Ok(Err(Refused::Full)) => Answer::Refused,
                    Ok(Err(Refused::Past | Refused::Direction)) | Err(_) => Answer::Later,
                },
            };
            if answer != Answer::Welcome {
                tx.write_all(&[answer as u8]).await?;
                return tx.finish().await;
            }
            let taken = Taken { mesh, of: Some((node, generation)) };
            tx.write_all(&[answer as u8]).await?;
            let (held, ended) = oneshot::channel();
            let bytes = Bytes { tx, rx, held: Some(held) };
            if taken.open(bytes) {
                // Nothing is ever sent: it ends when the session drops its half.
                drop(ended.await);
            }
            Ok(())
        }
    };
    // One session for each node, and some that are refused.
    node.offer::<MeshService>(Access::members()).duplex(handler).room(ROOM, ROOM).start().await
}

/// A session that the mesh has taken. Unless it is opened, the mesh is told that it is lost: the task of this end is
/// dropped with the connection of the other one.
struct Taken {
    mesh: ActorRef<MeshMessage>,
    of: Option<(NodeId, Generation)>,
}

impl Taken {
    /// Says whether the mesh still runs.
    fn open(mut self, bytes: Bytes) -> bool {
        let opened = |(node, generation)| MeshMessage::Opened(node, generation, bytes);
        self.of.take().map(opened).is_some_and(|opened| self.mesh.cast(opened).is_ok())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some((node, generation)) = self.of.take() {
            drop(self.mesh.cast(MeshMessage::Lost(node, generation)));
        }
    }
}

/// Opens a session, and tells the mesh.
pub(super) async fn dial(
    remote: Remote<MeshService>,
    generation: Generation,
    group: String,
    mesh: ActorRef<MeshMessage>,
) {
    let node = remote.node().clone();
    let opened = async {
        let (tx, mut rx) = remote.duplex(Join { group }).within(OPENING).await.ok()?;
        let answer = timeout(OPENING, rx.read_u8()).await.ok()?.ok()?;
        Some((answer, Bytes { tx, rx, held: None }))
    };
    let (end, bytes) = match opened.await {
        Some((answer, bytes)) if answer == Answer::Welcome as u8 => (Dialed::Session, Some(bytes)),
        Some((answer, _)) if answer == Answer::Refused as u8 => (Dialed::Refused, None),
        _ => (Dialed::Failed, None),
    };
    drop(mesh.cast(MeshMessage::Dialed(node, generation, end, bytes)));
}

const ROOM: usize = 2 * MESH_MAX;
