//! Nodes over the in-memory transport.
use gossipmonger::{transport::memory::MemoryNetwork, *};

fn config(network: &MemoryNetwork, name: &str) -> Config {
    let node = NodeId::new(name).unwrap();
    Config::with_transport(
        ClusterId::new("test").unwrap(),
        Datacenter::new("dc").unwrap(),
        node,
        network.transport(),
    )
    .local()
}

#[tokio::test(start_paused = true)]
async fn two_nodes_converge() {
    let network = MemoryNetwork::new();
    let (a, _) = Gossipmonger::spawn(config(&network, "a")).await.unwrap();
    let mut cb = config(&network, "b");
    cb.seeds.push("a:1".into());
    let (b, _) = Gossipmonger::spawn(cb).await.unwrap();
    let mut watch = b.watch_prefix("co");
    a.set("color", "green").await.unwrap();
    let change = watch.next().await.unwrap();
    assert_eq!(change.key.as_str(), "lor");
    assert_eq!(b.get_str(a.node(), "color").as_deref(), Some("green"));
    println!("{:?}", b.peers());
    println!("{:?}", a.peers());
    assert_eq!(a.leave().await.unwrap(), 1);
    println!("{:?}", b.peers());
    b.shutdown().await;
}
