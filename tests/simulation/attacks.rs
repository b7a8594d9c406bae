//! Members that lie. What they send is changed on its way out; all others run what ships.

use std::{panic, time::Duration};

use gossipmonger::{
    NodeId,
    protocol::{
        delta::{Delta, DeltaContent, DeltaEntry, NodeDelta},
        entry::{Content, Entry},
        gossip::Gossip,
        id::{ClusterId, Incarnation, Version},
        map::NodeMap,
        message::Message,
        seal::{Head, Notary},
        tree::Tree,
        verdict::Verdict,
        write::Write,
    },
};
use rand::{RngExt, rngs::SmallRng};

use gossipmonger::sim::{hooks, network::Network, settings::Settings, world::World};

use crate::notary::TestNotary;

/// What a member lies about.
#[derive(Clone, Debug)]
pub(crate) enum Liar {
    /// About others: it forges, leaves out and rolls back what it relays.
    Relay {
        /// What it had been told earlier.
        earlier: Vec<NodeDelta>,
    },
    /// About itself: half of its peers are told that its key "k" has another value, signed as the same
    /// version.
    Equivocator,
}

impl Liar {
    pub(crate) const fn relay() -> Self {
        Self::Relay { earlier: Vec::new() }
    }

    fn delta(
        &mut self,
        rng: &mut SmallRng,
        own: (&NodeId, &NodeMap),
        peer: &NodeId,
        delta: &mut Delta,
    ) {
        for news in &mut delta.nodes {
            match self {
                Self::Relay { earlier } if news.node != *own.0 => {
                    if earlier.len() < 100 {
                        earlier.push(news.clone());
                    }
                    lie_about(rng, earlier, news);
                }
                Self::Equivocator if news.node == *own.0 && is_odd(peer) => sign_another(own, news),
                _ => {}
            }
        }
    }
}

impl hooks::Liar for Liar {
    fn is_two_faced(&self) -> bool {
        matches!(self, Self::Equivocator)
    }

    fn gossip(
        &mut self,
        rng: &mut SmallRng,
        own: (&NodeId, &NodeMap),
        peer: &NodeId,
        gossip: &mut Gossip,
    ) {
        if let Gossip::Push(delta) = gossip {
            self.delta(rng, own, peer, delta);
        }
    }

    fn message(
        &mut self,
        rng: &mut SmallRng,
        own: (&NodeId, &NodeMap),
        peer: &NodeId,
        message: &mut Message,
    ) {
        if let Message::SynAck { delta, .. } | Message::Ack { delta } | Message::More { delta } =
            message
        {
            self.delta(rng, own, peer, delta);
        }
    }
}

fn is_odd(peer: &NodeId) -> bool {
    peer.as_str().ends_with(['1', '3', '5', '7', '9'])
}

/// Forges, leaves out or rolls back.
fn lie_about(rng: &mut SmallRng, earlier: &[NodeDelta], news: &mut NodeDelta) {
    let forged = DeltaContent::Value { value: "forged".into(), ttl_ms: None };
    match rng.random_range(0..9) {
        0 => news.entries.iter_mut().for_each(|entry| entry.content = forged.clone()),
        1 => news.entries.clear(),
        2 => drop(news.entries.pop()),
        3 => {
            let version = news.to;
            news.entries.push(DeltaEntry { key: "k".into(), version, content: forged });
        }
        4 => {
            if let Some((_, record)) = &mut news.record {
                record.addresses = vec!["evil:1".to_owned()];
            }
        }
        5 => news.sealed = None,
        // An earlier state, as the one of now.
        6 => {
            if let Some(old) = earlier.iter().find(|old| old.node == news.node) {
                let (to, horizon) = (news.to, news.horizon);
                *news = NodeDelta { to, horizon, ..old.clone() };
            }
        }
        7 => {
            news.to = Version(news.to.0 + 5);
            news.horizon = news.to;
        }
        _ => news.verdict = Verdict::alive(Incarnation(news.verdict.incarnation.0 + 3)),
    }
}

