//! A member that speaks the protocol of a mesh by hand.

use gossipmonger::{
    Gossipmonger, NodeId,
    service::stream::{ByteReceiver, ByteSender},
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::process::PATIENCE;

#[derive(Serialize, Deserialize)]
struct Join {
    group: String,
}

gossipmonger::service! {
    struct Sessions = "ractor.mesh", 1.0;
    1: duplex Join;
}

/// A stream to a node of a mesh, and the first byte that it answers.
pub(crate) async fn join(
    at: &Gossipmonger,
    to: &NodeId,
    group: &str,
) -> (u8, ByteSender, ByteReceiver) {
    let sessions = at.service::<Sessions>();
    sessions.ready(1, PATIENCE).await.expect("the mesh is offered");
    let remote = sessions.at(to).expect("this node offers it");
    let (tx, mut rx) = remote.duplex(Join { group: group.to_owned() }).await.expect("it answers");
    let answer = rx.read_u8().await.expect("a byte");
    (answer, tx, rx)
}

/// Sends one frame of ractor_cluster.
pub(crate) async fn send(tx: &mut ByteSender, message: &[u8]) {
    tx.write_u64(message.len() as u64).await.expect("it is taken");
    tx.write_all(message).await.expect("it is taken");
    tx.flush().await.expect("it is taken");
}

/// The first frame of the end that dials: it states its name.
pub(crate) fn name(name: &str) -> Vec<u8> {
    let field = |number: u8, value: &[u8]| {
        let mut bytes = vec![number << 3 | 2, u8::try_from(value.len()).expect("short")];
        bytes.extend(value);
        bytes
    };
    field(1, &field(1, &field(1, name.as_bytes())))
}
