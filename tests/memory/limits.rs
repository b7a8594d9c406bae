//! What is refused, and how it is said.

use std::{collections::BTreeMap, time::Duration};

use gossipmonger::{Error, Event, Problem, Write, protocol::route::Counter};

use crate::harness::{Lab, all_live, drain, id};

fn refused<T: std::fmt::Debug>(result: Result<T, Error>, limit: &str) {
    let Err(Error::Refused(error)) = result else { panic!("not refused: {result:?}") };
    assert!(error.to_string().contains(limit), "{error} does not name {limit}");
}

#[tokio::test(start_paused = true)]
async fn refuses_what_is_beyond_a_limit_and_names_it() {
    let node = Lab::default().spawn("a", &[]).await;
    let before = node.set("k", "v").await.unwrap();
    refused(node.set("", "v").await, "key_bytes");
    refused(node.set("k".repeat(513), "v").await, "key_bytes");
    refused(node.set("big", vec![0; (1 << 20) + 1]).await, "value_bytes");
    let batch = (0..5).map(|n| Write::set(format!("k{n}"), vec![0; 1 << 20]));
    refused(node.set_many(batch.collect()).await, "BATCH_BYTES_MAX");
    refused(node.set_with_ttl("k", "v", Duration::ZERO).await, "ttl");
    let tags: BTreeMap<_, _> = (0..65).map(|n| (n.to_string(), String::new())).collect();
    refused(node.set_tags(tags).await, "64 tags");
    assert_eq!(node.set("k", "v").await.unwrap(), before, "a refusal took a version");
    assert_eq!(node.snapshot().len(node.node()), 1);
    node.set("k".repeat(512), vec![0; 1 << 20]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn refuses_more_keys_and_more_bytes_than_configured() {
    let lab = Lab::default();
    let mut config = lab.config("a");
    config.limits.keys = 2;
    config.limits.state_bytes = 100;
    let node = lab.spawn_with(config, &[]).await;
    node.set("one", "1").await.unwrap();
    node.set("two", "2").await.unwrap();
    refused(node.set("three", "3").await, "limit keys");
    refused(node.set("two", vec![0; 100]).await, "state_bytes");
    // Room can always be made.
    node.set_many(vec![Write::delete("one"), Write::set("three", "3")]).await.unwrap();
    assert_eq!(node.get_str(node.node(), "three").as_deref(), Some("3"));
}

// C52 C53
#[tokio::test(start_paused = true)]
async fn refuses_to_remove_who_is_unknown_or_live() {
    let (a, b) = Lab::default().pair().await;
    assert!(
        matches!(a.remove(&id("nobody")), Err(Error::UnknownPeer(name)) if name == id("nobody"))
    );
    assert!(matches!(a.remove(b.node()), Err(Error::PeerIsLive(_))));
    assert!(matches!(a.remove(a.node()), Err(Error::PeerIsLive(_))));
    assert_eq!(a.peers().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn refuses_to_write_after_the_end() {
    let node = Lab::default().spawn("a", &[]).await;
    node.shutdown().await;
    assert!(matches!(node.set("k", "v").await, Err(Error::Stopped { reason: None })));
    assert!(matches!(node.decommission().await, Err(Error::Stopped { reason: None })));
    assert_eq!(node.get(node.node(), "k"), None);
}

#[test]
fn refuses_times_that_make_no_sense_together() {
    let lab = Lab::default();
    let mut config = lab.config("a");
    config.forget_after = config.gossip_interval * 9;
    let refused = config.check().unwrap_err().to_string();
    assert!(refused.contains("forget_after = 1s 800ms") && refused.contains("2s to"), "{refused}");
    let mut config = lab.config("a");
    config.tombstone_grace = config.gossip_interval / 2;
    assert_eq!(config.check().unwrap_err().key, "tombstone_grace");
}

/// All are counted, but a flood of bad news must not become a flood of log lines.
#[tokio::test(start_paused = true)]
async fn refused_news_of_a_peer_is_told_once_in_a_while() {
    let lab = Lab::default();
    let [mut a, mut b] = ["a", "b"].map(|name| lab.config(name));
    a.gossip_interval = Duration::from_millis(10);
    b.gossip_interval = Duration::from_millis(10);
    b.limits.value_bytes = 1;
    let a = lab.spawn_with(a, &[]).await;
    let b = lab.spawn_with(b, &["a"]).await;
    all_live(&[&a, &b]).await;
    let mut events = b.subscribe();
    for n in 0..500 {
        a.set("k", format!("more than one byte {n}")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    let refused = |event: &Event| matches!(event, Event::Error(Problem::NewsRefused { .. }));
    let told = drain(&mut events).await.into_iter().filter(refused).count();
    let counted = b.counters().get(Counter::NewsRefused);
    assert!(told == 1 && counted > 200, "{told} of {counted}");
}

#[test]
fn refuses_addresses_that_can_never_be_dialed_and_says_why() {
    let lab = Lab::default();
    let check = |key: &str, address: &str| {
        let mut config = lab.config("a");
        match key {
            "seeds" => config.seeds = vec!["b:7101".to_owned(), address.to_owned()],
            _ => config.advertise = vec![address.to_owned()],
        }
        config.check().map_err(|error| error.to_string())
    };
    for (address, why) in [
        ("http://a:7101", "a URL is not expected"),
        ("a:7101;b:7101", "one address is expected"),
        ("a:7101,b:7101", "one address is expected"),
        ("2001:db8::5", "an IPv6 address needs brackets"),
        ("2001:db8::5:7101", "an IPv6 address needs brackets"),
        ("[fe80::1%eth0]:7101", "the number of the interface is expected"),
        ("[a]:7101", "in brackets an IPv6 address is expected"),
        ("a_b.-c..d:7101", "neither an IP address nor the name of a host"),
        ("user@a:7101", "neither an IP address nor the name of a host"),
        ("a:0", "a port of 1 to 65535"),
        ("0.0.0.0:7101", "unspecified"),
    ] {
        for key in ["seeds", "advertise"] {
            let refused = check(key, address).unwrap_err();
            assert!(refused.starts_with(&format!("{key} = {address:?} is refused")), "{refused}");
            assert!(refused.contains(why), "{why:?} is missing in: {refused}");
        }
    }
    for address in ["a:1", "n_1.example.org.:7101", "10.0.0.1:1", "[::1]:7101", "[fe80::1%2]:7101"]
    {
        assert_eq!(check("seeds", address), Ok(()));
    }
}
