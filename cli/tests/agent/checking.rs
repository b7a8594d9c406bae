//! `agent --check` and `config`: what a start would come to, and what is in force.

use std::{collections::BTreeMap, fs, net::UdpSocket};

use serde_json::{Value, json};

use crate::harness::{Cluster, said};

/// The files of a directory with their content.
fn content(dir: &std::path::Path) -> BTreeMap<std::ffi::OsString, Vec<u8>> {
    let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap());
    files.map(|file| (file.file_name(), fs::read(file.path()).unwrap_or_default())).collect()
}

#[test]
fn a_check_ends_as_the_start_would_and_changes_nothing() {
    let cluster = Cluster::of(&["a", "b"]);
    let check = |arguments: &[&str]| {
        cluster.run(&[&["agent", "--dir", "a", "--check"], arguments].concat())
    };
    cluster.run(&["agent", "--dir", "none", "--check"]).failed(6, &["there is no directory none"]);
    check(&["--gossip-fanout", "0"]).failed(2, &["--gossip-fanout"]);
    check(&["--log", "loud"]).failed(2, &["\"loud\" is no level"]);
    check(&["--metrics", "0.0.0.0:1"]).failed(2, &["only a loopback address"]);
    check(&["--listen", "0.0.0.0:0"]).failed(2, &["advertise"]);
    // An address of documentation, which no machine has.
    check(&["--listen", "192.0.2.1:7101"]).failed(1, &["cannot listen on 192.0.2.1:7101"]);
    cluster.configure("a", "gossip_intervall = \"1s\"\n");
    check(&[]).failed(2, &["unknown key gossip_intervall"]);
    cluster.configure("a", "");

    let before = content(&cluster.dir("a"));
    let words = check(&[]).succeeded().out;
    assert!(words.starts_with("node a of cluster demo in datacenter eu would start"), "{words}");
    assert_eq!(content(&cluster.dir("a")), before);
    // The port is taken, and the check does not need it.
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    check(&["--listen", &taken.local_addr().unwrap().to_string()]).succeeded();

    let a = cluster.start("a", &[]);
    check(&[]).failed(1, &["an agent runs in a already"]);
    a.run(&["set", "k", "v"]).succeeded();
    a.run(&["leave"]).succeeded();
    assert_eq!(a.ended(), 0);
    let before = content(&cluster.dir("a"));
    check(&[]).failed(5, &["--rejoin"]);
    check(&["--rejoin"]).succeeded();
    assert_eq!(content(&cluster.dir("a")), before, "the store too");

    fs::copy(cluster.dir("a").join("store.redb"), cluster.dir("b").join("store.redb")).unwrap();
    cluster.run(&["agent", "--dir", "b", "--check"]).failed(1, &["the store is of node a"]);
    fs::remove_file(cluster.dir("a").join("node.key")).unwrap();
    check(&["--rejoin"]).failed(6, &["there is no a/node.key"]);
}

#[test]
fn shows_each_value_with_its_origin_and_no_secret() {
    let cluster = Cluster::of(&["a"]);
    let text =
        "preset = \"wan\"\ndead_peer_phi = 5.0\n[tags]\nrole = \"db\"\n[quic]\nbar = \"7s\"\n";
    cluster.configure("a", text);
    let mut command = cluster.command(&["agent", "--dir", "a", "--gossip-fanout", "5"]);
    command.env("GOSSIPMONGER_LIMITS__KEYS", "1000");
    let a = cluster.start_by("a", command);
    let row = |key: &str| -> Value {
        let rows = a.json(&["config", key]);
        assert_eq!(rows.as_array().map(Vec::len), Some(1), "{key}: {rows}");
        rows[0].clone()
    };
    for (key, value, origin, place) in [
        ("gossip_interval", "2s", "preset", json!("wan")),
        ("dead_peer_phi", "5", "file", json!("a/gossipmonger.toml")),
        ("quic.bar", "7s", "file", json!("a/gossipmonger.toml")),
        ("limits.keys", "1000", "environment", json!("GOSSIPMONGER_LIMITS__KEYS")),
        ("gossip_fanout", "5", "flag", json!("--gossip-fanout")),
        ("peers_max", "10000", "default", Value::Null),
        ("datacenter", "eu", "certificate", Value::Null),
        ("tags", "role=db", "file", json!("a/gossipmonger.toml")),
    ] {
        let expected = json!({
            "key": key, "value": value, "origin": origin, "place": place, "pending": false,
        });
        assert_eq!(row(key), expected);
    }
    a.run(&["config", "colour"]).failed(3, &["there is no key colour"]);
    assert!(a.json(&["config", "quic"]).as_array().unwrap().len() > 5);

    a.run(&["tags", "set", "role=web"]).succeeded();
    assert_eq!(
        (row("tags")["origin"].clone(), row("tags")["value"].clone()),
        (json!("store"), json!("role=web"))
    );
    cluster.configure("a", &text.replace("5.0", "6.0"));
    a.run(&["reload"]).succeeded();
    let phi = row("dead_peer_phi");
    assert_eq!((&phi["value"], &phi["pending"]), (&json!("5"), &json!(true)), "{phi}");

    let all = a.run(&["config"]).succeeded().out + &a.run(&["config", "--json"]).succeeded().out;
    let key = fs::read_to_string(cluster.dir("a").join("node.key")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    assert!(!all.contains(secret) && !all.contains("PRIVATE"), "{all}");
    let mut command = cluster.command(&["--dir", "a", "config", "--set", "--json"]);
    command.env_remove("GOSSIPMONGER_LIMITS__KEYS");
    let set = said(command).succeeded().json();
    assert!(set.as_array().unwrap().iter().all(|row| row["origin"] != "default"), "{set}");
}
