//! Clients of other machines: what each role may ask for, and who is none.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use crate::harness::{Agent, Cluster, Said, eventually, said};

const ROLES: [&str; 3] = ["read", "watch", "admin"];

/// The table of docs/cli.md, row by row, against a running agent. What a role may not do has not
/// happened.
#[test]
fn each_role_may_do_what_the_table_says_and_nothing_else() {
    let cluster = Cluster::of(&["a", "b"]);
    for role in ROLES {
        cluster.client(role, role);
    }
    let a = cluster.start("a", &[]);
    let b = cluster.start("b", &["--seed", &a.address()]);
    a.awaits("b", "live");
    a.run(&["set", "color", "green"]).succeeded();
    b.signal("KILL");
    b.ended();
    a.awaits("b", "dead");
    // Parts of `set --wait`, of `debug` and of `bench live`, and no commands of their own.
    let parts = ["await", "log_tail", "copies", "probe"];
    for (request, needed) in
        documented().into_iter().filter(|(name, _)| !parts.contains(&name.as_str()))
    {
        for role in ROLES {
            let before = state(&a);
            let said = cluster.ask(&a, role, &request, role);
            // What is permitted, and asks for something that is not there.
            let absent = match request.as_str() {
                "why_service" | "call" => Some("offer"),
                "rtt" => Some("no node"),
                _ => None,
            };
            if let (Some(absent), true) = (absent, rank(role) >= rank(&needed)) {
                said.failed(3, &[absent]);
            } else if rank(role) >= rank(&needed) {
                said.succeeded();
            } else {
                let refusal = format!("role {role} may not {request}; needs {needed}");
                said.failed(2, &[&refusal]);
                assert_eq!(state(&a), before, "{request} by {role}");
            }
            if request == "leave" && role == "admin" {
                assert_eq!(a.ended(), 0);
                return;
            }
        }
    }
    panic!("leave is the last row of the table");
}

#[test]
fn watching_goes_on_until_the_agent_ends() {
    let cluster = Cluster::of(&["a"]);
    cluster.client("w", "watch");
    let a = cluster.start("a", &[]);
    let (mut child, out) = cluster.watch(&a, "w");
    eventually("it watches", || fs::read_to_string(&out).unwrap().contains("watching"));
    a.run(&["set", "color", "green"]).succeeded();
    eventually("it is told", || fs::read_to_string(&out).unwrap().contains("\"color\""));
    a.stop();
    assert!(child.wait().unwrap().success());
}

#[test]
fn carries_values_of_any_size_and_kind() {
    let cluster = Cluster::of(&["a"]);
    cluster.client("alice", "admin");
    let a = cluster.start("a", &[]);
    let large: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    fs::write(cluster.path().join("large"), &large).unwrap();
    cluster.by(&a, "alice", &["set", "blob", "--file", "large"]).succeeded();
    let mut command = cluster.command_by(&a, "alice", &["get", "a", "blob", "--raw"]);
    assert_eq!(command.output().unwrap().stdout, large);
}

#[test]
fn logs_who_has_changed_what_and_counts_who_may_not() {
    let cluster = Cluster::of(&["a"]);
    cluster.client("alice", "admin");
    cluster.client("bob", "read");
    let a = cluster.start("a", &[]);
    cluster.by(&a, "alice", &["set", "color", "green"]).succeeded();
    // Not a warning each time that it tries.
    for _ in 0..3 {
        cluster.by(&a, "bob", &["set", "color", "red"]).failed(2, &["role read may not set"]);
    }
    assert_eq!(a.get("a", "color").as_deref(), Some("green"));
    let log = a.log();
    let line = |part: &str| log.lines().find(|line| line.contains(part)).unwrap_or_default();
    let asked = line("a client asks");
    for part in ["spiffe://demo/client/admin/alice", "127.0.0.1:", "set", "color"] {
        assert!(asked.contains(part), "{part:?} is missing in {asked:?} of {log}");
    }
    let refused = line("a client was refused");
    for part in ["spiffe://demo/client/read/bob", "127.0.0.1:", "may not set; needs admin"] {
        assert!(refused.contains(part), "{part:?} is missing in {refused:?} of {log}");
    }
    assert_eq!(log.matches("a client was refused").count(), 1, "{log}");
    let counters = &a.json(&["info"])["counters"];
    assert_eq!(counters["client_requests_refused"], 3);
    assert_eq!(counters["clients_accepted"], 4);
}

