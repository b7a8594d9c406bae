//! `monitor` and `debug`: the log at another level, and an archive without secrets.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::PermissionsExt,
    path::Path,
};

use crate::{
    harness::{Cluster, eventually},
    streams::Stream,
};

#[test]
fn shows_the_log_at_another_level_to_several_readers() {
    let cluster = Cluster::of(&["a"]);
    cluster.client("alice", "admin");
    let a = cluster.start("a", &["--log", "warn"]);
    a.run(&["monitor", "--level", "loud"]).failed(2, &["invalid value"]);
    let debug = Stream::new(&a, &["monitor", "--level", "debug", "--json"]);
    let info = Stream::new(&a, &["monitor", "--level", "info", "--json"]);
    // A question is logged at the level debug, a change at info.
    cluster.by(&a, "alice", &["members"]).succeeded();
    cluster.by(&a, "alice", &["set", "color", "green"]).succeeded();
    let has = |words: &'static str| {
        move |item: &serde_json::Value| {
            item["line"].as_str().is_some_and(|line| line.contains(words))
        }
    };
    debug.until(has("request=\"members\""));
    let first = info.until(has("a client asks"));
    assert!(has("request=\"set\"")(&first), "{first}");
    assert!(!a.log().contains("a client asks"), "the log stays at its own level: {}", a.log());
    // Those who are gone make room.
    drop((debug, info));
    for _ in 0..12 {
        drop(Stream::new(&a, &["monitor", "--json"]));
    }
    let last = Stream::new(&a, &["monitor", "--json"]);
    a.stop();
    assert!(last.ended(), "it ends with the agent");
}

/// The files of an archive.
fn content(archive: &Path) -> Vec<(String, String)> {
    let mut archive = tar::Archive::new(File::open(archive).unwrap());
    let files = archive.entries().unwrap().map(|file| {
        let mut file = file.unwrap();
        let name = file.path().unwrap().display().to_string();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        (name, text)
    });
    files.collect()
}

#[test]
fn the_archive_has_what_explains_a_fault_and_no_secret() {
    let cluster = Cluster::of(&["a", "b"]);
    let a = cluster.start("a", &["--metrics", "127.0.0.1:0", "--issuer", "pki"]);
    let b = cluster.start("b", &["--seed", &a.address()]);
    a.awaits("b", "live");
    a.run(&["set", "password", "hunter2-of-the-user"]).succeeded();
    let token = a.json(&["token", "create"])["token"].as_str().unwrap().to_owned();
    b.signal("KILL");
    b.ended();
    a.awaits("b", "dead");
    let out = cluster.path().join("debug.tar");
    a.run(&["debug", "--out", out.to_str().unwrap()]).succeeded();
    a.run(&["debug", "--out", out.to_str().unwrap()]).failed(2, &["debug.tar", "exists"]);
    assert_eq!(out.metadata().unwrap().permissions().mode() & 0o777, 0o600);

    let files = content(&out);
    let file = |name: &str| {
        let found = files.iter().find(|(path, _)| *path == format!("gossipmonger-debug/{name}"));
        &found.unwrap_or_else(|| panic!("{name} is missing: {files:#?}")).1
    };
    for name in [
        "info.json",
        "members.json",
        "config.json",
        "services.json",
        "callers.json",
        "paths.json",
        "reachability.json",
        "behind.json",
        "revocations.json",
        "why/b.json",
        "log.txt",
        "metrics.txt",
    ] {
        assert!(!file(name).is_empty(), "{name}");
    }
    assert_eq!(file("problems.txt"), "");
    assert!(file("why/b.json").contains("\"dead\""), "{}", file("why/b.json"));
    assert!(
        file("log.txt").contains("is dead") || file("log.txt").contains("b"),
        "{}",
        file("log.txt")
    );
    assert!(file("metrics.txt").contains("gossipmonger_members"), "{}", file("metrics.txt"));

    let mut secrets =
        vec![token.clone(), "hunter2-of-the-user".to_owned(), "PRIVATE KEY".to_owned()];
    for key in ["a/node.key", "b/node.key", "pki/ca.key"] {
        let text = fs::read_to_string(cluster.path().join(key)).unwrap();
        secrets.push(text.lines().nth(1).unwrap().to_owned());
    }
    // The secret part of the token, however it is written.
    secrets.extend(token.split(['.', '-', ':']).filter(|part| part.len() > 20).map(str::to_owned));
    for (name, text) in &files {
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "{name} has {secret}");
        }
    }
    eventually("the agent goes on", || a.run(&["info"]).code == 0);
}
