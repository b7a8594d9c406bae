//! A program that is not a member calls services of the cluster.
//!
//! Two nodes with certificates of a temporary CA: `desk` offers nothing, but tells clients what there is; `shop` offers
//! two services. The client `till` has a certificate of role `read`: it finds the one that it may call, and the other one
//! does not exist for it. The client `boss`, of role `admin`, may call both.
//!
//!     cargo run --example client

use std::{error::Error, time::Duration};

use gossipmonger::{
    ClusterId, Config, Datacenter, Gossipmonger, NodeId,
    net::quic::QuicNetwork,
    pki::{Authority, AuthorityOptions, LeafOptions},
    service::{
        Access, CallFailure, NotRun,
        client::{Client, ClientOptions},
    },
    tls::{ClientIdentity, ClientName, Identity, Role, Roots},
};
use serde::{Deserialize, Serialize};

type Any = Box<dyn Error + Send + Sync>;

#[derive(Serialize, Deserialize)]
struct Level {
    item: String,
}

gossipmonger::service! {
    /// What a shop has in store.
    struct Stock = "stock", 1.0;
    1: call Level -> Option<u32>, idempotent;
}

#[derive(Serialize, Deserialize)]
struct Takings;

gossipmonger::service! {
    /// What a shop has sold.
    struct Ledger = "ledger", 1.0;
    1: call Takings -> u32, idempotent;
}

#[tokio::main]
async fn main() -> Result<(), Any> {
    let authority = Authority::create(ClusterId::new("demo")?, &AuthorityOptions::default())?;
    let desk = spawn(&authority, "desk", Vec::new()).await?;
    let shop = spawn(&authority, "shop", desk.addresses().to_vec()).await?;

    // Each offer says who may call it.
    let stock = shop
        .offer::<Stock>(Access::members().and(Access::clients(Role::Read)))
        .call(|ask: Level, _| async move { (ask.item == "tea").then_some(3) })
        .start()
        .await?;
    let ledger = shop
        .offer::<Ledger>(Access::clients(Role::Admin))
        .call(|_: Takings, context| async move {
            println!("shop: {} asks for the takings", context.caller());
            1_250
        })
        .start()
        .await?;
    // This node offers nothing to clients itself. It tells them what others offer.
    let directory = desk.offer_directory()?;

    let till = connect(&authority, &desk, "till", Role::Read).await?;
    let found = till.service::<Stock>();
    found.ready(1, PATIENCE).await?;
    let level = found.call(Level { item: "tea".into() }).await?;
    println!("till: the shop has {level:?} tea");
    assert_eq!(level, Some(3));

    let refused = till.service::<Ledger>().call(Takings).await.err().ok_or("it may not")?;
    println!("till: the ledger: {refused}");
    assert_eq!(*refused.failure(), CallFailure::NotRun(NotRun::NoProvider));

    let boss = connect(&authority, &desk, "boss", Role::Admin).await?;
    let found = boss.service::<Ledger>();
    found.ready(1, PATIENCE).await?;
    let takings = found.call(Takings).await?;
    println!("boss: the takings are {takings}");
    assert_eq!(takings, 1_250);

    // What is withdrawn is gone for clients as well.
    let there = found.providers().pop().ok_or("no provider")?;
    drop(ledger);
    println!("boss: the ledger is gone: {}", there.gone().await);

    till.close().await;
    boss.close().await;
    drop((stock, directory));
    for node in [shop, desk] {
        node.leave_for_now().await?;
    }
    Ok(())
}

/// A node on loopback, with a certificate of this authority.
async fn spawn(authority: &Authority, name: &str, seeds: Vec<String>) -> Result<Gossipmonger, Any> {
    let issued = authority.issue(NodeId::new(name)?, Datacenter::new("home")?, HOUR)?;
    let key = issued.key_pem.as_bytes();
    let identity = Identity::from_pem(issued.certificate_pem.as_bytes(), key)?;
    let roots = Roots::from_pem(issued.roots_pem.as_bytes())?;
    let mut config = Config::new(identity.name()).local();
    config.seeds = seeds;
    let (node, _running) = Gossipmonger::spawn(config, QuicNetwork::new(identity, roots)?).await?;
    Ok(node)
}

/// A client that knows the address of one node.
async fn connect(
    authority: &Authority,
    node: &Gossipmonger,
    name: &str,
    role: Role,
) -> Result<Client, Any> {
    let name = ClientName::from_uri(&format!("spiffe://demo/client/{role}/{name}"))?;
    let issued = authority.issue_with(&LeafOptions::client(&name, HOUR))?;
    let key = issued.key_pem.as_bytes();
    let identity = ClientIdentity::from_pem(issued.certificate_pem.as_bytes(), key)?;
    let roots = Roots::from_pem(authority.certificate_pem().as_bytes())?;
    let hosts = node.addresses().to_vec();
    Ok(Client::connect(hosts, identity, roots, ClientOptions::default()).await?)
}

const HOUR: Duration = Duration::from_secs(3_600);
const PATIENCE: Duration = Duration::from_secs(30);
