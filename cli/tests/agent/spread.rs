//! `set --wait`, `behind`, `keys`, `event` and `query`: what all members have, and what all are told.

use std::fs;

use gossipmonger::tls::{Identity, Roots};
use gossipmonger::{Config, Gossipmonger, net::quic::QuicNetwork};
use serde_json::{Value, json};

use crate::{
    harness::{Agent, Cluster, eventually},
    streams::Stream,
};

/// Two agents that see each other.
fn two(cluster: &Cluster) -> [Agent; 2] {
    let a = cluster.start("a", &["--tag", "rack=r1"]);
    let b = cluster.start("b", &["--seed", &a.address()]);
    a.awaits("b", "live");
    b.awaits("a", "live");
    eventually("a can ask b", || {
        a.json(&["services", "gossipmonger.agent"]).as_array().map(Vec::len) == Some(2)
    });
    [a, b]
}

#[test]
fn a_write_waits_for_as_many_nodes_as_it_is_told() {
    let cluster = Cluster::of(&["a", "b"]);
    let [a, b] = two(&cluster);
    for (wait, says) in [("0", "from 1 on"), ("most", "quorum, all, or a number")] {
        a.run(&["set", "k", "v", "--wait", wait]).failed(2, &[says]);
    }
    a.run(&["set", "k", "v", "--within", "1s"]).failed(2, &["--wait"]);
    a.run(&["set", "k", "v", "--wait", "all", "--within", "1h"]).failed(2, &["at most 30s"]);
    assert_eq!(b.get("a", "k"), None, "nothing was written");

    for wait in ["all", "quorum", "2"] {
        let spread = a.json(&["set", "k", wait, "--wait", wait]);
        assert_eq!((&spread["have"], &spread["behind"]), (&json!(2), &json!(0)), "{spread}");
        assert_eq!(b.get("a", "k").as_deref(), Some(wait), "b has it when the command ends");
    }
    let said = a.run(&["set", "k", "later", "--wait", "3", "--within", "300ms"]);
    said.failed(1, &["the key is written, as version", "2"]);
    assert_eq!(a.get("a", "k").as_deref(), Some("later"));
}

/// A program that is a node of the cluster and no agent, with the files of this node.
async fn program(cluster: &Cluster, node: &str, seed: &str) -> Gossipmonger {
    let read = |file: &str| fs::read(cluster.dir(node).join(file)).unwrap();
    let identity = Identity::from_pem(&read("node.pem"), &read("node.key")).unwrap();
    let mut config = Config::new(identity.name()).local();
    config.seeds = vec![seed.to_owned()];
    let network = QuicNetwork::new(identity, Roots::from_pem(&read("roots.pem")).unwrap());
    Gossipmonger::spawn(config, network.unwrap()).await.unwrap().0
}

#[test]
fn shows_which_nodes_lack_the_last_version_and_what_it_cannot_know() {
    let cluster = Cluster::of(&["a", "b", "c"]);
    let [a, b] = two(&cluster);
    let last = a.json(&["set", "k", "v", "--wait", "all"])["version"].clone();
    assert_eq!(a.json(&["behind"]), json!([]));
    let all = a.run(&["behind"]).succeeded().out;
    assert_eq!(all, format!("all 2 nodes have version {last}\n"));
    let of_b = a.json(&["behind", "--all"])[1].clone();
    assert_eq!((&of_b["version"], &of_b["behind"], &of_b["has"]), (&last, &json!(0), &json!(true)));

    // A program that is no agent says only whether it has it.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let node = runtime.block_on(program(&cluster, "c", &a.address()));
    a.awaits("c", "live");
    eventually("c has it", || a.json(&["behind", "--all"])[2]["has"] == json!(true));
    let of_c = a.json(&["behind", "--all"])[2].clone();
    assert_eq!(of_c["behind"], Value::Null);
    assert!(of_c["problem"].as_str().unwrap().contains("offers no gossipmonger.agent/1"), "{of_c}");
    runtime.block_on(node.shutdown());

    b.signal("KILL");
    b.ended();
    a.awaits("b", "dead");
    a.run(&["set", "k", "w"]).succeeded();
    let behind = a.json(&["behind"]);
    assert_eq!((&behind[0]["node"], &behind[0]["has"]), (&json!("b"), &Value::Null), "{behind}");
    assert_eq!(behind[0]["problem"], "not asked: this agent sees it dead");
}

#[test]
fn lists_keys_of_all_nodes_without_their_values() {
    let cluster = Cluster::of(&["a", "b"]);
    let [a, b] = two(&cluster);
    a.run(&["set", "app/x", "12345", "--wait", "all"]).succeeded();
    b.run(&["set", "app/y", "1", "--wait", "all"]).succeeded();
    a.run(&["keys", "--node", "nobody"]).failed(3, &["no node nobody is known"]);
    let named = |arguments: &[&str]| -> Vec<String> {
        let keys = a.json(&[&["keys"], arguments].concat());
        let keys = keys.as_array().unwrap().iter();
        keys.map(|key| format!("{} {} {}", key["node"], key["key"], key["bytes"])).collect()
    };
    assert_eq!(named(&[]), [r#""a" "app/x" 5"#, r#""b" "app/y" 1"#]);
    assert_eq!(named(&["--node", "b"]), [r#""b" "app/y" 1"#]);
    assert_eq!(named(&["app/x"]), [r#""a" "app/x" 5"#]);
    assert_eq!(named(&["~"]).len(), 2, "the lists of services");
}

#[test]
fn all_agents_are_told_of_an_event_and_answer_a_query() {
    let cluster = Cluster::of(&["a", "b"]);
    let [a, b] = two(&cluster);
    a.run(&["event", "no name"]).failed(2, &["\"no name\" is refused"]);
    a.run(&["event", "deploy", &"x".repeat(4_097)]).failed(2, &["4097 bytes, 4096 are allowed"]);
    a.run(&["events", "--user", "--protocol"]).failed(2, &["cannot be used with"]);

    let events = Stream::new(&b, &["events", "--user", "--json"]);
    let told = a.json(&["event", "deploy", "v17"]);
    let readers = |row: &Value| (row["node"].clone(), row["readers"].clone());
    let told: Vec<_> = told.as_array().unwrap().iter().map(readers).collect();
    assert_eq!(told, [(json!("a"), json!(0)), (json!("b"), json!(1))]);
    let event = json!({"event": "user_event", "from": "a", "name": "deploy", "value": "v17"});
    assert_eq!(events.next(), event);

    let answers = a.json(&["query", "rack"]);
    assert_eq!((&answers[0]["tag"], &answers[1]["tag"]), (&json!("r1"), &Value::Null));
    assert_eq!(answers[1]["readers"], json!(1), "{answers}");
    assert_eq!(events.next()["event"], "user_query");

    b.signal("KILL");
    b.ended();
    a.awaits("b", "dead");
    let told = a.json(&["event", "deploy"]);
    assert_eq!((&told[1]["asked"], &told[1]["readers"]), (&json!(false), &Value::Null));
    assert_eq!(told[1]["problem"], "not asked: this agent sees it dead");
}
