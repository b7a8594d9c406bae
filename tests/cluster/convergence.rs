//! What is written at one node arrives at all.

use crate::harness::{Cluster, all_live, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_reaches_every_node() {
    let cluster = Cluster::new("demo");
    let nodes = cluster.spawn_many(5).await;
    all_live(&nodes).await;
    nodes[3].set("color", "green").await.unwrap();
    let owner = nodes[3].node().clone();
    until("the value is everywhere", || {
        nodes.iter().all(|node| node.get_str(&owner, "color").as_deref() == Some("green"))
    })
    .await;
    for node in &nodes {
        println!("{:?} {:?}", node.counters().all(), node.counters().refusals());
        node.shutdown().await;
    }
}
