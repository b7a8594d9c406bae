//! Answers that are too long for a lane: each goes over a stream of its own, behind the small ones.

use bytes::Bytes;
use tokio::{sync::mpsc, task::JoinSet};

use super::{framed::FrameWriter, room::Counted};
use crate::{net::Connection, protocol::service::stream::StreamFrame};

/// Below that of the lane.
const PRIORITY: i32 = -1;

/// A long answer that waits to be sent.
#[derive(Debug)]
pub(super) struct Long {
    pub(super) id: u64,
    pub(super) load: u8,
    pub(super) body: Bytes,
    /// It counts against the limit of all long answers until it is sent.
    pub(super) counted: Counted,
}

/// Sends long answers until the connection ends. The peer's limit on streams bounds how many are sent at once.
pub(super) async fn send(connection: &dyn Connection, mut waiting: mpsc::UnboundedReceiver<Long>) {
    let mut sent = JoinSet::new();
    while let Some(Long { id, load, body, counted }) = waiting.recv().await {
        while sent.try_join_next().is_some() {}
        let Ok(mut stream) = connection.open_one_way().await else { break };
        sent.spawn(async move {
            stream.set_priority(PRIORITY);
            let frames = [StreamFrame::Answer { id, load }, StreamFrame::Item(body)];
            FrameWriter::new(stream).finish(frames).await;
            drop(counted);
        });
    }
    std::future::pending::<()>().await;
}
