//! Handles a frame of gossip that a peer has sent.

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
    skim::skim,
};

/// Handles a frame, without its length. It returns when storage has handled it, however long that takes; until then
/// the caller must not read more from this peer.
///
/// # Errors
/// [`ExchangeError`] if the peer must be disconnected. It is not an error if storage has no time for a frame:
/// reconciliation repairs that.
pub(super) async fn hear(links: &Links, link: &Link, frame: &[u8]) -> Result<(), ExchangeError> {
    let host = links.host();
    host.count(Counter::GossipReceived);
    if is_known(host, frame) && links.admits(link, Traffic::Duplicate) {
        host.count(Counter::GossipDuplicates);
        links.handle(PeeringInput::Frame(link.id));
        return Ok(());
    }
    let _decoded = link.share.decode().await;
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
    if let Gossip::Push(delta) = &gossip
        && host.is_watched()
    {
        let (peer, delta) = (link.peer.clone(), delta.clone().into());
        host.tell_protocol(ProtocolEvent::DeltasReceived { peer, delta });
    }
    match gossip {
        Gossip::Root(root) => {
            if links.admits(link, Traffic::Root) {
                host.root(&link.peer, root);
            }
        }
        Gossip::Graft(_) if !links.admits(link, Traffic::Graft) => {}
        // It fails while storage restarts.
        gossip => drop(host.ask(&link.peer, Ask::Gossip(Box::new(gossip))).await),
    }
    // Only now: the frame may have introduced the peer that sent it.
    links.handle(PeeringInput::Frame(link.id));
    Ok(())
}

/// Whether readers of this node have the news in a frame already.
fn is_known(host: &Host, frame: &[u8]) -> bool {
    skim(frame).is_some_and(|headings| headings.iter().all(|heading| host.has(heading)))
}
