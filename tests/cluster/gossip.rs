//! The streams for gossip, and what keeps connections alive: honest peers, slow ones, hostile ones.

use std::time::{Duration, Instant};

use gossipmonger::{
    Generation, Gossipmonger, PeerState, Version,
    protocol::{
        delta::{Delta, DeltaContent, DeltaEntry, NodeDelta},
        digest::Digest,
        gossip::Gossip,
        message::{FRAME_BYTES_MAX, Message},
        verdict::Verdict,
    },
};
use quinn::{RecvStream, TransportConfig, VarInt};

use crate::start::Start;
use crate::{
    attacker::{MISBEHAVIOUR, Scene, frame, raw_frame, record, refused, with_transport},
    harness::{Cluster, PATIENCE, all_live, id, until},
};

// C90
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_off_members_whose_gossip_is_none() {
    let mut scene = Scene::new(|_| {}).await;
    let too_long = u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_be_bytes().to_vec();
    let cases = [
        ("frames_malformed", raw_frame(&[])),
        ("frames_malformed", raw_frame(&[6, 1, 99])),
        ("frames_malformed", raw_frame(&[6, 2, 0, 0])),
        ("frames_malformed", raw_frame(&[&frame(&push(1, 1))[4..], &[0]].concat())),
        ("frames_refused", too_long),
        ("frames_refused", frame(&Message::Syn { digest: Digest::default() })),
    ];
    for (at, (counter, bytes)) in cases.into_iter().enumerate() {
        let before = scene.count(counter);
        let member = scene.introduced("x").await;
        let mut stream = member.connection.open_uni().await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        assert_eq!(member.cut_off().await.0, MISBEHAVIOUR, "case {at}");
        scene.counts(counter, before + 1).await;
    }
    until("all are counted", || scene.refused("misbehaviour") == 6).await;
    scene.still_gossips().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_a_second_stream_for_gossip() {
    let mut scene = Scene::new(|_| {}).await;
    let member = scene.introduced("x").await;
    let mut first = member.connection.open_uni().await.unwrap();
    first.write_all(&frame(&push(1, 1))).await.unwrap();
    scene.counts("gossip_received", 1).await;
    let second = tokio::time::timeout(Duration::from_millis(300), member.connection.open_uni());
    assert!(second.await.is_err(), "a second stream was opened");
    // After the end of the first one there is room again.
    first.finish().unwrap();
    let mut second = member.connection.open_uni().await.unwrap();
    second.write_all(&frame(&push(2, 2))).await.unwrap();
    until("the second is heard", || has(&scene, 2)).await;
    scene.still_gossips().await;
    scene.end().await;
}

/// A peer whose transport starts anew leaves half a frame behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgives_a_stream_that_ends_within_a_frame() {
    let mut scene = Scene::new(|_| {}).await;
    let member = scene.introduced("x").await;
    for cut in [1, 4, 5, 40] {
        let mut stream = member.connection.open_uni().await.unwrap();
        stream.write_all(&frame(&push(1, 1))[..cut]).await.unwrap();
        stream.finish().unwrap();
    }
    let mut stream = member.connection.open_uni().await.unwrap();
    stream.write_all(&frame(&push(1, 1))).await.unwrap();
    until("the whole one is heard", || has(&scene, 1)).await;
    assert_eq!(member.connection.close_reason(), None);
    scene.still_gossips().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hears_frames_in_order_however_they_are_cut() {
    let mut scene = Scene::new(|_| {}).await;
    let member = scene.introduced("x").await;
    let mut stream = member.connection.open_uni().await.unwrap();
    let frames: Vec<u8> = (1..=200).flat_map(|n| frame(&push(n, n))).collect();
    for (n, part) in frames.chunks(97).enumerate() {
        stream.write_all(part).await.unwrap();
        if n % 16 == 0 {
            tokio::task::yield_now().await;
        }
    }
    until("the last is heard", || has(&scene, 200)).await;
    assert_eq!(scene.count("push_gaps"), 0);
    scene.still_gossips().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_what_is_heard_twice_and_goes_no_further() {
    let mut scene = Scene::new(|_| {}).await;
    let member = scene.introduced("x").await;
    let mut stream = member.connection.open_uni().await.unwrap();
    stream.write_all(&frame(&push(1, 1))).await.unwrap();
    until("it is heard", || has(&scene, 1)).await;
    let (received, duplicates) =
        (scene.count("entries_received"), scene.count("gossip_duplicates"));
    for _ in 0..20 {
        stream.write_all(&frame(&push(1, 1))).await.unwrap();
    }
    scene.counts("gossip_duplicates", duplicates + 20).await;
    assert_eq!(scene.count("entries_received"), received);
    scene.still_gossips().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_for_a_slow_reader_the_last_value_and_not_all() {
    const VALUE: usize = 32 << 10;
    let mut scene = Scene::new(|_| {}).await;
    let mut narrow = TransportConfig::default();
    narrow.stream_receive_window(VarInt::from_u32(1_000));
    let member = scene.introduced_with("x", narrow).await;
    // Only the members of a datacenter are sent what does not flood.
    let mut own = member.connection.open_uni().await.unwrap();
    own.write_all(&frame(&push(1, 1))).await.unwrap();
    until("it is a member", || has(&scene, 1)).await;
    for n in 0..200_u8 {
        scene.node.set("large", vec![n; VALUE]).await.unwrap();
        // Each in a frame of its own, unless it has to wait.
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    scene.still_gossips().await;
    let mut stream = member.connection.accept_uni().await.unwrap();
    let (mut bytes, mut last) = (0, 0);
    let read = async {
        while last != 199 {
            let (len, gossip) = next_gossip(&mut stream).await;
            bytes += len;
            let Some((_, delta)) = gossip.news() else { continue };
            for entry in delta.nodes.iter().flat_map(|node| &node.entries) {
                if let DeltaContent::Value { value, .. } = &entry.content
                    && value.len() == VALUE
                {
                    assert!(value[0] >= last, "an older value after a newer one");
                    last = value[0];
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("the last value never came");
    println!("read {} KiB of {} KiB", bytes >> 10, (200 * VALUE) >> 10);
    assert!(bytes < 100 * VALUE, "{bytes} bytes were kept");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_not_needed_ends_without_a_refusal() {
    const UNNEEDED: u32 = 9;
    let mut scene = Scene::new(|_| {}).await;
    for _ in 0..3 {
        let member = scene.introduced("x").await;
        member.connection.close(VarInt::from_u32(UNNEEDED), b"not needed any more");
    }
    scene.still_gossips().await;
    assert_eq!(scene.node.counters().refusals(), [].into());
    scene.end().await;
}

/// Only the end that dialed sends heartbeats; the acknowledgement is the life of the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notices_the_silence_of_either_end() {
    let cluster = Cluster::new("demo");
    for dialer_falls_silent in [false, true] {
        let (mut config, first) = with_transport(&cluster, "a");
        config.gossip_interval = Duration::from_millis(200);
        let a = crate::start::spawn(config).await.unwrap().0;
        let (mut config, second) = with_transport(&cluster, "b");
        config.gossip_interval = Duration::from_millis(200);
        config.seeds = a.addresses().to_vec();
        let b = crate::start::spawn(config).await.unwrap().0;
        let nodes = [a, b];
        all_live(&nodes).await;
        let (silent, other) = if dialer_falls_silent { (&second, 0) } else { (&first, 1) };
        silent.silence();
        until("the other is dead", || {
            nodes[other].peers().iter().any(|peer| peer.state == PeerState::Dead)
        })
        .await;
        for node in &nodes {
            assert_eq!(refused(node, "misbehaviour"), 0);
        }
        let [a, b] = nodes;
        tokio::join!(a.shutdown(), b.shutdown());
        drop((first, second));
    }
}

/// What may be saved up (two seconds) goes at once, and one frame into debt; the rest takes its time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "a budget is a matter of time")]
async fn holds_what_goes_to_another_datacenter_to_its_budget() {
    const RATE: usize = 256 << 10;
    let cluster = Cluster::new("demo");
    let spawn = async |datacenter: &str, name: &str, seeds: &[String]| {
        let (identity, roots) = cluster.identity_in(datacenter, name);
        let mut config = Start::new(identity, roots).unwrap().local();
        config.wan_bytes_per_second = RATE;
        config.max_delta_bytes = 64 << 10;
        config.seeds = seeds.to_vec();
        crate::start::spawn(config).await.unwrap().0
    };
    let a = spawn("dc1", "a", &[]).await;
    let near = spawn("dc1", "near", a.addresses()).await;
    let far = spawn("dc2", "far", a.addresses()).await;
    let nodes = [a, near, far];
    all_live(&nodes).await;
    let [a, near, far] = nodes;
    let began = Instant::now();
    for n in 0..32 {
        a.set(format!("k{n}"), vec![7_u8; 64 << 10]).await.unwrap();
    }
    let has = |node: &Gossipmonger| (0..32).all(|n| node.get(a.node(), &format!("k{n}")).is_some());
    until("who is near has it", || has(&near)).await;
    until("who is far has it", || has(&far)).await;
    // 2 MiB, of which `near` may have told a part: both have a budget.
    let least = ((2 << 20) - 2 * (2 * RATE + (128 << 10))) / (2 * RATE);
    assert!(began.elapsed() >= Duration::from_secs(least as u64), "{:?}", began.elapsed());
    tokio::join!(a.shutdown(), near.shutdown(), far.shutdown());
}

fn has(scene: &Scene, version: u64) -> bool {
    let key = format!("k{version}");
    scene.node.get(&id("x"), &key).is_some()
}

/// News of `x` itself: its writes from one version to another.
fn push(from: u64, to: u64) -> Message {
    let entry = |n: u64| DeltaEntry {
        key: format!("k{n}").as_str().into(),
        version: Version(n + 1),
        content: DeltaContent::Value { value: "value".into(), ttl_ms: None },
    };
    let record = record();
    let node = NodeDelta {
        sealed: None,
        node: id("x"),
        generation: Generation(1_000),
        ancestry: Vec::new(),
        from: Version(if from == 1 { 0 } else { from }),
        to: Version(to + 1),
        horizon: Version(to + 1),
        torn: Version::ZERO,
        gc_floor: Version::ZERO,
        verdict: Verdict::default(),
        record: Some((Version(1), record)),
        entries: (from..=to).map(entry).collect(),
    };
    Message::Gossip(Gossip::Push(Delta { nodes: vec![node], more: false }))
}

async fn next_gossip(stream: &mut RecvStream) -> (usize, Gossip) {
    let read = async {
        let mut length = [0; 4];
        stream.read_exact(&mut length).await.unwrap();
        let mut frame = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        stream.read_exact(&mut frame).await.unwrap();
        frame
    };
    let frame = tokio::time::timeout(PATIENCE, read).await.expect("nothing is told");
    match Message::decode(&frame).unwrap() {
        Message::Gossip(gossip) => (frame.len(), gossip),
        other => panic!("no gossip: {other:?}"),
    }
}
