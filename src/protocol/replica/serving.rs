//! The requests of exchanges to storage: the one place where an [`Ask`] calls the replica.

use super::Replica;
use crate::protocol::{
    exchange::{Ask, Reply},
    id::NodeId,
    route::Output,
    time::Time,
};

impl Replica {
    /// Answers an exchange with `peer`.
    pub fn serve(&mut self, now: Time, peer: &NodeId, ask: Ask, out: &mut Vec<Output>) -> Reply {
        self.drop_if_overslept(now, out);
        match ask {
            Ask::Digest => Reply::Digest(self.digest()),
            Ask::Answer { digest } => {
                let (wants, delta) = self.answer(now, peer, &digest, out);
                Reply::Answer { wants, delta }
            }
            Ask::Merge { wants, delta } => {
                Reply::Merged(self.merge(now, peer, &wants, &delta, out))
            }
            Ask::Apply { delta } => {
                self.apply(now, peer, &delta, out);
                Reply::Applied
            }
            Ask::Gossip(frames) => {
                self.gossip_together(now, peer, frames, out);
                Reply::Taken
            }
            Ask::Repeated(haves) => {
                for have in haves {
                    let head = (have.generation, have.version);
                    self.push.repeated(now, peer, &have.node, head);
                }
                Reply::Taken
            }
            Ask::Sketch => Reply::Sketch(self.sketch()),
            Ask::Lines { nodes, ids } => {
                let (lines, unknown) = self.lines(&nodes, &ids);
                Reply::Lines { lines, unknown }
            }
            Ask::AnswerLines { lines, unknown } => {
                let (wants, delta) = self.answer_lines(now, peer, &lines, &unknown, out);
                Reply::Answer { wants, delta }
            }
            Ask::Pull { about } => Reply::Pull(self.pull(now, peer, about.as_deref())),
            Ask::Feed { digest, all } => {
                let (digest, delta) = self.feed(now, peer, digest, all);
                Reply::Fed { digest, delta }
            }
            Ask::Take { delta } => Reply::Took(self.take(now, peer, &delta, out)),
        }
    }
}
