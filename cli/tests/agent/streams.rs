//! `watch` and `events`, and the protocol of the socket itself.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::harness::{Agent, Cluster};

// C94
#[test]
fn watch_tells_changes_of_all_nodes_below_a_prefix() {
    let cluster = Cluster::of(&["a", "b"]);
    let a = cluster.start("a", &[]);
    let b = cluster.start("b", &["--seed", &a.address()]);
    b.awaits("a", "live");
    a.run(&["set", "app/old", "1"]).succeeded();
    let here = Stream::new(&a, &["watch", "app/", "--json", "--existing"]);
    let there = Stream::new(&b, &["watch", "app/", "--json"]);
    let old = here.next();
    assert_eq!([&old["event"], &old["key"], &old["value"]], ["updated", "app/old", "1"]);
    a.run(&["set", "other", "2"]).succeeded();
    a.run(&["set", "app/new", "3"]).succeeded();
    for stream in [&here, &there] {
        let new = stream.until(|event| event["key"] == "app/new");
        assert_eq!([&new["event"], &new["peer"], &new["value"]], ["updated", "a", "3"]);
        assert!(new["version"].as_u64() > Some(0) && new["generation"].as_u64() > Some(0));
    }
    a.run(&["delete", "app/new"]).succeeded();
    for stream in [&here, &there] {
        let deleted = stream.next();
        assert_eq!([&deleted["event"], &deleted["key"]], ["deleted", "app/new"]);
    }
}

/// The agents of the other datacenter are stopped, which from here looks like a cut.
#[test]
fn a_datacenter_that_cannot_be_reached_is_told_and_shown() {
    let cluster = Cluster::of(&["a", "b"]);
    ["x", "y", "z"].iter().for_each(|node| cluster.issue_in("us", node));
    let a = cluster.start("a", &[]);
    let seed = a.address();
    let start = |node| cluster.start(node, &["--seed", &seed]);
    let (_b, far) = (start("b"), ["x", "y", "z"].map(start));
    ["b", "x", "y", "z"].iter().for_each(|node| a.awaits(node, "live"));
    let events = Stream::new(&a, &["events", "--json"]);
    Agent::signal_all(&far, "STOP");
    events.until(|event| event == &json!({"event": "datacenter_unreachable", "datacenter": "us"}));
    let cut_off = a.json(&["members", "--state", "unreachable"]);
    assert_eq!(cut_off.as_array().unwrap().len(), 3);
    assert!(cut_off.as_array().unwrap().iter().all(|member| member["datacenter"] == "us"));
    assert_eq!(a.json(&["info"])["members"], json!({"live": 2, "unreachable": 3}));
    assert!(a.json(&["info"])["counters"]["datacenters_lost"].as_u64() >= Some(1));
    Agent::signal_all(&far, "CONT");
    events.until(|event| event == &json!({"event": "datacenter_reachable", "datacenter": "us"}));
    ["x", "y", "z"].iter().for_each(|node| a.awaits(node, "live"));
    assert!(a.log().contains("nobody there is heard any more"));
}

// C94
#[test]
fn events_tell_who_comes_and_goes() {
    let cluster = Cluster::of(&["a", "b"]);
    let a = cluster.start("a", &[]);
    let events = Stream::new(&a, &["events", "--json"]);
    let b = cluster.start("b", &["--seed", &a.address()]);
    events.until(|event| event["event"] == "new_peer" && event["peer"] == "b");
    events.until(|event| event["event"] == "peer_live" && event["peer"] == "b");
    b.run(&["leave"]).succeeded();
    events.until(|event| event["event"] == "peer_left" && event["peer"] == "b");
    let b = cluster.start("b", &["--seed", &a.address(), "--rejoin"]);
    events.until(|event| event["event"] == "peer_live" && event["peer"] == "b");
    b.signal("KILL");
    events.until(|event| event["event"] == "peer_dead" && event["peer"] == "b");
    // The end of the agent is the end of the stream, and no failure.
    a.stop();
    assert!(events.ended());
}

// C94
#[test]
fn events_tell_the_protocol_if_asked_for() {
    let cluster = Cluster::of(&["a", "b"]);
    let a = cluster.start("a", &[]);
    let events = Stream::new(&a, &["events", "--protocol", "--json"]);
    let _b = cluster.start("b", &["--seed", &a.address()]);
    for name in ["digest_received", "digest_sent", "deltas_sent"] {
        let event = events.until(|event| event["event"] == name);
        assert_eq!(event["peer"], "b");
        assert!(event["nodes"].is_u64());
    }
}

