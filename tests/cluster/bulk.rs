//! Much, and large.

use std::time::Duration;

use gossipmonger::{Event, Gossipmonger, Write, protocol::route::Counter};

use crate::{
    harness::{Cluster, all_live, id, until},
    membership::end,
};

/// At one delta a round this would take minutes: `more` continues on the same stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_runs_at_stream_speed_and_not_one_delta_a_round() {
    const KEYS: usize = 50_000;
    let cluster = Cluster::new("demo");
    let slow = |name: &str| {
        let mut config = cluster.config(name);
        config.gossip_interval = Duration::from_secs(5);
        config
    };
    let a = Gossipmonger::spawn(slow("a")).await.unwrap().0;
    for batch in 0..KEYS / 500 {
        let writes =
            (0..500).map(|n| Write::set(format!("k{}", batch * 500 + n), [7; 100].to_vec()));
        a.set_many(writes.collect()).await.unwrap();
    }
    let mut config = slow("b");
    config.seeds = a.addresses().to_vec();
    let b = Gossipmonger::spawn(config).await.unwrap().0;
    until("b has all", || b.snapshot().held_keys(a.node()) == KEYS).await;
    let exchanges = |node: &Gossipmonger| node.counters().get(Counter::ExchangesInitiated);
    println!(
        "{KEYS} keys in {} + {} exchanges, {} entries applied",
        exchanges(&b) + 1,
        exchanges(&a),
        b.counters().get(Counter::EntriesApplied)
    );
    assert!(exchanges(&a) + exchanges(&b) < 20);
    end(&[a, b]).await;
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
