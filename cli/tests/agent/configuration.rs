//! File, environment, flags; reload; metrics.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::Command,
};

use serde_json::json;

use crate::harness::{Agent, Cluster, eventually, free_ports};

// C96
#[test]
fn a_flag_comes_before_the_environment_before_the_file() {
    let cluster = Cluster::of(&["a"]);
    cluster.configure(
        "a",
        "gossip_interval = \"3s\"\ndead_peer_phi = 5.0\nseeds = [\"127.0.0.1:1\"]\n",
    );
    let line = ["agent", "--dir", "a", "--seed", "127.0.0.1:3"];
    let mut command = cluster.command(&line);
    command.env("GOSSIPMONGER_DEAD_PEER_PHI", "6.0");
    command.env("GOSSIPMONGER_SEEDS", "127.0.0.1:2,127.0.0.1:4");
    let agent = cluster.start_by("a", command);
    let info = agent.json(&["info"]);
    assert_eq!(info["gossip_interval_ms"], 3000);
    assert_eq!(info["dead_peer_phi"], 6.0);
    assert_eq!(info["seeds"], json!(["127.0.0.1:3"]));
}

#[test]
fn the_directory_may_come_from_the_environment_or_be_the_current_one() {
    let cluster = Cluster::of(&["a"]);
    let agent = cluster.start("a", &[]);
    let mut command = cluster.command(&["info"]);
    command.env("GOSSIPMONGER_DIR", &agent.dir);
    crate::harness::said(command).succeeded();
    let mut command = cluster.command(&["info"]);
    command.current_dir(&agent.dir);
    crate::harness::said(command).succeeded();
}

#[test]
fn an_advertised_name_is_what_others_are_told() {
    let cluster = Cluster::of(&["a", "b"]);
    let (port, _) = free_ports();
    let (listen, name) = (format!("0.0.0.0:{port}"), format!("localhost:{port}"));
    let a = cluster.start("a", &["--listen", &listen, "--advertise", &name]);
    assert_eq!(a.address(), name);
    let b = cluster.start("b", &["--seed", &name]);
    b.awaits("a", "live");
    assert_eq!(b.json(&["members", "--node", "a"])[0]["address"], json!(name));
}

// C97
#[test]
fn a_hangup_reloads_certificate_tags_and_log_level_without_a_drop() {
    let cluster = Cluster::of(&["a", "b"]);
    cluster.configure("a", "log = \"warn\"\n[tags]\nrole = \"db\"\n");
    let a = cluster.start("a", &[]);
    let b = cluster.start("b", &["--seed", &a.address()]);
    b.awaits("a", "live");
    let before = a.json(&["info"]);
    let accepted = b.json(&["info"])["generation"].clone();

    renew(&cluster);
    cluster.configure("a", "log = \"info\"\ngossip_fanout = 2\n[tags]\nrole = \"web\"\n");
    a.signal("HUP");
    eventually("b sees the new tag", || tag(&b, "a", "role").as_deref() == Some("web"));
    eventually("a has a new certificate", || {
        a.json(&["info"])["certificate"]["fingerprint"] != before["certificate"]["fingerprint"]
    });
    eventually("the log tells it", || {
        let log = a.log();
        log.contains("reloaded") && log.contains("only after a restart: gossip_fanout")
    });
    // The same life, and nobody was missed.
    assert_eq!(a.json(&["info"])["generation"], before["generation"]);
    assert_eq!(b.json(&["info"])["generation"], accepted);
    assert_eq!(b.state_of("a"), "live");
    a.run(&["set", "after", "reload"]).succeeded();
    eventually("they still gossip", || b.get("a", "after").is_some());
}

