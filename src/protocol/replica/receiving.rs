//! Frames that a peer has sent unasked, as many as have arrived together.

use std::mem::discriminant;

use super::Replica;
use crate::protocol::{gossip::Gossip, id::NodeId, route::Output, time::Time};

impl Replica {
    /// Handles frames of a peer, in their order; updates in a row that travel alike as if they were in one frame.
    pub(super) fn gossip_together(
        &mut self,
        now: Time,
        from: &NodeId,
        frames: Vec<Gossip>,
        out: &mut Vec<Output>,
    ) {
        self.tell_problems(out);
        let mut frames = frames.into_iter().peekable();
        while let Some(mut frame) = frames.next() {
            let kind = discriminant(&frame);
            if let Gossip::Push(news) | Gossip::Tree(news) = &mut frame {
                while let Some(Gossip::Push(more) | Gossip::Tree(more)) =
                    frames.next_if(|next| discriminant(next) == kind)
                {
                    news.nodes.extend(more.nodes);
                }
            }
            self.gossip(now, from, frame, out);
        }
        self.tell_news(now, out);
    }
}
