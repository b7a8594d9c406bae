//! `Hello` and `Welcome`: the first stream of a connection, before all other frames.

use std::{sync::Arc, time::Duration};

use super::{
    super::host::Host,
    closing::{close_with, closed},
    frames::{FrameError, StreamFrames},
    table::Links,
};
use crate::{
    net::{Connection, Ended, Stream},
    protocol::{
        close::Close,
        delta::Delta,
        gossip::Gossip,
        id::NodeId,
        message::{HELLO_BYTES_MAX, Message},
        session::{Met, Unwelcome},
    },
    tls::ClientName,
};

/// Longest frame that shows a later generation: a record and a chain of certificates within their limits.
const LATER_BYTES_MAX: usize = 64 << 10;

/// The handshake succeeded, but the two are not connected.
#[derive(Debug, thiserror::Error)]
pub(super) enum Introduction {
    /// We reject the peer.
    #[error("{0}")]
    Unwelcome(#[from] Unwelcome),
    /// The connection ended before its peer had proved that it is a node. The text in the close may come from
    /// anybody: an Initial packet with a close can be made without any certificate.
    #[error("{0}")]
    Connection(Ended),
    /// A node that has proved its name ended the connection.
    #[error("{reason}")]
    Ended {
        /// That node.
        by: NodeId,
        /// How it ended.
        reason: Ended,
    },
    /// The peer does not speak our protocol.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// The certificate does not name a node; the verifier has accepted no such certificate.
    #[error("its certificate names no node")]
    Nameless,
    /// It was disconnected a short time ago.
    #[error("it was cut off for misbehaviour ({why}): it may try again in {} s", left.as_secs() + 1)]
    Barred {
        /// How long it is still refused.
        left: Duration,
        /// Why it was disconnected.
        why: String,
    },
    /// The peer has shown a client's certificate.
    #[error("it shows {0}, a client's certificate: a client is never a node; issue it a node's")]
    Client(ClientName),
    /// The first message of the peer is not an introduction.
    #[error("its first message is no introduction")]
    NoHello,
}

impl Introduction {
    /// Whether the peer is at fault: it communicates, but violates our protocol.
    pub(super) const fn is_misbehaviour(&self) -> bool {
        matches!(self, Self::NoHello | Self::Frame(FrameError::Wire(_)))
    }
}

/// Introduces this node, which has dialed.
pub(super) async fn dialing(
    links: &Arc<Links>,
    connection: &Arc<dyn Connection>,
    wanted: Option<&NodeId>,
) -> Result<Met, Introduction> {
    let host = links.host();
    let introduced = async {
        let proved = admit(links, connection)?;
        let stream = connection.open().await.map_err(Introduction::Connection)?;
        let mut frames = short(links, stream);
        frames.send(&Message::Hello(host.hello(Some(&proved)))).await?;
        frames.finish();
        let Some(Message::Welcome(hello)) = frames.receive().await? else {
            return Err(Introduction::NoHello);
        };
        let met = host.meet(&hello, &proved, wanted)?;
        if hello.known > host.generation() {
            hear_of_later_generation(host, &proved, &mut frames).await;
        }
        Ok(met)
    };
    match settle(connection, introduced.await) {
        // The accepting end detects first that it has dialed itself.
        Err(Introduction::Ended { by, reason })
            if closed(&reason).is_some_and(|closed| closed.is(Close::Ourselves))
                && by == *host.node() =>
        {
            Err(Unwelcome::Ourselves.into())
        }
        other => other,
    }
}

/// If a peer knows a later generation of this node, it sends after its welcome what our key has signed in it. It
/// closes the connection right after that; if nothing arrives, the connection stays usable.
async fn hear_of_later_generation(host: &Host, from: &NodeId, frames: &mut StreamFrames) {
    frames.max = LATER_BYTES_MAX;
    if let Ok(Some(Message::Gossip(Gossip::Push(mut news)))) = frames.receive().await
        && let Some(head) = news.nodes.pop().filter(|head| head.node == *host.node())
    {
        host.shown_later_generation(from, head);
    }
}

/// Receives the introduction of a peer that has dialed us, and introduces this node.
pub(super) async fn accepting(
    links: &Arc<Links>,
    connection: &Arc<dyn Connection>,
) -> Result<Met, Introduction> {
    let host = links.host();
    let introduced = async {
        let proved = admit(links, connection)?;
        let stream = connection.accept().await.map_err(Introduction::Connection)?;
        let mut frames = short(links, stream);
        let met = match frames.receive().await? {
            Some(Message::Hello(hello)) => host.meet(&hello, &proved, None)?,
            _ => return Err(Introduction::NoHello),
        };
        frames.send(&Message::Welcome(host.hello(Some(&met.node)))).await?;
        if let Some(head) = host.later_generation_of(&met.node, met.generation) {
            let news = Delta { nodes: vec![head], more: false };
            frames.send(&Message::Gossip(Gossip::Push(news))).await?;
        }
        frames.finish();
        if met.generation < host.known(&met.node) {
            // Its connection is about to be closed. Our welcome, which reports the later generation, would be lost
            // with it: an older process of that name would dial for ever without learning why.
            frames.delivered().await;
        }
        Ok(met)
    };
    settle(connection, introduced.await)
}

/// The name that the handshake has proved, unless a peer of that name is refused.
fn admit(links: &Links, connection: &Arc<dyn Connection>) -> Result<NodeId, Introduction> {
    let peer = connection.peer();
    if let Some(client) = &peer.client {
        return Err(Introduction::Client(client.clone()));
    }
    let proved = peer.name.as_ref().ok_or(Introduction::Nameless)?.node.clone();
    match links.barred(&proved) {
        Some((left, why)) => Err(Introduction::Barred { left, why }),
        None => Ok(proved),
    }
}

fn short(links: &Arc<Links>, stream: Stream) -> StreamFrames {
    let mut frames = StreamFrames::nameless(stream, links);
    frames.max = HELLO_BYTES_MAX;
    frames.deadline = links.host().config().quic.handshake_timeout;
    frames
}

/// Determines the reason; a node's reason for closing the connection takes precedence over that of its stream.
fn settle(
    connection: &Arc<dyn Connection>,
    introduced: Result<Met, Introduction>,
) -> Result<Met, Introduction> {
    let error = match introduced {
        Ok(met) => return Ok(met),
        Err(error) => error,
    };
    if let Some(reason) = connection.ended() {
        return Err(match &connection.peer().name {
            Some(name) => Introduction::Ended { by: name.node.clone(), reason },
            None => error,
        });
    }
    let connection = connection.as_ref();
    match &error {
        Introduction::Unwelcome(unwelcome) => {
            close_with(connection, Close::from(unwelcome), &unwelcome.to_string());
        }
        Introduction::Client(_) => {
            close_with(connection, Close::Unwelcome, "a client is never a node");
        }
        Introduction::Frame(FrameError::Stalled) => {
            close_with(connection, Close::Timeout, "no introduction in time");
        }
        other => close_with(connection, Close::Misbehaviour, &other.to_string()),
    }
    Err(error)
}
