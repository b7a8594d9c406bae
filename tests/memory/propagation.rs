//! How far a write has got, asked of the cluster.

use std::time::Duration;

use gossipmonger::{Audience, Error, Gossipmonger, Version};

use crate::harness::{Lab, all_live, until};

const LONG: Duration = Duration::from_secs(30);

async fn cluster(lab: &Lab, nodes: usize) -> Vec<Gossipmonger> {
    let mut all = vec![lab.spawn("n0", &[]).await];
    for n in 1..nodes {
        all.push(lab.spawn(&format!("n{n}"), &["n0"]).await);
    }
    all_live(&all.iter().collect::<Vec<_>>()).await;
    all
}

#[tokio::test(start_paused = true)]
async fn says_who_is_behind_when_the_time_is_over() {
    let lab = Lab::default();
    let all = cluster(&lab, 3).await;
    let beyond = Version(all[0].set("key", "value").await.unwrap().0 + 1);
    let refused = all[0].await_propagated(beyond, Audience::All, Duration::from_secs(2)).await;
    let Err(Error::NotPropagated { version, reached, .. }) = &refused else {
        panic!("{refused:?}")
    };
    assert_eq!((*version, reached.have, reached.behind), (beyond, 1, 2));
    assert_eq!(reached.names.len(), 2);
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("1 have it, 2 have not (n"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn refuses_once_the_node_has_ended() {
    let lab = Lab::default();
    let all = cluster(&lab, 2).await;
    all[0].shutdown().await;
    let version = Version(1);
    assert!(matches!(all[0].peers_behind(version).await, Err(Error::Stopped { .. })));
    let awaited = all[0].await_propagated(version, Audience::All, LONG).await;
    assert!(matches!(awaited, Err(Error::Stopped { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_lone_node_is_everybody() {
    let lab = Lab::default();
    let all = cluster(&lab, 1).await;
    let version = all[0].set("key", "value").await.unwrap();
    let reached = all[0].await_propagated(version, Audience::All, LONG).await.unwrap();
    assert_eq!((reached.have, reached.behind, reached.unreached), (1, 0, 0));
}

/// More nodes than a node has neighbours: the question has to travel.
#[tokio::test(start_paused = true)]
async fn what_has_been_awaited_is_everywhere() {
    let lab = Lab::default();
    let all = cluster(&lab, 30).await;
    for n in 0..5 {
        let writer = &all[n * 5];
        let version = writer.set("key", format!("{n}")).await.unwrap();
        let reached = writer.await_propagated(version, Audience::All, LONG).await.unwrap();
        assert_eq!((reached.have, reached.behind, reached.unreached), (30, 0, 0));
        for node in &all {
            assert_eq!(node.get_str(writer.node(), "key"), Some(format!("{n}")), "{}", node.node());
        }
    }
    assert_eq!(all[0].peers_behind(Version(1)).await.unwrap().have, 30);
}

#[tokio::test(start_paused = true)]
async fn a_quorum_is_reached_without_those_who_are_cut_off() {
    let lab = Lab::default();
    let all = cluster(&lab, 5).await;
    let others: Vec<_> = all[..4].iter().collect();
    lab.isolate(all[4].node(), &others);
    let version = all[0].set("key", "value").await.unwrap();
    let quorum = all[0].await_propagated(version, Audience::Quorum, LONG).await.unwrap();
    assert!(quorum.have >= 3, "{quorum:?}");
    let four = all[0].await_propagated(version, Audience::AtLeast(4), LONG).await.unwrap();
    assert_eq!(four.have, 4);
    let short = Duration::from_millis(500);
    let five = all[0].await_propagated(version, Audience::AtLeast(5), short).await;
    assert!(matches!(five, Err(Error::NotPropagated { .. })), "{five:?}");
    lab.network.heal();
    all[0].await_propagated(version, Audience::AtLeast(5), LONG).await.unwrap();
    assert_eq!(all[4].get_str(all[0].node(), "key").as_deref(), Some("value"));
}

/// By itself it would be kept for its grace.
#[tokio::test(start_paused = true)]
async fn a_tombstone_that_all_have_passed_does_not_wait_for_its_time() {
    let lab = Lab::default();
    let all = cluster(&lab, 15).await;
    all[0].set("gone", "soon").await.unwrap();
    all[0].delete("gone").await.unwrap();
    let version = all[0].set("other", "stays").await.unwrap();
    all[0].await_propagated(version, Audience::All, LONG).await.unwrap();
    let gone = until("nobody holds the tombstone", || {
        all.iter().all(|node| node.snapshot().tombstones(all[0].node()) == Some(0))
    });
    let grace = all[0].config().tombstone_grace;
    assert!(tokio::time::timeout(grace, gone).await.is_ok());
    for node in &all {
        assert_eq!(node.get_str(all[0].node(), "other").as_deref(), Some("stays"));
        assert_eq!(node.get_str(all[0].node(), "gone"), None);
    }
}
