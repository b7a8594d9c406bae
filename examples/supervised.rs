//! A node inside a ractor supervision tree.
//!
//! `Registry` is the supervisor, and the node is its child. It publishes the address of its service,
//! and keeps a list of the other services from the events that the node sends it. The example runs two
//! such services with certificates of a temporary CA. One ends, and the other one notices.
//!
//!     cargo run --example supervised

use std::{collections::BTreeMap, error::Error, time::Duration};

use gossipmonger::{
    ClusterId, Config, Datacenter, Event, Gossipmonger, NodeId,
    net::quic::QuicNetwork,
    pki::{Authority, AuthorityOptions},
    subscription::Delivery,
    tls::{Identity, Roots},
};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent, call_t, cast};

type Any = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Any> {
    let everything = tokio::time::timeout(Duration::from_secs(60), run());
    everything.await.map_err(|_| "the two services did not find each other in time")?
}

async fn run() -> Result<(), Any> {
    let authority = Authority::create(ClusterId::new("demo")?, &AuthorityOptions::default())?;
    let (web, _) = Actor::spawn(None, Registry, start(&authority, "web", Vec::new())?).await?;
    let seeds = call_t!(web, ToRegistry::Seeds, 5_000)?;
    let (db, db_runs) = Actor::spawn(None, Registry, start(&authority, "db", seeds)?).await?;

    cast!(web, ToRegistry::Announce("10.0.0.1:80".to_owned()))?;
    cast!(db, ToRegistry::Announce("10.0.0.2:5432".to_owned()))?;
    until(&db, |services| services.get("web").is_some_and(|at| at == "10.0.0.1:80")).await?;
    until(&web, |services| services.get("db").is_some_and(|at| at == "10.0.0.2:5432")).await?;

    // The supervisor stops its node. The node leaves, so no other node has to detect a failure.
    db.stop(None);
    db_runs.await?;
    until(&web, BTreeMap::is_empty).await?;
    web.stop_and_wait(None, None).await?;
    println!("both have ended");
    Ok(())
}

fn start(
    authority: &Authority,
    name: &str,
    seeds: Vec<String>,
) -> Result<(Config, QuicNetwork), Any> {
    let (node, datacenter) = (NodeId::new(name)?, Datacenter::new("eu")?);
    let issued = authority.issue(node, datacenter, Duration::from_secs(3_600))?;
    let key = issued.key_pem.as_bytes();
    let identity = Identity::from_pem(issued.certificate_pem.as_bytes(), key)?;
    let roots = Roots::from_pem(issued.roots_pem.as_bytes())?;
    let mut config = Config::new(identity.name()).local();
    config.seeds = seeds;
    Ok((config, QuicNetwork::new(identity, roots)?))
}

/// Asks until the answer is the expected one; `run` as a whole has a deadline.
async fn until(
    registry: &ActorRef<ToRegistry>,
    holds: impl Fn(&BTreeMap<String, String>) -> bool,
) -> Result<(), Any> {
    while !holds(&call_t!(registry, ToRegistry::Services, 5_000)?) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Knows the addresses of all services.
struct Registry;

enum ToRegistry {
    /// Announces the address of our service.
    Announce(String),
    /// Asks for the services of the other live nodes.
    Services(RpcReplyPort<BTreeMap<String, String>>),
    /// Asks for the addresses at which other nodes join ours.
    Seeds(RpcReplyPort<Vec<String>>),
    /// An event of the node.
    Cluster(Delivery),
}

impl From<Delivery> for ToRegistry {
    fn from(delivery: Delivery) -> Self {
        Self::Cluster(delivery)
    }
}

// Needed if any crate in the dependency graph enables ractor's own `cluster` feature.
#[cfg(feature = "cluster")]
impl ractor::Message for ToRegistry {}

struct State {
    node: Gossipmonger,
    services: BTreeMap<String, String>,
}

#[ractor::actor(message = ToRegistry, state = State, arguments = (Config, QuicNetwork))]
impl Registry {
    async fn pre_start(
        &self,
        myself: ActorRef<ToRegistry>,
        (config, network): (Config, QuicNetwork),
    ) -> Result<State, ActorProcessingErr> {
        let (node, _) = Gossipmonger::spawn_linked(config, network, myself.get_cell()).await?;
        // Delivers the present members and keys first, then every change.
        node.subscribe_actor(myself);
        Ok(State { node, services: BTreeMap::new() })
    }

    async fn post_stop(
        &self,
        myself: ActorRef<ToRegistry>,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        // Informs the peers; the next start joins again (after `decommission` it would be refused). If
        // the node has already ended, there is nothing to do.
        let _ = state.node.leave_for_now().await;
        // ractor kills the children of an actor that does not wait for them.
        myself.stop_children_and_wait(None, None).await;
        Ok(())
    }

    async fn handle(
        &self,
        _: ActorRef<ToRegistry>,
        message: ToRegistry,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ToRegistry::Announce(address) => {
                state.node.set("service/address", address).await?;
            }
            ToRegistry::Services(reply) => drop(reply.send(state.services.clone())),
            ToRegistry::Seeds(reply) => drop(reply.send(state.node.addresses().to_vec())),
            ToRegistry::Cluster(delivery) => state.happened(&delivery.event),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<ToRegistry>,
        event: SupervisionEvent,
        _: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            // The node restarts its own actors. A failure that arrives here is final, for example
            // because another process of the same name displaced the node. The service ends with it.
            SupervisionEvent::ActorFailed(_, error) => Err(error),
            _ => Ok(()),
        }
    }
}

impl State {
    fn happened(&mut self, event: &Event) {
        let us = self.node.node();
        match event {
            Event::Updated { peer, key, value, .. } if peer != us => {
                if let ("service/address", Some(address)) = (key.as_str(), value.as_str()) {
                    println!("{us}: {peer} serves at {address}");
                    self.services.insert(peer.to_string(), address.to_owned());
                }
            }
            Event::PeerLive { peer, .. } => {
                println!("{us}: {peer} is there");
                // The node may come back with keys that are already known.
                if let Some(address) = self.node.get_str(peer, "service/address") {
                    self.services.insert(peer.to_string(), address);
                }
            }
            Event::PeerDead { peer, .. } | Event::PeerLeft { peer, .. } => {
                println!("{us}: {peer} is gone");
                self.services.remove(peer.as_str());
            }
            _ => {}
        }
    }
}
