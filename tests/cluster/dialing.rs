//! Addresses that lead nowhere: which way is tried, and what is said of those that fail.

use std::net::SocketAddr;

use crate::start::{Start, spawn};
use crate::{
    harness::{Cluster, all_live, until},
    membership::end,
};

/// Why `seed` leads nowhere, as soon as that is known.
async fn failures(config: Start, seed: &str) -> Vec<String> {
    let mut config = config;
    config.seeds = vec![seed.to_owned()];
    config.quic.handshake_timeout = std::time::Duration::from_millis(300);
    let (node, _) = spawn(config).await.unwrap();
    until("the failure is kept", || !node.dial_failures(seed).is_empty()).await;
    let failures = node.dial_failures(seed).iter().map(ToString::to_string).collect();
    end(&[node]).await;
    failures
}

fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_does_not_resolve_is_kept_as_the_reason() {
    let cluster = Cluster::new("demo");
    let said = failures(cluster.config("a"), "no-such-host.invalid:7101").await;
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("no-such-host.invalid:7101: "), "{said:?}");
    assert!(said[0].contains("does not resolve") || said[0].contains("no answer"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_family_without_a_socket_is_kept_as_the_reason() {
    let cluster = Cluster::new("demo");
    let said = failures(cluster.config("a"), "[::1]:7101").await;
    assert_eq!(said, ["[::1]:7101: this node listens on no IPv6 address"]);
}

/// A packet to a broadcast address is refused by the system, and so is one that leaves loopback.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_system_refuses_to_send_is_kept_as_the_reason() {
    let cluster = Cluster::new("demo");
    let said = failures(cluster.config("a"), "255.255.255.255:7101").await;
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains(": the system refuses to send there: "), "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_way_that_nobody_answers_is_kept_and_forgotten_when_somebody_does() {
    let cluster = Cluster::new("demo");
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let seed = nobody.local_addr().unwrap();
    let mut config = cluster.config("a");
    config.listen = vec![at("127.0.0.1:0"), at("127.0.0.2:0")];
    config.seeds = vec![seed.to_string()];
    config.quic.handshake_timeout = std::time::Duration::from_millis(300);
    let (a, _) = spawn(config).await.unwrap();
    let failures = || a.dial_failures(&seed.to_string());
    until("both sockets were tried", || failures().len() == 2).await;
    let mut from: Vec<_> = failures().iter().map(|f| f.from.unwrap().to_string()).collect();
    from.sort();
    assert_eq!(from, a.addresses());
    assert!(failures().iter().all(|f| f.reason == "no answer within 300ms"), "{:?}", failures());
    drop(nobody);
    let mut config = cluster.config("b");
    config.listen = vec![seed];
    let (b, _) = spawn(config).await.unwrap();
    let nodes = [a.clone(), b];
    all_live(&nodes).await;
    until("the failures are forgotten", || failures().is_empty()).await;
    end(&nodes).await;
}

/// Which socket of the dialer a packet leaves by decides whether it arrives: those of 127.0.0.0/8 are
/// refused by a socket of another network, and the other way round.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sockets_and_two_addresses_find_each_other_in_any_order() {
    let cluster = Cluster::new("demo");
    let mut config = cluster.config("b");
    config.listen = vec![at("127.0.0.3:0"), at("127.0.0.4:0")];
    let (b, _) = spawn(config).await.unwrap();
    let mut config = cluster.config("a");
    config.listen = vec![at("127.0.0.1:0"), at("127.0.0.2:0")];
    config.seeds = b.addresses().iter().rev().cloned().collect();
    let (a, _) = spawn(config).await.unwrap();
    let nodes = [a, b];
    all_live(&nodes).await;
    end(&nodes).await;
}
