//! `cert revoke`: the one who is revoked ends and stays out, and everybody can say why.

use std::fs;

use gossipmonger::protocol::revocation::{IssuerId, Revocation};
use serde_json::json;

use crate::harness::{Cluster, eventually, hostile_agent};

// C88
#[test]
fn who_is_revoked_ends_and_comes_back_only_with_a_new_certificate() {
    let cluster = Cluster::of(&["a", "b", "c"]);
    let a = cluster.start("a", &[]);
    let seed = a.address();
    let b = cluster.start("b", &["--seed", &seed]);
    let c = cluster.start("c", &["--seed", &seed]);
    for agent in [&a, &b] {
        agent.awaits("c", "live");
    }
    let said = a.run(&["cert", "revoke", "c", "--ca", "pki"]);
    // The authority is beside the agents, not in the directory of the test.
    said.failed(1, &["pki"]);
    let pki = cluster.dir("pki").display().to_string();
    let said = a.run(&["cert", "revoke", "c", "--ca", &pki]).succeeded();
    assert!(said.out.starts_with("c is revoked: its certificates valid from 20"), "{}", said.out);
    let (log, dir) = (c.dir.join("log"), c.dir.clone());
    assert_eq!(c.ended(), 5);
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("certificate was revoked by the cluster's authority"), "{log}");
    for agent in [&a, &b] {
        eventually("c is forgotten", || agent.state_of("c").is_empty());
        let why = agent.run(&["why", "c"]).succeeded().out;
        assert!(why.starts_with("c is revoked: its certificates valid from 20"), "{why}");
        assert_eq!(agent.json(&["why", "c"])["state"], "revoked");
        let list = agent.json(&["cert", "revocations"]);
        assert_eq!((&list[0]["node"], list.as_array().unwrap().len()), (&"c".into(), 1));
    }

    // It remembers; and if it is made to forget, nobody lets it in.
    let line = ["agent", "--dir", "c", "--preset", "local", "--seed", &seed];
    cluster.run(&line).failed(5, &["certificate was revoked"]);
    fs::remove_file(dir.join("store.redb")).unwrap();
    let stubborn = cluster.start("c", &["--seed", &seed]);
    eventually("it is refused", || {
        a.json(&["info"])["refusals"]["revoked"].as_u64().is_some_and(|times| times > 0)
    });
    eventually("it is told", || stubborn.log().contains("our certificate was revoked"));
    assert!(a.state_of("c").is_empty() && b.state_of("c").is_empty());
    stubborn.stop();

    // The authority knows what it has revoked, also when it is loaded anew.
    let line = ["cert", "issue", "--ca", "pki", "--node", "c", "--dir", "c", "--force"];
    cluster.run(&[&line[..], &["--datacenter", "eu"]].concat()).succeeded();
    let back = cluster.start("c", &["--seed", &seed]);
    for agent in [&a, &b] {
        agent.awaits("c", "live");
    }
    back.awaits("a", "live");
    for agent in [back, b, a] {
        agent.stop();
    }
}

