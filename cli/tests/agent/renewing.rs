//! Certificates are renewed while their agents run.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use gossipmonger::pki::{Authority, AuthorityOptions};

use crate::{
    foreign::stranger,
    harness::{Agent, Cluster, eventually, free_ports},
    joining::{issuing, token},
};

// C87
#[test]
fn an_agent_renews_after_two_thirds_and_nobody_is_missed() {
    let cluster = Cluster::of(&["a"]);
    let a = cluster.start("a", &["--issuer", "pki", "--validity", "30s"]);
    let b = joined(&cluster, &a, "b");
    b.awaits("a", "live");
    let before = b.json(&["info"]);
    let mut writes = 0;
    eventually("b has a new certificate", || {
        writes += 1;
        b.run(&["set", "writes", &writes.to_string()]).succeeded();
        fingerprint(&b) != fingerprint_of(&before)
    });
    assert_eq!(b.json(&["info"])["certificate"]["name"], "spiffe://demo/eu/b");
    assert_eq!(b.json(&["info"])["generation"], before["generation"]);
    let last = writes.to_string();
    eventually("nothing was lost", || a.get("b", "writes").as_ref() == Some(&last));
    // Connections may be made anew with it, but nobody is missed meanwhile.
    let log = a.log() + &b.log();
    assert!(!log.contains("suspect") && log.contains("certificate renewed"), "{log}");
}

#[test]
fn renews_with_pauses_while_the_authority_ends() {
    let cluster = Cluster::new();
    let (pki, now) = (cluster.path().join("pki"), now());
    fs::remove_dir_all(&pki).unwrap();
    let options = AuthorityOptions {
        not_after: now + Duration::from_secs(600),
        ..AuthorityOptions::default()
    };
    Authority::create("demo".parse().unwrap(), &options).unwrap().save(&pki).unwrap();
    cluster.issue("a");
    let a = cluster.start("a", &["--issuer", "pki"]);
    eventually("it says so", || a.log().contains("ca rotate --dir PKI-DIR"));
    for _ in 0..10 {
        a.run(&["info"]).succeeded();
    }
    let renewed = a.json(&["info"])["counters"]["certificates_renewed"].as_u64().unwrap();
    assert!(renewed <= 2, "{renewed} times within a moment");
}

