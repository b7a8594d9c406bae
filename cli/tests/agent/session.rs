//! The session of the README, and what is printed in it.

use std::{fs, io::Write, process::Stdio};

use serde_json::{Value, json};

use crate::harness::{Cluster, eventually, free_ports};

#[test]
fn three_agents_form_a_cluster_by_what_the_readme_says() {
    let cluster = Cluster::of(&["a", "b", "c"]);
    let [a, b, c] = [0; 3].map(|_| format!("127.0.0.1:{}", free_ports().0));
    let start = |node: &str, listen: &str, seed: &str| {
        let line = ["agent", "--dir", node, "--listen", listen, "--seed", seed];
        cluster.start_by(node, cluster.command(&line))
    };
    let (first, second, third) = (start("a", &a, &b), start("b", &b, &a), start("c", &c, &a));
    cluster.run(&["--dir", "a", "set", "color", "green"]).succeeded();
    for agent in [&first, &second, &third] {
        eventually("the key is everywhere", || agent.get("a", "color").as_deref() == Some("green"));
        for node in ["a", "b", "c"] {
            agent.awaits(node, "live");
        }
    }
    assert_eq!(cluster.run(&["--dir", "b", "get", "a", "color"]).succeeded().out, "green\n");
    let listed = cluster.run(&["--dir", "b", "get", "a"]).succeeded().out;
    assert_eq!(listed, "KEY    VALUE\ncolor  green\n");
    cluster.run(&["--dir", "a", "delete", "color"]).succeeded();
    eventually("the key is gone", || third.get("a", "color").is_none());

    cluster.run(&["--dir", "b", "leave"]).succeeded();
    assert_eq!(second.ended(), 0);
    first.awaits("b", "left");
    third.awaits("b", "left");
    first.run(&["remove", "b"]).succeeded();
    eventually("b is forgotten", || first.state_of("b").is_empty());
}

// C93
#[test]
fn members_have_a_stable_shape() {
    let cluster = Cluster::of(&["a"]);
    let agent = cluster.start("a", &["--tag", "role=db"]);
    let out = agent.run(&["members", "--json"]).succeeded().out;
    let mut rest = out.as_str();
    for key in [
        "node",
        "datacenter",
        "address",
        "state",
        "phi",
        "version",
        "generation",
        "keys",
        "addresses",
        "tags",
        "local",
        "not_after",
        "expires_soon",
        "draining",
    ] {
        let at = rest.find(&format!("\"{key}\":")).unwrap_or_else(|| panic!("{key} in {out}"));
        rest = &rest[at..];
    }
    let members: Value = serde_json::from_str(&out).unwrap();
    let member = &members[0];
    assert_eq!(member.as_object().unwrap().len(), 14);
    assert_eq!(member["node"], "a");
    assert_eq!(member["datacenter"], "eu");
    assert_eq!(member["state"], "live");
    assert_eq!(member["local"], true);
    assert_eq!(member["expires_soon"], false);
    assert!(member["not_after"].as_str().unwrap().ends_with('Z'));
    assert_eq!(member["tags"], json!({"role": "db"}));
    assert_eq!(member["address"], member["addresses"][0]);
    assert!(member["phi"].is_number() && member["generation"].as_u64().unwrap() > 1 << 40);
}

