//! A member that relays what others have not said, against nodes that ask for signatures.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use gossipmonger::{
    Gossipmonger,
    protocol::penalties::THROTTLED_MAX,
    protocol::{
        delta::{Delta, DeltaContent, NodeDelta},
        digest::{Digest, DigestEntry},
        entry::{Content, Entry},
        gossip::Gossip,
        id::NodeId,
        map::{MapLimits, Refusal},
        message::Message,
        record::NodeRecord,
        replica::{Replica, ReplicaConfig},
        seal::{Head, Notary, Seals, Signature, Signing},
        sketch::SketchKey,
        time::Time,
        tree::Tree,
        write::Write,
    },
    store::Stored,
    tls::{Identity, Roots, Tls},
};
use quinn::{SendStream, TransportConfig};

use crate::{
    attacker::{MISBEHAVIOUR, Member, Scene, frame, hello, record, tls},
    harness::{Cluster, PATIENCE, all_live, id, until},
};

// C85
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn takes_of_a_relay_nothing_but_what_the_owner_has_signed() {
    let mut scene = Scene::with(Signing::Require, |_| {}).await;
    let mut owner = Owner::new(&scene.cluster, "v");
    let member = scene.introduced("x").await;
    let mut stream = member.connection.open_uni().await.unwrap();
    owner.set("color", "green");
    owner.set("shape", "round");
    let honest = owner.told();

    // Forged, left out, without a signature, with somebody else's certificate.
    let mut forged = honest.clone();
    forged.entries[0].content = DeltaContent::Value { value: "red".into(), ttl_ms: None };
    let mut less = honest.clone();
    less.entries.pop();
    let bare = NodeDelta { sealed: None, ..honest.clone() };
    let mut framed = honest.clone();
    framed.record.as_mut().unwrap().1.addresses = vec!["127.0.0.1:2".to_owned()];
    let mut stranger = Owner::new(&Cluster::new("demo"), "v");
    stranger.set("color", "black");
    for (count, bad) in [forged, less, bare, framed, stranger.told()].into_iter().enumerate() {
        push(&mut stream, bad).await;
        scene.counts("news_refused", count as u64 + 1).await;
        assert_eq!(seen(&scene.node, "color"), None);
    }

    // What the owner has signed is taken, whoever brings it, and passed on.
    let first = honest.clone();
    push(&mut stream, honest).await;
    for node in [&scene.node, &scene.friend] {
        until("it is known", || seen(node, "color").as_deref() == Some("green")).await;
    }

    // Of what comes later nothing can be left out or taken back.
    owner.set("color", "red");
    let line = scene_line(&first);
    let mut less = owner.told_since(line);
    less.entries.clear();
    push(&mut stream, less).await;
    scene.counts("push_gaps", 1).await;
    assert_eq!(seen(&scene.node, "color").as_deref(), Some("green"));
    push(&mut stream, owner.told()).await;
    for node in [&scene.node, &scene.friend] {
        until("it has changed", || seen(node, "color").as_deref() == Some("red")).await;
    }
    push(&mut stream, first).await;
    scene.still_gossips().await;
    assert_eq!(seen(&scene.node, "color").as_deref(), Some("red"));
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_tells_two_nodes_different_things_is_reported_by_both() {
    let mut scene = Scene::with(Signing::Require, |_| {}).await;
    let mut liar = Owner::new(&scene.cluster, "x");
    liar.set("color", "green");
    let one = liar.told();
    let other = liar.sign_another(&one);
    let first = scene.introduced("x").await;
    let mut stream = first.connection.open_uni().await.unwrap();
    push(&mut stream, one).await;
    until("one says green", || scene.node.get_str(&id("x"), "color").is_some()).await;
    until("so does the other", || scene.friend.get_str(&id("x"), "color").is_some()).await;
    let friend = scene.friend.addresses()[0].parse().unwrap();
    let second = Member::dial(scene.member("x"), friend, TransportConfig::default()).await.unwrap();
    second.introduce(hello("demo", "x")).await;
    let mut stream = second.connection.open_uni().await.unwrap();
    push(&mut stream, other).await;
    for node in [&scene.node, &scene.friend] {
        until("it is reported", || node.counters().all()["equivocations"] == 1).await;
        assert_eq!(node.get_str(&id("x"), "color").as_deref(), Some("green"));
    }
    scene.still_gossips().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_off_a_member_that_goes_on_to_tell_forged_news() {
    let mut scene = Scene::with(Signing::Require, |_| {}).await;
    let mut owner = Owner::new(&scene.cluster, "v");
    owner.set("color", "green");
    let member = scene.introduced("x").await;
    let mut stream = member.connection.open_uni().await.unwrap();
    let first = owner.told();
    push(&mut stream, first.clone()).await;
    until("it is taken", || seen(&scene.node, "color").as_deref() == Some("green")).await;
    owner.set("color", "red");
    let mut forged = owner.told_since(scene_line(&first));
    forged.sealed.as_mut().unwrap().seal.signature = Signature([7; 64]);
    let delta = Delta { nodes: vec![forged], more: false };
    let bytes = frame(&Message::Gossip(Gossip::Push(delta))).repeat(10);
    let flood = async { while stream.write_all(&bytes).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, flood).await.expect("never cut off");
    let (code, words) = member.cut_off().await;
    assert_eq!(code, MISBEHAVIOUR);
    assert!(words.contains("news that was refused"), "{words}");
    let least = THROTTLED_MAX as u64 / u64::from(Refusal::Forged.price());
    assert!(scene.count("news_refused") >= least, "it was given no patience");
    assert_eq!(seen(&scene.node, "color").as_deref(), Some("green"));
    scene.still_gossips().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_goes_from_unsigned_to_signed_without_a_stop() {
    let mut cluster = Cluster { signing: Signing::Off, ..Cluster::new("demo") };
    let mut nodes = cluster.spawn_many(3).await;
    all_live(&nodes).await;
    let mut writes = 0;
    for signing in [Signing::Prefer, Signing::Require] {
        cluster.signing = signing;
        for index in 0..3 {
            let name = nodes[index].node().clone();
            let seed = nodes[(index + 1) % 3].clone();
            nodes[index].leave_for_now().await.unwrap();
            nodes[index].ended().await;
            nodes[index] = cluster.spawn(name.as_str(), &[&seed]).await;
            writes += 1;
            for node in &nodes {
                node.set("n", writes.to_string()).await.unwrap();
            }
            for reader in &nodes {
                for owner in &nodes {
                    let what = format!("{} has {} ({signing:?})", reader.node(), owner.node());
                    until(&what, || reader.get_str(owner.node(), "n") == Some(writes.to_string()))
                        .await;
                }
            }
        }
    }
    for node in &nodes {
        assert!(node.counters().all()["seals_verified"] > 0);
        node.shutdown().await;
    }
}

/// A node that is not there itself: what it has signed is carried by others.
pub(crate) struct Owner {
    replica: Replica,
    tls: Tls,
}

impl Owner {
    fn new(cluster: &Cluster, name: &str) -> Self {
        Self::with(cluster, name, |_| {})
    }

    pub(crate) fn with(cluster: &Cluster, name: &str, change: impl Fn(&mut NodeRecord)) -> Self {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        Self::of(cluster.identity(name), name, wall, change)
    }

    pub(crate) fn of(
        who: (Identity, Roots),
        name: &str,
        wall: SystemTime,
        change: impl Fn(&mut NodeRecord),
    ) -> Self {
        let tls = tls(who);
        let mut record = record();
        change(&mut record);
        let limits = MapLimits { keys: 100, bytes: 1 << 20, key_bytes: 100, value_bytes: 1_000 };
        let config = ReplicaConfig {
            node: id(name),
            record,
            limits,
            peers_max: 10,
            delta_bytes: 64 << 10,
            delta_entries: 1_000,
            tombstone_grace: Duration::from_secs(60),
            forget_after: Duration::from_secs(60),
            interval: Duration::from_secs(1),
            sketch_key: SketchKey([0; 16]),
            rules: Default::default(),
        };
        let (stored, mut out) = (Stored::default(), Vec::new());
        let none = imbl::OrdMap::new();
        let mut replica = Replica::start(config, stored, &none, false, Time::ZERO, wall, &mut out);
        let notary = Arc::new(tls.clone());
        replica.set_seals(Some(Seals { notary, signing: Signing::Require }));
        Self { replica, tls }
    }

    pub(crate) fn set(&mut self, key: &str, value: &str) {
        self.replica.write(Time::ZERO, vec![Write::set(key, value)], &mut Vec::new()).unwrap();
    }

    /// All of it.
    pub(crate) fn told(&mut self) -> NodeDelta {
        self.told_since(DigestEntry::unknown(self.replica.node().clone()))
    }

    fn told_since(&mut self, line: DigestEntry) -> NodeDelta {
        let digest = Digest { entries: vec![line] };
        let (_, mut delta) = self.replica.answer(Time::ZERO, &id("z"), &digest, &mut Vec::new());
        delta.nodes.pop().unwrap()
    }

    /// The same, with another value, signed with the same key.
    fn sign_another(&self, news: &NodeDelta) -> NodeDelta {
        let (node, own): (&NodeId, _) = (self.replica.node(), self.replica.own());
        let content = |value: &str| Content::Value { value: value.into(), expires: None };
        let entries: Vec<_> = own
            .entries()
            .iter()
            .map(|(key, entry)| (key, Entry { content: content("red"), ..entry.clone() }))
            .collect();
        let root = Tree::of(entries.iter().map(|(key, entry)| (key.as_str(), entry))).root();
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
        let (signer, _) = self.tls.begin(node, own.generation()).unwrap();
        let mut other = news.clone();
        for entry in &mut other.entries {
            entry.content = DeltaContent::Value { value: "red".into(), ttl_ms: None };
        }
        let sealed = other.sealed.as_mut().unwrap();
        sealed.seal.root = root;
        sealed.seal.signature = signer.sign(&head.digest(self.tls.cluster())).unwrap();
        other
    }
}

/// The line of who has taken this.
fn scene_line(news: &NodeDelta) -> DigestEntry {
    DigestEntry {
        generation: news.generation,
        max_version: news.to,
        horizon: news.to,
        gc_floor: news.gc_floor,
        record: news.record.as_ref().unwrap().0,
        ..DigestEntry::unknown(news.node.clone())
    }
}

pub(crate) async fn push(stream: &mut SendStream, news: NodeDelta) {
    let delta = Delta { nodes: vec![news], more: false };
    stream.write_all(&frame(&Message::Gossip(Gossip::Push(delta)))).await.unwrap();
}

fn seen(node: &Gossipmonger, key: &str) -> Option<String> {
    node.get_str(&id("v"), key)
}
