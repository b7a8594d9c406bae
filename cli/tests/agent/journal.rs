//! What the agent writes to its log, and what it does not write again and again.

use crate::harness::{Cluster, eventually, free_ports};

#[test]
fn warns_while_no_seed_answers() {
    let cluster = Cluster::of(&["a"]);
    let seed = format!("127.0.0.1:{}", free_ports().0);
    let a = cluster.start("a", &["--seed", &seed]);
    let warning = "no other node has been heard yet";
    eventually("it warns", || a.log().lines().any(|l| l.contains(warning) && l.contains(&seed)));
    a.stop();
}

#[test]
fn tells_a_refusal_that_comes_again_once() {
    let cluster = Cluster::of(&["a"]);
    cluster.run(&["ca", "init", "--cluster", "demo", "--dir", "pki2"]).succeeded();
    let line = ["cert", "issue", "--ca", "pki2", "--node", "b", "--datacenter", "eu", "--dir", "b"];
    cluster.run(&line).succeeded();
    let a = cluster.start("a", &[]);
    let b = cluster.start("b", &["--seed", &a.address()]);
    // Only b's verifier has refused anybody: to a it is somebody who has proved no name, and is counted.
    for (agent, told) in [(&a, 0), (&b, 1)] {
        eventually("it has happened three times", || {
            let refusals = agent.json(&["info"])["refusals"].clone();
            refusals.as_object().unwrap().values().filter_map(|n| n.as_u64()).sum::<u64>() >= 3
        });
        let log = agent.log();
        assert_eq!(log.matches("authority of the same name").count(), told, "{log}");
    }
}
