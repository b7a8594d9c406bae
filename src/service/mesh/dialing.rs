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
    protocol::id::Generation,
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
            let told = tx.write_all(&[answer as u8]).await;
            if answer != Answer::Welcome {
                told?;
                return tx.finish().await;
            }
            if let Err(error) = told {
                drop(mesh.cast(MeshMessage::Lost(node, generation)));
                return Err(error);
            }
            let (held, ended) = oneshot::channel();
            let opened = MeshMessage::Opened(node, generation, Bytes { tx, rx, held: Some(held) });
            if mesh.cast(opened).is_ok() {
                // Nothing is ever sent: it ends when the session drops its half.
                drop(ended.await);
            }
            Ok(())
        }
    };
    // One session for each node, and some that are refused.
    node.offer::<MeshService>(Access::members()).duplex(handler).room(ROOM, ROOM).start().await
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
