//! `bench live`: what it measures on a running cluster, what it refuses, and that its keys are gone afterwards.

use std::{fs, process::Stdio};

use serde_json::{Value, json};

use crate::harness::{Agent, Cluster, eventually};

/// A short measurement.
const SHORT: [&str; 10] =
    ["bench", "live", "--rate", "5", "--seconds", "2", "--calls", "5", "--bytes", "1000000"];

/// Four agents in three datacenters, two of them in `us`, that can call each other.
fn four(cluster: &Cluster) -> [Agent; 4] {
    cluster.issue_in("us", "b");
    cluster.issue_in("us", "c");
    cluster.issue_in("ap", "d");
    ["a", "b", "c", "d"].iter().for_each(|node| cluster.configure(node, PATIENT));
    let a = cluster.start("a", &[]);
    let seed = a.address();
    let [b, c, d] = ["b", "c", "d"].map(|node| cluster.start(node, &["--seed", &seed]));
    for agent in [&a, &b, &c, &d] {
        ["a", "b", "c", "d"].iter().for_each(|node| agent.awaits(node, "live"));
    }
    eventually("a can call all", || {
        a.json(&["services", "gossipmonger.agent"]).as_array().map(Vec::len) == Some(4)
    });
    [a, b, c, d]
}

/// Agents that a busy machine does not make dead.
const PATIENT: &str = "dead_peer_phi = 50.0\n";

/// The keys of the measurement that a node has, of the nodes of all.
fn left(agent: &Agent) -> usize {
    agent.json(&["keys", "bench.live/"]).as_array().unwrap().len()
}

#[test]
fn refuses_nonsense_and_flags_of_other_measurements() {
    let cluster = Cluster::of(&["a"]);
    cluster.run(&["--dir", "a", "bench", "live"]).failed(4, &["no agent runs in a"]);
    let a = cluster.start("a", &[]);
    for (line, says) in [
        (["--rate", "0"], "1 to 20 is allowed"),
        (["--rate", "21"], "1 to 20 is allowed"),
        (["--seconds", "0"], "is refused"),
        (["--bytes", "268435457"], "1 to 268435456 is allowed"),
        (["--cores", "1"], "measures agents that run already"),
        (["--nodes", "3"], "unexpected argument"),
    ] {
        a.run(&[&["bench", "live"][..], &line].concat()).failed(2, &[says]);
    }
    a.run(&["bench", "spread"]).failed(2, &["leave --dir out"]);
    cluster.run(&["--agent", "x:1", "bench", "spread"]).failed(2, &["--agent is for commands"]);
    a.run(&["bench", "live"]).failed(1, &["no other node is live"]);
}

#[test]
fn a_reader_may_not_measure_and_an_admin_may() {
    let cluster = Cluster::of(&["a"]);
    cluster.client("bob", "read");
    cluster.client("alice", "admin");
    let [a, _others @ ..] = four(&cluster);
    cluster.by(&a, "bob", &SHORT).failed(2, &["needs role admin", "role read may not set"]);
    assert_eq!(left(&a), 0);
    let out = cluster.by(&a, "alice", &[&SHORT[..], &["--json"]].concat()).succeeded().json();
    assert_eq!((&out["void"], &out["writes"]), (&Value::Null, &json!(10)), "{out}");
    assert_eq!(left(&a), 0);
}

#[test]
fn counts_what_arrived_in_each_datacenter_and_leaves_no_key() {
    let cluster = Cluster::of(&["a"]);
    let agents = four(&cluster);
    let a = &agents[0];
    let svg = cluster.path().join("spread.svg");
    let line = [&SHORT[..], &["--json", "--svg", svg.to_str().unwrap()]].concat();
    let out = a.run(&line).succeeded().json();
    assert_eq!((&out["scenario"], &out["node"]), (&json!("live"), &json!("a")));
    assert_eq!((&out["void"], &out["left_out"]), (&Value::Null, &json!([])), "{out}");
    assert_eq!(out["nodes"], json!({"ap": 1, "eu": 0, "us": 2}));
    // Each of ten keys at each of three other nodes; five calls to each of them.
    assert_eq!((&out["writes"], &out["copies_checked"]), (&json!(10), &json!(30)), "{out}");
    assert_eq!((&out["calls"], &out["replies"]), (&json!(15), &json!(15)), "{out}");
    assert_eq!(out["bytes_sent"], json!(1_000_000));
    assert_eq!(out["bytes_received"], json!(1_000_000), "as the receivers have counted");
    for of in ["quorum", "all"] {
        assert_eq!(out["spread_ms"][of]["n"], json!(10), "{out}");
    }
    for (datacenter, nodes) in [("ap", 1), ("us", 2)] {
        assert_eq!(out["spread_ms"]["datacenters"][datacenter]["n"], json!(10), "{out}");
        assert_eq!(out["call_ms"][datacenter]["n"], json!(5 * nodes), "{out}");
        assert_eq!(out["throughput"][datacenter]["nodes"], json!(nodes), "{out}");
        assert!(out["throughput"][datacenter]["mib_per_s"].as_f64() > Some(0.0), "{out}");
        assert!(out["rtt_ms"][datacenter]["p50"].as_f64() > Some(0.0), "{out}");
    }
    let svg = fs::read_to_string(svg).unwrap();
    for name in ["all nodes in ap", "a quorum", "ms after the write"] {
        assert!(svg.contains(name), "{name} is missing");
    }
    for agent in &agents {
        eventually("the keys are gone everywhere", || left(agent) == 0);
    }
    let table = a.run(&SHORT).succeeded().out;
    let first: Vec<_> = table.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(first[..4], ["DATACENTER", "ap", "eu", "us"], "{table}");
}

