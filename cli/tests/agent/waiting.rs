//! The start of an agent before its certificate is there.

use std::{fs, os::unix::net::UnixDatagram, sync::mpsc, thread, time::Duration};

use crate::harness::{Cluster, eventually, hangs};

#[test]
fn ends_at_once_with_a_code_of_its_own_unless_it_is_told_to_wait() {
    let cluster = Cluster::of(&["a", "b"]);
    let dir = cluster.dir("a");
    let refused = |says: &[&str]| drop(cluster.run(&["agent", "--dir", "a"]).failed(6, says));
    for name in ["node.key", "roots.pem", "node.pem"] {
        let file = dir.join(name);
        let good = fs::read(&file).unwrap();
        fs::rename(&file, dir.join("aside")).unwrap();
        refused(&[&format!("there is no a/{name}")]);
        fs::rename(dir.join("aside"), &file).unwrap();
        fs::write(&file, "").unwrap();
        refused(&[&format!("a/{name}: contains no")]);
        fs::write(&file, &good[..good.len() / 2]).unwrap();
        refused(&[&format!("a/{name}: "), "no END line"]);
        fs::write(&file, good).unwrap();
    }
    fs::copy(cluster.dir("b").join("node.pem"), dir.join("node.pem")).unwrap();
    refused(&["do not belong together"]);
    assert!(!dir.join("gossipmonger.lock").exists(), "it has not begun");
}

#[test]
fn refuses_a_configuration_that_is_wrong_at_once_although_it_waits() {
    let cluster = Cluster::of(&["a"]);
    fs::remove_file(cluster.dir("a").join("node.key")).unwrap();
    cluster.configure("a", "colour = \"red\"\n");
    cluster.run(&["agent", "--dir", "a", "--wait-for-certificate"]).failed(2, &["colour"]);
    // Also if it becomes so while it waits.
    cluster.configure("a", "wait_for_certificate = true\n");
    let agent = cluster.spawn_by("a", cluster.command(&["agent", "--dir", "a"]));
    eventually("it waits", || agent.log().contains("waiting for a certificate"));
    cluster.configure("a", "colour = \"red\"\n");
    let log = cluster.dir("a").join("log");
    assert_eq!(agent.ended(), 2);
    // Not by the first look, which may have come while it was written.
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("unknown key colour") && log.contains("times in a row"), "{log}");
}

#[test]
fn waits_for_the_authority_that_it_is_to_issue_by() {
    let cluster = Cluster::of(&["a"]);
    let line = ["agent", "--dir", "a", "--preset", "local", "--issuer", "pki"];
    let (pki, ca) = (cluster.path().join("pki"), cluster.path().join("pki/ca.pem"));
    fs::rename(&pki, cluster.path().join("elsewhere")).unwrap();
    cluster.run(&line).failed(6, &["pki/ca.pem"]);
    let line = [&line[..], &["--wait-for-certificate"]].concat();
    let mut agent = cluster.spawn_by("a", cluster.command(&line));
    eventually("it waits", || agent.log().contains("pki/ca.pem"));
    // Half of it is written first.
    let good = fs::read(cluster.path().join("elsewhere/ca.pem")).unwrap();
    fs::write(cluster.path().join("elsewhere/ca.pem"), &good[..good.len() / 2]).unwrap();
    fs::rename(cluster.path().join("elsewhere"), &pki).unwrap();
    fs::write(&ca, good).unwrap();
    agent.awaits_answer();
    agent.run(&["token", "create"]).succeeded();
    agent.stop();
}

#[test]
fn a_lock_that_cannot_be_written_is_no_wrong_configuration() {
    let cluster = Cluster::of(&["a"]);
    fs::create_dir(cluster.dir("a").join("gossipmonger.lock")).unwrap();
    cluster.run(&["agent", "--dir", "a"]).failed(1, &["gossipmonger.lock"]);
}

#[test]
fn waits_until_certificate_key_and_roots_can_be_used_and_says_for_what() {
    let cluster = Cluster::of(&["a", "b"]);
    let dir = cluster.dir("a");
    let (key, roots) = (dir.join("node.key"), dir.join("roots.pem"));
    let (good_key, good_roots) = (fs::read(&key).unwrap(), fs::read(&roots).unwrap());
    fs::remove_file(&key).unwrap();
    let mut command = cluster.command(&["agent", "--dir", "a", "--preset", "local"]);
    command.env("GOSSIPMONGER_WAIT_FOR_CERTIFICATE", "true");
    let notify = cluster.path().join("notify");
    let systemd = UnixDatagram::bind(&notify).unwrap();
    command.env("NOTIFY_SOCKET", &notify);
    // As systemd does, it takes whatever comes.
    let (heard, told) = mpsc::channel();
    thread::spawn(move || {
        let mut message = [0; 1024];
        while let Ok(length) = systemd.recv(&mut message) {
            let _ = heard.send(String::from_utf8_lossy(&message[..length]).into_owned());
        }
    });
    let mut agent = cluster.spawn_by("a", command);
    eventually("it says for what", || agent.log().contains("there is no a/node.key"));
    agent.run(&["info"]).failed(4, &["no agent runs in"]);
    let told = told.recv_timeout(Duration::from_secs(60)).unwrap();
    assert!(told.contains("STATUS=waiting for a certificate: there is no a/node.key"), "{told}");
    assert!(told.contains("EXTEND_TIMEOUT_USEC="), "{told}");
    // One thing after the other comes, as a sidecar writes them; it takes none of them alone.
    fs::write(&roots, &good_roots[..good_roots.len() / 2]).unwrap();
    fs::copy(cluster.dir("b").join("node.key"), &key).unwrap();
    eventually("it sees that they do not fit", || {
        agent.log().matches("waiting for a certificate").count() > 1
    });
    fs::write(&key, good_key).unwrap();
    fs::write(&roots, good_roots).unwrap();
    agent.awaits_answer();
    agent.stop();
}

#[test]
fn ends_when_it_is_told_to_while_it_waits() {
    let cluster = Cluster::of(&["a"]);
    fs::remove_file(cluster.dir("a").join("node.pem")).unwrap();
    let line = ["agent", "--dir", "a", "--wait-for-certificate"];
    let agent = cluster.spawn_by("a", cluster.command(&line));
    eventually("it waits", || agent.log().contains("waiting for a certificate"));
    agent.stop();
    assert!(!cluster.dir("a").join("gossipmonger.lock").exists());
}

#[test]
fn ends_when_it_is_told_to_while_a_file_hangs_at_the_start() {
    let cluster = Cluster::of(&["a"]);
    if !hangs(&cluster.dir("a").join("node.pem")) {
        return;
    }
    let agent = cluster.spawn_by("a", cluster.command(&["agent", "--dir", "a", "--log", "debug"]));
    eventually("it reads", || agent.log().contains("reading certificate, key and roots"));
    agent.stop();
}

#[test]
fn ends_when_it_is_told_to_while_it_reloads() {
    let cluster = Cluster::of(&["a"]);
    let a = cluster.start("a", &[]);
    if !hangs(&cluster.dir("a").join("roots.pem")) {
        return;
    }
    a.signal("HUP");
    eventually("it reloads", || a.log().contains("told to reload by SIGHUP"));
    let log = cluster.dir("a").join("log");
    a.stop();
    let log = fs::read_to_string(log).unwrap();
    assert!(!log.contains("nothing reloaded"), "it waited for the files first: {log}");
}
