//! A ractor actor that is called from another node.
//!
//! `Shelf` is an ordinary actor: its message type is its own, with ractor's reply ports, and derives nothing for the
//! network. Node `shop` offers it as the service `stock`, with one line for each method. Node `till` finds the service
//! without configuration and calls it over QUIC, with certificates of a temporary CA. It also starts a proxy: a local
//! actor that stands for the remote one, under a supervisor that learns of its end.
//!
//!     cargo run --example remote_actors

use std::{collections::BTreeMap, error::Error, time::Duration};

use gossipmonger::{
    ClusterId, Config, Datacenter, Gossipmonger, NodeId,
    net::quic::QuicNetwork,
    pki::{Authority, AuthorityOptions},
    service::{Access, Address, CallFailure, Failure, Gone},
    tls::{Identity, Roots},
};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use serde::{Deserialize, Serialize};

type Any = Box<dyn Error + Send + Sync>;

// What travels: both nodes know these types.

#[derive(Serialize, Deserialize)]
struct Level {
    item: String,
}

#[derive(Serialize, Deserialize)]
struct Reserve {
    item: String,
    count: u32,
}

#[derive(Serialize, Deserialize)]
struct Delivered {
    item: String,
    count: u32,
}

/// The service's own errors are part of the reply.
#[derive(Debug, Serialize, Deserialize)]
struct OutOfStock {
    left: u32,
}

gossipmonger::service! {
    /// What a shop has in store.
    struct Stock = "stock", 1.0;

    1: call Level -> Option<u32>, idempotent;
    2: call Reserve -> Result<u32, OutOfStock>;
    3: cast Delivered;
}

// What does not travel: the actor and its messages, which only node `shop` knows.

struct Shelf;

enum ShelfMessage {
    Level(String, RpcReplyPort<Option<u32>>),
    Reserve { item: String, count: u32, reply: RpcReplyPort<Result<u32, OutOfStock>> },
    Delivered(String, u32),
}

// Needed if any crate in the dependency graph enables ractor's own `cluster` feature.
#[cfg(feature = "cluster")]
impl ractor::Message for ShelfMessage {}

#[ractor::actor(message = ShelfMessage, state = BTreeMap<String, u32>, arguments = ())]
impl Shelf {
    async fn pre_start(
        &self,
        _: ActorRef<ShelfMessage>,
        _: (),
    ) -> Result<BTreeMap<String, u32>, ActorProcessingErr> {
        Ok(BTreeMap::new())
    }

    async fn handle(
        &self,
        _: ActorRef<ShelfMessage>,
        message: ShelfMessage,
        shelf: &mut BTreeMap<String, u32>,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ShelfMessage::Level(item, reply) => drop(reply.send(shelf.get(&item).copied())),
            ShelfMessage::Reserve { item, count, reply } => {
                let left = shelf.entry(item).or_default();
                let reserved = match left.checked_sub(count) {
                    Some(rest) => {
                        *left = rest;
                        Ok(rest)
                    }
                    None => Err(OutOfStock { left: *left }),
                };
                drop(reply.send(reserved));
            }
            ShelfMessage::Delivered(item, count) => *shelf.entry(item).or_default() += count,
        }
        Ok(())
    }
}

// Node `till` has actors of its own.

enum TillMessage {
    Level(String, RpcReplyPort<Option<u32>>),
    Delivered(String, u32),
}

#[cfg(feature = "cluster")]
impl ractor::Message for TillMessage {}

/// Ends when its proxy has failed; it could start another one, which would pick another node.
struct Supervisor;

enum Nothing {}

#[cfg(feature = "cluster")]
impl ractor::Message for Nothing {}

