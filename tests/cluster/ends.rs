//! What a node gives back when it has ended.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use gossipmonger::Gossipmonger;

use crate::start::spawn;
use crate::{
    harness::{Cluster, PATIENCE, all_live},
    membership::end,
};

/// The connections of a node that has ended drain for a while: what waits for that must not keep the
/// address.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_address_is_free_as_soon_as_the_end_is_told() {
    let cluster = Cluster::new("demo");
    let mut nodes = Vec::new();
    for n in 0..6 {
        let mut config = cluster.config(&format!("n{n}"));
        let first = nodes.first().map(|(node, _): &(Gossipmonger, _)| node.addresses().to_vec());
        config.seeds = first.unwrap_or_default();
        nodes.push(spawn(config).await.unwrap());
    }
    let handles: Vec<_> = nodes.iter().map(|(node, _)| node.clone()).collect();
    all_live(&handles).await;
    for (node, join) in nodes {
        let address: SocketAddr = node.addresses()[0].parse().unwrap();
        node.shutdown().await;
        let bound = UdpSocket::bind(address);
        assert!(bound.is_ok(), "{} after shutdown: {bound:?}", node.node());
        drop(bound);
        join.await.unwrap();
        let bound = UdpSocket::bind(address);
        assert!(bound.is_ok(), "{} after the join handle: {bound:?}", node.node());
    }
}

#[test]
fn the_address_is_free_when_the_runtime_has_gone() {
    let cluster = Cluster::new("demo");
    let (one, two) = (runtime(), runtime());
    let (a, b) = (two.block_on(cluster.spawn("a", &[])), one.block_on(cluster.spawn("b", &[])));
    let mut seeded = cluster.config("c");
    seeded.seeds = [a.addresses(), b.addresses()].concat();
    let (c, _) = one.block_on(spawn(seeded)).unwrap();
    two.block_on(all_live(&[a.clone(), b.clone(), c.clone()]));
    drop(one);
    two.block_on(async {
        for gone in [&b, &c] {
            tokio::time::timeout(PATIENCE, gone.shutdown()).await.expect("the end is told");
            let address: SocketAddr = gone.addresses()[0].parse().unwrap();
            let bound = UdpSocket::bind(address);
            assert!(bound.is_ok(), "{}: {bound:?}", gone.node());
        }
        end(&[a]).await;
    });
    two.shutdown_timeout(Duration::from_secs(1));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}
