//! Much, and large.

use std::time::Duration;

use gossipmonger::{Event, Gossipmonger, Write, protocol::route::Counter, unstable::BULK_WINDOW};

use crate::start::spawn;
use crate::{
    harness::{Cluster, all_live, id, until},
    membership::end,
};

/// Most of what a peer is sent before it could say that it gets it elsewhere: the deltas that several
/// exchanges of its first moments began with.
const BEGINNINGS: u64 = 4;

/// A million keys and more in the benchmark: `gossipmonger bench bulk --keys 1000000 --late`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_keys_arrive_once_and_not_one_delta_a_round() {
    const KEYS: usize = 100_000;
    let cluster = Cluster::new("demo");
    let a = spawn_slow(&cluster, "a", &[]).await;
    for batch in 0..KEYS / 1_000 {
        let key = |n| format!("k{:06}", batch * 1_000 + n);
        let writes = (0..1_000).map(|n| Write::set(key(n), [7; 100].to_vec()));
        a.set_many(writes.collect()).await.unwrap();
    }
    let b = spawn_slow(&cluster, "b", &[&a]).await;
    until("b has all", || b.snapshot().held_keys(a.node()) == KEYS).await;
    let exchanges = |node: &Gossipmonger| node.counters().get(Counter::ExchangesInitiated);
    let received = b.counters().get(Counter::EntriesReceived);
    println!("{received} entries in {} + {} exchanges", exchanges(&b) + 1, exchanges(&a));
    assert!(exchanges(&a) + exchanges(&b) < 20);
    // 256 KiB in entries of 135 bytes or so.
    assert!(received <= KEYS as u64 + BEGINNINGS * 2_000, "{received}");
    end(&[a, b]).await;
}

/// 256 MiB in the benchmark: `gossipmonger bench bulk --state-mib 256 --value-bytes 102400 --late`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_state_arrives_once_through_a_bounded_window() {
    const KEYS: usize = 512;
    const BYTES: usize = 64 << 10;
    let cluster = Cluster::new("demo");
    let a = spawn_slow(&cluster, "a", &[]).await;
    set_all(&a, KEYS, BYTES).await;
    let others = [spawn_slow(&cluster, "b", &[&a]).await, spawn_slow(&cluster, "c", &[&a]).await];
    let mut in_flight = 0;
    until("both have all", || {
        // In this order: what is taken in between is not in flight any more.
        let sent = a.counters().get(Counter::BulkBytesSent);
        let taken = |node: &Gossipmonger| node.counters().get(Counter::BulkBytesTaken);
        in_flight = in_flight.max(sent.saturating_sub(others.iter().map(taken).sum()));
        others.iter().all(|node| node.snapshot().held_keys(a.node()) == KEYS)
    })
    .await;
    let hands = 2 * a.config().max_delta_bytes;
    println!("at most {in_flight} bytes in flight, to both");
    // What was on its way on a stream that broke is never taken.
    let streams = 2 + a.counters().get(Counter::ExchangesFailed);
    assert!(in_flight <= streams * (BULK_WINDOW + hands) as u64, "{in_flight}");
    for node in &others {
        let received = node.counters().get(Counter::EntriesReceived);
        assert!(received <= KEYS as u64 + BEGINNINGS * 4, "{received}");
    }
    end(&[a, others[0].clone(), others[1].clone()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_peer_takes_to_its_grave_another_sends() {
    const KEYS: usize = 512;
    const BYTES: usize = 32 << 10;
    let cluster = Cluster::new("demo");
    let owner = cluster.spawn("owner", &[]).await;
    set_all(&owner, KEYS, BYTES).await;
    let keeper = cluster.spawn("keeper", &[&owner]).await;
    until("the keeper has all", || keeper.snapshot().held_keys(owner.node()) == KEYS).await;
    let late = cluster.spawn("late", &[&owner]).await;
    // Who has heard of nobody but its seed could ask nobody after the end of that.
    until("it has begun, and knows the keeper", || {
        late.snapshot().held_keys(owner.node()) > 0
            && late.snapshot().member(keeper.node()).is_some()
    })
    .await;
    owner.shutdown().await;
    println!("{} keys when the owner ended", late.snapshot().held_keys(owner.node()));
    until("it has all", || late.snapshot().held_keys(owner.node()) == KEYS).await;
    end(&[keeper, late]).await;
}

/// Rounds so rare that nothing but the first exchange can have moved what has arrived.
async fn spawn_slow(cluster: &Cluster, name: &str, seeds: &[&Gossipmonger]) -> Gossipmonger {
    let mut config = cluster.config(name);
    config.gossip_interval = Duration::from_secs(5);
    config.seeds = seeds.iter().flat_map(|seed| seed.addresses().to_vec()).collect();
    spawn(config).await.unwrap().0
}

async fn set_all(node: &Gossipmonger, keys: usize, bytes: usize) {
    for n in 0..keys {
        let byte = u8::try_from(n % 256).unwrap();
        node.set(format!("large{n:05}"), vec![byte; bytes]).await.unwrap();
    }
}

// C19 C20
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_values_arrive_and_hold_up_nobody() {
    const LARGE: usize = 24;
    let cluster = Cluster::new("demo");
    let large = cluster.spawn("large", &[]).await;
    let small = cluster.spawn("small", &[&large]).await;
    for n in 0..LARGE {
        let value = vec![u8::try_from(n).unwrap(); 1 << 20];
        large.set(format!("large{n}"), value).await.unwrap();
    }
    small.set("small", "1").await.unwrap();
    all_live(&[large.clone(), small.clone()]).await;
    until("the seed has both", || large.get(small.node(), "small").is_some()).await;
    let third = cluster.spawn("third", &[&large]).await;
    let (mut events, mut at_large, mut at_small) =
        (third.subscribe(), large.subscribe(), small.subscribe());
    let (mut seen, mut small_at) = (0, None);
    while seen < LARGE || small_at.is_none() {
        match events.next().await.unwrap() {
            Event::Updated { peer, value, .. } if peer == id("large") => {
                assert_eq!(value.len(), 1 << 20);
                seen += 1;
            }
            Event::Updated { .. } => small_at = Some(seen),
            Event::PeerDead { peer, .. } => panic!("{peer} was called dead meanwhile"),
            _ => {}
        }
    }
    assert!(small_at.unwrap() < LARGE, "the small key came last");
    println!("the small key came after {} large ones of {LARGE}", small_at.unwrap());
    all_live(&[large.clone(), small.clone(), third.clone()]).await;
    for events in [&mut at_large, &mut at_small] {
        while let Ok(Ok(event)) = tokio::time::timeout(Duration::ZERO, events.next()).await {
            assert!(!matches!(event, Event::PeerDead { .. }), "a heartbeat came late: {event:?}");
        }
    }
    end(&[large, small, third]).await;
}
