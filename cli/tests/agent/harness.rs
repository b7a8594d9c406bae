//! Runs the program, and agents that end with the test.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, UdpSocket},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

/// A cluster's directory: `pki`, and one directory per node.
pub(crate) struct Cluster {
    directory: TempDir,
}

/// What a command has said.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A running agent; it is killed with this.
pub(crate) struct Agent {
    child: Option<Child>,
    pub(crate) dir: PathBuf,
}

impl Cluster {
    /// A new authority.
    pub(crate) fn new() -> Self {
        let cluster = Self { directory: tempfile::tempdir().unwrap() };
        cluster.run(&["ca", "init", "--cluster", "demo", "--dir", "pki"]).succeeded();
        cluster
    }

    /// A new authority, and a certificate for each node in datacenter `eu`.
    pub(crate) fn of(nodes: &[&str]) -> Self {
        let cluster = Self::new();
        for node in nodes {
            cluster.issue(node);
        }
        cluster
    }

    pub(crate) fn issue(&self, node: &str) {
        self.issue_in("eu", node);
    }

    pub(crate) fn issue_in(&self, datacenter: &str, node: &str) {
        let line = ["cert", "issue", "--ca", "pki", "--node", node, "--dir", node];
        self.run(&[&line[..], &["--datacenter", datacenter]].concat()).succeeded();
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn dir(&self, node: &str) -> PathBuf {
        self.path().join(node)
    }

    /// Writes a node's configuration.
    pub(crate) fn configure(&self, node: &str, text: &str) {
        fs::write(self.dir(node).join("gossipmonger.toml"), text).unwrap();
    }

    /// Runs the program in the cluster's directory.
    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        said(self.command(arguments))
    }

    /// The program in the cluster's directory, with none of our own environment variables.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command.current_dir(self.path()).args(arguments);
        command
    }

    /// Starts a node on any free port, with fast gossip, and waits until it answers.
    pub(crate) fn start(&self, node: &str, arguments: &[&str]) -> Agent {
        let mut line = vec!["agent", "--dir", node, "--preset", "local"];
        line.extend(arguments);
        self.start_by(node, self.command(&line))
    }

    /// Starts a node by any command, and waits until it answers.
    pub(crate) fn start_by(&self, node: &str, command: Command) -> Agent {
        let mut agent = self.spawn_by(node, command);
        agent.awaits_answer();
        agent
    }

    /// Starts a node by any command.
    pub(crate) fn spawn_by(&self, node: &str, command: Command) -> Agent {
        let log = self.dir(node).join("log");
        let log = fs::File::options().create(true).append(true).open(log).unwrap();
        self.spawn_logging(node, command, log.into())
    }

    /// As [`start_by`](Self::start_by), with its log somewhere else.
    pub(crate) fn start_logging(&self, node: &str, command: Command, log: Stdio) -> Agent {
        let mut agent = self.spawn_logging(node, command, log);
        agent.awaits_answer();
        agent
    }

    fn spawn_logging(&self, node: &str, mut command: Command, log: Stdio) -> Agent {
        let dir = self.dir(node);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Agent { child: Some(command.spawn().unwrap()), dir }
    }
}

