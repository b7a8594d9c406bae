//! Handles frames of gossip that a peer has sent.

use bytes::Bytes;

use super::{
    super::host::Host, exchange::ExchangeError, frames::FrameError, link::Link, table::Links,
};
use crate::protocol::{
    event::ProtocolEvent,
    exchange::{Ask, Breach},
    gossip::Gossip,
    message::Message,
    peering::PeeringInput,
    rates::Traffic,
    route::Counter,
    skim::{Heading, skim},
};

/// Handles frames that have arrived together, without their lengths. It returns when storage has handled them,
/// however long that takes; until then the caller must not read more from this peer.
///
/// # Errors
/// [`ExchangeError`] if the peer must be disconnected; the frames before the offence are handled. It is not an
/// error if storage has no time for a frame: reconciliation repairs that.
pub(super) async fn hear(
    links: &Links,
    link: &Link,
    frames: &[Bytes],
) -> Result<(), ExchangeError> {
    let host = links.host();
    let (mut taken, mut repeated) = (Vec::new(), Vec::new());
    let mut decoded = None;
    let mut result = Ok(());
    for frame in frames {
        host.count(Counter::GossipReceived);
        if let Some(headings) = known(host, frame)
            && links.admits(link, Traffic::Duplicate)
        {
            host.count(Counter::GossipDuplicates);
            count_news(host, headings.len());
            repeated.extend(headings.iter().filter_map(Heading::have));
            continue;
        }
        if decoded.is_none() {
            decoded = Some(link.share.decode().await);
        }
        match decode(links, link, frame) {
            Ok(gossip) => taken.extend(gossip),
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    if !repeated.is_empty() {
        // It fails as below: then nothing is known of the peer.
        drop(host.ask(&link.peer, Ask::Repeated(repeated)).await);
    }
    if !taken.is_empty() {
        // It fails while storage restarts.
        drop(host.ask(&link.peer, Ask::Gossip(taken)).await);
    }
    if result.is_ok() {
        // Only now: a frame may have introduced the peer that sent it.
        links.handle(PeeringInput::Frame(link.id));
    }
    result
}

/// What storage is to be asked, if it is.
fn decode(links: &Links, link: &Link, frame: &[u8]) -> Result<Option<Gossip>, ExchangeError> {
    let host = links.host();
    let gossip = match Message::decode(frame) {
        Ok(Message::Gossip(gossip)) => gossip,
        Ok(_) => {
            host.count(Counter::FramesRefused);
            return Err(Breach::Order.into());
        }
        Err(error) => {
            host.count(Counter::FramesMalformed);
            return Err(FrameError::from(error).into());
        }
    };
    if let Some((_, delta)) = gossip.news() {
        count_news(host, delta.nodes.len());
    }
    if let Some((_, delta)) = gossip.news()
        && host.is_watched()
    {
        let (peer, delta) = (link.peer.clone(), delta.clone().into());
        host.tell_protocol(ProtocolEvent::DeltasReceived { peer, delta });
    }
    Ok(match gossip {
        Gossip::Root(root) => {
            if links.admits(link, Traffic::Root) {
                host.root(&link.peer, root);
            }
            None
        }
        Gossip::Graft(_) if !links.admits(link, Traffic::Graft) => None,
        gossip => Some(gossip),
    })
}

/// The headings of the news in a frame, if readers of this node have all of it already.
fn known<'a>(host: &Host, frame: &'a [u8]) -> Option<Vec<Heading<'a>>> {
    skim(frame).filter(|headings| headings.iter().all(|heading| host.has(heading)))
}

/// Counts a frame with news of this many nodes.
fn count_news(host: &Host, nodes: usize) {
    host.count(Counter::NewsFrames);
    host.counters().add(Counter::NewsReceived, nodes as u64);
}
