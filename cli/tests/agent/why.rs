//! `why`: each verdict can be explained, by the program, in events and in the log.

use serde_json::Value;

use crate::harness::{Cluster, eventually};

#[test]
fn refuses_to_explain_who_is_unknown() {
    let cluster = Cluster::of(&["a"]);
    let agent = cluster.start("a", &[]);
    agent.run(&["why", "b"]).failed(3, &["no node b is known"]);
    cluster.run(&["--dir", "nowhere", "why", "b"]).failed(4, &["no agent runs"]);
}

#[test]
fn says_of_itself_that_there_is_nothing_to_say() {
    let cluster = Cluster::of(&["a"]);
    let agent = cluster.start("a", &[]);
    assert_eq!(agent.run(&["why", "a"]).succeeded().out, "a is this node itself\n");
    assert_eq!(agent.json(&["why", "a"])["changes"], Value::Array(Vec::new()));
}

#[test]
fn says_when_who_and_why_of_a_death() {
    let cluster = Cluster::of(&["a", "b", "c"]);
    let a = cluster.start("a", &[]);
    let seed = a.address();
    let [b, c] = ["b", "c"].map(|name| cluster.start(name, &["--seed", &seed]));
    for agent in [&a, &b, &c] {
        ["a", "b", "c"].iter().for_each(|node| agent.awaits(node, "live"));
    }
    c.signal("KILL");
    c.ended();
    a.awaits("c", "dead");
    let why = a.json(&["why", "c"]);
    assert_eq!((&why["node"], &why["state"]), (&"c".into(), &"dead".into()));
    let changes = why["changes"].as_array().unwrap();
    let to: Vec<_> = changes.iter().map(|change| change["to"].as_str().unwrap()).collect();
    assert!(to.ends_with(&["suspect", "dead"]), "{to:?}");
    let suspected = &changes[changes.len() - 2];
    assert!(["quorum", "alone", "told"].contains(&suspected["cause"].as_str().unwrap()));
    let observers = suspected["observers"].as_array().unwrap();
    assert!(observers.iter().all(|name| ["a", "b"].contains(&name.as_str().unwrap())));
    assert!(!observers.is_empty(), "{suspected}");
    assert!(suspected["at"].as_str().unwrap().ends_with('Z'));
    assert!(suspected["evidence"]["silence_ms"].as_f64().unwrap() > 0.0, "{suspected}");
    let table = a.run(&["why", "c"]).succeeded().out;
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].starts_with("c is dead since 2"), "{table}");
    assert!(lines[1].starts_with("WHEN"), "{table}");
    assert!(lines.iter().any(|line| line.contains("live -> suspect")), "{table}");
    eventually("the log says who and why", || {
        a.log().lines().any(|line| {
            line.contains("suspect: it") && line.contains("is not heard") && line.contains("by=")
        })
    });
    for agent in [a, b] {
        agent.stop();
    }
}