impl Agent {
    /// Waits until it answers.
    pub(crate) fn awaits_answer(&mut self) {
        eventually(&format!("{} answers", self.dir.display()), || {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("the agent in {} has ended ({status}): {}", self.dir.display(), self.log());
            }
            self.run(&["info"]).code == 0
        });
    }

    /// Runs a command about this agent.
    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        said(self.command(arguments))
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command.arg("--dir").arg(&self.dir).args(arguments);
        command
    }

    /// Runs a command that succeeds and prints JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        self.run(&[arguments, &["--json"]].concat()).succeeded().json()
    }

    /// Where others reach it.
    pub(crate) fn address(&self) -> String {
        self.json(&["info"])["addresses"][0].as_str().unwrap().to_owned()
    }

    /// What it thinks of a node; empty if it knows none of this name.
    pub(crate) fn state_of(&self, node: &str) -> String {
        let members = self.json(&["members", "--node", node]);
        members[0]["state"].as_str().unwrap_or_default().to_owned()
    }

    /// The value of a node's key; `None` if it has none.
    pub(crate) fn get(&self, node: &str, key: &str) -> Option<String> {
        let said = self.run(&["get", node, key]);
        (said.code == 0).then(|| said.out.trim_end().to_owned())
    }

    pub(crate) fn awaits(&self, node: &str, state: &str) {
        let what = format!("{} sees {node} {state}", self.dir.display());
        eventually(&what, || self.state_of(node) == state);
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Sends it a signal by name.
    pub(crate) fn signal(&self, signal: &str) {
        Self::signal_all([self], signal);
    }

    /// Sends it to several at the same moment.
    pub(crate) fn signal_all<'a>(agents: impl IntoIterator<Item = &'a Self>, signal: &str) {
        let pids = agents.into_iter().map(|agent| agent.child.as_ref().unwrap().id().to_string());
        let status = Command::new("kill").args(["-s", signal]).args(pids).status().unwrap();
        assert!(status.success());
    }

    /// Waits until it has ended by itself; its exit code.
    pub(crate) fn ended(mut self) -> i32 {
        let mut child = self.child.take().unwrap();
        let mut code = None;
        eventually("the agent ends", || {
            code = child.try_wait().unwrap();
            code.is_some()
        });
        code.unwrap().code().unwrap_or(-1)
    }

    /// SIGTERM, and waits.
    pub(crate) fn stop(self) {
        self.signal("TERM");
        let log = self.dir.join("log");
        assert_eq!(self.ended(), 0, "{}", fs::read_to_string(log).unwrap());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Said {
    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, 0, "out: {}\nerr: {}", self.out, self.err);
        self
    }

    /// It failed with this code, and its one line says all of these.
    #[track_caller]
    pub(crate) fn failed(self, code: i32, says: &[&str]) -> Self {
        assert_eq!(self.code, code, "out: {}\nerr: {}", self.out, self.err);
        for part in says {
            assert!(self.err.contains(part), "{part:?} is missing in: {}", self.err);
        }
        assert!(!self.err.contains("panicked") && !self.err.contains("backtrace"), "{}", self.err);
        self
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }
}

/// Answers every request on the socket of a directory with this: an object with `done` or `error`, as a hostile agent
/// would.
pub(crate) fn hostile_agent(dir: &Path, answer: &Value) {
    let listener = UnixListener::bind(dir.join("gossipmonger.sock")).unwrap();
    let (status, body) = match answer.get("done") {
        Some(done) => ("200 OK", done.to_string()),
        None => ("500 Failed", answer.to_string()),
    };
    let length = body.len();
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = BufReader::new(stream.try_clone().unwrap()).lines();
            while head.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            // Who has seen enough may have gone.
            let _ = stream.write_all(answer.as_bytes());
        }
    });
}

/// Polls until it is so.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "a deadline for real processes")]
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        thread::sleep(POLL);
    }
}

/// Puts a named pipe in the place of a file: a process that opens it waits for ever, as on a file system that
/// hangs. Says so, and `false`, where there is no mkfifo(1).
pub(crate) fn hangs(file: &Path) -> bool {
    let _ = fs::remove_file(file);
    match Command::new("mkfifo").arg(file).status() {
        Ok(status) => {
            assert!(status.success(), "mkfifo {}", file.display());
            true
        }
        Err(error) => {
            eprintln!("SKIPPED: mkfifo cannot be run: {error}");
            false
        }
    }
}

/// A UDP and a TCP port of loopback that were free a moment ago.
pub(crate) fn free_ports() -> (u16, u16) {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    (udp.local_addr().unwrap().port(), tcp.local_addr().unwrap().port())
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gossipmonger"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("GOSSIPMONGER_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

pub(crate) fn said(mut command: Command) -> Said {
    let Output { status, stdout, stderr } = command.output().unwrap();
    Said {
        code: status.code().unwrap_or(-1),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(25);
