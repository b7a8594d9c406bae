//! `Hello` and `Welcome`: the first stream of a connection, before anything else is said.

use std::time::Duration;

use quinn::{Connection, ConnectionError};

use super::{Shared, close::Close, frames::StreamFrames};
use crate::{
    protocol::{
        delta::Delta,
        gossip::Gossip,
        id::NodeId,
        message::{HELLO_BYTES_MAX, Message},
    },
    tls::{self, ClientName},
    transport::{
        Met, NodeLink, Unwelcome,
        exchange::{FrameError, Frames},
        quic::peer,
    },
};

/// Longest frame that shows a later life: a record and a chain of certificates within their limits.
const LATER_LIFE_BYTES_MAX: usize = 64 << 10;

/// A handshake that went through, and yet the two are not connected.
#[derive(Debug, thiserror::Error)]
pub(super) enum Introduction {
    /// We turn the peer away.
    #[error("{0}")]
    Unwelcome(#[from] Unwelcome),
    /// The connection ended before its peer had proved that it is a node. What it says in the close may
    /// be of anybody: an Initial packet with a close can be made without any certificate.
    #[error("{0}")]
    Connection(ConnectionError),
    /// A node that has proved its name ended the connection.
    #[error("{reason}")]
    Ended {
        /// Who.
        by: NodeId,
        /// How.
        reason: ConnectionError,
    },
    /// The peer does not speak our protocol.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// The certificate names nobody; the verifier has let none such through.
    #[error("{0}")]
    Name(#[from] tls::NameError),
    /// It was cut off a short while ago.
    #[error("it was cut off for misbehaviour ({why}): it may try again in {} s", left.as_secs() + 1)]
    Barred {
        /// How long it is still turned away.
        left: Duration,
        /// For what it was cut off.
        why: String,
    },
    /// The peer has shown a client's certificate.
    #[error("it shows {0}, a client's certificate: a client is never a node; issue it a node's")]
    Client(ClientName),
    /// The peer's first words are no introduction.
    #[error("its first message is no introduction")]
    NoHello,
}

impl Introduction {
    /// Whether the peer is to blame: it speaks, but not our protocol.
    pub(super) const fn is_misbehaviour(&self) -> bool {
        matches!(self, Self::NoHello | Self::Frame(FrameError::Wire(_)))
    }
}

/// Introduces us, as the one who dialed.
pub(super) async fn dialing(
    node: &NodeLink,
    connection: &Connection,
    wanted: Option<&NodeId>,
    shared: &Shared,
) -> Result<Met, Introduction> {
    let introduced = async {
        let proved = admit(node, connection, shared)?;
        let mut frames = open(node, connection, shared).await?;
        frames.send(&Message::Hello(node.hello(Some(&proved)))).await?;
        frames.finish();
        let Some(Message::Welcome(hello)) = frames.receive().await? else {
            return Err(Introduction::NoHello);
        };
        let met = node.meet(&hello, &proved, wanted)?;
        if hello.known > node.generation() {
            hear_of_later_life(node, &proved, &mut frames).await;
        }
        Ok(met)
    };
    match settle(connection, shared, introduced.await) {
        // Who accepts knows first that it has dialed itself.
        Err(Introduction::Ended { by, reason })
            if Close::Ourselves.is_told(&reason) && by == *node.node() =>
        {
            Err(Unwelcome::Ourselves.into())
        }
        other => other,
    }
}

/// Who knows a later life of ours shows, after its welcome, what our key has signed in it. It closes the
/// connection right after that, and if nothing comes the connection is as good as before.
async fn hear_of_later_life(node: &NodeLink, from: &NodeId, frames: &mut StreamFrames) {
    frames.max = LATER_LIFE_BYTES_MAX;
    if let Ok(Some(Message::Gossip(Gossip::Push(mut news)))) = frames.receive().await
        && let Some(head) = news.nodes.pop().filter(|head| head.node == *node.node())
    {
        node.shown_later_life(from, head);
    }
}

/// Hears who dialed us, and introduces us.
pub(super) async fn accepting(
    node: &NodeLink,
    connection: &Connection,
    shared: &Shared,
) -> Result<Met, Introduction> {
    let introduced = async {
        if let Some(client) = peer::peer_certificate(connection)?.client {
            return Err(Introduction::Client(client));
        }
        let proved = admit(node, connection, shared)?;
        let stream = connection.accept_bi().await.map_err(Introduction::Connection)?;
        let mut frames = short(node, stream, shared);
        let met = match frames.receive().await? {
            Some(Message::Hello(hello)) => node.meet(&hello, &proved, None)?,
            _ => return Err(Introduction::NoHello),
        };
        frames.send(&Message::Welcome(node.hello(Some(&met.node)))).await?;
        if let Some(head) = node.later_life_of(&met.node, met.generation) {
            let news = Delta { nodes: vec![head], more: false };
            frames.send(&Message::Gossip(Gossip::Push(news))).await?;
        }
        frames.finish();
        if met.generation < node.known(&met.node) {
            // Its connection is about to be closed, and our welcome, which tells it of the later
            // life, would go with it: an older twin would dial for ever and never learn why.
            let _ = frames.send.stopped().await;
        }
        Ok(met)
    };
    settle(connection, shared, introduced.await)
}

/// The name that its certificate proves, unless it is turned away by that name.
fn admit(
    node: &NodeLink,
    connection: &Connection,
    shared: &Shared,
) -> Result<NodeId, Introduction> {
    let proved = shared.tls.peer_name(connection)?.node;
    match shared.conduct.barred(&proved, node.now()) {
        Some((left, why)) => Err(Introduction::Barred { left, why }),
        None => Ok(proved),
    }
}

async fn open(
    node: &NodeLink,
    connection: &Connection,
    shared: &Shared,
) -> Result<StreamFrames, Introduction> {
    let stream = connection.open_bi().await.map_err(Introduction::Connection)?;
    Ok(short(node, stream, shared))
}

fn short(
    node: &NodeLink,
    stream: (quinn::SendStream, quinn::RecvStream),
    shared: &Shared,
) -> StreamFrames {
    let mut frames = StreamFrames::nameless(stream, &shared.room, node);
    frames.max = HELLO_BYTES_MAX;
    frames.deadline = node.config().quic.handshake_timeout;
    frames
}

/// Says why, and prefers the reason for which a node has ended the connection to that of its stream.
fn settle(
    connection: &Connection,
    shared: &Shared,
    introduced: Result<Met, Introduction>,
) -> Result<Met, Introduction> {
    let error = match introduced {
        Ok(met) => return Ok(met),
        Err(error) => error,
    };
    if let Some(reason) = connection.close_reason() {
        return Err(match shared.tls.peer_name(connection) {
            Ok(name) => Introduction::Ended { by: name.node, reason },
            Err(_) => error,
        });
    }
    match &error {
        Introduction::Unwelcome(unwelcome) => {
            Close::from(unwelcome).connection(connection, &unwelcome.to_string());
        }
        Introduction::Client(_) => {
            Close::Unwelcome.connection(connection, "a client is never a node");
        }
        Introduction::Frame(FrameError::Stalled) => {
            Close::Timeout.connection(connection, "no introduction in time");
        }
        other => Close::Misbehaviour.connection(connection, &other.to_string()),
    }
    Err(error)
}