#[test]
fn refuses_whoever_is_no_client_of_this_cluster() {
    let cluster = Cluster::of(&["a", "b"]);
    let a = cluster.start("a", &[]);
    // A node is no client.
    let node = ["--cert", "b/node.pem"];
    let says = ["turned us away", "gives you no role", "cert issue --client"];
    cluster.at(&a, &[&node[..], &["members"]].concat()).failed(2, &says);
    assert_eq!(a.json(&["info"])["refusals"]["no_role"], 1);
    // Nor is who comes from another authority, of the same name or not.
    for name in ["demo", "other"] {
        let line = ["ca", "init", "--cluster", name, "--dir", &format!("pki-{name}")];
        cluster.run(&line).succeeded();
        cluster.client_of(&format!("pki-{name}"), name, "admin");
        fs::copy(cluster.dir("a").join("roots.pem"), cluster.dir(name).join("roots.pem")).unwrap();
    }
    cluster.by(&a, "demo", &["info"]).failed(2, &["the peer refused us", "made twice"]);
    // Its own cluster is another one, so it does not even accept the node.
    cluster.by(&a, "other", &["info"]).failed(2, &["we refused the peer", "another cluster"]);
    let accepts_any = ["--expect", "spiffe://demo/eu/a", "info"];
    cluster.by(&a, "other", &accepts_any).failed(2, &["the peer refused us", "does not trust"]);
    let refusals = &a.json(&["info"])["refusals"];
    for reason in ["bad_signature", "unknown_authority"] {
        assert!(refusals[reason].as_u64() >= Some(1), "{reason}: {refusals}");
    }
}

/// Whoever has a token becomes a node.
#[test]
fn a_client_makes_no_tokens() {
    let cluster = Cluster::new();
    cluster.client("alice", "admin");
    let line = ["--agent", "127.0.0.1:1", "--cert", "alice", "token", "create"];
    cluster.run(&line).failed(2, &["on the agent's own machine", "--dir"]);
}

#[test]
fn refuses_an_agent_that_is_not_the_one_expected() {
    let cluster = Cluster::of(&["a"]);
    cluster.client("alice", "read");
    let a = cluster.start("a", &[]);
    let info = |expect: &str| cluster.by(&a, "alice", &["--expect", expect, "info"]);
    info("a").succeeded();
    info("spiffe://demo/eu/a").succeeded();
    info("b").failed(2, &["it is spiffe://demo/eu/a, expected b"]);
    info("spiffe://demo/eu/b").failed(2, &["expected spiffe://demo/eu/b"]);
    // An agent of another authority.
    cluster.run(&["ca", "init", "--cluster", "demo", "--dir", "pki2"]).succeeded();
    cluster.client_of("pki2", "mallory", "read");
    cluster.by(&a, "mallory", &["info"]).failed(2, &["we refused the peer", "same name"]);
}

