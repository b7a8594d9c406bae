//! Both halves of an exchange over a stream of frames: [`drive`], and the answering half, [`answer`].
//!
//! The steps are those of [`protocol::exchange`](crate::protocol::exchange); this module connects them to storage
//! and the network. Every frame that arrives is a sign of life of the peer.

use std::sync::Arc;

use tracing::Instrument;

use super::{
    super::host::{Host, Unavailable},
    frames::{FrameError, StreamFrames},
    link::Link,
    table::Links,
};
use crate::{
    net::Stream,
    protocol::{
        event::ProtocolEvent,
        exchange::{Ask, Breach, Half, Responder, Step},
        gossip::Gossip,
        id::NodeId,
        message::Message,
        peering::PeeringInput,
        route::Counter,
    },
};

/// An exchange broke off. Complete parts applied before that remain.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// A frame was not transferred.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer violated the order of the protocol.
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
    /// Whether the peer is at fault: it communicates, but violates our protocol.
    pub(super) const fn is_misbehaviour(&self) -> bool {
        matches!(self, Self::Breach(_) | Self::Frame(FrameError::Wire(_)))
    }
}

/// Runs the answering half, in a span of its own.
pub(super) async fn answer(links: &Arc<Links>, link: &Arc<Link>, stream: Stream) {
    let span = tracing::debug_span!("exchange", peer = %link.peer, begun = "there");
    answer_in_span(links, link, stream).instrument(span).await;
}

async fn answer_in_span(links: &Arc<Links>, link: &Arc<Link>, stream: Stream) {
    let host = links.host();
    let _underway = link.begin();
    let mut frames = StreamFrames::new(stream, link, links);
    let half = Responder::new();
    match drive(links, link, half, Step::Read, &mut frames, Responder::may_end).await {
        Ok(()) => {
            frames.finish();
            host.count(Counter::ExchangesAnswered);
        }
        Err(error) => {
            host.count(Counter::ExchangesFailed);
            frames.abort();
            if error.is_misbehaviour() {
                links.misbehaved(link, &error);
            }
        }
    }
}

/// Carries out the steps of one half until its end. `may_end`: whether the peer may end the stream now.
pub(super) async fn drive<H: Half + Send>(
    links: &Links,
    link: &Link,
    mut half: H,
    mut step: Step,
    frames: &mut StreamFrames,
    may_end: impl Fn(&H) -> bool + Send,
) -> Result<(), ExchangeError> {
    let (host, peer) = (links.host(), &link.peer);
    let mut bulk = BulkGuard { host, peer, under_way: false };
    loop {
        bulk.under_way = half.is_bulk();
        step = match step {
            Step::Ask(ask) => {
                let pulled = match &ask {
                    Ask::Take { delta } => delta.encoded_len_max(),
                    _ => 0,
                };
                let reply = host.ask(peer, ask).await?;
                host.counters().add(Counter::BulkBytesTaken, pulled as u64);
                // The frame just handled may have introduced the peer that sent it.
                links.handle(PeeringInput::Frame(link.id));
                half.reply(reply)
            }
            Step::Send(message) => {
                if let Message::More { delta } = &message {
                    host.counters().add(Counter::BulkBytesSent, delta.encoded_len_max() as u64);
                }
                frames.send(&message).await?;
                watch(host, peer, &message, true);
                half.sent()
            }
            Step::Read => match frames.receive().await? {
                Some(message) => {
                    watch(host, peer, &message, false);
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
                host.count(Counter::FramesRefused);
                return Err(breach.into());
            }
        };
        if let Some(counter) = half.counted() {
            host.count(counter);
        }
    }
}

/// Informs storage when a bulk transfer breaks off, even if no task drives the exchange any more.
struct BulkGuard<'a> {
    host: &'a Host,
    peer: &'a NodeId,
    under_way: bool,
}

impl Drop for BulkGuard<'_> {
    fn drop(&mut self) {
        if self.under_way {
            self.host.bulk_broken(self.peer);
        }
    }
}

/// Sends the message to the subscribers of the protocol, if any.
fn watch(host: &Host, peer: &NodeId, message: &Message, sent: bool) {
    if !host.is_watched() {
        return;
    }
    let (digest, delta) = match message {
        Message::Syn { digest } => (Some(digest), None),
        Message::SynAck { wants, delta } => (Some(wants), Some(delta)),
        Message::Ack { delta } => (None, Some(delta)),
        Message::Gossip(Gossip::Push(delta) | Gossip::Tree(delta)) => (None, Some(delta)),
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
        let peer = peer.clone();
        host.tell_protocol(if sent {
            ProtocolEvent::DigestSent { peer, digest }
        } else {
            ProtocolEvent::DigestReceived { peer, digest }
        });
    }
    if let Some(delta) = delta.filter(|delta| !delta.is_empty()).cloned().map(Arc::new) {
        let peer = peer.clone();
        host.tell_protocol(if sent {
            ProtocolEvent::DeltasSent { peer, delta }
        } else {
            ProtocolEvent::DeltasReceived { peer, delta }
        });
    }
}
