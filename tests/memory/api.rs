//! Reading and writing through the handle.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use gossipmonger::{Event, Snapshot, Write};

use crate::harness::{Lab, drain, id, next_event, until};

/// Whoever embeds a node calls it from tasks and actors.
#[test]
fn every_future_of_the_handle_can_move_between_threads() {
    fn check<T: Send>(_: &T) {}
    fn all(node: &gossipmonger::Gossipmonger) {
        check(&node.set("k", "v"));
        check(&node.set_with_ttl("k", "v", Duration::ZERO));
        check(&node.set_many(Vec::new()));
        check(&node.delete("k"));
        check(&node.set_tags([].into()));
        check(&node.decommission());
        check(&node.shutdown());
        check(&node.ended());
        check(&node.subscribe().next());
        check(&node.watch_prefix("").next());
        check(&node.subscribe_protocol().next());
    }
    let _ = all;
}

#[tokio::test(start_paused = true)]
async fn an_event_names_its_peer_and_a_state_has_a_name() {
    let lab = Lab::default();
    let a = lab.spawn("a", &[]).await;
    let mut events = a.subscribe();
    let b = lab.spawn("b", &["a"]).await;
    loop {
        let event = events.next().await.unwrap();
        assert_eq!(event.peer(), Some(b.node()), "{event:?}");
        if let Event::PeerLive { .. } = event {
            break;
        }
    }
    let state = a.snapshot().member(b.node()).unwrap().state;
    assert_eq!((state.as_str(), format!("{state:>6}").as_str()), ("live", "  live"));
    let unreachable = Event::DatacenterUnreachable { datacenter: a.datacenter().clone() };
    assert_eq!(unreachable.peer(), None);
}