#[test]
fn says_what_is_missing() {
    let cluster = Cluster::of(&["a"]);
    cluster.client("alice", "read");
    let line = ["--agent", "127.0.0.1:1", "--cert", "alice", "info"];
    cluster.run(&line).failed(4, &["no agent answers at 127.0.0.1:1"]);
    let line = ["--agent", "127.0.0.1:1", "--cert", "bob", "info"];
    cluster.run(&line).failed(2, &["bob", "cert issue", "--client NAME --role"]);
    let line = ["--agent", "127.0.0.1:1", "--dir", "a", "info"];
    cluster.run(&line).failed(2, &["a/client.pem", "--cert DIR"]);
    let line = ["--agent", "nowhere", "--cert", "alice", "info"];
    cluster.run(&line).failed(2, &["--agent nowhere is refused: host:port with a port"]);
    let issue = |more: &[&str]| {
        cluster.run(&[&["cert", "issue", "--ca", "pki", "--dir", "x"][..], more].concat())
    };
    issue(&["--client", "x"]).failed(2, &["--role"]);
    issue(&["--client", "x", "--role", "root"]).failed(2, &["root", "read, watch and admin"]);
    issue(&["--client", "X", "--role", "read"]).failed(2, &["\"X\"", "a-z"]);
    issue(&["--node", "x"]).failed(2, &["--datacenter"]);
    issue(&["--node", "x", "--datacenter", "eu", "--client", "x", "--role", "read"])
        .failed(2, &["--client"]);
}

#[test]
fn takes_the_place_and_the_papers_from_the_environment_or_from_files() {
    let cluster = Cluster::of(&["a"]);
    cluster.client("alice", "read");
    let a = cluster.start("a", &[]);
    let mut command = cluster.command(&["members", "--json"]);
    command.env("GOSSIPMONGER_AGENT", a.address()).env("GOSSIPMONGER_AGENT_CERT", "alice");
    assert_eq!(said(command).succeeded().json()[0]["node"], "a");
    for (from, to) in [("client.pem", "c.pem"), ("client.key", "k"), ("roots.pem", "r")] {
        fs::rename(cluster.dir("alice").join(from), cluster.path().join(to)).unwrap();
    }
    let files = ["--cert", "c.pem", "--client-key", "k", "--client-roots", "r"];
    cluster.at(&a, &[&files[..], &["members"]].concat()).succeeded();
    cluster.at(&a, &["--cert", "c.pem", "members"]).failed(2, &["c.key"]);
    // An agent is not irritated by them.
    let mut command = cluster.command(&["agent", "--dir", "b"]);
    command.env("GOSSIPMONGER_AGENT", "x").env("GOSSIPMONGER_AGENT_CERT", "y");
    said(command).failed(6, &["there is no directory b"]);
}

/// A PKI that cannot make our URIs: roles by a map, in force by a reload, for those connected too.
#[test]
fn a_map_gives_roles_and_takes_them() {
    let cluster = Cluster::of(&["a", "b"]);
    let a = cluster.start("a", &[]);
    let by_b = |line: &[&str]| cluster.at(&a, &[&["--cert", "b/node.pem"][..], line].concat());
    by_b(&["members"]).failed(2, &["no role"]);
    let map = |role: &str| {
        cluster.configure("a", &format!("[clients]\n\"spiffe://demo/eu/b\" = \"{role}\"\n"));
        let reloaded = a.json(&["reload"]);
        assert!(reloaded["applied"].as_array().unwrap().contains(&json!("clients")), "{reloaded}");
    };
    map("watch");
    by_b(&["members"]).succeeded();
    by_b(&["set", "k", "v"]).failed(2, &["role watch may not set"]);
    map("admin");
    by_b(&["set", "k", "v"]).succeeded();
    let mut command = cluster.command(&["--agent", &a.address(), "--cert", "b/node.pem"]);
    let (mut child, out) = watching(command.args(["watch", "--json"]), &cluster);
    eventually("it watches", || fs::read_to_string(&out).unwrap().contains("watching"));
    cluster.configure("a", "");
    a.run(&["reload"]).succeeded();
    assert_eq!(child.wait().unwrap().code(), Some(2), "sent away");
    // The map counts before the URI, and takes as well as it gives.
    cluster.client("alice", "admin");
    cluster.by(&a, "alice", &["set", "k", "w"]).succeeded();
    cluster.configure("a", "[clients]\n\"spiffe://demo/client/admin/alice\" = \"read\"\n");
    a.run(&["reload"]).succeeded();
    cluster.by(&a, "alice", &["set", "k", "x"]).failed(2, &["role read may not set"]);
    // What cannot be meant is refused, and everything stays.
    for (bad, says) in [
        ("\"alice\" = \"read\"", "is the URI of a certificate"),
        ("\"://\" = \"read\"", "no certificate has this URI"),
        ("\"spiffe://demo/x\" = \"root\"", "unknown variant `root`"),
    ] {
        cluster.configure("a", &format!("[clients]\n{bad}\n"));
        a.run(&["reload"]).failed(2, &["gossipmonger", says]);
    }
    cluster.by(&a, "alice", &["members"]).succeeded();
}