// C97
#[test]
fn a_reload_that_is_refused_changes_nothing() {
    let cluster = Cluster::of(&["a"]);
    let a = cluster.start("a", &[]);
    let before = a.json(&["info"])["certificate"].clone();
    let reloaded = a.json(&["reload"]);
    assert_eq!(reloaded, json!({"applied": [], "restart_needed": []}));

    cluster.configure("a", "colour = \"red\"\n");
    a.run(&["reload"]).failed(2, &["gossipmonger.toml", "colour"]);
    cluster.configure("a", "");
    let other = ["cert", "issue", "--ca", "pki", "--node", "b", "--datacenter", "eu", "--dir", "a"];
    cluster.run(&[&other[..], &["--force"]].concat()).succeeded();
    a.run(&["reload"]).failed(6, &["spiffe://demo/eu/b", "this node is spiffe://demo/eu/a"]);
    assert_eq!(a.json(&["info"])["certificate"], before);
    a.signal("HUP");
    eventually("the log tells it", || a.log().contains("nothing reloaded"));
    a.run(&["info"]).succeeded();

    renew(&cluster);
    let table = a.run(&["reload"]).succeeded().out;
    assert!(table.contains("certificate"), "{table}");
}

#[test]
fn variables_of_a_kubernetes_service_are_ignored_with_one_line() {
    let cluster = Cluster::of(&["a"]);
    let mut command = cluster.command(&["agent", "--dir", "a"]);
    command.env("GOSSIPMONGER_PORT", "udp://10.96.0.7:7101");
    command.env("GOSSIPMONGER_SERVICE_HOST", "10.96.0.7");
    command.env("GOSSIPMONGER_PORT_7101_UDP_ADDR", "10.96.0.7");
    command.env("GOSSIPMONGER_METRICS_SERVICE_PORT", "9100");
    // Empty means not set, and a tag is text.
    for empty in ["METRICS", "STORE", "CERTIFICATE", "LISTEN", "SEEDS", "LOG", "GOSSIP_INTERVAL"] {
        command.env(format!("GOSSIPMONGER_{empty}"), "");
    }
    command.env("GOSSIPMONGER_TAGS__RACK", "12");
    let agent = cluster.start_by("a", command);
    assert_eq!(agent.json(&["tags"]), json!({"rack": "12"}));
    let log = agent.log();
    let lines = log.lines().filter(|line| line.contains("GOSSIPMONGER_PORT")).collect::<Vec<_>>();
    assert!(matches!(lines[..], [line] if line.contains("enableServiceLinks")), "{log}");
    let mut command = cluster.command(&["--dir", "a", "info"]);
    for empty in ["AGENT", "AGENT_CERT", "AGENT_KEY", "AGENT_ROOTS", "AGENT_EXPECT"] {
        command.env(format!("GOSSIPMONGER_{empty}"), "");
    }
    crate::harness::said(command).succeeded();
}

// C95
#[test]
fn tags_spread_and_stay_over_a_restart() {
    let cluster = Cluster::of(&["a", "b"]);
    let a = cluster.start("a", &["--tag", "role=db"]);
    let b = cluster.start("b", &["--seed", &a.address()]);
    let tags = a.json(&["tags", "set", "zone=1", "disk=ssd"]);
    assert_eq!(tags, json!({"role": "db", "zone": "1", "disk": "ssd"}));
    a.run(&["tags", "delete", "role"]).succeeded();
    eventually("b sees them", || {
        tag(&b, "a", "zone").as_deref() == Some("1") && tag(&b, "a", "role").is_none()
    });
    let address = b.address();
    a.stop();
    let a = cluster.start("a", &["--tag", "role=db", "--seed", &address]);
    assert_eq!(a.json(&["tags"]), json!({"zone": "1", "disk": "ssd"}));
    assert_eq!(a.run(&["tags"]).succeeded().out, "TAG   VALUE\ndisk  ssd\nzone  1\n");
    a.run(&["tags", "set", &format!("k={}", "v".repeat(300))]).failed(2, &["256 bytes"]);
}

#[test]
fn info_shows_the_port_where_the_metrics_are() {
    let cluster = Cluster::of(&["a"]);
    let a = cluster.start("a", &["--metrics", "127.0.0.1:0"]);
    let shown = a.json(&["info"])["metrics"].as_str().unwrap().to_owned();
    TcpStream::connect(&shown).unwrap_or_else(|error| panic!("{shown}: {error}"));
}

