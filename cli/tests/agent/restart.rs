//! How agents end, and what the next start finds.

use std::{
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    time::Duration,
};

use crate::harness::{Cluster, eventually};

// C99
#[test]
fn a_node_that_left_joins_again_only_when_asked() {
    let cluster = Cluster::of(&["a", "b"]);
    let a = cluster.start("a", &[]);
    let b = cluster.start("b", &["--seed", &a.address()]);
    b.run(&["set", "kept", "yes"]).succeeded();
    a.awaits("b", "live");
    b.awaits("a", "live");
    let left = b.json(&["leave"]);
    assert_eq!(left["acknowledged"], 1);
    assert_eq!(b.ended(), 0);
    a.awaits("b", "left");
    cluster.run(&["agent", "--dir", "b"]).failed(5, &["left the cluster on purpose", "--rejoin"]);

    let b = cluster.start("b", &["--seed", &a.address(), "--rejoin"]);
    a.awaits("b", "live");
    assert_eq!(b.get("b", "kept").as_deref(), Some("yes"));
    // Having joined again, it needs no asking any more.
    b.stop();
    cluster.start("b", &[]);
}

#[test]
fn a_node_that_was_terminated_leaves_and_joins_again_by_itself() {
    let cluster = Cluster::of(&["a", "b"]);
    let a = cluster.start("a", &[]);
    let b = cluster.start("b", &["--seed", &a.address()]);
    a.run(&["set", "color", "green"]).succeeded();
    b.awaits("a", "live");
    a.awaits("b", "live");
    let generation = b.json(&["info"])["generation"].as_u64().unwrap();
    b.stop();
    // Not dead: it has said so.
    a.awaits("b", "left");

    let b = cluster.start("b", &[]);
    // Without a seed: it knows its peers from the store.
    a.awaits("b", "live");
    b.awaits("a", "live");
    assert!(b.json(&["info"])["generation"].as_u64().unwrap() > generation);
    eventually("the copy is there again", || b.get("a", "color").as_deref() == Some("green"));
}

#[test]
fn systemd_is_told_when_it_is_ready_reloads_and_stops() {
    let cluster = Cluster::of(&["a"]);
    let path = cluster.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let next = || {
        let mut buffer = [0; 1024];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let mut command = cluster.command(&["agent", "--dir", "a"]);
    command.env("NOTIFY_SOCKET", &path);
    let a = cluster.start_by("a", command);
    assert_eq!(next().trim(), "READY=1\nSTATUS=running");
    a.signal("HUP");
    assert!(next().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(next().trim(), "READY=1");
    a.stop();
    assert_eq!(next().trim(), "STOPPING=1");
}

#[test]
fn the_watchdog_of_systemd_is_told_again_and_again() {
    let cluster = Cluster::of(&["a"]);
    let path = cluster.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut command = cluster.command(&["agent", "--dir", "a"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "600000");
    let a = cluster.start_by("a", command);
    let mut buffer = [0; 1024];
    let mut told = 0;
    while told < 3 {
        let length = socket.recv(&mut buffer).unwrap();
        told += usize::from(buffer[..length].starts_with(b"WATCHDOG=1"));
    }
    a.stop();
}

#[test]
fn an_interrupt_ends_it_as_well() {
    let cluster = Cluster::of(&["a"]);
    let a = cluster.start("a", &[]);
    let dir = a.dir.clone();
    a.signal("INT");
    assert_eq!(a.ended(), 0);
    assert!(!dir.join("gossipmonger.sock").exists());
}

// C98
#[test]
fn what_was_acknowledged_survives_a_kill() {
    let cluster = Cluster::of(&["a"]);
    let a = cluster.start("a", &[]);
    for n in 0..10 {
        a.run(&["set", &format!("k{n}"), "v"]).succeeded();
    }
    a.signal("KILL");
    a.ended();
    let a = cluster.start("a", &[]);
    assert_eq!(a.json(&["get", "a"]).as_array().unwrap().len(), 10);
}

#[test]
fn a_store_in_memory_leaves_nothing_behind() {
    let cluster = Cluster::of(&["a"]);
    let a = cluster.start("a", &["--store", "memory"]);
    a.run(&["set", "k", "v"]).succeeded();
    a.stop();
    assert!(!cluster.dir("a").join("store.redb").exists());
    let a = cluster.start("a", &["--store", "memory"]);
    a.run(&["get", "a", "k"]).failed(3, &["no key"]);
}

#[test]
fn only_the_owner_may_use_the_socket_and_read_the_store() {
    let cluster = Cluster::of(&["a"]);
    let a = cluster.start("a", &[]);
    for file in ["gossipmonger.sock", "store.redb", "node.key"] {
        let mode = a.dir.join(file).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[test]
fn two_agents_of_one_name_do_not_both_go_on() {
    let cluster = Cluster::of(&["a", "b"]);
    let a = cluster.start("a", &[]);
    let b = cluster.start("b", &["--seed", &a.address()]);
    a.awaits("b", "live");
    b.awaits("a", "live");
    let twin = cluster.dir("twin");
    std::fs::create_dir(&twin).unwrap();
    for file in ["node.pem", "node.key", "roots.pem"] {
        std::fs::copy(b.dir.join(file), twin.join(file)).unwrap();
    }
    let twin = cluster.start("twin", &["--seed", &a.address()]);
    let displaced = |agent: &crate::harness::Agent| {
        agent.log().contains("displaced by another process that uses this node's name")
    };
    eventually("one of them gives up", || displaced(&b) || displaced(&twin));
    let (winner, loser) = if displaced(&b) { (twin, b) } else { (b, twin) };
    let log = loser.dir.join("log");
    assert_eq!(loser.ended(), 5);
    let log = std::fs::read_to_string(log).unwrap();
    let lines = log.lines().filter(|line| line.contains("displaced by another process"));
    assert_eq!(lines.count(), 2, "once in the log, once as the reason of the end: {log}");
    let told = "this node's own name was heard";
    eventually("the other one is told too", || winner.log().contains(told));
    winner.run(&["info"]).succeeded();
}

#[test]
fn a_signal_that_comes_twice_at_once_is_one() {
    let cluster = Cluster::of(&["a", "b"]);
    let a = cluster.start("a", &[]);
    let b = cluster.start("b", &["--seed", &a.address()]);
    a.awaits("b", "live");
    // As timeout(1) does, and a wrapper that passes on what the terminal has sent already.
    b.signal("TERM");
    b.signal("INT");
    assert_eq!(b.ended(), 0);
    a.awaits("b", "left");
}
