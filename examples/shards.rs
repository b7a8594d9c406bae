//! A key belongs to one of three nodes, and a node that leaves loses no call.
//!
//! `a`, `b` and `c` offer the service `cart`; each keeps the carts of its own customers. `by_key` gives the owner of a
//! customer, the same at every node. `b` leaves on purpose while calls run: it drains, its customers move to the others,
//! and no others do. The nodes use the in-memory transport under paused time; on QUIC the code is the same.
//!
//!     cargo run --example shards

use std::{
    collections::BTreeMap,
    error::Error,
    sync::{Arc, Mutex},
    time::Duration,
};

use gossipmonger::{
    ClusterId, Config, Datacenter, Gossipmonger, NodeId,
    net::memory::MemoryNetwork,
    service::{Access, Offer, Stub},
    tls::PeerName,
};
use serde::{Deserialize, Serialize};

type Any = Box<dyn Error + Send + Sync>;

#[derive(Serialize, Deserialize)]
struct Add {
    customer: u32,
    item: String,
}

/// Asks a node how many carts it keeps.
#[derive(Serialize, Deserialize)]
struct Count;

gossipmonger::service! {
    /// The carts of customers.
    struct Cart = "cart", 1.0;

    1: call Add -> usize;
    2: call Count -> usize, idempotent;
}

const CUSTOMERS: u32 = 300;

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Any> {
    let network = MemoryNetwork::new();
    let a = start(&network, "a", None).await?;
    let b = start(&network, "b", Some(&a)).await?;
    let c = start(&network, "c", Some(&a)).await?;
    let _offers = (offer(&a).await?, offer(&b).await?, offer(&c).await?);
    for node in [&a, &b, &c] {
        node.service::<Cart>().ready(3, Duration::from_secs(60)).await?;
    }

    let before = owners(&a.service());
    assert_eq!(before, owners(&c.service()), "two nodes disagree");
    let customers = tokio::spawn(add(a.service()));
    tokio::time::sleep(Duration::from_millis(50)).await;
    b.leave_for_now().await?;
    println!("b has left; {} calls, and all were answered", customers.await??);

    let after = owners(&a.service());
    let moved = (0..CUSTOMERS).filter(|n| before.get(n) != after.get(n)).collect::<Vec<_>>();
    println!("{} of {CUSTOMERS} customers belonged to b, and moved", moved.len());
    assert!(moved.iter().all(|n| before[n] == *b.node()), "a customer of another node moved");
    assert!(after.values().all(|owner| owner != b.node()));
    for (node, carts) in a.service::<Cart>().gather(&Count, Duration::from_secs(5)).await {
        println!("{node} keeps {} carts", carts?);
    }
    a.shutdown().await;
    c.shutdown().await;
    Ok(())
}

/// Each customer buys, one after the other; returns the number of calls.
async fn add(carts: Stub<Cart>) -> Result<u32, Any> {
    for customer in 0..CUSTOMERS {
        let ask = || Add { customer, item: "tea".to_owned() };
        loop {
            let owner = carts.by_key(customer.to_le_bytes()).ok_or("there is no owner")?;
            match owner.call(ask()).await {
                Ok(_) => break,
                // A call to one node is not tried again by itself: the key may have another owner now.
                Err(error) if !error.may_have_run() => {
                    println!("customer {customer} moves: {error}");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(CUSTOMERS)
}

fn owners(carts: &Stub<Cart>) -> BTreeMap<u32, NodeId> {
    let owner = |customer: u32| {
        let owner = carts.by_key(customer.to_le_bytes())?;
        Some((customer, owner.node().clone()))
    };
    (0..CUSTOMERS).filter_map(owner).collect()
}

async fn offer(node: &Gossipmonger) -> Result<Offer, Any> {
    let carts = Arc::new(Mutex::new(BTreeMap::<u32, Vec<String>>::new()));
    let counted = Arc::clone(&carts);
    let offer = node
        .offer::<Cart>(Access::members())
        .call(move |ask: Add, _| {
            let carts = Arc::clone(&carts);
            async move {
                tokio::time::sleep(Duration::from_millis(1)).await;
                let mut carts = carts.lock().expect("no handler panics");
                let cart = carts.entry(ask.customer).or_default();
                cart.push(ask.item);
                cart.len()
            }
        })
        .call(move |_: Count, _| {
            let carts = counted.lock().expect("no handler panics").len();
            async move { carts }
        })
        .start()
        .await?;
    Ok(offer)
}

async fn start(
    network: &MemoryNetwork,
    name: &str,
    seed: Option<&Gossipmonger>,
) -> Result<Gossipmonger, Any> {
    let (cluster, datacenter) = (ClusterId::new("demo")?, Datacenter::new("here")?);
    let name = PeerName { cluster, datacenter, node: NodeId::new(name)? };
    let mut config = Config::new(&name).local();
    config.seeds = seed.map(|seed| MemoryNetwork::address(seed.node())).into_iter().collect();
    let (node, _) = Gossipmonger::spawn(config, network.place()).await?;
    Ok(node)
}
