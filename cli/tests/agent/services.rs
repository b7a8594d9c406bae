//! `services`: what a program in the cluster offers, as an agent lists it.

use std::fs;

use gossipmonger::{
    Config, Gossipmonger,
    net::quic::QuicNetwork,
    service::{Access, Offer},
    tls::{Identity, Roots},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::harness::{Cluster, eventually};

#[derive(Serialize, Deserialize)]
struct Level;

gossipmonger::service! {
    /// What a shop has in store.
    struct Stock = "stock", 2.1;
    1: call Level -> u32, idempotent;
}

/// A program that is a node of the cluster, with the files of this node.
async fn program(cluster: &Cluster, node: &str, seed: &str) -> (Gossipmonger, Offer) {
    let read = |file: &str| fs::read(cluster.dir(node).join(file)).unwrap();
    let identity = Identity::from_pem(&read("node.pem"), &read("node.key")).unwrap();
    let mut config = Config::new(identity.name()).local();
    config.listen = vec![([127, 0, 0, 1], 0).into()];
    config.seeds = vec![seed.to_owned()];
    let network = QuicNetwork::new(identity, Roots::from_pem(&read("roots.pem")).unwrap());
    let (node, _) = Gossipmonger::spawn(config, network.unwrap()).await.unwrap();
    let offer = node.offer::<Stock>(Access::members()).call(|_: Level, _| async { 3 });
    let offer = offer.start().await.unwrap();
    (node, offer)
}

#[test]
fn lists_who_offers_what_and_forgets_what_is_withdrawn() {
    let cluster = Cluster::of(&["a", "b"]);
    let a = cluster.start("a", &[]);
    assert_eq!(a.json(&["services"]), json!([]));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (node, offer) = runtime.block_on(program(&cluster, "b", &a.address()));
    eventually("a lists the offer", || a.json(&["services"]) != json!([]));

    let offers = a.json(&["services"]);
    let generation = node.snapshot().member(node.node()).unwrap().generation;
    let expected = json!([{
        "service": "stock", "version": "2.1", "node": "b", "datacenter": "eu",
        "generation": generation, "epoch": 1, "weight": 1, "clients": false,
        "draining": false, "suspect": false, "local": false,
    }]);
    assert_eq!(offers, expected);
    let table = a.run(&["services"]).succeeded().out;
    let lines: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[1], ["stock", "2.1", "b", "eu", "ready", "1", "members", "1"], "{table}");

    for (filter, found) in [
        (&["stock"][..], 1),
        (&["stocks"], 0),
        (&["--node", "b"], 1),
        (&["--node", "a"], 0),
        (&["--datacenter", "eu"], 1),
        (&["--datacenter", "us"], 0),
    ] {
        let offers = a.json(&[&["services"], filter].concat());
        assert_eq!(offers.as_array().map(Vec::len), Some(found), "{filter:?}: {offers}");
    }
    a.run(&["services", "Not A Label"]).failed(2, &["Not A Label"]);

    drop(offer);
    eventually("a forgets the offer", || a.json(&["services"]) == json!([]));
    runtime.block_on(node.shutdown());
}

#[test]
fn says_which_node_takes_no_new_calls() {
    let cluster = Cluster::of(&["a", "b"]);
    let a = cluster.start("a", &[]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (node, _offer) = runtime.block_on(program(&cluster, "b", &a.address()));
    eventually("a lists the offer", || a.json(&["services"])[0]["draining"] == Value::Bool(false));
    assert!(runtime.block_on(node.drain(std::time::Duration::from_secs(30))));
    eventually("a lists it as draining", || {
        a.json(&["services"])[0]["draining"] == Value::Bool(true)
    });
    assert!(a.run(&["services"]).succeeded().out.contains(" draining "));
    runtime.block_on(node.shutdown());
}