/// Roots that do not vouch for a client any more end its connection.
#[test]
fn a_reload_of_the_roots_sends_clients_away() {
    let cluster = Cluster::of(&["a"]);
    cluster.client("w", "watch");
    let a = cluster.start("a", &[]);
    let (mut child, out) = cluster.watch(&a, "w");
    eventually("it watches", || fs::read_to_string(&out).unwrap().contains("watching"));
    cluster.run(&["ca", "init", "--cluster", "demo", "--dir", "new"]).succeeded();
    // They vouch for the node all the same: it has a certificate of the new authority.
    let issue = ["cert", "issue", "--ca", "new", "--node", "a", "--datacenter", "eu"];
    cluster.run(&[&issue[..], &["--dir", "a", "--force"]].concat()).succeeded();
    fs::copy(cluster.dir("new").join("ca.pem"), cluster.dir("a").join("roots.pem")).unwrap();
    a.run(&["reload"]).succeeded();
    assert_eq!(child.wait().unwrap().code(), Some(2));
    let told = fs::read_to_string(cluster.path().join("w.err")).unwrap();
    assert!(told.contains("turned us away"), "{told}");
}

/// A client is revoked by its name, by a client as well, and at once.
#[test]
fn a_revoked_client_is_sent_away_and_does_not_come_back() {
    let cluster = Cluster::of(&["a"]);
    cluster.client("w", "watch");
    cluster.client("alice", "admin");
    let a = cluster.start("a", &[]);
    let (mut child, out) = cluster.watch(&a, "w");
    eventually("it watches", || fs::read_to_string(&out).unwrap().contains("watching"));
    cluster.by(&a, "alice", &["cert", "revoke", "w", "--ca", "pki"]).succeeded();
    assert_eq!(child.wait().unwrap().code(), Some(2));
    let told = fs::read_to_string(cluster.path().join("w.err")).unwrap();
    assert!(told.contains("your certificate was revoked"), "{told}");
    cluster.by(&a, "w", &["members"]).failed(2, &["our certificate was revoked"]);
    assert!(a.json(&["info"])["refusals"]["revoked"].as_u64() >= Some(2));
    cluster.by(&a, "alice", &["members"]).succeeded();
    // A new certificate is another matter.
    fs::remove_dir_all(cluster.dir("w")).unwrap();
    cluster.client("w", "watch");
    eventually("the new one is valid", || cluster.by(&a, "w", &["members"]).code == 0);
}

/// An agent does not start as a client.
#[test]
fn a_clients_certificate_makes_no_agent() {
    let cluster = Cluster::of(&["a"]);
    cluster.client("alice", "admin");
    let dir = cluster.dir("alice");
    fs::rename(dir.join("client.pem"), dir.join("node.pem")).unwrap();
    fs::rename(dir.join("client.key"), dir.join("node.key")).unwrap();
    let says = ["node.pem", "spiffe://demo/client/admin/alice", "is not a node's name"];
    cluster.run(&["agent", "--dir", "alice"]).failed(6, &says);
    let shown = cluster.run(&["cert", "show", "--dir", "alice", "--json"]).succeeded().json();
    assert_eq!(shown[0]["name"], "spiffe://demo/client/admin/alice");
}

impl Cluster {
    /// A client of this name in a directory of that name.
    pub(crate) fn client(&self, name: &str, role: &str) {
        self.client_of("pki", name, role);
    }

    pub(crate) fn client_of(&self, pki: &str, name: &str, role: &str) {
        let line = ["cert", "issue", "--ca", pki, "--client", name, "--role", role, "--dir", name];
        self.run(&line).succeeded();
    }

