//! `token` and `join`: a machine gets in by a token, and all the ways in which it does not.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Stdio, thread};

use crate::harness::{Agent, Cluster, Said, eventually, free_ports, hangs};

#[test]
fn refuses_a_token_that_is_none() {
    let cluster = Cluster::of(&["a"]);
    let a = issuing(&cluster, "a");
    let token = token(&a, &["--node", "b"]);
    let typo = format!("{token}x");
    let says = ["damaged", "checksum", "copy all of it"];
    let said = join(&cluster, &typo, &[]).failed(2, &says);
    assert!(!said.err.contains(&token), "a secret is not repeated: {}", said.err);
    join(&cluster, "secret", &[]).failed(2, &["no token", "gmj1_"]);
    join(&cluster, &token.replacen("gmj1", "gmj2", 1), &[]).failed(2, &["another version"]);
    cluster.run(&["join", &token, "127.0.0.1"]).failed(2, &["--dir DIR is needed"]);
    cluster.run(&["join", &token, "no host", "--dir", "b"]).failed(2, &["HOST:PORT"]);
    nothing_is_left(&cluster);
    join(&cluster, &token, &[]).succeeded();
}

#[test]
fn refuses_to_issue_without_an_authority_or_where_nobody_issues() {
    let cluster = Cluster::of(&["a"]);
    let agent = ["agent", "--dir", "a", "--issuer", "nowhere"];
    cluster.run(&agent).failed(6, &["nowhere/ca.pem"]);
    cluster
        .run(&["agent", "--dir", "a", "--issuer", "pki", "--validity", "1s"])
        .failed(2, &["10s"]);
    let ports = "127.0.0.1:1,127.0.0.2:2";
    let agent = ["agent", "--dir", "a", "--issuer", "pki", "--issuer-listen", ports];
    cluster.run(&agent).failed(2, &["issuer_listen", "one port"]);
    let a = cluster.start("a", &[]);
    a.run(&["token", "create"]).failed(2, &["issues nothing", "--issuer"]);
    a.run(&["token", "list"]).failed(2, &["--issuer"]);
    drop(a);
    cluster.run(&["--dir", "a", "token", "list"]).failed(4, &["no agent runs in a"]);
}

