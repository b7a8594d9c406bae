//! Things outside the process that stand still: what reads the log, and disks.

use std::{
    io::{Read, Write, pipe},
    process::{Command, Stdio},
    thread,
};

use crate::harness::{Cluster, eventually};

/// What a pipe of Linux holds.
const PIPE_BYTES: usize = 64 << 10;

#[test]
fn a_log_that_nobody_reads_stops_nothing_and_goes_on_with_its_reader() {
    let cluster = Cluster::of(&["a", "b"]);
    let (mut reader, mut log) = pipe().unwrap();
    log.write_all(&[b'.'; PIPE_BYTES]).unwrap();
    let mut command = cluster.command(&["agent", "--dir", "a", "--preset", "local"]);
    // One that waits would be all.
    command.env("TOKIO_WORKER_THREADS", "1");
    let a = cluster.start_logging("a", command, Stdio::from(log));
    let b = cluster.start("b", &["--seed", &a.address()]);
    a.awaits("b", "live");
    b.awaits("a", "live");
    let dropped = &a.json(&["info"])["counters"]["log_lines_dropped"];
    assert_eq!(dropped, 0, "there is room for some lines");
    let reading = thread::spawn(move || {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        String::from_utf8(all).unwrap()
    });
    a.stop();
    let said = reading.join().unwrap();
    for line in ["started", "live", "leaving"] {
        assert!(said.contains(line), "{line:?} is missing in: {}", &said[PIPE_BYTES..]);
    }
}

#[test]
fn an_end_is_not_held_up_by_a_log_that_nobody_reads() {
    let cluster = Cluster::of(&["a"]);
    let (_reader, mut log) = pipe().unwrap();
    log.write_all(&[b'.'; PIPE_BYTES]).unwrap();
    let command = cluster.command(&["agent", "--dir", "a", "--preset", "local"]);
    let a = cluster.start_logging("a", command, Stdio::from(log.try_clone().unwrap()));
    a.signal("TERM");
    assert_eq!(a.ended(), 0);
    // The reason of a failure is the last line.
    let mut command = cluster.command(&["agent", "--dir", "a", "--gossip-fanout", "0"]);
    let mut failing = command.stderr(Stdio::from(log)).spawn().unwrap();
    eventually("it ends", || failing.try_wait().unwrap().is_some());
    assert_eq!(failing.wait().unwrap().code(), Some(2));
}

#[test]
fn a_file_that_hangs_holds_up_nobody_else_and_is_given_up() {
    let cluster = Cluster::of(&["a"]);
    let mut command = cluster.command(&["agent", "--dir", "a", "--preset", "local"]);
    command.env("TOKIO_WORKER_THREADS", "1");
    let a = cluster.start_by("a", command);
    let roots = a.dir.join("roots.pem");
    std::fs::rename(&roots, a.dir.join("away")).unwrap();
    // To be opened it waits for somebody who writes.
    assert!(Command::new("mkfifo").arg(&roots).status().unwrap().success());
    let reload = a.command(&["reload"]);
    let reloading = thread::spawn(move || crate::harness::said(reload));
    eventually("the file was waited for", || {
        a.run(&["set", "k", "v"]).succeeded();
        a.json(&["info"])["certificate_problem"].is_string() || reloading.is_finished()
    });
    reloading.join().unwrap().failed(1, &["no answer from the system within 10s"]);
    std::fs::remove_file(&roots).unwrap();
    std::fs::rename(a.dir.join("away"), &roots).unwrap();
    a.run(&["reload"]).succeeded();
    a.stop();
}
