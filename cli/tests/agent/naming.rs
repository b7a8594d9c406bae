//! Certificates of other PKIs, whose SPIFFE ids have a shape of their own.

use std::{fs, path::Path, process::Command};

use crate::harness::{Agent, Cluster};

#[test]
fn nodes_of_a_pki_with_ids_of_another_shape_find_each_other() {
    if !is_here("openssl", "version") {
        println!("SKIPPED: no openssl command on this host, so no chain made by it was tried");
        return;
    }
    let cluster = Cluster::new();
    let issue = |node: &str, uri: &str| {
        script(&cluster, "openssl-chain.sh", &["p256", "x", "x", node, uri], node);
    };
    issue("a1", "spiffe://example.org/ns/prod/sa/db/host/a1");
    issue("b1", "spiffe://example.org/ns/prod/sa/db/host/b1");
    issue("web", "spiffe://example.org/ns/prod/sa/web/host/web");
    issue("tiny", "spiffe://example.org/prod/tiny");
    let identity = "identity = \"spiffe://{cluster}/ns/{datacenter}/sa/db/host/{node}\"\n";
    let a = start(&cluster, "a1", identity, &[]);
    let b = start(&cluster, "b1", identity, &["--seed", &a.address()]);
    a.awaits("b1", "live");
    b.awaits("a1", "live");
    let info = a.json(&["info"]);
    assert_eq!(info["cluster"], "example.org");
    assert_eq!(info["datacenter"], "prod");
    // The same authority, and yet not of this cluster: neither by the template of the others,
    let web = "identity = \"spiffe://{cluster}/ns/{datacenter}/sa/web/host/{node}\"\n";
    let web = start(&cluster, "web", web, &["--seed", &a.address()]);
    // nor by that of everybody else.
    let tiny = start(&cluster, "tiny", "", &["--seed", &a.address()]);
    for stranger in [&web, &tiny] {
        crate::harness::eventually("it is refused", || {
            stranger.json(&["info"])["refusals"].as_object().is_some_and(|all| !all.is_empty())
        });
    }
    assert_eq!(a.json(&["members"]).as_array().unwrap().len(), 2);
    // With their template it is no name at all.
    cluster.configure("tiny", identity);
    drop(tiny);
    let line = ["agent", "--dir", "tiny"];
    cluster.run(&line).failed(6, &["spiffe://example.org/prod/tiny", "{datacenter}"]);
    cluster.configure("tiny", "identity = \"spiffe://{cluster}/{node}\"\n");
    cluster.run(&line).failed(2, &["no datacenter"]);
    cluster.configure("tiny", "cluster = \"demo\"\n");
    cluster.run(&line).failed(2, &["identity has to say"]);
}

#[test]
fn what_an_id_does_not_say_the_configuration_says() {
    if !is_here("certtool", "--version") {
        println!("SKIPPED: no certtool (GnuTLS) on this host, so no chain made by it was tried");
        return;
    }
    let cluster = Cluster::new();
    let issue = |node: &str, uri: &str| script(&cluster, "gnutls-chain.sh", &[node, uri], node);
    issue("a", "spiffe://prod.example.org/agent/a");
    issue("b", "spiffe://prod.example.org/agent/b");
    issue("c", "spiffe://test.example.org/agent/c");
    let config = |datacenter: &str| {
        format!(
            "identity = \"spiffe://prod.example.org/agent/{{node}}\"\ncluster = \"demo\"\n\
             datacenter = \"{datacenter}\"\n"
        )
    };
    let a = start(&cluster, "a", &config("eu"), &[]);
    let b = start(&cluster, "b", &config("us"), &["--seed", &a.address()]);
    a.awaits("b", "live");
    b.awaits("a", "live");
    assert_eq!(a.json(&["members", "--node", "b"])[0]["datacenter"], "us");
    assert_eq!(a.json(&["info"])["cluster"], "demo");
    // The other trust domain of the same authority.
    cluster.configure("c", &config("eu"));
    let says = ["spiffe://test.example.org/agent/c", "spiffe://prod.example.org/agent/{node}"];
    cluster.run(&["agent", "--dir", "c"]).failed(6, &says);
}

/// Makes a chain in `chain`, and puts what a node needs into its directory.
fn script(cluster: &Cluster, script: &str, arguments: &[&str], node: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../certs").join(script);
    let chain = cluster.path().join("chain");
    let output = Command::new("sh").arg(script).arg(&chain).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::create_dir(cluster.dir(node)).unwrap();
    let put =
        |from: &str, to: &str| fs::copy(chain.join(from), cluster.dir(node).join(to)).unwrap();
    put(&format!("{node}.pem"), "node.pem");
    put(&format!("{node}.key"), "node.key");
    put("roots.pem", "roots.pem");
}

fn start(cluster: &Cluster, node: &str, config: &str, arguments: &[&str]) -> Agent {
    cluster.configure(node, config);
    cluster.start(node, arguments)
}

fn is_here(program: &str, version: &str) -> bool {
    Command::new(program).arg(version).output().is_ok_and(|output| output.status.success())
}
