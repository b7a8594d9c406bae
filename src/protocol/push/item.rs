//! The updates of one batch.

use std::time::Duration;

use crate::protocol::{
    delta::NodeDelta,
    digest::DigestEntry,
    edges::Course,
    id::{Datacenter, NodeId},
    mode::Mode,
};

/// The unsent updates of one owner.
#[derive(Clone, Debug)]
pub struct Fresh {
    /// The state of the receivers, as far as is known: the line before the update.
    pub since: DigestEntry,
    /// The sender of the update, if there is only one.
    pub except: Option<NodeId>,
    /// It came by an exchange, so others are likely to have it: if it is more than a little, they are only
    /// sent a note that it is available.
    pub relayed: bool,
    /// How it travels.
    pub mode: Mode,
    /// It came on request, so the way that it should have taken is broken.
    pub requested: bool,
}

/// Updates of one owner, about to be sent.
#[derive(Clone, Debug)]
pub struct Item {
    /// The updates.
    pub delta: NodeDelta,
    /// Its size, an upper bound.
    pub bytes: usize,
    /// It is too large, and is only announced: its entries are not in it.
    pub noted: bool,
    /// Where it comes from.
    pub fresh: Fresh,
}

/// What this node has time for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many introductions it may tell unasked.
    pub introductions: usize,
    /// How late it is served.
    pub lag: Duration,
}

/// The frames for one link: all of this at once.
#[derive(Debug, Default)]
pub struct Told {
    /// Indices of the items whose updates it gets.
    pub news: Vec<usize>,
    /// Indices of the items that are announced to it.
    pub notes: Vec<usize>,
}

/// What becomes of an item.
#[derive(Clone, Copy, Debug)]
pub(super) enum Plan {
    /// All get it, whatever waits for them.
    Verdict,
    /// All get a note at once.
    Notes,
    /// All get a note, with others.
    LateNotes,
    /// All get it. `tree_first`: those later to which no edge of the tree leads, unless they have it by then.
    Flood { tree_first: bool },
    /// Those get it to which an edge leads. `broken`: the others get a note at once.
    Tree { broken: bool },
}

impl Item {
    /// Whether it is a verdict alone, which every node needs at once: it brings no key, no record and no
    /// certificate.
    #[must_use]
    pub fn is_verdict(&self) -> bool {
        let Self { delta, noted, .. } = self;
        delta.entries.is_empty() && delta.record.is_none() && !self.introduces() && !noted
    }

    /// Whether it is such an introduction that an exchange has brought, of another node than the one it came
    /// from: others are likely to know that node already.
    pub(super) fn introduces_others(&self) -> bool {
        let Fresh { except, relayed, .. } = &self.fresh;
        *relayed && self.introduces() && except.as_ref() != Some(&self.delta.node)
    }

    /// Whether it comes with a certificate that the receivers do not have.
    pub fn introduces(&self) -> bool {
        self.delta.sealed.as_ref().is_some_and(|sealed| sealed.credential.is_some())
    }

    /// Whether all that it tells is told by how far it reaches: a peer that reaches as far has it.
    pub(super) fn advances(&self) -> bool {
        let (delta, since) = (&self.delta, &self.fresh.since);
        delta.record.is_none()
            && delta.generation == since.generation
            && delta.verdict == since.verdict
            && delta.to > since.max_version
    }

    pub(super) fn course<'c, 'a: 'c>(
        &'c self,
        here: &'c Datacenter,
        node: &NodeId,
        at: &impl Fn(&NodeId) -> Option<&'a Datacenter>,
    ) -> Course<'c> {
        let owner = &self.delta.node;
        let from = self.fresh.except.as_ref();
        Course { owner, at: at(owner), here, from, own: owner == node }
    }
}
