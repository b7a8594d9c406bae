//! What the program refuses, with which exit code, and whether the line says what to do.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::harness::Cluster;

#[test]
fn refuses_a_command_line_it_does_not_know() {
    let cluster = Cluster::of(&["a"]);
    cluster.run(&["agent", "--dir", "a", "--listn", "127.0.0.1:0"]).failed(2, &["--listn"]);
    cluster.run(&["explode"]).failed(2, &["explode"]);
    cluster.run(&["agent", "--dir", "a", "--preset", "moon"]).failed(2, &["moon", "local"]);
    cluster.run(&["agent", "--dir", "a", "--listen", "here"]).failed(2, &["here", "--listen"]);
    cluster.run(&["--dir", "a", "set", "key"]).failed(2, &["the value is missing", "--file"]);
    cluster.run(&["ca", "init", "--cluster", "other"]).failed(2, &["--dir DIR is needed"]);
}

#[test]
fn refuses_a_directory_without_a_certificate_and_says_how_to_make_one() {
    let cluster = Cluster::new();
    let how = ["gossipmonger ca init", "gossipmonger cert issue", "--dir a"];
    cluster.run(&["agent", "--dir", "a"]).failed(6, &["no directory a"]).failed(6, &how);
    fs::create_dir(cluster.dir("a")).unwrap();
    cluster.run(&["agent", "--dir", "a"]).failed(6, &["a/node.pem"]).failed(6, &how);
    let renew = ["cert", "renew", "--dir", "a"];
    cluster.run(&renew).failed(6, &["a/node.pem"]);
    let left: Vec<_> = fs::read_dir(cluster.dir("a")).unwrap().collect();
    assert!(left.is_empty(), "nothing is left behind: {left:?}");
}

#[test]
fn advises_to_make_files_only_where_none_is() {
    let cluster = Cluster::of(&["a"]);
    let (dir, key) = (cluster.dir("a"), cluster.dir("a").join("node.key"));
    fs::rename(&key, dir.join("aside")).unwrap();
    let said = cluster.run(&["agent", "--dir", "a"]).failed(6, &["there is no a/node.key"]);
    assert!(!said.err.contains("cert issue"), "it would write over the rest: {}", said.err);
    // Not a directory that may be read: who cannot see a file does not know that it is missing.
    std::os::unix::fs::symlink("node.key", &key).unwrap();
    let said = cluster.run(&["agent", "--dir", "a"]).failed(6, &["a/node.key: "]);
    assert!(!said.err.contains("there is no"), "{}", said.err);
}

#[test]
fn refuses_addresses_and_stores_that_cannot_be_used() {
    let cluster = Cluster::of(&["a"]);
    let refused = |more: &[&str], says: &[&str]| {
        let line = [&["agent", "--dir", "a"][..], more].concat();
        drop(cluster.run(&line).failed(2, says));
    };
    let twice = "127.0.0.1:7101,127.0.0.1:7101";
    refused(&["--listen", twice], &["--listen: ", "127.0.0.1:7101", "once"]);
    refused(&["--listen", "224.0.0.1:7101"], &["--listen: ", "224.0.0.1:7101", "multicast"]);
    let issuer = ["--issuer", "pki", "--issuer-listen"];
    refused(&[&issuer[..], &[twice]].concat(), &["--issuer-listen: ", "once"]);
    refused(&["--validity", "1h"], &["--validity is refused without --issuer"]);
    refused(&["--issuer-listen", "127.0.0.1:0"], &["--issuer-listen is refused without"]);
    for store in ["/dev/full", "."] {
        refused(&["--store", store], &["--store: ", "no regular file", "memory"]);
    }
}

#[test]
fn says_what_to_write_where_a_library_would_only_refuse() {
    let cluster = Cluster::of(&["a"]);
    let agent = ["agent", "--dir", "a"];
    let how = ["write IP:PORT, such as 10.0.0.1:7101"];
    for flag in ["--listen", "--metrics", "--issuer-listen"] {
        cluster.run(&[&agent[..], &[flag, "host:7101"]].concat()).failed(2, &how);
    }
    cluster.configure("a", "listen = [\"host:7101\"]\n");
    cluster.run(&agent).failed(2, &how).failed(2, &["a/gossipmonger.toml"]);
    cluster.configure("a", "");
    let mut command = cluster.command(&agent);
    command.env("GOSSIPMONGER_LISTEN", "host:7101");
    crate::harness::said(command).failed(2, &how).failed(2, &["GOSSIPMONGER_LISTEN"]);
    fs::write(cluster.dir("a").join("gossipmonger.toml"), [0xff, 0xfe, b'x']).unwrap();
    cluster.run(&agent).failed(2, &["a/gossipmonger.toml: is no UTF-8 text"]);
    cluster.configure("a", "");
    let store = cluster.dir("a").join("store.redb");
    fs::write(&store, "x".repeat(8_192)).unwrap();
    fs::set_permissions(&store, fs::Permissions::from_mode(0o600)).unwrap();
    cluster
        .run(&agent)
        .failed(1, &["store.redb: damaged: this file is not a store of gossipmonger"]);
}

