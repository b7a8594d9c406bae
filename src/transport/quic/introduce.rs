//! `Hello` and `Welcome`: the first stream of a connection, before anything else is said.

use std::time::Duration;

use quinn::{Connection, ConnectionError};

use super::{Shared, close::Close, frames::StreamFrames};
use crate::{
    protocol::{
        id::NodeId,
        message::{HELLO_BYTES_MAX, Message},
    },
    tls::{self, ClientName},
    transport::{
        Met, NodeLink, Unwelcome,
        exchange::{FrameError, Frames},
    },
};

/// A handshake that went through, and yet the two are not connected.
#[derive(Debug, thiserror::Error)]
pub(super) enum Introduction {
    /// We turn the peer away.
    #[error("{0}")]
    Unwelcome(#[from] Unwelcome),
    /// The connection ended meanwhile.
    #[error("{0}")]
    Connection(ConnectionError),
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
        match frames.receive().await? {
            Some(Message::Welcome(hello)) => Ok(node.meet(&hello, &proved, wanted)?),
            _ => Err(Introduction::NoHello),
        }
    };
    match settle(connection, introduced.await) {
        // Who accepts knows first that it has dialed itself.
        Err(Introduction::Connection(reason))
            if Close::Ourselves.is_told(&reason)
                && shared.tls.peer_name(connection).is_ok_and(|name| name.node == *node.node()) =>
        {
            Err(Unwelcome::Ourselves.into())
        }
        other => other,
    }
}

/// Hears who dialed us, and introduces us.
pub(super) async fn accepting(
    node: &NodeLink,
    connection: &Connection,
    shared: &Shared,
) -> Result<Met, Introduction> {
    let introduced = async {
        if let Some(client) = tls::peer_certificate(connection)?.client {
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
        frames.finish();
        if met.generation < node.known(&met.node) {
            // Its connection is about to be closed, and our welcome, which tells it of the later
            // life, would go with it: an older twin would dial for ever and never learn why.
            let _ = frames.send.stopped().await;
        }
        Ok(met)
    };
    settle(connection, introduced.await)
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

/// Says why, and prefers the reason of a connection that has ended to that of its stream.
fn settle(
    connection: &Connection,
    introduced: Result<Met, Introduction>,
) -> Result<Met, Introduction> {
    introduced.map_err(|error| {
        if let Some(reason) = connection.close_reason() {
            return Introduction::Connection(reason);
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
        error
    })
}
