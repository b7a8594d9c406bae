//! The agent's end for clients on other machines: what the socket serves, as far as the client's role permits.

use std::{
    convert::Infallible,
    fmt,
    future::pending,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::BytesMut;
use gossipmonger::{
    clients::{ClientHandler, Visitor},
    net::{BoxFuture, ReceiveStream, SendStream, Stream},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};

use super::server::{Agent, Caller, Who};

/// Serves clients as long as the agent runs.
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
    fn answer(&self, visitor: Visitor, (mut send, receive): Stream) -> BoxFuture<'static, ()> {
        let agent = self.0.upgrade();
        Box::pin(async move {
            let Some(agent) = agent else { return };
            let (near, far) = duplex(PIPE_BYTES);
            let ((from, to), (answers, requests)) = (split(near), split(far));
            let serve = async {
                let mut caller = Caller::new(from, to, Who::Guest(visitor.into()));
                let served = caller.serve(&agent).await;
                let (mut to, leaves) = caller.into_parts();
                let _ = to.shutdown().await;
                served.map(|()| leaves)
            };
            let bring = bring(receive, requests);
            let (served, delivered) = tokio::join!(
                async {
                    tokio::select! {
                        served = serve => served,
                        never = async { bring.await; pending::<Infallible>().await } => match never {},
                    }
                },
                deliver(answers, send.as_mut()),
            );
            match served {
                Err(error) => tracing::debug!("a client's request broke off: {error}"),
                Ok(_) if !delivered => tracing::debug!("a client has gone before its answer came"),
                Ok(leaves) => {
                    send.finish();
                    let _ = tokio::time::timeout(TAKE_TIMEOUT, send.delivered()).await;
                    if leaves {
                        // Not earlier: the connection ends with the node, and the answer would be lost.
                        agent.node.shutdown().await;
                    }
                }
            }
        })
    }
}

/// Copies what the client sends to the caller, until either ends.
async fn bring(mut receive: Box<dyn ReceiveStream>, mut to: WriteHalf<DuplexStream>) {
    while let Ok(Some(chunk)) = receive.read(PIPE_BYTES).await {
        if to.write_all(&chunk).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// Copies what the caller answers to the client; says whether all of it could be sent.
async fn deliver(mut from: ReadHalf<DuplexStream>, send: &mut dyn SendStream) -> bool {
    let mut buffer = BytesMut::with_capacity(PIPE_BYTES);
    while let Ok(1..) = from.read_buf(&mut buffer).await {
        if send.write(&mut [buffer.split().freeze()]).await.is_err() {
            return false;
        }
        buffer.reserve(PIPE_BYTES);
    }
    true
}

/// Bytes between the client's stream and the caller, each way.
const PIPE_BYTES: usize = 16 << 10;
/// How long a client may take to receive the end of its answer.
const TAKE_TIMEOUT: Duration = Duration::from_secs(5);
