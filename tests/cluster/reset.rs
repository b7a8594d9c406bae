//! Connections of a life that has ended, and two that are dialed at once.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use gossipmonger::{
    SpawnError, net::NetworkError, protocol::message::Message, store::memory::MemoryStore,
};
use quinn::{ConnectionError, TransportConfig};
use tokio::sync::Barrier;

use crate::start::spawn;
use crate::{
    attacker::{Member, Relay, client, hello, with_transport},
    harness::{Cluster, PATIENCE, all_live, until},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tells_peers_of_the_life_before_that_it_is_over() {
    let cluster = Cluster::new("demo");
    let store = Arc::new(MemoryStore::new());
    let start = async |address: SocketAddr| {
        let (mut config, transport) = with_transport(&cluster, "m");
        config.storage = Arc::<MemoryStore>::clone(&store);
        config.listen = vec![address];
        spawn(config).await.map(|(node, _)| (node, transport))
    };
    let (node, transport) = start(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address: SocketAddr = node.addresses()[0].parse().unwrap();
    let mut patient = TransportConfig::default();
    // Nothing but a reset ends it within the test.
    patient.max_idle_timeout(None).keep_alive_interval(Some(Duration::from_millis(100)));
    let tls = client(cluster.identity("x"));
    let member = Member::dial(tls, address, patient).await.unwrap();
    let welcome = member.introduce(hello("demo", "x")).await;
    assert!(matches!(welcome, Some(Message::Welcome(_))), "{welcome:?}");

    // It falls silent, as if its host had gone, so that it does not say goodbye.
    transport.silence();
    node.shutdown().await;
    drop((node, transport));
    assert!(member.connection.close_reason().is_none());
    // The silent socket is given back when the last task that knows the node is gone.
    let again = tokio::time::timeout(PATIENCE, async {
        loop {
            match start(address).await {
                Err(SpawnError::Transport(NetworkError::Bind { .. })) => {
                    tokio::task::yield_now().await;
                }
                started => return started.unwrap(),
            }
        }
    });
    let (node, _transport) = again.await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, member.connection.closed()).await;
    assert!(matches!(ended, Ok(ConnectionError::Reset)), "{ended:?}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agree_on_one_connection_when_both_dial() {
    let mut dials = 0;
    for _ in 0..10 {
        let cluster = Cluster::new("demo");
        // Nobody's first packet arrives before both have dialed.
        let both = Arc::new(Barrier::new(2));
        let (mut to_a, mut to_b) = (Relay::new(&both).await, Relay::new(&both).await);
        let config = |name: &str, seed: &Relay| {
            let mut config = cluster.config(name);
            config.seeds = vec![seed.address.clone()];
            config
        };
        let (ours, theirs) = tokio::join!(spawn(config("a", &to_b)), spawn(config("b", &to_a)),);
        let nodes = [ours.unwrap().0, theirs.unwrap().0];
        to_a.lead_to(&nodes[0]);
        to_b.lead_to(&nodes[1]);
        all_live(&nodes).await;
        // From here on the connection stays: nobody dials again while news goes both ways.
        let count = |counter| nodes.iter().map(|node| node.counters().all()[counter]).sum::<u64>();
        let settled = || (count("connections_dialed"), count("connections_accepted"));
        let (mut before, mut told) = (settled(), 0);
        while told < 50 {
            for (from, to) in [(0, 1), (1, 0)] {
                let (owner, value) = (nodes[from].node(), format!("{before:?} {told}"));
                nodes[from].set("key", value.clone()).await.unwrap();
                let arrived =
                    || nodes[to].get(owner, "key").is_some_and(|at| *at == *value.as_bytes());
                until("it arrives", arrived).await;
            }
            told = if settled() == before { told + 1 } else { 0 };
            before = settled();
        }
        dials += before.0;
        assert_eq!(nodes[0].counters().refusals().len(), 0);
        tokio::join!(nodes[0].shutdown(), nodes[1].shutdown());
    }
    println!("{dials} dials for 10 connections");
    assert!(dials > 10, "nobody dialed at once");
    assert!(dials <= 22, "they do not agree: {dials} dials for 10 connections");
}
