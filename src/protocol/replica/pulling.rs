//! Bulk transfers: a peer that has more than fits one delta is pulled from, part by part.

use super::{Replica, outcome::Occasion};
use crate::protocol::{
    delta::Delta,
    digest::Digest,
    id::NodeId,
    route::{Counter, Output},
    time::Time,
};

impl Replica {
    /// Asks for the right to pull from a peer that has more than fits one delta. Returns how far our copies
    /// reach, of these nodes or of all; `None` while there is another pull.
    pub fn pull(&mut self, now: Time, from: &NodeId, about: Option<&[NodeId]>) -> Option<Digest> {
        let may = self.bulk.begin_pull(now, from);
        may.then(|| match about {
            None => (*self.digest()).clone(),
            Some(nodes) => self.lines(nodes, &[]).0,
        })
    }

    /// The state that a pulling peer lacks, as much as fits one delta, and how far the peer will be with it.
    /// `all`: as for an answer.
    pub fn feed(
        &mut self,
        now: Time,
        peer: &NodeId,
        mut theirs: Digest,
        all: bool,
    ) -> (Digest, Delta) {
        if !self.bulk.may_feed(now, peer) {
            return (theirs, Delta::default());
        }
        self.seal_own();
        let delta = self.lacking(now, peer, &theirs, all, Occasion::Pulled);
        self.bulk.told(now, peer, &delta, true);
        if !delta.more {
            self.push.fed(peer);
        }
        theirs.advance(&delta);
        (theirs, delta)
    }

    /// Applies the delta that was pulled from a peer. Returns whether the pull is to go on: not if all of it
    /// was refused, nor if the peer is too slow ([`PULL_BYTES_PER_SECOND_MIN`]).
    ///
    /// [`PULL_BYTES_PER_SECOND_MIN`]: crate::protocol::bulk::PULL_BYTES_PER_SECOND_MIN
    pub fn take(&mut self, now: Time, from: &NodeId, news: &Delta, out: &mut Vec<Output>) -> bool {
        let reach = |this: &Self, node: &NodeId| {
            let line = this.line(node);
            (line.generation, line.max_version)
        };
        let before: Vec<_> = news.nodes.iter().map(|delta| reach(self, &delta.node)).collect();
        self.apply(now, from, news, out);
        let (mut useful, mut bytes) = (false, 0);
        for (delta, before) in news.nodes.iter().zip(before) {
            let after = reach(self, &delta.node);
            useful |=
                self.copies.contains_key(&delta.node) && after >= (delta.generation, delta.to);
            if after > before {
                bytes += delta.encoded_len_max();
            }
        }
        let goes_on = self.bulk.pulled(now, from, news, bytes, !(news.more && useful));
        if !goes_on {
            out.push(Output::Count(Counter::PullsGivenUp, 1));
        }
        useful && goes_on
    }
}