#[test]
fn tags_that_the_store_cannot_keep_are_reloaded_with_a_warning() {
    let cluster = Cluster::of(&["a"]);
    let mut command = Command::new("sh");
    // Writes beyond the limit fail, as on a disk that is full.
    let line = "trap '' XFSZ; ulimit -f 8192; exec \"$0\" agent --dir a --preset local --log error";
    command.current_dir(cluster.path()).args(["-c", line, env!("CARGO_BIN_EXE_gossipmonger")]);
    let a = cluster.start_by("a", command);
    let (value, mut n) = ("x".repeat(60_000), 0);
    eventually("the store is full", || {
        n += 1;
        let said = a.run(&["set", &format!("key{n}"), &value]);
        said.code != 0 && said.err.contains("not yet durable")
    });
    cluster.configure("a", "[tags]\nrole = \"db\"\n");
    assert_eq!(a.json(&["reload"])["applied"], serde_json::json!(["tags"]));
    assert_eq!(a.json(&["tags"]), serde_json::json!({"role": "db"}));
    // It is in force, so there is nothing to do a second time.
    assert_eq!(a.json(&["reload"])["applied"], serde_json::json!([]));
    assert!(!a.log().contains("nothing reloaded"), "{}", a.log());
}

#[test]
fn connections_for_metrics_that_say_nothing_keep_nobody_out_for_long() {
    let cluster = Cluster::of(&["a"]);
    let (_, port) = free_ports();
    let address = format!("127.0.0.1:{port}");
    let a = cluster.start("a", &["--metrics", &address]);
    let silent: Vec<_> = (0..20).map(|_| TcpStream::connect(&address).unwrap()).collect();
    // Some of them are let go of each time, until it is this one's turn.
    assert!(http_get(&address).contains("gossipmonger_members"));
    a.run(&["info"]).succeeded();
    drop(silent);
    let page = ask(&address, "GET /nosuch");
    assert!(page.starts_with("HTTP/1.1 404 "), "{page}");
    let page = ask(&address, "POST /metrics");
    assert!(page.starts_with("HTTP/1.1 405 "), "{page}");
}

#[test]
fn metrics_are_served_on_loopback() {
    let cluster = Cluster::of(&["a"]);
    let address = format!("127.0.0.1:{}", free_ports().1);
    let a = cluster.start("a", &["--metrics", &address]);
    a.run(&["set", "k", "v"]).succeeded();
    assert_eq!(a.json(&["info"])["metrics"], json!(address));
    let mut page = String::new();
    eventually("the key is counted", || {
        page = http_get(&address);
        // The other one is the list of services.
        page.contains("\ngossipmonger_keys 2\n")
    });
    for line in [
        "gossipmonger_members{state=\"live\",datacenter=\"eu\"} 1",
        "# TYPE gossipmonger_exchanges_initiated_total counter",
        "gossipmonger_certificate_not_after_seconds ",
        "gossipmonger_phi_max 0",
        "gossipmonger_generation ",
        "gossipmonger_version ",
    ] {
        assert!(page.contains(line), "{line} is missing in {page}");
    }
    // What `promtool check metrics` asks for.
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    for name in types.filter_map(|line| line.split(' ').next()) {
        assert!(page.contains(&format!("# HELP {name} ")), "{name} has no help text in {page}");
    }
}

#[test]
fn logs_are_lines_of_json_if_asked_for() {
    let cluster = Cluster::of(&["a"]);
    let a = cluster.start("a", &["--log-format", "json"]);
    let dir = a.dir.clone();
    a.stop();
    let log = fs::read_to_string(dir.join("log")).unwrap();
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert!(lines.iter().any(|line| line["node"] == "a" && line["level"] == "INFO"), "{log}");
}

/// A new certificate of the same name.
fn renew(cluster: &Cluster) {
    let line = ["cert", "issue", "--ca", "pki", "--node", "a", "--datacenter", "eu", "--dir", "a"];
    cluster.run(&[&line[..], &["--force"]].concat()).succeeded();
}

fn tag(agent: &Agent, node: &str, name: &str) -> Option<String> {
    let members = agent.json(&["members", "--node", node]);
    members[0]["tags"][name].as_str().map(str::to_owned)
}

fn http_get(address: &str) -> String {
    ask(address, "GET /metrics")
}

fn ask(address: &str, what: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{what} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}