#[test]
fn a_dead_node_is_named_and_not_counted() {
    let cluster = Cluster::of(&["a"]);
    let [a, _b, _c, d] = four(&cluster);
    d.signal("KILL");
    d.ended();
    a.awaits("d", "dead");
    let out = a.json(&SHORT);
    let why = "not counted, this agent sees it dead";
    assert_eq!(out["left_out"], json!([{"node": "d", "datacenter": "ap", "why": why}]), "{out}");
    assert_eq!(out["nodes"], json!({"ap": 0, "eu": 0, "us": 2}));
    assert_eq!((&out["copies_checked"], &out["replies"]), (&json!(20), &json!(10)), "{out}");
    assert_eq!(out["call_ms"]["ap"], Value::Null);
    let table = a.run(&SHORT).succeeded().out;
    assert!(table.contains("d (ap): not counted, this agent sees it dead"), "{table}");
}

/// Whether or not it is dead for the others by then.
#[test]
fn a_node_that_stops_answering_makes_the_spread_void() {
    let cluster = Cluster::of(&["a"]);
    let [a, _b, _c, d] = four(&cluster);
    d.signal("STOP");
    let line = ["bench", "live", "--seconds", "1", "--timeout", "1", "--json"];
    let said = a.run(&line).failed(1, &["the measurement is void: d "]);
    d.signal("CONT");
    let out = said.json();
    assert_eq!((&out["spread_ms"], &out["writes"]), (&Value::Null, &json!(2)), "{out}");
    assert_eq!(left(&a), 0);
}

/// A node that takes no question of more than 4 KiB counts none of the large ones.
#[test]
fn bytes_that_no_receiver_counted_make_their_figures_void() {
    let cluster = Cluster::of(&["a"]);
    cluster.issue_in("us", "c");
    cluster.configure("a", PATIENT);
    cluster.configure("c", &format!("{PATIENT}[services]\nrequest_bytes = 4096\n"));
    let a = cluster.start("a", &[]);
    let _c = cluster.start("c", &["--seed", &a.address()]);
    a.awaits("c", "live");
    eventually("a can call c", || {
        a.json(&["services", "gossipmonger.agent"]).as_array().map(Vec::len) == Some(2)
    });
    let said = a.run(&[&SHORT[..], &["--json"]].concat());
    let said = said.failed(1, &["the measurement is void", "c did not answer a call"]);
    let out = said.json();
    assert_eq!(out["throughput"], Value::Null, "{out}");
    assert_eq!(out["bytes_received"], json!(0), "{out}");
    assert!(out["void"].to_string().contains("of 1000000 bytes"), "{out}");
    // What did happen counts.
    assert_eq!((&out["replies"], &out["copies_checked"]), (&json!(5), &json!(10)), "{out}");
    assert_eq!(out["spread_ms"]["all"]["n"], json!(10), "{out}");
    assert_eq!(left(&a), 0);
}

#[test]
fn its_keys_are_gone_after_an_interruption() {
    let cluster = Cluster::of(&["a"]);
    let [a, _others @ ..] = four(&cluster);
    for (signal, long) in [("INT", "300"), ("TERM", "200")] {
        let mut command = a.command(&["bench", "live", "--rate", "20", "--seconds", long]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("it writes", || left(&a) > 3);
        let killed = std::process::Command::new("kill")
            .args(["-s", signal, &child.id().to_string()])
            .status();
        assert!(killed.unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert_eq!(left(&a), 0, "after {signal}");
    }
}

#[test]
fn an_agent_that_ends_is_an_error_and_its_keys_expire() {
    let cluster = Cluster::of(&["a"]);
    let [a, _others @ ..] = four(&cluster);
    let mut command = a.command(&["bench", "live", "--seconds", "300"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("it writes", || left(&a) > 0);
    a.signal("KILL");
    a.ended();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(4));
    let err = String::from_utf8(ended.stderr).unwrap();
    assert!(err.contains("may be left: they expire within 375 s"), "{err}");
}
