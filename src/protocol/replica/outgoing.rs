//! What leaves the machine: updates and announcements for peers, and the cost of what peers sent in vain.

use std::{collections::BTreeMap, sync::Arc};

use crate::protocol::{
    delta::{Delta, NodeDelta},
    event::{Event, Problem},
    gossip::{Gossip, Have, OWNERS_MAX},
    id::NodeId,
    map::{Budget, NodeMap, Refusal},
    mode::Mode,
    push::{FLOOD_BYTES_MAX, Fresh, Item, Told},
    route::{Counter, Misconduct, Output, TransportInput},
    time::Time,
};

/// Charges the cost of a refused update to its sender.
pub(super) fn hold_against(peer: &NodeId, price: u32, out: &mut Vec<Output>) {
    if price > 0 {
        let (peer, why) = (peer.clone(), Misconduct::RefusedNews);
        out.push(Output::Transport(TransportInput::HoldAgainst { peer, price, why }));
    }
}

/// Refuses an update, and charges its cost to the sender.
pub(super) fn refused(from: &NodeId, delta: &NodeDelta, refusal: Refusal, out: &mut Vec<Output>) {
    out.push(Output::Count(Counter::NewsRefused, 1));
    hold_against(from, refusal.price(), out);
    // If an update lost a race against another one, no peer is at fault.
    if matches!(
        refusal,
        Refusal::Malformed
            | Refusal::TooLarge
            | Refusal::Unsigned
            | Refusal::Forged
            | Refusal::BadCredential
            | Refusal::Misplaced
    ) {
        let (from, about) = (from.clone(), delta.node.clone());
        out.push(Output::Event(Event::Error(Problem::NewsRefused { from, about, refusal })));
    }
}

/// An update that came by an exchange. If it is more than a little it is only announced to the others, so it
/// is not cut from the map.
pub(super) fn relayed(now: Time, map: &NodeMap, fresh: Fresh) -> Option<Item> {
    let whole = |bytes, entries| {
        let mut budget = Budget { bytes, entries, untouched: false };
        let news = map.delta(now, &fresh.since, &mut budget);
        news.map(|(delta, cut)| {
            let bytes = bytes.saturating_sub(budget.bytes).saturating_sub(delta.sealed_len_max());
            (delta, cut, bytes)
        })
    };
    let short = FLOOD_BYTES_MAX + map.sealed_len_max();
    if let Some((delta, false, bytes)) = whole(short, FLOOD_BYTES_MAX)
        && bytes <= FLOOD_BYTES_MAX
    {
        return Some(Item { delta, bytes, noted: false, fresh });
    }
    let (mut delta, cut, bytes) = whole(usize::MAX, 0)?;
    if cut {
        delta.to = map.max_version();
    }
    Some(Item { delta, bytes, noted: cut, fresh })
}

pub(super) fn hand_out(items: &[Item], shares: Vec<(NodeId, Told)>, out: &mut Vec<Output>) {
    let mut groups: BTreeMap<(Vec<usize>, Vec<usize>), Vec<NodeId>> = BTreeMap::new();
    for (peer, Told { news, notes }) in shares {
        groups.entry((news, notes)).or_default().push(peer);
    }
    for ((news, notes), peers) in groups {
        if !notes.is_empty() {
            let have = |index: usize| {
                let delta = &items[index].delta;
                let (generation, version) = (delta.generation, delta.to);
                Have { node: delta.node.clone(), generation, version }
            };
            for notes in notes.chunks(OWNERS_MAX) {
                out.push(Output::Count(Counter::Notes, (notes.len() * peers.len()) as u64));
                let haves = notes.iter().map(|index| have(*index)).collect();
                tell(peers.clone(), Gossip::Have(haves), out);
            }
        }
        let (trees, floods): (Vec<_>, Vec<_>) = news.into_iter().partition(|index| {
            items[*index].fresh.mode == Mode::Tree && !items[*index].is_verdict()
        });
        for (mode, news) in [(Mode::Flood, floods), (Mode::Tree, trees)] {
            if !news.is_empty() {
                let nodes = news.into_iter().map(|index| items[index].delta.clone()).collect();
                tell(peers.clone(), Gossip::of_news(mode, Delta { nodes, more: false }), out);
            }
        }
    }
}

pub(super) fn tell(to: Vec<NodeId>, gossip: Gossip, out: &mut Vec<Output>) {
    out.push(Output::Transport(TransportInput::Gossip { to, gossip: Arc::new(gossip) }));
}
