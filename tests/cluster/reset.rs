//! Connections of a life that has ended, and two that are dialed at once.

use std::{sync::Arc, time::Duration};

use gossipmonger::{Gossipmonger, protocol::message::Message, store::memory::MemoryStore};
use quinn::{ConnectionError, TransportConfig};
use tokio::{net::UdpSocket, sync::Barrier};

use crate::{
    attacker::{Member, client, hello, with_transport},
    harness::{Cluster, PATIENCE, all_live, until},
    refusals::free_address,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tells_peers_of_the_life_before_that_it_is_over() {
    let cluster = Cluster::new("demo");
    let store = Arc::new(MemoryStore::new());
    let address = free_address();
    let start = async || {
        let (mut config, transport) = with_transport(&cluster, "m");
        config.storage = Arc::<MemoryStore>::clone(&store);
        config.listen = vec![address.parse().unwrap()];
        (Gossipmonger::spawn(config).await.unwrap().0, transport)
    };
    let (node, transport) = start().await;
    let mut patient = TransportConfig::default();
    // Nothing but a reset ends it within the test.
    patient.max_idle_timeout(None).keep_alive_interval(Some(Duration::from_millis(100)));
    let tls = client(cluster.identity("x"));
    let member = Member::dial(tls, address.parse().unwrap(), patient).await.unwrap();
    let welcome = member.introduce(hello("demo", "x")).await;
    assert!(matches!(welcome, Some(Message::Welcome(_))), "{welcome:?}");

    // It falls silent, as if its host had gone, so that it does not say goodbye.
    transport.silence();
    node.shutdown().await;
    drop((node, transport));
    assert!(member.connection.close_reason().is_none());
    let (node, _transport) = start().await;
    let ended = tokio::time::timeout(PATIENCE, member.connection.closed()).await;
    assert!(matches!(ended, Ok(ConnectionError::Reset)), "{ended:?}");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agree_on_one_connection_when_both_dial() {
    let mut dials = 0;
    for _ in 0..10 {
        let cluster = Cluster::new("demo");
        let (a, b) = (free_address(), free_address());
        // Nobody's first packet arrives before both have dialed.
        let both = Arc::new(Barrier::new(2));
        let (to_a, to_b) = (relay(&a, &both).await, relay(&b, &both).await);
        let config = |name: &str, own: &str, other: &str| {
            let mut config = cluster.config(name);
            config.listen = vec![own.parse().unwrap()];
            config.seeds = vec![other.to_owned()];
            config
        };
        let (ours, theirs) = tokio::join!(
            Gossipmonger::spawn(config("a", &a, &to_b)),
            Gossipmonger::spawn(config("b", &b, &to_a)),
        );
        let nodes = [ours.unwrap().0, theirs.unwrap().0];
        all_live(&nodes).await;
        // From here on the connection stays: nobody dials again while they gossip on.
        let count = |counter| nodes.iter().map(|node| node.counters().all()[counter]).sum::<u64>();
        let settled = || (count("connections_dialed"), count("connections_accepted"));
        let mut before = settled();
        let mut exchanges = count("exchanges_answered");
        until("ten exchanges over the same connection", || {
            if settled() != before {
                (before, exchanges) = (settled(), count("exchanges_answered"));
            }
            count("exchanges_answered") >= exchanges + 10
        })
        .await;
        for (from, to) in [(0, 1), (1, 0)] {
            nodes[from].set("key", "value").await.unwrap();
            let owner = nodes[from].node();
            until("it arrives", || nodes[to].get(owner, "key").is_some()).await;
        }
        dials += before.0;
        assert_eq!(nodes[0].counters().refusals().len(), 0);
        tokio::join!(nodes[0].shutdown(), nodes[1].shutdown());
    }
    println!("{dials} dials for 10 connections");
    assert!(dials > 10, "nobody dialed at once");
    assert!(dials <= 25, "they do not agree: {dials} dials for 10 connections");
}

/// An address that leads to another, once somebody waits at the other relay too.
async fn relay(to: &str, both: &Arc<Barrier>) -> String {
    let outer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let inner = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    inner.connect(to).await.unwrap();
    let (address, both) = (outer.local_addr().unwrap().to_string(), Arc::clone(both));
    tokio::spawn(async move {
        let (mut there, mut back) = (vec![0; 65_536], vec![0; 65_536]);
        let (mut len, dialer) = outer.recv_from(&mut there).await.unwrap();
        both.wait().await;
        loop {
            // What cannot be delivered is lost, as datagrams are.
            let _ = inner.send(&there[..len]).await;
            loop {
                tokio::select! {
                    Ok((arrived, _)) = outer.recv_from(&mut there) => {
                        len = arrived;
                        break;
                    }
                    Ok(arrived) = inner.recv(&mut back) => {
                        let _ = outer.send_to(&back[..arrived], dialer).await;
                    }
                }
            }
        }
    });
    address
}