    /// Runs a command about an agent, as any client.
    fn at(&self, agent: &Agent, arguments: &[&str]) -> Said {
        let address = agent.address();
        said(self.command(&[&["--agent", &address][..], arguments].concat()))
    }

    /// The same as a client of this directory.
    pub(crate) fn by(&self, agent: &Agent, client: &str, arguments: &[&str]) -> Said {
        said(self.command_by(agent, client, arguments))
    }

    fn command_by(&self, agent: &Agent, client: &str, arguments: &[&str]) -> Command {
        let address = agent.address();
        self.command(&[&["--agent", &address, "--cert", client][..], arguments].concat())
    }

    /// Begins to watch; what it prints is in a file.
    fn watch(&self, agent: &Agent, client: &str) -> (Child, std::path::PathBuf) {
        watching(&mut self.command_by(agent, client, &["watch", "--json"]), self)
    }

    /// A request of the table, as its command.
    fn ask(&self, agent: &Agent, client: &str, request: &str, value: &str) -> Said {
        let line: &[&str] = match request {
            "get" => &["get", "a", "color"],
            "list" => &["get", "a"],
            "why" => &["why", "b"],
            "maintain" => &["drain"],
            "paths" => &["rtt"],
            "rtt" => &["rtt", "nobody"],
            "callers" => &["services", "--callers"],
            "why_service" => &["why", "stock/1"],
            "call" => &["call", "a", "stock/1", "1", "/dev/null"],
            "set" => &["set", "color", value],
            "event" => &["event", "deploy", value],
            "query" => &["query", "rack"],
            "delete" => &["delete", "color"],
            "change_tags" => &["tags", "set", "by=role"],
            "remove" => &["remove", "b"],
            // Statements may be made by an authority that is on the client's machine.
            "revoke" => &["cert", "revoke", "nobody", "--ca", "pki"],
            "revocations" => &["cert", "revocations"],
            "watch" | "events" | "monitor" => return self.ask_for_more(agent, client, request),
            // Of one word in any case.
            other => &[other],
        };
        self.by(agent, client, line)
    }

    /// Of what does not end, the first line.
    fn ask_for_more(&self, agent: &Agent, client: &str, request: &str) -> Said {
        let mut command = self.command_by(agent, client, &[request, "--json"]);
        let (mut child, out) = watching(&mut command, self);
        let mut code = None;
        eventually("it is told something", || {
            code = child.try_wait().unwrap();
            code.is_some() || fs::read_to_string(&out).unwrap().contains("watching")
        });
        let _ = child.kill();
        let _ = child.wait();
        let err = fs::read_to_string(self.path().join("w.err")).unwrap();
        let out = fs::read_to_string(out).unwrap();
        Said { code: code.map_or(0, |code| code.code().unwrap_or(-1)), out, err }
    }
}

fn watching(command: &mut Command, cluster: &Cluster) -> (Child, std::path::PathBuf) {
    let (out, err) = (cluster.path().join("w.out"), cluster.path().join("w.err"));
    command.stdin(Stdio::null());
    command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
    (command.spawn().unwrap(), out)
}

/// What a refused request must not have changed.
fn state(agent: &Agent) -> Value {
    json!([
        agent.json(&["get", "a"]),
        agent.json(&["tags"]),
        agent.json(&["members", "--node", "b"])[0]["node"],
        agent.json(&["info"])["version"],
    ])
}

/// The table's rows: the request, and the role it needs. What nobody may do from afar is none of it.
fn documented() -> Vec<(String, String)> {
    let docs = include_str!("../../../docs/cli.md");
    let (_, table) = docs.split_once("| request |").unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let rows = rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        (cells[0].trim_matches('`').to_owned(), cells[cells.len() - 1].to_owned())
    });
    rows.filter(|(_, needs)| needs != "socket").collect()
}

fn rank(role: &str) -> usize {
    ROLES.iter().position(|known| *known == role).unwrap()
}