#[ractor::actor(message = Nothing, state = (), arguments = ())]
impl Supervisor {
    async fn pre_start(&self, _: ActorRef<Nothing>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Nothing>,
        event: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(_, why) = event {
            println!("the proxy has failed: {why}");
            myself.stop(None);
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Any> {
    let everything = tokio::time::timeout(Duration::from_secs(60), run());
    everything.await.map_err(|_| "the two nodes did not find each other in time")?
}

async fn run() -> Result<(), Any> {
    let authority = Authority::create(ClusterId::new("demo")?, &AuthorityOptions::default())?;
    let shop = start(&authority, "shop", Vec::new()).await?;
    let till = start(&authority, "till", shop.addresses().to_vec()).await?;

    let (shelf, shelf_runs) = Actor::spawn(None, Shelf, ()).await?;
    let offer = shop
        .offer::<Stock>(Access::node(till.node().clone()))
        .actor(&shelf)
        .asks(|ask: Level, reply| ShelfMessage::Level(ask.item, reply))
        .asks(|ask: Reserve, reply| ShelfMessage::Reserve {
            item: ask.item,
            count: ask.count,
            reply,
        })
        .tells(|new: Delivered| ShelfMessage::Delivered(new.item, new.count))
        .start()
        .await?;

    let stock = till.service::<Stock>();
    stock.ready(1, Duration::from_secs(30)).await?;
    let tea = || "tea".to_owned();
    // The three arrive in the actor's mailbox in this order.
    stock.cast(Delivered { item: tea(), count: 5 }).await?;
    println!("there are {:?} of tea", stock.call(Level { item: tea() }).await?);
    let rest = stock.call(Reserve { item: tea(), count: 2 }).await?;
    println!("after a reservation of 2: {rest:?}");
    let refused = stock.call(Reserve { item: tea(), count: 9 }).await?;
    println!("a reservation of 9: {refused:?}");
    assert!(matches!((rest, refused), (Ok(3), Err(OutOfStock { left: 3 }))));

    // An address names this offer of this node. It can be sent in messages.
    let there = stock.at(shop.node()).ok_or("the shop does not offer it")?;
    let address: Address<Stock> = serde_json::from_str(&serde_json::to_string(&there.address())?)?;
    let bound = till.bind(address)?;
    assert_eq!(bound.call(Level { item: tea() }).await?, Some(3));

    // A local actor stands for the remote one: who knows its `ActorRef` needs to know nothing of nodes or services.
    let (supervisor, supervisor_runs) = Actor::spawn(None, Supervisor, ()).await?;
    let proxy: ActorRef<TillMessage> = stock
        .proxy(supervisor.get_cell(), |message, to| match message {
            TillMessage::Level(item, reply) => to.call(Level { item }, reply),
            TillMessage::Delivered(item, count) => to.cast(Delivered { item, count }),
        })
        .await?;
    proxy.cast(TillMessage::Delivered(tea(), 4))?;
    let level = proxy.call(|reply| TillMessage::Level(tea(), reply), None).await?;
    assert_eq!(level.unwrap(), Some(7));

    // The offer ends with its actor, and references to it learn of that.
    shelf.stop(None);
    shelf_runs.await?;
    assert_eq!(bound.gone().await, Gone::Withdrawn);
    match bound.call(Level { item: tea() }).await {
        Err(error) if !error.may_have_run() => println!("and after the end of the actor: {error}"),
        Err(error) if *error.failure() == CallFailure::Failed(Failure::ActorEnded) => {
            println!("and at the end of the actor: {error}");
        }
        other => return Err(format!("an actor that has ended answers {other:?}").into()),
    }
    supervisor_runs.await?;
    drop(offer);
    till.leave_for_now().await?;
    shop.leave_for_now().await?;
    Ok(())
}

async fn start(authority: &Authority, name: &str, seeds: Vec<String>) -> Result<Gossipmonger, Any> {
    let (node, datacenter) = (NodeId::new(name)?, Datacenter::new("eu")?);
    let issued = authority.issue(node, datacenter, Duration::from_secs(3_600))?;
    let key = issued.key_pem.as_bytes();
    let identity = Identity::from_pem(issued.certificate_pem.as_bytes(), key)?;
    let roots = Roots::from_pem(issued.roots_pem.as_bytes())?;
    let mut config = Config::new(identity.name()).local();
    config.seeds = seeds;
    let (node, _) = Gossipmonger::spawn(config, QuicNetwork::new(identity, roots)?).await?;
    Ok(node)
}
