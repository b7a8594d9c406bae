//! `bench provide` and `bench drive`: members that measure calls between hosts.

use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

use crate::harness::{Cluster, eventually};

fn provider(cluster: &Cluster, node: &str, arguments: &[&str]) -> Command {
    let line = ["bench", "provide", "--dir", node, "--preset", "local"];
    cluster.command(&[&line[..], arguments].concat())
}

fn drive(cluster: &Cluster, node: &str, seed: &str, arguments: &[&str]) -> Output {
    let line = ["bench", "drive", "--dir", node, "--preset", "local", "--seed", seed];
    let mut command = cluster.command(&[&line[..], arguments].concat());
    command.stdin(Stdio::null()).output().unwrap()
}

/// The last line.
fn report(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_else(|| panic!("no output: {output:?}"));
    serde_json::from_str(last).unwrap()
}

#[test]
fn every_call_is_answered_and_no_number_runs_twice() {
    let cluster = Cluster::of(&["a", "b", "c"]);
    // Each provider writes down what has run there. How many of the calls each of them gets depends on its speed.
    let ran = ["a", "b"].map(|node| cluster.path().join(format!("ran-{node}")));
    let [ran_a, ran_b] = [0, 1].map(|node| ["--ran", ran[node].to_str().unwrap()]);
    let flags = [&ran_a[..], &["--idle-services", "3"]].concat();
    let a = cluster.start_by("a", provider(&cluster, "a", &flags));
    let seed = a.address();
    let flags = [&ran_b[..], &["--seed", &seed]].concat();
    let b = cluster.start_by("b", provider(&cluster, "b", &flags));
    let flags = ["--providers", "2", "--rate", "200", "--seconds", "1", "--bulk", "1"];
    let output =
        drive(&cluster, "c", &a.address(), &[&flags[..], &["--mix", "echo,once,cast"]].concat());
    assert!(output.status.success(), "{output:?}");
    let report = report(&output);
    assert_eq!((&report["sent"], &report["answered"]), (&json!(200), &json!(200)), "{report}");
    assert_eq!(report["failed"], json!({ "not_run": {}, "unknown": {}, "failed": {} }), "{report}");
    assert_eq!(report["methods"]["once"]["sent"], 67, "{report}");
    assert!(report["latency_ms"]["p50"].as_f64() > Some(0.0), "{report}");
    assert!(report["bulk"]["bytes"].as_u64() > Some(0), "{report}");
    assert_eq!(report["void"], Value::Null, "{report}");
    let numbers = ran.map(|path| fs::read_to_string(path).unwrap()).concat();
    let distinct: BTreeSet<_> = numbers.lines().collect();
    assert_eq!(distinct.len(), numbers.lines().count(), "no number ran twice: {numbers}");
    assert_eq!(distinct.len(), 67, "each ran at one of them: {numbers}");
    drop(b);
    eventually("the idle services are listed", || {
        a.json(&["services", "--node", "a"]).as_array().map(Vec::len) == Some(4)
    });
}

#[test]
fn says_what_it_cannot_do() {
    let cluster = Cluster::of(&["a"]);
    let refused = |arguments: &[&str], named: &str| {
        let line = [&["bench"], arguments, &["--dir", "a"]].concat();
        cluster.run(&line).failed(2, &[named]);
    };
    refused(&["drive", "--rate", "0"], "--rate 0");
    refused(&["drive", "--seconds", "NaN"], "--seconds NaN");
    refused(&["drive", "--bytes", "0"], "--bytes 0");
    refused(&["drive", "--concurrency", "0"], "--concurrency 0");
    refused(&["provide", "--idle-services", "21"], "--idle-services 21");
    refused(&["provide", "--ran", "absent/ran"], "absent/ran");
    cluster.run(&["bench", "provide", "--dir", "absent"]).failed(6, &["absent"]);
}
