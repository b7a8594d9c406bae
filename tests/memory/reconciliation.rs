//! A cluster so large that sketches tell where its nodes differ, in virtual time.

use std::time::Duration;

use gossipmonger::{Gossipmonger, protocol::route::Counter};

use crate::harness::{Lab, all_live, until};

const NODES: usize = 70;

#[tokio::test(start_paused = true)]
async fn who_was_cut_off_for_a_while_learns_what_it_missed_from_a_sketch() {
    let lab = Lab::default();
    let mut nodes = vec![lab.spawn("node-0", &[]).await];
    for n in 1..NODES {
        nodes.push(lab.spawn(&format!("node-{n}"), &["node-0"]).await);
    }
    let nodes: Vec<&Gossipmonger> = nodes.iter().collect();
    all_live(&nodes).await;
    let (lost, owner) = (nodes[NODES - 1], nodes[7]);
    let others = &nodes[..NODES - 1];
    lab.isolate(lost.node(), others);
    owner.set("missed", "news").await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(lost.get_str(owner.node(), "missed"), None);
    let sketched = |node: &&Gossipmonger| node.counters().get(Counter::ReconciledBySketch);
    let before: u64 = nodes.iter().map(sketched).sum();
    lab.network.heal();
    until("it has what it missed", || lost.get_str(owner.node(), "missed").is_some()).await;
    all_live(&nodes).await;
    let after: u64 = nodes.iter().map(sketched).sum();
    assert!(after > before, "{after} exchanges by sketch");
}