// C93
#[test]
fn members_are_filtered_by_name_state_tag_and_datacenter() {
    let cluster = Cluster::of(&["a", "b"]);
    let a = cluster.start("a", &["--tag", "role=db", "--tag", "zone=1"]);
    let b = cluster.start("b", &["--seed", &a.address()]);
    b.awaits("a", "live");
    let names = |arguments: &[&str]| -> Vec<String> {
        let members = b.json(&[&["members"], arguments].concat());
        let members = members.as_array().unwrap();
        members.iter().map(|member| member["node"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&[]), ["a", "b"]);
    assert_eq!(names(&["--node", "a"]), ["a"]);
    assert_eq!(names(&["--state", "live"]), ["a", "b"]);
    assert!(names(&["--state", "dead", "--state", "left"]).is_empty());
    assert_eq!(names(&["--tag", "role=db", "--tag", "zone=1"]), ["a"]);
    assert!(names(&["--tag", "role=db", "--tag", "zone=2"]).is_empty());
    assert_eq!(names(&["--datacenter", "eu"]), ["a", "b"]);
    assert!(names(&["--datacenter", "us"]).is_empty());
    let table = b.run(&["members", "--node", "a"]).succeeded().out;
    assert!(table.starts_with("NODE  DATACENTER  STATE"), "{table}");
    assert_eq!(table.lines().count(), 2);
}

#[test]
fn values_are_bytes_from_arguments_files_and_standard_input() {
    let cluster = Cluster::of(&["a"]);
    let agent = cluster.start("a", &[]);
    let written = agent.json(&["set", "n", "-5"]);
    assert!(written["version"].as_u64().unwrap() > 0);
    assert_eq!(agent.get("a", "n").as_deref(), Some("-5"));

    let bytes: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    let file = cluster.path().join("large");
    fs::write(&file, &bytes).unwrap();
    agent.run(&["set", "large", "--file", file.to_str().unwrap()]).succeeded();
    let raw = agent.command(&["get", "a", "large", "--raw"]).output().unwrap();
    assert!(raw.status.success() && raw.stdout == bytes);
    assert!(agent.json(&["get", "a", "large"])["base64"].is_string());

    let mut child = agent.command(&["set", "in", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"from \"stdin\"\n").unwrap();
    assert!(child.wait().unwrap().success());
    let got = agent.json(&["get", "a", "in"]);
    assert_eq!(got, json!({"node": "a", "key": "in", "value": "from \"stdin\"\n"}));

    agent.run(&["set", "short", "lived", "--ttl", "300ms"]).succeeded();
    eventually("it expires", || agent.get("a", "short").is_none());
    let listed = agent.json(&["get", "a", "--prefix", "i"]);
    assert_eq!(listed.as_array().unwrap().len(), 1);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let cluster = Cluster::of(&["a"]);
    let agent = cluster.start("a", &[]);
    for line in [&["members"][..], &["info", "--json"], &["completions", "bash"]] {
        let mut child =
            agent.command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{line:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stderr.is_empty());
    }
}

#[test]
fn help_tells_the_exit_codes() {
    let cluster = Cluster::new();
    let help = cluster.run(&["--help"]).succeeded().out;
    for part in ["Exit codes", "no such key", "no agent runs", "agent", "members"] {
        assert!(help.contains(part), "{help}");
    }
    assert!(cluster.run(&["completions", "bash"]).succeeded().out.contains("gossipmonger"));
}

#[test]
fn completions_offer_what_the_agent_knows() {
    let cluster = Cluster::of(&["a"]);
    let agent = cluster.start("a", &["--tag", "role=db"]);
    agent.run(&["set", "color", "green"]).succeeded();
    agent.run(&["set", "$(touch made)", "x"]).succeeded();
    let offered = |words: &[&str]| {
        let line = [&["--", "gossipmonger", "--dir", "a"], words].concat();
        let mut command = cluster.command(&line);
        let index = (words.len() + 2).to_string();
        command.env("_GOSSIPMONGER_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", index);
        let output = command.env("_CLAP_IFS", "\n").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(offered(&["why", "a"]), ["a"]);
    assert_eq!(offered(&["get", "a", "c"]), ["color"]);
    assert_eq!(offered(&["set", "c"]), ["color"]);
    assert_eq!(offered(&["get", "a", "$"]), [""; 0]);
    assert_eq!(offered(&["tags", "delete", "r"]), ["role"]);
    assert!(offered(&["mem"]).contains(&"members".to_owned()));
    agent.stop();
    assert_eq!(offered(&["get", "a", "c"]), [""; 0]);
}
