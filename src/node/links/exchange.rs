//! Both halves of an exchange over a stream of frames: [`begin`] and [`answer`].
//!
//! The steps are those of [`protocol::exchange`](crate::protocol::exchange); this module connects them to storage
//! and the network. Every frame that arrives is a sign of life of the peer.

use std::sync::Arc;

use super::{
    super::host::{Host, Unavailable},
    Context,
    frames::{FrameError, StreamFrames},
    link::Link,
    reach,
};
use crate::{
    net::Stream,
    protocol::{
        event::ProtocolEvent,
        exchange::{Ask, Breach, Half, Responder, Step, Summary},
        gossip::Gossip,
        id::NodeId,
        message::Message,
        peering::PeeringInput,
        route::{Counter, Target},
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

/// Runs an exchange with a target; its end is reported in every case.
pub(crate) fn begin(context: &Context, target: Target, summary: Summary) {
    let own = context.clone();
    context.spawner.spawn(async move {
        let dialed = reach::reach(&own, &target).await;
        let mut done = false;
        if let Some(link) = &dialed.link {
            done = initiate(&own, link, summary.clone()).await;
            // Two nodes that dial each other at the same time agree on one connection, and close the other one
            // while it is in use.
            if !done
                && let Some(other) = own.links().link(&own.host, &link.peer)
                && other.id != link.id
            {
                done = initiate(&own, &other, summary).await;
            }
        }
        own.host.ended(target, dialed.node, done);
    });
}

/// Runs the initiating half; returns whether it completed.
async fn initiate(context: &Context, link: &Arc<Link>, summary: Summary) -> bool {
    let host = &context.host;
    let underway = link.begin();
    let Some(stream) = open(host, link).await else { return false };
    let mut frames = StreamFrames::new(stream, link, host);
    let (half, step) = summary.open();
    let Err(error) = drive(host, link, half, step, &mut frames, |_| false).await else {
        context.spawner.spawn(async move {
            // Until the peer has received all of it.
            frames.finished().await;
            drop(underway);
        });
        return true;
    };
    frames.abort();
    if error.is_misbehaviour() {
        host.links().misbehaved(host, link, &error);
    } else {
        tracing::debug!(node = %host.node(), peer = %link.peer, %error, "exchange failed");
    }
    false
}

/// A peer may refuse us every stream; it then counts as one that does not answer.
async fn open(host: &Host, link: &Link) -> Option<Stream> {
    let deadline = host.config().quic.exchange_timeout;
    tokio::time::timeout(deadline, link.connection.open()).await.ok()?.ok()
}

/// Runs the answering half.
pub(super) async fn answer(host: &Host, link: &Arc<Link>, stream: Stream) {
    let _underway = link.begin();
    let mut frames = StreamFrames::new(stream, link, host);
    let half = Responder::new();
    match drive(host, link, half, Step::Read, &mut frames, Responder::may_end).await {
        Ok(()) => {
            frames.finish();
            host.count(Counter::ExchangesAnswered);
        }
        Err(error) => {
            host.count(Counter::ExchangesFailed);
            frames.abort();
            if error.is_misbehaviour() {
                host.links().misbehaved(host, link, &error);
            }
        }
    }
}

async fn drive<H: Half + Send>(
    host: &Host,
    link: &Link,
    mut half: H,
    mut step: Step,
    frames: &mut StreamFrames,
    may_end: impl Fn(&H) -> bool + Send,
) -> Result<(), ExchangeError> {
    let peer = &link.peer;
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
                host.links().handle(host, PeeringInput::Frame(link.id));
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
        Message::Ack { delta } | Message::Gossip(Gossip::Push(delta)) => (None, Some(delta)),
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