// C1 C2
#[tokio::test(start_paused = true)]
async fn the_same_value_takes_no_version() {
    let node = Lab::default().spawn("a", &[]).await;
    let mut events = node.subscribe();
    let first = node.set("color", "green").await.unwrap();
    assert_eq!(node.set("color", "green").await.unwrap(), first);
    assert_eq!(node.delete("nothing").await.unwrap(), first);
    assert_eq!(node.set_many(Vec::new()).await.unwrap(), first);
    let second = node.set("color", "blue").await.unwrap();
    assert_eq!(second, first.next());
    assert_eq!(drain(&mut events).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_write_is_visible_at_home_at_once_and_later_elsewhere() {
    let (a, b) = Lab::default().pair().await;
    let version = a.set("color", "green").await.unwrap();
    assert_eq!(a.get_str(a.node(), "color").as_deref(), Some("green"));
    until("b has it", || b.get_str(a.node(), "color").is_some()).await;
    assert_eq!(b.snapshot().version(a.node()).unwrap().1, version);
    a.set("bytes", vec![0xff, 0xfe]).await.unwrap();
    until("b has it", || b.get(a.node(), "bytes").is_some()).await;
    assert_eq!(&*b.get(a.node(), "bytes").unwrap(), [0xff, 0xfe]);
    assert_eq!(b.get_str(a.node(), "bytes"), None);
}

// C23 C28
#[tokio::test(start_paused = true)]
async fn a_deleted_key_is_gone_at_once_and_told_once() {
    let (a, b) = Lab::default().pair().await;
    a.set("color", "green").await.unwrap();
    until("b has it", || b.get(a.node(), "color").is_some()).await;
    let mut events = b.subscribe();
    a.delete("color").await.unwrap();
    assert_eq!(a.get(a.node(), "color"), None);
    until("b has not", || b.get(a.node(), "color").is_none()).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let deleted = |event: &Event| matches!(event, Event::Deleted { .. });
    assert_eq!(drain(&mut events).await.iter().filter(|event| deleted(event)).count(), 1);
}

// C24 C28
#[tokio::test(start_paused = true)]
async fn an_expired_key_is_hidden_everywhere_and_told_once() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let ttl = Duration::from_secs(10);
    a.set_with_ttl("color", "green", ttl).await.unwrap();
    until("b has it", || b.get(a.node(), "color").is_some()).await;
    let (mut at_a, mut at_b) = (a.subscribe(), b.subscribe());
    // Cut off, so that b has to hide it by itself.
    lab.isolate(b.node(), &[&a]);
    tokio::time::sleep(ttl).await;
    assert_eq!(a.get(a.node(), "color"), None);
    assert_eq!(b.get(a.node(), "color"), None);
    assert!(b.prefix(a.node(), "").is_empty());
    lab.network.heal();
    next_event(&mut at_b, |event| matches!(event, Event::Deleted { .. }).then_some(())).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let more = drain(&mut at_b).await;
    assert!(!more.iter().any(|event| matches!(event, Event::Deleted { .. })), "{more:?}");
    let deleted = drain(&mut at_a).await;
    assert_eq!(deleted.iter().filter(|e| matches!(e, Event::Deleted { .. })).count(), 1);
    assert_eq!(b.snapshot().held_keys(a.node()), 0);
}

#[tokio::test(start_paused = true)]
async fn a_value_written_again_lives_on() {
    let node = Lab::default().spawn("a", &[]).await;
    node.set_with_ttl("color", "green", Duration::from_secs(1)).await.unwrap();
    node.set("color", "green").await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(node.get_str(node.node(), "color").as_deref(), Some("green"));
}

// C22
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_never_half_visible() {
    const BATCHES: usize = 200;
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let over = Arc::new(AtomicBool::new(false));
    let look = {
        let (a, b, over) = (a.clone(), b.clone(), Arc::clone(&over));
        std::thread::spawn(move || {
            while !over.load(Ordering::SeqCst) {
                whole(&a.snapshot());
                whole(&b.snapshot());
            }
        })
    };
    let mut events = b.subscribe();
    for n in 0..BATCHES {
        let batch = (0..20).map(|key| Write::set(format!("k{key}"), n.to_string()));
        a.set_many(batch.collect()).await.unwrap();
        whole(&a.snapshot());
    }
    let last = (BATCHES - 1).to_string();
    // Whoever hears of a batch reads all of it.
    next_event(&mut events, |event| {
        let snapshot = b.snapshot();
        whole(&snapshot);
        matches!(event, Event::Updated { value, .. } if value.as_str() == Some(&last)).then(|| {
            let value = snapshot.get(&id("a"), "k19").unwrap();
            assert_eq!(value.as_str(), Some(&*last));
        })
    })
    .await;
    over.store(true, Ordering::SeqCst);
    look.join().unwrap();
}

fn whole(snapshot: &Snapshot) {
    let owner = id("a");
    let mut values = snapshot.prefix(&owner, "k");
    let Some((_, first)) = values.next() else { return };
    assert_eq!(values.filter(|(_, value)| *value == first).count(), 19, "half a batch");
}

#[tokio::test(start_paused = true)]
async fn a_prefix_is_scanned_in_order() {
    let node = Lab::default().spawn("a", &[]).await;
    for key in ["b/2", "a", "b/1", "b", "c", "b/10"] {
        node.set(key, key).await.unwrap();
    }
    node.delete("b/2").await.unwrap();
    let keys = |prefix: &str| -> Vec<String> {
        node.prefix(node.node(), prefix).into_iter().map(|(key, _)| key.to_string()).collect()
    };
    assert_eq!(keys("b/"), ["b/1", "b/10"]);
    assert_eq!(keys(""), ["a", "b", "b/1", "b/10", "c"]);
    assert!(keys("z").is_empty());
    assert!(node.prefix(&id("nobody"), "").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_stays_as_it_was() {
    let node = Lab::default().spawn("a", &[]).await;
    node.set("color", "green").await.unwrap();
    let before = node.snapshot();
    node.set("color", "blue").await.unwrap();
    node.set("size", "large").await.unwrap();
    let owner = node.node();
    assert_eq!(before.get(owner, "color").unwrap().as_str(), Some("green"));
    assert_eq!(before.len(owner), 1);
    assert_eq!(node.snapshot().len(owner), 2);
    assert_eq!(before.local(), owner);
    assert_eq!(before.len(&id("nobody")), 0);
}

// C95
#[tokio::test(start_paused = true)]
async fn members_are_found_by_tag_and_datacenter() {
    let lab = Lab::default();
    let mut config = lab.config_in("eu", "a");
    config.tags.insert("role".to_owned(), "db".to_owned());
    let a = lab.spawn_with(config, &[]).await;
    let b = lab.spawn_with(lab.config_in("us", "b"), &["a"]).await;
    until("b has a's tags", || {
        b.peers().iter().any(|peer| peer.tags.get("role").is_some_and(|role| role == "db"))
    })
    .await;
    let mut events = b.subscribe();
    a.set_tags([("role".to_owned(), "web".to_owned())].into()).await.unwrap();
    next_event(&mut events, |event| matches!(event, Event::PeerChanged { .. }).then_some(())).await;
    let members: Vec<_> = b.snapshot().members().collect();
    let in_eu: Vec<_> = members.iter().filter(|m| m.datacenter.as_str() == "eu").collect();
    assert_eq!((members.len(), in_eu.len()), (2, 1));
    assert_eq!(in_eu[0].tags["role"], "web");
    assert!(members.iter().any(|member| member.local && member.node == *b.node()));
}