#[test]
fn an_issuer_whose_directory_hangs_shuts_its_door_and_runs_on() {
    let cluster = Cluster::of(&["a"]);
    let a = issuing(&cluster, "a");
    let token = token(&a, &["--node", "b"]);
    let ca = cluster.path().join("pki/ca.pem");
    let good = fs::read(&ca).unwrap();
    if !hangs(&ca) {
        return;
    }
    let knock = |n: u32| {
        let mut command =
            cluster.command(&["join", &token, "127.0.0.1", "--dir", &format!("j{n}")]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut knocking: Vec<_> = (0..4).map(knock).collect();
    eventually("it says so", || a.log().contains("the door is shut"));
    a.run(&["info"]).succeeded();
    a.run(&["token", "create"]).failed(1, &["no answer from the system"]);
    let shut = |times: usize| a.log().matches("the door is shut").count() == times;
    assert!(shut(1) && a.log().contains("pki: no answer from the system"), "{}", a.log());
    for child in &mut knocking {
        let _ = child.kill();
        child.wait().unwrap();
    }
    // Lets the waiting threads go, as a file system does that answers again.
    let pipe = fs::File::options().read(true).write(true).open(&ca).unwrap();
    fs::write(cluster.path().join("pki/new"), good).unwrap();
    fs::rename(cluster.path().join("pki/new"), &ca).unwrap();
    drop(pipe);
    eventually("it is open again", || a.log().contains("the door is open"));
    join(&cluster, &token, &[]).succeeded();
    hangs(&ca);
    eventually("it is shut again", || shut(2));
    a.stop();
}

#[test]
fn refuses_terms_out_of_range() {
    let cluster = Cluster::of(&["a"]);
    let a = issuing(&cluster, "a");
    let create = |more: &[&str]| a.run(&[&["token", "create"], more].concat());
    create(&["--ttl", "1y"]).failed(2, &["90 days"]);
    create(&["--uses", "0"]).failed(2, &["uses"]);
    create(&["--node", "b", "--uses", "2"]).failed(2, &["for a node it is good once"]);
    create(&["--node", "Not A Label"]).failed(2, &["Not A Label"]);
    create(&["--node=-x"]).failed(2, &["begins with '-'"]);
    create(&["--datacenter", ".."]).failed(2, &["is not a label"]);
    a.run(&["token", "revoke", "xyz"]).failed(2, &["hexadecimal"]);
    a.run(&["token", "revoke", "0123456789abcdef"]).failed(3, &["no token 0123456789abcdef"]);
}

#[test]
fn a_machine_joins_by_a_token_and_its_agent_starts() {
    let cluster = Cluster::of(&["a"]);
    let a = issuing(&cluster, "a");
    let said = a.run(&["token", "create", "--node", "b", "--datacenter", "us"]).succeeded().out;
    let token = said.lines().last().unwrap();
    assert!(token.len() <= 200 && said.contains("node b of us"), "{said}");

    let joined = join(&cluster, token, &["--json"]).succeeded().json();
    assert_eq!(joined["certificate"]["name"], "spiffe://demo/us/b");
    for (file, mode) in [("node.key", 0o600), ("gossipmonger.toml", 0o600), ("node.pem", 0o644)] {
        let metadata = fs::metadata(cluster.dir("b").join(file)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{file}");
    }
    let roots = fs::read(cluster.dir("b").join("roots.pem")).unwrap();
    assert_eq!(roots, fs::read(cluster.dir("pki").join("ca.pem")).unwrap());

    // No flag says where anybody is.
    let b = cluster.start("b", &[]);
    b.awaits("a", "live");
    a.awaits("b", "live");
    let row = &a.json(&["token", "list"])[0];
    assert_eq!(
        (&row["state"], &row["used"], &row["by"][0]),
        (&"used".into(), &1.into(), &"b".into())
    );
    assert_eq!(a.json(&["info"])["counters"]["certificates_issued"], 1);
    let table = a.run(&["token", "list"]).succeeded().out;
    assert!(table.contains("node b of us") && !table.contains(&token[20..]), "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_of_a_user_starts_from_the_directory_that_join_has_made() {
    let cluster = Cluster::of(&["a"]);
    let a = issuing(&cluster, "a");
    join(&cluster, &token(&a, &["--node", "b", "--datacenter", "us"]), &[]).succeeded();
    let builder = gossipmonger::Gossipmonger::builder().directory(cluster.dir("b")).keep_store();
    let (b, running) = builder.spawn().await.unwrap();
    assert_eq!((b.node().as_str(), b.datacenter().as_str()), ("b", "us"));
    // The file has the seed.
    tokio::task::block_in_place(|| a.awaits("b", "live"));
    b.set("color", "green").await.unwrap();
    b.leave_for_now().await.unwrap();
    running.await.unwrap();
    // The agent goes on with what the program has kept.
    let b = tokio::task::block_in_place(|| cluster.start("b", &[]));
    assert_eq!(b.run(&["get", "b", "color"]).succeeded().out.trim(), "green");
}

#[test]
fn refuses_a_token_that_was_used_revoked_has_expired_or_is_for_another() {
    let cluster = Cluster::of(&["a"]);
    let a = issuing(&cluster, "a");
    let used = token(&a, &[]);
    cluster.run(&["join", &used, "127.0.0.1", "--dir", "first", "--node", "first"]).succeeded();
    let revoked = token(&a, &[]);
    let id = a.json(&["token", "list"])[1]["id"].as_str().unwrap().to_owned();
    a.run(&["token", "revoke", &id]).succeeded();
    let short = token(&a, &["--ttl", "1s"]);
    eventually("the token expires", || a.json(&["token", "list"])[2]["state"] == "expired");
    let other = token(&a, &["--node", "c"]);
    let elsewhere = token(&a, &["--datacenter", "us"]);
    let nameless = token(&a, &[]);

    let b = ["--node", "b", "--datacenter", "eu"];
    for (token, more, says, label) in [
        (&used, &b[..], "used as often as it may", "join_token_used"),
        (&revoked, &b, "revoked", "join_token_revoked"),
        (&short, &b, "expired", "join_token_expired"),
        (&other, &b, "for node c, not b", "join_wrong_name"),
        (&elsewhere, &b, "for datacenter us, not eu", "join_wrong_name"),
        (&nameless, &[], "say --node NAME", "join_name_needed"),
    ] {
        refused(&cluster, &a, join(&cluster, token, more), says, label);
    }
    join(&cluster, &nameless, &b).succeeded();
}

#[test]
fn refuses_a_name_that_lives_or_was_given_away_a_moment_ago() {
    let cluster = Cluster::of(&["a", "c"]);
    let a = issuing(&cluster, "a");
    let c = cluster.start("c", &["--seed", &a.address()]);
    a.awaits("c", "live");
    let token = token(&a, &["--uses", "9"]);
    for name in ["a", "c"] {
        let said = join(&cluster, &token, &["--node", name]);
        refused(&cluster, &a, said, "the name is taken", "join_name_taken");
    }
    join(&cluster, &token, &["--node", "b"]).succeeded();
    let again = ["join", &token, "127.0.0.1", "--node", "b", "--dir", "b2"];
    cluster.run(&again).failed(5, &["the name is taken", "has not been seen yet"]);
    // A dead one makes room.
    c.signal("KILL");
    c.ended();
    a.awaits("c", "dead");
    cluster.run(&["join", &token, "127.0.0.1", "--node", "c", "--dir", "c2"]).succeeded();
}

#[test]
fn refuses_a_secret_or_token_that_the_ledger_does_not_have() {
    let cluster = Cluster::of(&["a"]);
    let a = issuing(&cluster, "a");
    let token = token(&a, &["--node", "b"]);
    let ledger = cluster.dir("pki").join("tokens.toml");
    let text = fs::read_to_string(&ledger).unwrap();
    assert_eq!(fs::metadata(&ledger).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!text.contains(&token[60..]), "not the secret itself: {text}");

    let key = text.split("key = \"").nth(1).unwrap().split('"').next().unwrap();
    fs::write(&ledger, text.replace(key, &"0".repeat(64))).unwrap();
    refused(
        &cluster,
        &a,
        join(&cluster, &token, &[]),
        "not that of the token",
        "join_wrong_secret",
    );
    fs::write(&ledger, "").unwrap();
    refused(&cluster, &a, join(&cluster, &token, &[]), "no such token", "join_unknown_token");
    fs::write(&ledger, "[[token]]\nkey = 5\n").unwrap();
    refused(
        &cluster,
        &a,
        join(&cluster, &token, &[]),
        "cannot issue at the moment",
        "issue_unable",
    );
    assert!(a.log().contains("tokens.toml"), "{}", a.log());
    fs::write(&ledger, text).unwrap();
    join(&cluster, &token, &[]).succeeded();
}

#[test]
fn refuses_an_issuer_of_another_authority() {
    let cluster = Cluster::of(&["a"]);
    let places = places();
    let a = issuing_at(&cluster, "a", "pki", &places);
    let token = token(&a, &["--node", "b"]);
    a.stop();
    cluster.run(&["ca", "init", "--cluster", "demo", "--dir", "pki2"]).succeeded();
    let a = issuing_at(&cluster, "a", "pki2", &places);
    let said = join(&cluster, &token, &[]);
    refused(
        &cluster,
        &a,
        said,
        "does not show the authority that the token pins",
        "join_wrong_pin",
    );
}

#[test]
fn says_that_nobody_answers_and_leaves_nothing_behind() {
    let cluster = Cluster::of(&["a"]);
    let a = issuing(&cluster, "a");
    let token = token(&a, &["--node", "b"]);
    drop(a);
    join(&cluster, &token, &[]).failed(1, &["no issuer answers at 127.0.0.1:", "--issuer"]);
    nothing_is_left(&cluster);
    // A directory that was there stays, with what was in it.
    fs::create_dir(cluster.dir("b")).unwrap();
    fs::write(cluster.dir("b").join("notes"), "mine").unwrap();
    join(&cluster, &token, &[]).failed(1, &["no issuer answers"]);
    let left: Vec<_> = fs::read_dir(cluster.dir("b")).unwrap().collect();
    assert_eq!(left.len(), 1);
}

#[test]
fn overwrites_nothing_and_asks_nobody_before_it_knows_that() {
    let cluster = Cluster::of(&["a", "b"]);
    let a = issuing(&cluster, "a");
    let token = token(&a, &["--node", "b"]);
    let before = fs::read(cluster.dir("b").join("node.pem")).unwrap();
    join(&cluster, &token, &[]).failed(1, &["b/node.pem exists already", "another --dir"]);
    assert_eq!(fs::read(cluster.dir("b").join("node.pem")).unwrap(), before);
    assert_eq!(a.json(&["token", "list"])[0]["state"], "good");
    cluster.run(&["join", &token, "127.0.0.1", "--dir", "pki"]).failed(1, &["pki/ca.key exists"]);
}

#[test]
fn tokens_outlive_a_restart_of_the_issuer() {
    let cluster = Cluster::of(&["a"]);
    let places = places();
    let a = issuing_at(&cluster, "a", "pki", &places);
    let (kept, used) = (token(&a, &["--node", "b"]), token(&a, &["--node", "c"]));
    cluster.run(&["join", &used, "127.0.0.1", "--dir", "c"]).succeeded();
    a.signal("KILL");
    a.ended();
    let a = issuing_at(&cluster, "a", "pki", &places);
    cluster.run(&["join", &used, "127.0.0.1", "--dir", "c2"]).failed(5, &["as often as it may"]);
    join(&cluster, &kept, &[]).succeeded();
    assert_eq!(a.json(&["token", "list"])[1]["by"][0], "c");
}

#[test]
fn issuers_with_one_directory_know_the_same_tokens_and_those_with_copies_do_not() {
    let cluster = Cluster::of(&["a", "d", "e"]);
    copy(&cluster.dir("pki"), &cluster.dir("copy"));
    let (gossip, door) = (free_ports().0, free_ports().0);
    // The port of the door is in the token, so that each has the same one on a host of its own.
    let start = |node: &str, host: &str, pki: &str| {
        let places = [format!("{host}:{gossip}"), format!("{host}:{door}")];
        issuing_at(&cluster, node, pki, &places)
    };
    let a = start("a", "127.0.0.1", "pki");
    let _d = start("d", "127.0.0.2", "pki");
    let e = start("e", "127.0.0.3", "copy");
    let token = token(&a, &["--node", "b"]);
    let at = |host: &str| cluster.run(&["join", &token, host, "--dir", "b"]);
    refused(&cluster, &e, at("127.0.0.3"), "knows no such token", "join_unknown_token");
    at("127.0.0.2").succeeded();
    assert_eq!(a.json(&["token", "list"])[0]["state"], "used");
}

#[test]
fn of_many_that_join_with_one_token_at_once_one_gets_in() {
    let cluster = Cluster::of(&["a"]);
    let a = issuing(&cluster, "a");
    let token = token(&a, &[]);
    let codes: Vec<i32> = thread::scope(|scope| {
        let joins: Vec<_> = (0..4)
            .map(|n| {
                let (cluster, token, name) = (&cluster, &token, format!("n{n}"));
                scope.spawn(move || {
                    let line = ["join", token, "127.0.0.1", "--dir", &name, "--node", &name];
                    cluster.run(&line).code
                })
            })
            .collect();
        joins.into_iter().map(|join| join.join().unwrap()).collect()
    });
    let mut sorted = codes;
    sorted.sort_unstable();
    assert_eq!(sorted, [0, 5, 5, 5]);
    let there = (0..4).filter(|n| cluster.dir(&format!("n{n}")).exists()).count();
    assert_eq!(there, 1);
}

#[test]
fn writes_what_it_was_told_into_the_configuration() {
    let cluster = Cluster::of(&["a"]);
    cluster.configure("a", "issuers = [\"d.example.org:7102\"]\n");
    let a = issuing(&cluster, "a");
    let mut command = cluster.command(&["join", "-", "localhost", "--dir", "b", "--node", "b"]);
    command.args(["--listen", "127.0.0.1:0", "--advertise", "b.example.org:7101"]);
    let input = cluster.path().join("token");
    fs::write(&input, format!("{}\n", token(&a, &[]))).unwrap();
    command.stdin(fs::File::open(input).unwrap());
    crate::harness::said(command).succeeded();
    let text = fs::read_to_string(cluster.dir("b").join("gossipmonger.toml")).unwrap();
    let port = a.address().rsplit_once(':').unwrap().1.to_owned();
    for line in [
        "listen = [\"127.0.0.1:0\"]",
        "advertise = [\"b.example.org:7101\"]",
        &format!("seeds = [\"localhost:{port}\"]"),
        "issuers = [\"localhost:",
        "\"d.example.org:7102\"]",
    ] {
        assert!(text.contains(line), "{line} is missing in {text}");
    }
}

/// An agent that issues, with any free ports.
pub(crate) fn issuing(cluster: &Cluster, node: &str) -> Agent {
    cluster.start(node, &["--issuer", "pki"])
}

/// The same with a fixed port for the gossip and one for the door.
fn issuing_at(cluster: &Cluster, node: &str, pki: &str, places: &[String; 2]) -> Agent {
    let [listen, door] = places;
    let line = ["--issuer", pki, "--listen", listen, "--issuer-listen", door];
    cluster.start(node, &line)
}

fn places() -> [String; 2] {
    [free_ports().0, free_ports().0].map(|port| format!("127.0.0.1:{port}"))
}

pub(crate) fn token(issuer: &Agent, more: &[&str]) -> String {
    let said = issuer.run(&[&["token", "create"], more].concat()).succeeded();
    said.out.lines().last().unwrap().to_owned()
}

/// Joins as the directory `b`.
fn join(cluster: &Cluster, token: &str, more: &[&str]) -> Said {
    cluster.run(&[&["join", token, "127.0.0.1", "--dir", "b"], more].concat())
}

/// It was refused, which the joiner, the counters and the log of the issuer say; nothing is left.
#[track_caller]
fn refused(cluster: &Cluster, issuer: &Agent, said: Said, says: &str, label: &str) {
    said.failed(5, &["127.0.0.", says]);
    nothing_is_left(cluster);
    eventually("the issuer counts and logs it", || {
        let counted = issuer.json(&["info"])["refusals"][label].as_u64();
        counted.is_some_and(|times| times > 0) && issuer.log().contains(label)
    });
}

#[track_caller]
fn nothing_is_left(cluster: &Cluster) {
    assert!(!cluster.dir("b").exists());
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for file in ["ca.pem", "ca.key"] {
        fs::copy(from.join(file), to.join(file)).unwrap();
    }
}

#[test]
fn six_commands_make_a_cluster_of_three_with_a_web_view() {
    let cluster = Cluster::new();
    let (gossip, http) = (free_ports().0, free_ports().1);
    let (gossip, http) = (format!("127.0.0.1:{gossip}"), format!("127.0.0.1:{http}"));
    for name in ["a", "b", "c"] {
        fs::create_dir(cluster.dir(name)).unwrap();
    }
    let create = ["--create", "shop", "--listen", &gossip, "--http", &http];
    let a = cluster.start("a", &create);
    assert_eq!(a.json(&["info"])["cluster"], "shop");
    let token = a.run(&["token", "create", "--uses", "2"]).succeeded().out;
    let token = format!("{}@{gossip}", token.lines().last().unwrap());
    let b = cluster.start("b", &["--join", &token]);
    let c = cluster.start("c", &["--join", &token, "--datacenter", "us"]);
    for agent in [&a, &b, &c] {
        agent.awaits("a", "live");
        agent.awaits("b", "live");
        agent.awaits("c", "live");
    }
    let us = c.json(&["members", "--datacenter", "us"]);
    assert_eq!((us[0]["node"].as_str(), us.as_array().map(Vec::len)), (Some("c"), Some(1)));
    assert!(a.run(&["web"]).succeeded().out.starts_with(&format!("http://{http}/#token=")));
    // The same commands start the same nodes again, with or without what was for the first start.
    a.stop();
    c.stop();
    let a = cluster.start("a", &create);
    let c = cluster.start("c", &["--join", &token, "--datacenter", "us"]);
    c.awaits("a", "live");
    a.awaits("c", "live");
    a.run(&["token", "create"]).succeeded();
}

#[test]
fn the_first_start_refuses_what_it_cannot_make() {
    let cluster = Cluster::of(&["a"]);
    fs::create_dir(cluster.dir("NO NAME")).unwrap();
    fs::create_dir(cluster.dir("b")).unwrap();
    let agent = |flags: &[&str]| cluster.run(&[&["agent"], flags].concat());
    agent(&["--dir", "NO NAME", "--create", "shop"]).failed(2, &["--node NAME"]);
    agent(&["--dir", "b", "--join", "x"]).failed(2, &["TOKEN@HOST"]);
    agent(&["--dir", "b", "--join", "x@127.0.0.1"]).failed(2, &["token"]);
    agent(&["--dir", "b", "--create", "x", "--join", "x@127.0.0.1"]).failed(2, &["cannot be used"]);
    agent(&["--dir", "a", "--node", "b"]).failed(2, &["--create or --join"]);
    assert!(!cluster.dir("b").join("node.pem").exists());
}

#[test]
fn the_door_of_the_issuer_is_no_seed() {
    let cluster = Cluster::of(&["a"]);
    let places = places();
    let issuer = issuing_at(&cluster, "a", "pki", &places);
    let token = token(&issuer, &[]);
    let line = ["join", &token, &places[1], "--dir", "b", "--node", "b"];
    cluster.run(&line).failed(2, &["port of its gossip"]);
    nothing_is_left(&cluster);
    // The token is still good.
    join(&cluster, &token, &["--node", "b"]).succeeded();
}

#[test]
fn a_first_start_that_was_cut_off_before_its_certificate_is_done_again() {
    let cluster = Cluster::new();
    fs::create_dir(cluster.dir("a")).unwrap();
    let create = ["--create", "shop", "--listen", "127.0.0.1:0"];
    cluster.start("a", &create).stop();
    for made_last in ["node.key", "node.pem", "gossipmonger.toml"] {
        fs::remove_file(cluster.dir("a").join(made_last)).unwrap();
    }
    let a = cluster.start("a", &create);
    a.run(&["token", "create"]).succeeded();
}