#[test]
fn watch_prints_lines_for_people() {
    let cluster = Cluster::of(&["a"]);
    let a = cluster.start("a", &[]);
    a.run(&["set", "color", "green"]).succeeded();
    let mut child = spawn(a.command(&["watch", "--existing"]));
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "a color = green\n");
    // Its reader has gone with that, so it ends, though nothing more happens.
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_socket_refuses_what_it_does_not_understand() {
    let cluster = Cluster::of(&["a"]);
    let a = cluster.start("a", &[]);
    for (line, says) in [
        ("hello\n", "not understood"),
        ("{\"v\":1,\"do\":\"explode\"}\n", "explode"),
        ("{\"v\":2,\"do\":\"members\"}\n", "of version 2, this agent speaks version 1"),
        ("{\"v\":1,\"do\":\"set\",\"key\":\"k\",\"base64\":\"?\"}\n", "base64"),
    ] {
        let answer = ask(&a, line);
        assert_eq!(answer["error"]["code"], "usage", "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(says), "{answer}");
    }
    let answer = ask(&a, "{\"v\":1,\"do\":\"get\",\"node\":\"a\",\"key\":\"k\"}\n");
    assert_eq!(answer["error"]["code"], "not_found", "{answer}");
    let answer = ask(&a, "{\"v\":1,\"do\":\"tags\"}\n");
    assert_eq!(answer, json!({"done": {"tags": {}}}));
}

#[test]
fn watchers_have_a_limit_and_shut_nobody_out() {
    let cluster = Cluster::of(&["a"]);
    let a = cluster.start("a", &[]);
    let line = "{\"v\":1,\"do\":\"events\",\"protocol\":false}\n";
    let mut watchers = Vec::new();
    let refused = loop {
        let mut stream = BufReader::new(connect(&a));
        stream.get_mut().write_all(line.as_bytes()).unwrap();
        let answer = read(&mut stream);
        if !answer["error"].is_null() {
            break answer;
        }
        assert_eq!(answer, json!({"item": {"event": "watching"}}));
        watchers.push(stream);
    };
    assert_eq!(watchers.len(), 32, "{refused}");
    a.run(&["info"]).succeeded();
    // One that ends makes room.
    watchers.pop();
    crate::harness::eventually("there is room again", || ask(&a, line)["item"].is_object());
}

#[test]
fn a_slow_reader_is_told_what_it_missed() {
    let cluster = Cluster::of(&["a"]);
    cluster.configure("a", "event_queue = 2\n");
    let a = cluster.start("a", &[]);
    let mut stream = BufReader::new(connect(&a));
    stream
        .get_mut()
        .write_all(b"{\"v\":1,\"do\":\"watch\",\"prefix\":\"\",\"existing\":false}\n")
        .unwrap();
    assert_eq!(read(&mut stream)["item"]["event"], "watching");
    // More than the socket's buffers hold.
    let file = cluster.path().join("large");
    for n in 0..8 {
        std::fs::write(&file, vec![b'0' + n; 1 << 20]).unwrap();
        a.run(&["set", "large", "--file", file.to_str().unwrap()]).succeeded();
    }
    let mut missed = 0;
    loop {
        let item = read(&mut stream)["item"].clone();
        match item["event"].as_str().unwrap() {
            "lagged" => missed += item["missed"].as_u64().unwrap(),
            "updated" if item["value"].as_str().unwrap().starts_with('7') => break,
            other => assert_eq!(other, "updated"),
        }
    }
    assert!(missed > 0);
}

/// A command that prints a line of JSON per event.
pub(crate) struct Stream {
    child: Child,
    events: Receiver<Value>,
}

impl Stream {
    /// Starts it, and waits until it misses nothing any more.
    pub(crate) fn new(agent: &Agent, arguments: &[&str]) -> Self {
        let mut child = spawn(agent.command(arguments));
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, events) = channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        let stream = Self { child, events };
        assert_eq!(stream.next(), json!({"event": "watching"}));
        stream
    }

    #[track_caller]
    pub(crate) fn next(&self) -> Value {
        self.events.recv_timeout(DEADLINE).expect("an event")
    }

    #[track_caller]
    pub(crate) fn until(&self, is_it: impl Fn(&Value) -> bool) -> Value {
        loop {
            let event = self.next();
            if is_it(&event) {
                return event;
            }
        }
    }

    /// Whether it ends by itself, and well.
    pub(crate) fn ended(mut self) -> bool {
        self.child.wait().unwrap().success()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).spawn().unwrap()
}

fn connect(agent: &Agent) -> UnixStream {
    let stream = UnixStream::connect(agent.dir.join("gossipmonger.sock")).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// The first line of the answer to a line.
fn ask(agent: &Agent, line: &str) -> Value {
    let mut stream = BufReader::new(connect(agent));
    stream.get_mut().write_all(line.as_bytes()).unwrap();
    read(&mut stream)
}

fn read(from: &mut BufReader<impl Read>) -> Value {
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

const DEADLINE: Duration = Duration::from_secs(60);
