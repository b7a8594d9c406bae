//! `services`: what a program in the cluster offers, as an agent lists it.

use std::{
    fs,
    io::{Read, Write},
};

use gossipmonger::{
    Config, Gossipmonger,
    net::quic::QuicNetwork,
    service::{
        Access, Offer,
        client::{Client, ClientOptions, ConnectError},
    },
    tls::{ClientIdentity, Identity, Roots},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    harness::{Cluster, eventually},
    streams::Stream,
};

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

#[test]
fn maintenance_keeps_callers_away_and_ends() {
    let cluster = Cluster::of(&["a", "b"]);
    cluster.client("alice", "watch");
    let a = cluster.start("a", &[]);
    cluster.by(&a, "alice", &["drain"]).failed(2, &["role watch may not maintain"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (node, _offer) = runtime.block_on(program(&cluster, "b", &a.address()));
    let verdict = || a.json(&["why", "stock/2"])[0]["verdict"].clone();
    eventually("a lists the offer", || a.run(&["why", "stock/2"]).code == 0);
    runtime.block_on(node.set_maintenance(true)).unwrap();
    eventually("b is not picked", || verdict() == "draining");
    // What is called by its name is answered all the same.
    a.run(&["call", "b", "stock", "1", "/dev/null"]).succeeded();
    runtime.block_on(node.set_maintenance(false)).unwrap();
    eventually("b is picked again", || verdict() == "picked");

    let draining = || a.json(&["members", "--node", "a"])[0]["draining"].clone();
    assert_eq!(draining(), Value::Bool(false));
    a.run(&["drain"]).succeeded();
    eventually("a drains", || draining() == Value::Bool(true));
    assert!(a.run(&["members", "--node", "a"]).succeeded().out.contains("live, draining"));
    a.run(&["query", "rack"]).succeeded();
    assert_eq!(a.json(&["drain"]), json!({}), "once more");
    a.run(&["undrain"]).succeeded();
    eventually("a does not drain", || draining() == Value::Bool(false));
    runtime.block_on(node.shutdown());
    eventually("b has ended", || runtime.block_on(node.set_maintenance(true)).is_err());
}

#[test]
fn calls_a_method_with_bytes_and_says_why_not() {
    let cluster = Cluster::of(&["a", "b"]);
    let a = cluster.start("a", &[]);
    a.run(&["call", "b", "stock/2", "1", "/dev/null"]).failed(3, &["no node b is known"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (node, _offer) = runtime.block_on(program(&cluster, "b", &a.address()));
    eventually("a lists the offer", || a.json(&["services"]) != json!([]));

    let question = cluster.dir("a").join("question");
    fs::write(&question, b"").unwrap();
    let question = question.to_str().unwrap();
    a.run(&["call", "b", "stocks", "1", question]).failed(3, &["does not offer"]);
    a.run(&["call", "b", "stock/3", "1", question]).failed(3, &["does not offer"]);
    a.run(&["call", "b", "stock/2", "x", question]).failed(2, &["invalid value"]);
    a.run(&["call", "b", "stock/2", "1", "/no/such/file"]).failed(2, &["/no/such/file"]);
    a.run(&["call", "b", "stock/2", "1", question, "--within", "2h"]).failed(2, &["--within"]);
    a.run(&["call", "b", "stock/2", "9", question]).failed(1, &["has not run", "no such method"]);
    for service in ["stock/2", "stock"] {
        let answer = a.run(&["call", "b", service, "1", question]).succeeded();
        assert_eq!(answer.out.as_bytes(), [3], "the encoded answer and nothing else");
    }
    let answer = a.json(&["call", "b", "stock", "1", question]);
    assert_eq!(answer, json!({"node": "b", "value": "\u{3}"}));
    runtime.block_on(node.shutdown());
}

#[test]
fn explains_which_providers_are_called() {
    let cluster = Cluster::of(&["a", "b"]);
    let a = cluster.start("a", &[]);
    a.run(&["why", "stock/2"]).failed(3, &["no live node offers stock/2"]);
    a.run(&["why", "Stock/x"]).failed(2, &["NAME/MAJOR"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (node, _offer) = runtime.block_on(program(&cluster, "b", &a.address()));
    eventually("a lists the offer", || a.json(&["services"]) != json!([]));
    let expected = json!([{
        "service": "stock/2", "version": "2.1", "node": "b", "datacenter": "eu", "picked": true,
        "verdict": "picked", "sentence": "gets calls", "weight": 1, "connected": false,
        "not_dialed": null,
    }]);
    assert_eq!(a.json(&["why", "stock/2"]), expected);
    let table = a.run(&["why", "stock/2"]).succeeded().out;
    let row: Vec<_> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row, ["b", "2.1", "eu", "yes", "-", "gets", "calls"], "{table}");
    assert!(runtime.block_on(node.drain(std::time::Duration::from_secs(30))));
    eventually("it is not picked", || a.json(&["why", "stock/2"])[0]["verdict"] == "draining");
    runtime.block_on(node.shutdown());
}

#[test]
fn lists_who_calls_the_services_of_its_own_node() {
    let cluster = Cluster::of(&["a"]);
    let a = cluster.start("a", &[]);
    // An agent offers nothing of its own.
    assert_eq!(a.json(&["services", "--callers"]), json!([]));
    assert_eq!(a.json(&["services", "--callers", "stock/1"]), json!([]));
    let table = a.run(&["services", "--callers"]).succeeded().out;
    assert_eq!(
        table.split_whitespace().collect::<Vec<_>>(),
        ["SERVICE", "CALLER", "CALLS", "FIRST", "LAST"]
    );
    a.run(&["services", "--callers", "stock"]).failed(2, &["NAME/MAJOR"]);
    a.run(&["services", "stock", "--callers"]).failed(2, &["cannot be used with"]);
}

#[test]
fn shows_the_list_of_services_without_control_characters() {
    let cluster = Cluster::of(&["a", "b"]);
    let a = cluster.start("a", &[]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (node, _offer) = runtime.block_on(program(&cluster, "b", &a.address()));
    eventually("a lists the offer", || a.json(&["services"]) != json!([]));
    assert_eq!(
        a.json(&["get", "b"]),
        json!([]),
        "the keys of the program are not those of its user"
    );
    for command in [&["get", "b", "--prefix", "~"][..], &["get", "b", "--prefix", "~", "--json"]] {
        let shown = a.run(command).succeeded().out;
        assert!(shown.contains("~services"), "{shown:?}");
        assert!(command.len() > 4 || shown.contains("(offers stock 2.1)"), "{shown:?}");
        let control = shown.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(control, None, "{shown:?}");
    }
    runtime.block_on(node.shutdown());
}

#[test]
fn events_tell_which_services_join_and_leave() {
    let cluster = Cluster::of(&["a", "b"]);
    let a = cluster.start("a", &[]);
    let events = Stream::new(&a, &["events", "--json"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (node, offer) = runtime.block_on(program(&cluster, "b", &a.address()));
    let joined =
        json!({"event": "service_joined", "peer": "b", "service": "stock", "version": "2.1"});
    events.until(|event| *event == joined);
    drop(offer);
    let left = json!({
        "event": "service_left", "peer": "b", "service": "stock", "version": "2.1",
        "cause": "withdrawn", "sentence": "the service was withdrawn",
    });
    events.until(|event| *event == left);
    runtime.block_on(node.shutdown());
}

#[test]
fn metrics_have_the_calls_of_the_agent() {
    let cluster = Cluster::of(&["a", "b"]);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let a = cluster.start("a", &["--metrics", &address]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (node, _offer) = runtime.block_on(program(&cluster, "b", &a.address()));
    eventually("a lists the offer", || a.json(&["services"]) != json!([]));
    a.run(&["call", "b", "stock", "1", "/dev/null"]).succeeded();
    a.run(&["call", "b", "stock", "9", "/dev/null"]).failed(1, &[]);
    let mut stream = std::net::TcpStream::connect(&address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    // The methods that are called by number share one row.
    let labels = "end=\"caller\",service=\"(other)\",method=\"(other)\"";
    for line in [
        format!("gossipmonger_service_calls_total{{{labels},outcome=\"ok\"}} 1"),
        format!("gossipmonger_service_calls_total{{{labels},outcome=\"not_run\"}} 1"),
        format!("gossipmonger_service_latency_seconds_bucket{{{labels},le=\"+Inf\"}} 1"),
        format!("gossipmonger_service_latency_seconds_count{{{labels}}} 1"),
        format!("gossipmonger_service_in_flight{{{labels}}} 0"),
        "# TYPE gossipmonger_service_latency_seconds histogram".to_owned(),
        "gossipmonger_service_connections{dialed=\"here\"} 1".to_owned(),
        "gossipmonger_service_lane_queue_bytes 0".to_owned(),
    ] {
        assert!(page.contains(&format!("\n{line}\n")), "{line} is missing in {page}");
    }
    runtime.block_on(node.shutdown());
}

/// A program that is no member, with the files of a client: whether the agent is its host.
async fn connects(cluster: &Cluster, name: &str, host: &str) -> Result<Client, ConnectError> {
    let read = |file: &str| fs::read(cluster.dir(name).join(file)).unwrap();
    let identity = ClientIdentity::from_pem(&read("client.pem"), &read("client.key")).unwrap();
    let roots = Roots::from_pem(&read("roots.pem")).unwrap();
    Client::connect([host], identity, roots, ClientOptions::default()).await
}

#[test]
fn an_agent_is_a_host_of_clients_only_if_its_configuration_says_so() {
    let cluster = Cluster::of(&["a", "b"]);
    cluster.client("till", "read");
    cluster.configure("b", "[services]\ndirectory = \"on\"\n");
    let line = ["agent", "--dir", "b", "--preset", "local"];
    cluster.run(&line).failed(2, &["b/gossipmonger.toml", "directory = \"on\"", "a boolean"]);
    cluster.configure("b", "[services]\ndirectory = true\n");
    let a = cluster.start("a", &[]);
    let b = cluster.start("b", &["--seed", &a.address()]);
    let offered = || a.json(&["services", "gossipmonger.directory"]);
    eventually("a lists the directory of b", || offered().as_array().map(Vec::len) == Some(1));
    assert_eq!((&offered()[0]["node"], &offered()[0]["clients"]), (&json!("b"), &json!(true)));

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let refused = runtime.block_on(connects(&cluster, "till", &a.address())).unwrap_err();
    assert!(matches!(refused, ConnectError::Unanswered(_)), "{refused}");
    let client = runtime.block_on(connects(&cluster, "till", &b.address())).unwrap();
    runtime.block_on(client.close());
}