/// Its own map with another value, signed with its own key.
fn sign_another((node, own): (&NodeId, &NodeMap), news: &mut NodeDelta) {
    let Some(sealed) = &mut news.sealed else { return };
    if sealed.seal.upto != own.max_version() {
        return;
    }
    let other = |key: &str, entry: &Entry| match &entry.content {
        Content::Value { expires, .. } if key == "k" => {
            let content = Content::Value { value: "another".into(), expires: *expires };
            Entry { content, ..entry.clone() }
        }
        _ => entry.clone(),
    };
    let entries: Vec<_> =
        own.entries().iter().map(|(key, entry)| (key, other(key.as_str(), entry))).collect();
    let root = Tree::of(entries.iter().map(|(key, entry)| (key.as_str(), entry))).root();
    for entry in news.entries.iter_mut().filter(|entry| entry.key.as_str() == "k") {
        entry.content = DeltaContent::Value { value: "another".into(), ttl_ms: None };
    }
    let record = own.record().map(|record| (own.record_version(), &**record));
    let head = Head {
        node,
        generation: own.generation(),
        ancestry: own.ancestry(),
        max_version: own.max_version(),
        gc_floor: own.gc_floor(),
        torn: own.torn(),
        record,
        root,
    };
    let notary = TestNotary::new(1);
    let (signer, _) = notary.begin(node, own.generation()).unwrap();
    sealed.seal.root = root;
    sealed.seal.signature = signer.sign(&head.digest(notary.cluster())).unwrap();
    assert_eq!(*notary.cluster(), ClusterId::new("test").unwrap());
}

// C85
#[test]
fn of_a_hundred_nodes_ten_that_lie_about_others_deceive_nobody() {
    let mut cluster = with_liars(100, 10, true);
    for round in 0..20_u64 {
        for slot in 0..100 {
            if (slot as u64 + round).is_multiple_of(5) {
                cluster.write(slot, vec![Write::set("k", round.to_string())]);
            }
        }
        cluster.run_for(Duration::from_millis(300));
    }
    // The oracle has looked at all that any reader has ever seen. In the end all have all, though the
    // liars go on.
    cluster.run_until(Duration::from_secs(120), World::holds_all);
}

#[test]
fn without_signatures_a_single_liar_deceives_others() {
    let deceived = panic::catch_unwind(|| {
        let mut cluster = with_liars(20, 1, false);
        for round in 0..20_u64 {
            (0..20).for_each(|slot| {
                cluster.write(slot, vec![Write::set("k", round.to_string())]);
            });
            cluster.run_for(Duration::from_millis(300));
        }
    });
    let said = deceived.unwrap_err();
    let said = said.downcast_ref::<String>().map_or("", String::as_str);
    assert!(said.contains("SEED="), "{said}");
}

#[test]
fn a_node_that_tells_two_halves_different_things_is_known_to_all() {
    let settings = Settings { notary: crate::notary(), ..Settings::roomy() };
    let mut cluster = crate::world(seed(), 100, settings, Network::perfect());
    (0..100).for_each(|slot| cluster.boot(slot));
    cluster.run_until(Duration::from_secs(60), World::holds_all);
    cluster.hooks.liars.insert(17, Box::new(Liar::Equivocator));
    cluster.write(17, vec![Write::set("k", "one")]);
    cluster.run_until(Duration::from_secs(60), |cluster| {
        let told =
            cluster.said.equivocations.iter().filter(|(_, peer)| peer.as_str() == "n17").count();
        // All but the liar itself.
        if told == 99 { Ok(()) } else { Err(format!("{told} know")) }
    });
    assert!(cluster.said.equivocations.iter().all(|(_, peer)| peer.as_str() == "n17"));
}

fn with_liars(count: usize, liars: usize, signed: bool) -> World {
    let settings = Settings { notary: signed.then(crate::notary).flatten(), ..Settings::roomy() };
    let mut cluster = crate::world(seed(), count, settings, Network::perfect());
    (0..count).for_each(|slot| cluster.boot(slot));
    cluster.run_until(Duration::from_secs(60), World::holds_all);
    for liar in 0..liars {
        cluster.hooks.liars.insert(3 + liar * 9, Box::new(Liar::relay()));
    }
    cluster
}

fn seed() -> u64 {
    crate::number("SEED").unwrap_or(5)
}