#[test]
fn strangers_at_the_door_keep_no_member_from_renewing() {
    let cluster = Cluster::of(&["a", "b"]);
    let door = format!("127.0.0.1:{}", free_ports().0);
    let a = cluster.start("a", &["--issuer", "pki", "--issuer-listen", &door]);
    cluster.configure("b", &format!("issuers = [{door:?}]\n"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut held = Vec::new();
    for address in ["127.0.0.2:0", "127.0.0.3:0"] {
        for _ in 0..45 {
            held.push(runtime.block_on(stranger(address, &door)));
        }
    }
    cluster.run(&["--dir", "b", "cert", "renew"]).succeeded();
    let refusals = a.json(&["info"])["refusals"].clone();
    assert!(refusals["join_gave_way"].as_u64() > Some(0), "{refusals}");
}

#[test]
fn renews_at_once_when_told_to_with_and_without_an_agent() {
    let cluster = Cluster::of(&["a"]);
    let a = issuing(&cluster, "a");
    let b = joined(&cluster, &a, "b");
    let (before, key) = (fingerprint(&b), key(&cluster));
    let renewed = b.json(&["cert", "renew"]);
    assert_ne!(renewed["certificate"]["fingerprint"], before);
    assert_eq!(renewed["certificate"]["fingerprint"], fingerprint(&b));
    assert_ne!(self::key(&cluster), key);
    b.stop();
    cluster.run(&["--dir", "b", "cert", "renew"]).succeeded();
    let shown = cluster.run(&["cert", "show", "b/node.pem", "--json"]).succeeded().json();
    assert_ne!(shown[0]["fingerprint"], renewed["certificate"]["fingerprint"]);
    cluster.start("b", &[]).awaits("a", "live");
    // The issuer has its own door.
    a.run(&["cert", "renew"]).succeeded();
}

#[test]
fn says_why_it_cannot_renew_and_keeps_what_it_has() {
    let cluster = Cluster::of(&["a", "c"]);
    let a = issuing(&cluster, "a");
    let c = cluster.start("c", &["--seed", &a.address()]);
    let before = fingerprint(&c);
    c.run(&["cert", "renew"]).failed(2, &["no issuer is known", "issuers"]);
    // A node of another authority of the same name.
    cluster.run(&["ca", "init", "--cluster", "demo", "--dir", "pki2"]).succeeded();
    let line = ["cert", "issue", "--ca", "pki2", "--node", "d", "--datacenter", "eu", "--dir", "d"];
    cluster.run(&line).succeeded();
    let door = door(&cluster, &a);
    cluster.configure("d", &format!("issuers = [\"{door}\"]\n"));
    cluster.run(&["--dir", "d", "cert", "renew"]).failed(5, &[&door, "we refused the peer"]);
    fs::copy(cluster.dir("a").join("roots.pem"), cluster.dir("d").join("roots.pem")).unwrap();
    cluster.run(&["--dir", "d", "cert", "renew"]).failed(5, &[&door, "the peer refused us"]);
    drop(a);
    cluster.configure("c", &format!("issuers = [\"{door}\"]\n"));
    c.run(&["cert", "renew"]).failed(1, &["no issuer answers", &door]);
    assert_eq!(fingerprint(&c), before);
    c.run(&["info"]).succeeded();
}

#[test]
fn asks_another_issuer_when_one_does_not_answer() {
    let cluster = Cluster::of(&["a", "c"]);
    let a = issuing(&cluster, "a");
    let (nobody, door) = (free_ports().0, door(&cluster, &a));
    cluster.configure("c", &format!("issuers = [\"127.0.0.1:{nobody}\", \"{door}\"]\n"));
    cluster.run(&["--dir", "c", "cert", "renew"]).succeeded();
    assert_eq!(a.json(&["info"])["counters"]["certificates_renewed"], 1);
}

// C88
#[test]
fn an_issuer_revokes_a_node_which_renews_no_more_and_may_join_anew() {
    let cluster = Cluster::of(&["a"]);
    let a = issuing(&cluster, "a");
    let b = joined(&cluster, &a, "b");
    b.awaits("a", "live");
    a.awaits("b", "live");
    a.run(&["cert", "revoke", "b"]).succeeded();
    assert_eq!(b.ended(), 5);
    cluster.run(&["--dir", "b", "cert", "renew"]).failed(5, &["revoked"]);
    eventually("a has forgotten b", || a.state_of("b").is_empty());
    let token = token(&a, &["--node", "b"]);
    let again = || cluster.run(&["join", &token, "127.0.0.1", "--dir", "b2"]).code == 0;
    eventually("the name is free again", again);
    let b = cluster.start("b2", &[]);
    b.awaits("a", "live");
}

#[test]
fn leaves_files_that_the_configuration_names_to_whoever_writes_them() {
    let cluster = Cluster::of(&["a", "c"]);
    let a = issuing(&cluster, "a");
    let door = door(&cluster, &a);
    cluster.configure("c", &format!("certificate = \"node.pem\"\nissuers = [\"{door}\"]\n"));
    cluster.run(&["--dir", "c", "cert", "renew"]).failed(2, &["somebody else's"]);
}

/// Joins by a token, and starts.
fn joined(cluster: &Cluster, issuer: &Agent, node: &str) -> Agent {
    let token = token(issuer, &["--node", node]);
    cluster.run(&["join", &token, "127.0.0.1", "--dir", node]).succeeded();
    cluster.start(node, &[])
}

/// Where an agent's door is, as a joiner writes it down.
fn door(cluster: &Cluster, issuer: &Agent) -> String {
    let token = token(issuer, &["--node", "x"]);
    cluster.run(&["join", &token, "127.0.0.1", "--dir", "x"]).succeeded();
    let text = fs::read_to_string(cluster.dir("x").join("gossipmonger.toml")).unwrap();
    text.split("issuers = [\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

fn fingerprint(agent: &Agent) -> String {
    fingerprint_of(&agent.json(&["info"]))
}

fn fingerprint_of(info: &serde_json::Value) -> String {
    info["certificate"]["fingerprint"].as_str().unwrap().to_owned()
}

fn key(cluster: &Cluster) -> String {
    fs::read_to_string(cluster.dir("b").join("node.key")).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "certificates' dates are wall time")]
fn now() -> SystemTime {
    SystemTime::now()
}