#[test]
fn refuses_a_key_that_others_may_read() {
    let cluster = Cluster::of(&["a"]);
    let key = cluster.dir("a").join("node.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    cluster.run(&["agent", "--dir", "a"]).failed(6, &["node.key", "mode 644", "chmod 600"]);
}

// C96
#[test]
fn refuses_an_unknown_key_of_the_configuration() {
    let cluster = Cluster::of(&["a"]);
    cluster.configure("a", "gossip_intervall = \"1s\"\n");
    let says = ["gossipmonger.toml", "gossip_intervall"];
    cluster.run(&["agent", "--dir", "a"]).failed(2, &says);
    cluster.configure("a", "");
    let mut command = cluster.command(&["agent", "--dir", "a"]);
    command.env("GOSSIPMONGER_SEED", "x:1");
    crate::harness::said(command).failed(2, &["GOSSIPMONGER_SEED", "did you mean seeds?"]);
    // A link to what is not mounted yet is no missing file.
    let config = cluster.dir("a").join("gossipmonger.toml");
    fs::remove_file(&config).unwrap();
    std::os::unix::fs::symlink("/nonexistent/gossipmonger.toml", &config).unwrap();
    cluster
        .run(&["agent", "--dir", "a"])
        .failed(2, &["a/gossipmonger.toml is a link to /nonexistent"]);
}

#[test]
fn refuses_values_out_of_range_and_names_where_they_were_set() {
    let cluster = Cluster::of(&["a"]);
    cluster.configure("a", "gossip_interval = \"1ms\"\n");
    let run = || cluster.command(&["agent", "--dir", "a"]);
    crate::harness::said(run()).failed(2, &["a/gossipmonger.toml: gossip_interval = 1ms"]);
    let mut command = run();
    command.env("GOSSIPMONGER_GOSSIP_INTERVAL", "2ms");
    let says = ["environment variable GOSSIPMONGER_GOSSIP_INTERVAL: gossip_interval = 2ms"];
    crate::harness::said(command).failed(2, &says);
    let mut command = run();
    command.arg("--gossip-interval").arg("3ms");
    crate::harness::said(command).failed(2, &["--gossip-interval: gossip_interval = 3ms"]);
    cluster.configure("a", "[limits]\nkeys = 0\n");
    crate::harness::said(run()).failed(2, &["a/gossipmonger.toml: limits.keys = 0"]);
    cluster.configure("a", "[services]\nidle = \"2h\"\n");
    let says = ["a/gossipmonger.toml: services.idle = 2h", "100ms to 1h"];
    crate::harness::said(run()).failed(2, &says);
    cluster.configure("a", "");
    for (key, value) in [("METRICS", "0.0.0.0:9100"), ("LOG", "loud"), ("IDENTITY", "https://x")] {
        let mut command = run();
        command.env(format!("GOSSIPMONGER_{key}"), value);
        let variable = format!("environment variable GOSSIPMONGER_{key}: ");
        crate::harness::said(command).failed(2, &[&variable, value]);
    }
}

#[test]
fn refuses_values_out_of_range_and_names_key_value_and_range() {
    let cluster = Cluster::of(&["a"]);
    let refused = |flag: &str, value: &str, says: &[&str]| {
        cluster.run(&["agent", "--dir", "a", flag, value]).failed(2, says);
    };
    refused("--gossip-interval", "1ms", &["gossip_interval = 1ms", "10ms to 1m"]);
    refused("--dead-peer-phi", "100", &["dead_peer_phi = 100", "0.5 to 50"]);
    refused("--seed", "nowhere", &["seeds", "nowhere", "host:port"]);
    refused("--metrics", "0.0.0.0:9100", &["metrics = 0.0.0.0:9100", "loopback"]);
    refused("--log", "gossipmonger=loud", &["log", "loud"]);
    refused("--log", "verbose", &["log = \"verbose\"", "no level"]);
    refused("--advertise", "0.0.0.0:7101", &["advertise = \"0.0.0.0:7101\"", "unspecified"]);
    refused("--seed", "[::]:7101", &["seeds = \"[::]:7101\"", "unspecified"]);
}

#[test]
fn refuses_to_put_a_node_beside_the_authoritys_key() {
    let cluster = Cluster::new();
    let line =
        ["cert", "issue", "--ca", "pki", "--node", "a", "--datacenter", "eu", "--dir", "pki"];
    cluster.run(&line).failed(2, &["pki", "choose another --dir"]);
    assert!(!cluster.dir("pki").join("node.key").exists());
}

#[test]
fn refuses_an_unspecified_address_without_one_to_advertise() {
    let cluster = Cluster::of(&["a"]);
    let line = ["agent", "--dir", "a", "--listen", "0.0.0.0:0"];
    cluster.run(&line).failed(2, &["0.0.0.0", "advertise"]);
    let line = ["agent", "--dir", "a", "--listen", "[::]:0"];
    cluster.run(&line).failed(2, &["[::]", "advertise"]);
}

#[test]
fn refuses_a_second_agent_in_the_same_directory() {
    let cluster = Cluster::of(&["a"]);
    let agent = cluster.start("a", &[]);
    cluster.run(&["agent", "--dir", "a"]).failed(1, &["runs in a already", "stop it first"]);
    agent.run(&["info"]).succeeded();
}

#[test]
fn refuses_a_path_too_long_for_a_socket() {
    let cluster = Cluster::of(&["a"]);
    let long = "x".repeat(100);
    fs::rename(cluster.dir("a"), cluster.dir(&long)).unwrap();
    let dir = cluster.dir(&long);
    let line = ["agent", "--dir", dir.to_str().unwrap()];
    cluster.run(&line).failed(2, &["bytes", "--dir ."]);
}

#[test]
fn refuses_a_store_of_another_node() {
    let cluster = Cluster::of(&["a", "b"]);
    cluster.start("a", &[]).stop();
    fs::rename(cluster.dir("a").join("store.redb"), cluster.dir("b").join("store.redb")).unwrap();
    cluster.run(&["agent", "--dir", "b"]).failed(1, &["the store is of node a", "this is b"]);
}

#[test]
fn says_when_no_agent_runs() {
    let cluster = Cluster::of(&["a"]);
    let says = ["no agent runs in a", "gossipmonger agent --dir a"];
    for line in [&["members"][..], &["info"], &["get", "a"], &["set", "k", "v"], &["leave"]] {
        cluster.run(&[&["--dir", "a"], line].concat()).failed(4, &says);
    }
    // The socket of an agent that was killed.
    let agent = cluster.start("a", &[]);
    agent.signal("KILL");
    agent.ended();
    assert!(cluster.dir("a").join("gossipmonger.sock").exists());
    cluster.run(&["--dir", "a", "members"]).failed(4, &says);
    cluster.start("a", &[]).run(&["members"]).succeeded();
}

#[test]
fn says_what_is_not_there() {
    let cluster = Cluster::of(&["a"]);
    let agent = cluster.start("a", &[]);
    agent.run(&["get", "a", "color"]).failed(3, &["a has no key \"color\""]);
    agent.run(&["get", "b", "color"]).failed(3, &["no node b"]);
    agent.run(&["get", "b"]).failed(3, &["no node b"]);
    agent.run(&["remove", "b"]).failed(3, &["no peer b"]);
    agent.run(&["tags", "delete", "role"]).failed(3, &["no tag \"role\""]);
    agent.run(&["remove", "a"]).failed(1, &["a is live"]);
    agent.run(&["get", "NOT A NAME"]).failed(2, &["is not a label"]);
}

#[test]
fn refuses_a_key_or_value_over_the_limit_and_names_it() {
    let cluster = Cluster::of(&["a"]);
    let agent = cluster.start("a", &[]);
    agent.run(&["set", "", "x"]).failed(2, &["1 to 512", "key_bytes"]);
    agent.run(&["set", &"k".repeat(513), "x"]).failed(2, &["513", "key_bytes"]);
    let large = cluster.path().join("large");
    fs::write(&large, vec![0; (1 << 20) + 1]).unwrap();
    agent.run(&["set", "k", "--file", large.to_str().unwrap()]).failed(2, &["value_bytes"]);
    agent.run(&["set", "k", "--file", "nowhere"]).failed(2, &["nowhere"]);
}
