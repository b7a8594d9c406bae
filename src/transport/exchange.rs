//! Both halves of an exchange over any pair of frame streams: [`initiate`] and [`answer`].
//!
//! The steps are those of [`protocol::exchange`](crate::protocol::exchange); here they meet storage
//! and the network. Every frame that arrives is a sign of life of the peer.

use std::sync::Arc;

use super::{Met, NodeLink, Unavailable};
use crate::protocol::{
    event::ProtocolEvent,
    exchange::{Ask, Breach, Half, Responder, Step, Summary},
    gossip::Gossip,
    message::{Message, WireError},
    route::{Counter, Sign},
};

/// An ordered stream of frames, both ways.
pub trait Frames: Send {
    /// Sends a frame.
    fn send(&mut self, message: &Message) -> impl Future<Output = Result<(), FrameError>> + Send;

    /// The next frame; `None` when the peer has ended the stream between two frames.
    fn receive(&mut self) -> impl Future<Output = Result<Option<Message>, FrameError>> + Send;
}

/// A frame did not come through.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The peer sent what is no message.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The stream or the connection is gone.
    #[error("{0}")]
    Lost(String),
    /// Nothing moved for too long.
    #[error("nothing moved within the exchange timeout")]
    Stalled,
}

/// An exchange broke off. What was applied before that stays: it was whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// A frame did not come through.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer broke the order of the protocol.
    #[error("the peer sent {0}")]
    Breach(#[from] Breach),
    /// Our storage does not answer.
    #[error(transparent)]
    Storage(#[from] Unavailable),
    /// The peer ended the stream too early.
    #[error("the peer ended the stream too early")]
    Ended,
}

impl ExchangeError {
    /// Whether the peer is to blame: it speaks, but not our protocol.
    #[must_use]
    pub const fn is_misbehaviour(&self) -> bool {
        matches!(self, Self::Breach(_) | Self::Frame(FrameError::Wire(_)))
    }
}

/// Runs the half that begins.
///
/// # Errors
/// [`ExchangeError`] if it broke off.
pub async fn initiate(
    node: &NodeLink,
    peer: &Met,
    summary: Summary,
    frames: &mut impl Frames,
) -> Result<(), ExchangeError> {
    let (half, step) = summary.open();
    drive(node, peer, half, step, frames, |_| false).await
}

/// Runs the half that answers.
///
/// # Errors
/// [`ExchangeError`] if it broke off.
pub async fn answer(
    node: &NodeLink,
    peer: &Met,
    frames: &mut impl Frames,
) -> Result<(), ExchangeError> {
    let step = Step::Read;
    drive(node, peer, Responder::new(), step, frames, Responder::may_end).await
}

async fn drive<H: Half + Send>(
    node: &NodeLink,
    peer: &Met,
    mut half: H,
    mut step: Step,
    frames: &mut impl Frames,
    may_end: impl Fn(&H) -> bool + Send,
) -> Result<(), ExchangeError> {
    let mut bulk = BulkGuard { node, peer, under_way: false };
    loop {
        bulk.under_way = half.is_bulk();
        step = match step {
            Step::Ask(ask) => {
                let pulled = match &ask {
                    Ask::Take { delta } => delta.encoded_len_max(),
                    _ => 0,
                };
                let reply = node.ask(&peer.node, ask).await?;
                node.counters().add(Counter::BulkBytesTaken, pulled as u64);
                // The frame just dealt with may have introduced the very peer that sent it.
                node.heard(&peer.node, peer.generation, Sign::Traffic, node.now());
                half.reply(reply)
            }
            Step::Send(message) => {
                if let Message::More { delta } = &message {
                    node.counters().add(Counter::BulkBytesSent, delta.encoded_len_max() as u64);
                }
                frames.send(&message).await?;
                watch(node, peer, &message, true);
                half.sent()
            }
            Step::Read => match frames.receive().await? {
                Some(message) => {
                    watch(node, peer, &message, false);
                    half.frame(message)
                }
                None if may_end(&half) => return Ok(()),
                None => return Err(ExchangeError::Ended),
            },
            Step::Done => {
                bulk.under_way = false;
                return Ok(());
            }
            Step::Broken(breach) => {
                node.count(Counter::FramesRefused);
                return Err(breach.into());
            }
        };
        if let Some(counter) = half.counted() {
            node.count(counter);
        }
    }
}

/// Tells storage when bulk breaks off, also when nobody drives the exchange any more.
struct BulkGuard<'a> {
    node: &'a NodeLink,
    peer: &'a Met,
    under_way: bool,
}

impl Drop for BulkGuard<'_> {
    fn drop(&mut self) {
        if self.under_way {
            self.node.bulk_broken(&self.peer.node);
        }
    }
}

/// Tells those who watch the protocol, if there are any.
fn watch(node: &NodeLink, peer: &Met, message: &Message, sent: bool) {
    if !node.is_watched() {
        return;
    }
    let peer = || peer.node.clone();
    let (digest, delta) = match message {
        Message::Syn { digest } => (Some(digest), None),
        Message::SynAck { wants, delta } => (Some(wants), Some(delta)),
        Message::Ack { delta } => (None, Some(delta)),
        Message::Gossip(Gossip::Push(delta)) => (None, Some(delta)),
        Message::Differ { lines, .. } => (Some(lines), None),
        Message::Hello(_)
        | Message::Welcome(_)
        | Message::Gossip(_)
        | Message::Cells(_)
        | Message::Further { .. }
        | Message::Full => (None, None),
        Message::Pull { digest, .. } => (digest.as_ref(), None),
        Message::More { delta } => (None, Some(delta)),
    };
    if let Some(digest) = digest.cloned().map(Arc::new) {
        let peer = peer();
        node.tell_protocol(if sent {
            ProtocolEvent::DigestSent { peer, digest }
        } else {
            ProtocolEvent::DigestReceived { peer, digest }
        });
    }
    if let Some(delta) = delta.filter(|delta| !delta.is_empty()).cloned().map(Arc::new) {
        let peer = peer();
        node.tell_protocol(if sent {
            ProtocolEvent::DeltasSent { peer, delta }
        } else {
            ProtocolEvent::DeltasReceived { peer, delta }
        });
    }
}