#[test]
fn an_authority_neither_stores_nor_signs_revocations_that_an_agent_made_up() {
    let cluster = Cluster::of(&["a", "b", "c", "victim"]);
    let pki = cluster.dir("pki").display().to_string();
    let victim = cluster.start("victim", &[]);
    let c = cluster.start("c", &["--seed", &victim.address()]);
    c.awaits("victim", "live");
    // The operator revokes b through the agent of a, which is hostile.
    let forged = |node: &str, cutoff| Revocation {
        node: node.parse().unwrap(),
        issuer: IssuerId([7; 32]),
        cutoff,
        expires: 5_000_000_000,
        signature: vec![0; 64],
    };
    let statements =
        [forged("victim", 4_000_000_000), forged("c", 1_900_000_000)].map(|s| s.to_text());
    let done = json!({"node": "b", "cutoff": "x", "expires": "x", "issuer": "x", "statements": statements});
    hostile_agent(&cluster.dir("a"), &json!({ "done": done }));
    let said = cluster.run(&["--dir", "a", "cert", "revoke", "b", "--ca", "pki"]).succeeded();
    assert!(said.out.starts_with("b is revoked: its certificates valid from 20"), "{}", said.out);
    assert!(
        said.err.contains("2 revocations in the agent's answer are not verified"),
        "{}",
        said.err
    );
    let kept = fs::read_to_string(cluster.path().join("pki/revocations.txt")).unwrap();
    let about: Vec<_> = kept.lines().filter(|line| line.contains("valid from")).collect();
    assert!(matches!(about[..], [only] if only.starts_with("# b,")), "{kept}");

    // The authority issues certificates that are valid now, and signs the revocation of b alone.
    let line = ["cert", "issue", "--ca", "pki", "--node", "victim", "--datacenter", "eu"];
    cluster.run(&[&line[..], &["--dir", "again"]].concat()).succeeded();
    let shown = cluster.run(&["cert", "show", "again/node.pem", "--json"]).succeeded().json();
    assert!(shown[0]["not_before"].as_str().unwrap() < "2090", "{shown}");
    let told = c.json(&["cert", "revocations", "--ca", &pki]);
    let names: Vec<_> = told.as_array().unwrap().iter().map(|one| &one["node"]).collect();
    assert_eq!(names, ["b"]);
    assert_eq!(c.state_of("victim"), "live");
    // An answer about another node is an error.
    let said = cluster.run(&["--dir", "a", "cert", "revoke", "c"]);
    said.failed(1, &["was asked to revoke c, and answered about b"]);
    for agent in [c, victim] {
        agent.stop();
    }
}

// C88
#[test]
fn an_authority_tells_again_what_it_has_revoked() {
    let cluster = Cluster::of(&["a", "b"]);
    let pki = cluster.dir("pki").display().to_string();
    let a = cluster.start("a", &[]);
    for node in ["b", "x"] {
        a.run(&["cert", "revoke", node, "--ca", &pki]).succeeded();
    }
    a.stop();
    // All agents have lost what they knew, and the authority rotates.
    fs::remove_file(cluster.dir("a").join("store.redb")).unwrap();
    for phase in ["prepare", "switch", "finish"] {
        cluster.run(&["ca", "rotate", "--dir", "pki", "--phase", phase]).succeeded();
    }
    fs::remove_file(cluster.dir("a").join("roots.pem")).unwrap();
    let line = ["cert", "issue", "--ca", "pki", "--node", "a", "--dir", "a", "--force"];
    cluster.run(&[&line[..], &["--datacenter", "eu"]].concat()).succeeded();
    let a = cluster.start("a", &[]);
    assert_eq!(a.json(&["cert", "revocations"]).as_array().unwrap().len(), 0);
    let list = a.json(&["cert", "revocations", "--ca", &pki]);
    let names: Vec<_> = list.as_array().unwrap().iter().map(|one| &one["node"]).collect();
    assert_eq!(names, ["b", "x"]);
    a.stop();
}

#[test]
fn refuses_to_revoke_what_it_cannot_answer_for() {
    let cluster = Cluster::of(&["a"]);
    let a = cluster.start("a", &[]);
    let pki = cluster.dir("pki").display().to_string();
    a.run(&["cert", "revoke", "b"]).failed(2, &["no issuer", "--ca DIR"]);
    a.run(&["cert", "revoke", "a", "--ca", &pki]).failed(2, &["another agent"]);
    cluster.run(&["ca", "init", "--cluster", "demo", "--dir", "foreign"]).succeeded();
    let foreign = cluster.dir("foreign").display().to_string();
    a.run(&["cert", "revoke", "b", "--ca", &foreign]).failed(2, &["not among our roots"]);
    assert_eq!(a.json(&["cert", "revocations"]).as_array().unwrap().len(), 0);
    a.stop();
    cluster.run(&["--dir", "a", "cert", "revoke", "b", "--ca", "pki"]).failed(4, &["no agent"]);
    cluster.run(&["--dir", "a", "cert", "revocations"]).failed(4, &["no agent"]);
}
