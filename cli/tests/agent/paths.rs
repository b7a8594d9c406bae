//! `rtt` and `reachability`: what the connections of one agent, and of all, have measured.

use serde_json::Value;

use crate::harness::{Agent, Cluster, eventually};

/// Three agents in two datacenters that see each other.
fn three(cluster: &Cluster) -> [Agent; 3] {
    cluster.issue_in("us", "c");
    let a = cluster.start("a", &[]);
    let seed = a.address();
    let [b, c] = ["b", "c"].map(|node| cluster.start(node, &["--seed", &seed]));
    for agent in [&a, &b, &c] {
        ["a", "b", "c"].iter().for_each(|node| agent.awaits(node, "live"));
    }
    [a, b, c]
}

fn names(rows: &Value) -> Vec<&str> {
    rows.as_array().unwrap().iter().map(|row| row["node"].as_str().unwrap()).collect()
}

#[test]
fn shows_the_round_trips_to_neighbours_and_says_what_is_no_connection() {
    let cluster = Cluster::of(&["a", "b"]);
    let [a, ..] = three(&cluster);
    a.run(&["rtt", "nobody"]).failed(3, &["no node nobody is known"]);
    a.run(&["rtt", "a"]).failed(2, &["this agent's own node"]);
    a.run(&["rtt", "b", "--matrix"]).failed(2, &["cannot be used with"]);
    eventually("a is connected to both", || names(&a.json(&["rtt"])) == ["b", "c"]);
    for path in a.json(&["rtt"]).as_array().unwrap() {
        assert!(path["rtt_ms"].as_f64() > Some(0.0) && path["sent"].as_u64() > Some(0), "{path}");
        assert!(path["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{path}");
    }
    let one = a.json(&["rtt", "c"]);
    assert_eq!((&one["datacenter"], &one["call_ms"]), (&"us".into(), &Value::Null), "{one}");
    let words = a.run(&["rtt", "c"]).succeeded().out;
    assert!(words.starts_with("c (us): ") && words.contains("by the connection to it"), "{words}");
}

#[test]
fn top_prints_one_table_without_a_terminal() {
    let cluster = Cluster::of(&["a", "b"]);
    cluster.client("alice", "read");
    cluster.run(&["--dir", "a", "top"]).failed(4, &["no agent runs in a"]);
    let [a, ..] = three(&cluster);
    eventually("a is connected to both", || names(&a.json(&["rtt"])) == ["b", "c"]);
    for table in [a.run(&["top"]), cluster.by(&a, "alice", &["top"])] {
        let table = table.succeeded().out;
        let rows: Vec<_> = table.lines().map(|row| row.split_whitespace().collect()).collect();
        let nodes: Vec<_> = rows.iter().map(|row: &Vec<&str>| (row[0], row[2])).collect();
        let expected = [("NODE", "STATE"), ("a*", "live"), ("b", "live"), ("c", "live")];
        assert_eq!(nodes, expected, "{table}");
        assert!(table.contains(" ms"), "{table}");
    }
}

#[test]
fn all_members_tell_what_they_hear_and_those_that_do_not_are_listed() {
    let cluster = Cluster::of(&["a", "b"]);
    let [a, b, c] = three(&cluster);
    let answered = |all: &Value| {
        let all = all.as_array().unwrap();
        all.iter().filter(|row| row["problem"].is_null()).count()
    };
    eventually("all hear the others", || {
        let all = a.json(&["reachability"]);
        let hear = |row: &Value| row["paths"].as_array().unwrap().len() == 2;
        answered(&all) == 3 && all.as_array().unwrap().iter().all(hear)
    });
    let matrix = a.json(&["rtt", "--matrix"]);
    let pairs: Vec<_> = matrix["pairs"].as_array().unwrap().iter().collect();
    let shown: Vec<_> = pairs.iter().map(|pair| [&pair["from"], &pair["to"]]).collect();
    assert_eq!(shown, [["eu", "eu"], ["eu", "us"], ["us", "eu"]], "{matrix}");
    assert_eq!(pairs[1]["paths"], 2, "{matrix}");
    assert_eq!(matrix["missing"], Value::Array(Vec::new()));
    let table = a.run(&["reachability", "--paths", "--node", "b"]).succeeded().out;
    assert_eq!(table.lines().count(), 3, "{table}");
    a.run(&["reachability", "--node", "nobody"]).failed(3, &["no node nobody"]);

    c.signal("KILL");
    c.ended();
    ["a", "b"].iter().zip([&b, &a]).for_each(|(_, agent)| agent.awaits("c", "dead"));
    let all = a.json(&["reachability"]);
    assert_eq!(answered(&all), 2, "{all}");
    assert_eq!(all[2]["problem"], "not asked: this agent sees it dead");
    assert_eq!(all[0]["not_live"][0]["state"], "dead", "{all}");
    let said = a.run(&["reachability"]).succeeded().out;
    assert!(said.contains("no answer from c: not asked: this agent sees it dead"), "{said}");
}
