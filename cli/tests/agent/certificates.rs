//! `ca` and `cert`.

use std::fs;

use crate::harness::Cluster;

#[test]
fn overwrites_nothing_unless_forced() {
    let cluster = Cluster::of(&["a"]);
    let authority = ["ca", "init", "--cluster", "demo", "--dir", "pki"];
    cluster.run(&authority).failed(1, &["pki/ca.key exists already"]);
    let issue = ["cert", "issue", "--ca", "pki", "--node", "a", "--datacenter", "eu", "--dir", "a"];
    let before = fs::read(cluster.dir("a").join("node.pem")).unwrap();
    cluster.run(&issue).failed(1, &["node.key exists already", "--force"]);
    assert_eq!(fs::read(cluster.dir("a").join("node.pem")).unwrap(), before);
    cluster.run(&[&issue[..], &["--force"]].concat()).succeeded();
    assert_ne!(fs::read(cluster.dir("a").join("node.pem")).unwrap(), before);
}

#[test]
fn refuses_what_cannot_stand_in_a_certificate() {
    let cluster = Cluster::new();
    let issue = |more: &[&str]| {
        let line = ["cert", "issue", "--ca", "pki", "--datacenter", "eu", "--dir", "a"];
        cluster.run(&[&line[..], more].concat())
    };
    issue(&["--node", "Not-A-Label"]).failed(2, &["Not-A-Label", "a-z"]);
    for no_segment in [".", ".."] {
        issue(&["--node", no_segment]).failed(2, &["is not a label"]);
    }
    issue(&["--node=-x"]).failed(2, &["begins with '-'"]);
    issue(&["--node", "a", "--days", "0"]).failed(2, &["--days"]);
    issue(&["--node", "a", "--ip", "here"]).failed(2, &["--ip"]);
    let line = ["cert", "issue", "--ca", "none", "--node", "a", "--datacenter", "eu", "--dir", "a"];
    cluster.run(&line).failed(1, &["none/ca.pem"]);
    cluster.run(&["cert", "show", "--dir", "pki/none"]).failed(2, &["pki/none", "node.pem"]);
    cluster.run(&["cert", "show", "pki/ca.key"]).failed(2, &["pki/ca.key", "no certificate"]);
}

#[test]
fn shows_names_dates_and_fingerprint() {
    let cluster = Cluster::of(&["a"]);
    let shown = cluster.run(&["cert", "show", "--dir", "a"]).succeeded().out;
    for part in ["spiffe://demo/eu/a", "valid until", "sha256", "issuer", "roots.pem"] {
        assert!(shown.contains(part), "{shown}");
    }
    assert!(!shown.contains("PRIVATE"), "{shown}");
    let shown = cluster.run(&["cert", "show", "a/node.pem", "--json"]).succeeded().json();
    assert_eq!(shown[0]["name"], "spiffe://demo/eu/a");
    assert_eq!(shown[0]["authority"], false);
    assert_eq!(shown[0]["fingerprint"].as_str().unwrap().len(), 64);
    assert!(shown[0]["not_after"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn takes_days_names_and_kind_of_key() {
    let cluster = Cluster::new();
    let made = cluster.run(&[
        "cert",
        "issue",
        "--ca",
        "pki",
        "--node",
        "b",
        "--datacenter",
        "us",
        "--dir",
        "b",
        "--days",
        "2",
        "--key-type",
        "p256",
        "--dns",
        "b.example.org",
        "--ip",
        "127.0.0.1",
        "--json",
    ]);
    let made = made.succeeded().json();
    assert_eq!(made["certificate"]["name"], "spiffe://demo/us/b");
    assert_eq!(made["directory"], "b");
    cluster.start("b", &[]).run(&["info"]).succeeded();
}
