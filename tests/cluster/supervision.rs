//! What a restart inside a node leaves alone, and what a failed start gives back.

use std::net::UdpSocket;

use gossipmonger::{Gossipmonger, SpawnError, protocol::route::Counter};
use ractor::ActorCell;

use crate::start::spawn;
use crate::{
    harness::{Cluster, all_live, until},
    membership::end,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_an_address_in_use_and_gives_the_others_back() {
    let cluster = Cluster::new("demo");
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut config = cluster.config("a");
    config.listen = vec![free, taken.local_addr().unwrap()];
    let refused = spawn(config.clone()).await.unwrap_err();
    assert!(matches!(refused, SpawnError::Transport(_)));
    let said = refused.to_string();
    assert!(said.contains(&taken.local_addr().unwrap().to_string()), "{said}");
    UdpSocket::bind(free).expect("the first address is still bound");
    drop(taken);
    let node = spawn(config).await.unwrap().0;
    node.shutdown().await;
    UdpSocket::bind(free).expect("the address is bound after the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_restart_costs_a_connection_or_an_acknowledged_write() {
    let cluster = Cluster::new("demo");
    let nodes = cluster.spawn_many(3).await;
    all_live(&nodes).await;
    let connections = |node: &Gossipmonger| {
        let counters = node.counters();
        counters.get(Counter::ConnectionsDialed) + counters.get(Counter::ConnectionsAccepted)
    };
    // Edges that were dialed from both ends settle first: news goes round without a new connection.
    let (mut before, mut told) = (Vec::new(), 0);
    while told < 50 {
        nodes[0].set("told", told.to_string()).await.unwrap();
        let arrived = |node: &Gossipmonger| {
            node.get(nodes[0].node(), "told").is_some_and(|at| *at == *told.to_string().as_bytes())
        };
        until("it arrives", || nodes[1..].iter().all(arrived)).await;
        let now: Vec<u64> = nodes.iter().map(connections).collect();
        let all = now.iter().all(|edges| *edges >= 2);
        told = if all && now == before { told + 1 } else { 0 };
        before = now;
    }
    let victim = &nodes[1];
    for round in 0..8_usize {
        let mut children = victim.cell().get_children();
        children.sort_by_key(ActorCell::get_id);
        let (kill, write) = tokio::join!(
            children[round % children.len()].kill_and_wait(None),
            victim.set(format!("k{round}"), "v"),
        );
        kill.unwrap();
        write.unwrap();
        until("all five again", || {
            victim.counters().get(Counter::ActorRestarts) == round as u64 + 1
                && victim.cell().get_children().len() == 5
        })
        .await;
        nodes[0].set(format!("for{round}"), "v").await.unwrap();
        until("news goes both ways", || {
            nodes[2].get(victim.node(), &format!("k{round}")).is_some()
                && victim.get(nodes[0].node(), &format!("for{round}")).is_some()
        })
        .await;
    }
    all_live(&nodes).await;
    let after: Vec<u64> = nodes.iter().map(connections).collect();
    assert_eq!(before, after, "connections were opened anew");
    assert_eq!(nodes[2].snapshot().len(victim.node()), 8);
    end(&nodes).await;
}
