//! Two nodes over the in-memory transport, under paused time: how to test an application that embeds
//! a node. A minute of cluster life takes milliseconds, and every run is the same.
//!
//!     cargo run --example memory_network

use std::{error::Error, time::Duration};

use gossipmonger::{
    ClusterId, Config, Datacenter, Event, Gossipmonger, NodeId, net::memory::MemoryNetwork,
    tls::PeerName,
};

type Any = Box<dyn Error + Send + Sync>;

// In a test: #[tokio::test(start_paused = true)], with tokio's feature `test-util`.
#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Any> {
    let network = MemoryNetwork::new();
    let (a, _) = Gossipmonger::spawn(config("a")?, network.place()).await?;
    let mut joining = config("b")?;
    joining.seeds = vec![MemoryNetwork::address(a.node())];
    let (b, _) = Gossipmonger::spawn(joining, network.place()).await?;

    let mut colors = b.watch_prefix("color/");
    a.set("color/door", "green").await?;
    let change = colors.next().await?;
    println!("b hears that {}'s {} is {:?}", change.peer, change.key, change.value);
    assert_eq!(b.get_str(a.node(), "color/door").as_deref(), Some("green"));

    let mut events = b.subscribe();
    network.cut(a.node(), b.node());
    network.cut(b.node(), a.node());
    loop {
        match events.next().await? {
            Event::PeerSuspect { reason, .. } => {
                println!("cut off, b suspects a at phi {:.1}", reason.phi);
            }
            Event::PeerDead { reason, .. } => {
                break println!("and calls it dead: {}", reason.cause);
            }
            _ => {}
        }
    }
    assert!(b.live_peers().is_empty());

    network.heal();
    while !matches!(events.next().await?, Event::PeerLive { .. }) {}
    println!("and live again");
    // A minute later, which takes no time.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(b.live_peers().len(), 1);
    a.decommission().await?;
    while !matches!(events.next().await?, Event::PeerLeft { .. }) {}
    b.shutdown().await;
    Ok(())
}

fn config(name: &str) -> Result<Config, Any> {
    let (cluster, datacenter) = (ClusterId::new("test")?, Datacenter::new("here")?);
    Ok(Config::new(&PeerName { cluster, datacenter, node: NodeId::new(name)? }).local())
}
