//! Certificates, keys and roots that are replaced, rotated, and let expire, while agents run.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Stdio,
    time::{Duration, SystemTime},
};

use gossipmonger::{
    pki::{Authority, Existing, LeafOptions},
    tls::PeerName,
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, SanType,
};
use serde_json::Value;

use crate::harness::{Agent, Cluster, Said, eventually, free_ports};

// C87
#[test]
fn refuses_files_that_cannot_be_used_and_keeps_what_it_has() {
    let cluster = Cluster::of(&["a", "b", "other"]);
    cluster.run(&["ca", "init", "--cluster", "demo", "--dir", "foreign"]).succeeded();
    let foreign = ["cert", "issue", "--ca", "foreign", "--node", "a", "--datacenter", "eu"];
    cluster.run(&[&foreign[..], &["--dir", "stranger"]].concat()).succeeded();
    let a = cluster.start("a", &[]);
    let b = cluster.start("b", &["--seed", &a.address()]);
    b.awaits("a", "live");
    let (before, dir) = (fingerprint(&a), cluster.dir("a"));
    let (good, key) = (dir.join("node.pem"), dir.join("node.key"));
    let (good, key) = (fs::read(good).unwrap(), fs::read(key).unwrap());
    let put = |name: &str, from: &Path| fs::copy(from, dir.join(name)).map(drop).unwrap();
    let restore = || {
        fs::write(dir.join("node.pem"), &good).unwrap();
        fs::write(dir.join("node.key"), &key).unwrap();
        eventually("what is good again is good", || problem(&a).is_none());
    };
    for (count, (wrong, says)) in [
        ("half", "no END"),
        ("mismatch", "do not belong together"),
        ("other", "this node is"),
        ("foreign", "its own roots refuse the certificate"),
    ]
    .into_iter()
    .enumerate()
    {
        match wrong {
            "half" => fs::write(dir.join("node.pem"), &good[..good.len() / 2]).unwrap(),
            "mismatch" => put("node.pem", &cluster.dir("b").join("node.pem")),
            "other" | "foreign" => {
                let from = cluster.dir(if wrong == "other" { "other" } else { "stranger" });
                put("node.key", &from.join("node.key"));
                put("node.pem", &from.join("node.pem"));
            }
            _ => unreachable!(),
        }
        eventually(&format!("{wrong} is told"), || {
            problem(&a).is_some_and(|problem| problem.contains(says))
        });
        assert_eq!(counter(&a, "certificates_refused"), count as u64 + 1, "{wrong}");
        assert_eq!(fingerprint(&a), before, "{wrong}");
        restore();
    }
    assert_eq!(counter(&a, "certificates_replaced"), 0);
    let told = a.log().matches("new certificate, key or roots are refused").count();
    assert_eq!(told, 4, "{}", a.log());
    b.awaits("a", "live");
}

// C87
#[test]
fn takes_files_by_itself_also_behind_links_that_are_swapped() {
    let cluster = Cluster::of(&["a", "b"]);
    // As Kubernetes mounts a secret: each version a directory, one link to the present one.
    let dir = cluster.dir("a");
    let version = |name: &str| {
        let into = dir.join(name);
        fs::create_dir(&into).unwrap();
        for file in ["node.pem", "node.key", "roots.pem"] {
            fs::copy(dir.join(file), into.join(file)).unwrap();
        }
    };
    version("..first");
    symlink("..first", dir.join("..data")).unwrap();
    for (link, file) in [("tls.crt", "node.pem"), ("tls.key", "node.key"), ("ca.crt", "roots.pem")]
    {
        symlink(Path::new("..data").join(file), dir.join(link)).unwrap();
    }
    cluster.configure("a", "certificate = \"tls.crt\"\nkey = \"tls.key\"\nroots = \"ca.crt\"\n");
    let a = cluster.start("a", &[]);
    let b = cluster.start("b", &["--seed", &a.address()]);
    b.awaits("a", "live");
    let events = Watched::start(&b);
    let before = fingerprint(&a);
    reissue(&cluster, "a");
    version("..second");
    symlink("..second", dir.join("..new")).unwrap();
    fs::rename(dir.join("..new"), dir.join("..data")).unwrap();
    eventually("it is in force", || fingerprint(&a) != before);
    assert_eq!(counter(&a, "certificates_replaced"), 1);
    eventually("b knows until when it is valid", || {
        let told = b.json(&["members", "--node", "a"])[0]["not_after"].clone();
        told == a.json(&["info"])["certificate"]["not_after"]
    });
    // And one whose files are its own is issued anew.
    let before = fingerprint(&b);
    reissue(&cluster, "b");
    eventually("b has its new one", || fingerprint(&b) != before);
    a.awaits("b", "live");
    events.saw_only_keys(&b);
    // What the configuration says is another PKI's is not ours to renew.
    let renew = ["cert", "renew", "--break-glass", "--ca", "pki", "--dir", "a"];
    cluster.run(&renew).failed(2, &["tls.crt", "another PKI"]);
}

// C87
#[test]
fn the_authority_is_rotated_in_three_phases_and_nobody_notices() {
    let cluster = Cluster::of(&["a", "b", "c"]);
    let a = cluster.start("a", &[]);
    let b = cluster.start("b", &["--seed", &a.address()]);
    let c = cluster.start("c", &["--seed", &a.address()]);
    let agents = [&a, &b, &c];
    for agent in agents {
        ["a", "b", "c"].iter().for_each(|node| agent.awaits(node, "live"));
    }
    let events: Vec<_> = agents.iter().map(|agent| Watched::start(agent)).collect();
    let status = |phase: &str, authorities: usize| {
        let status = cluster.run(&["ca", "status", "--dir", "pki", "--json"]).succeeded().json();
        assert_eq!(status["phase"], phase);
        assert_eq!(status["authorities"].as_array().unwrap().len(), authorities);
    };
    let rotate = |more: &[&str]| cluster.run(&[&["ca", "rotate", "--dir", "pki"], more].concat());
    let hand_out_roots = |replaced: u64| {
        for (agent, node) in agents.iter().zip(["a", "b", "c"]) {
            let roots = cluster.path().join("pki/roots.pem");
            fs::copy(roots, cluster.dir(node).join("roots.pem")).unwrap();
            agent.run(&["set", "round", &replaced.to_string()]).succeeded();
        }
        for agent in agents {
            eventually("it is in force", || counter(agent, "certificates_replaced") == replaced);
        }
    };
    status("settled", 1);
    rotate(&["--phase", "switch"]).failed(1, &["out of turn", "--phase prepare"]);
    let said = rotate(&[]).succeeded();
    assert!(said.out.contains("copy pki/roots.pem"), "{}", said.out);
    status("prepared", 2);
    hand_out_roots(1);
    rotate(&["--phase", "finish"]).failed(1, &["out of turn", "--phase switch"]);
    rotate(&[]).succeeded();
    status("switched", 2);
    for node in ["a", "b", "c"] {
        reissue(&cluster, node);
    }
    for agent in agents {
        eventually("the leaf is replaced", || counter(agent, "certificates_replaced") == 2);
    }
    rotate(&["--phase", "finish"]).succeeded();
    status("settled", 1);
    hand_out_roots(3);
    for (agent, events) in agents.iter().zip(events) {
        for node in ["a", "b", "c"] {
            eventually("the last write is everywhere", || {
                agent.get(node, "round").as_deref() == Some("3")
            });
            assert_eq!(agent.state_of(node), "live");
        }
        let info = agent.json(&["info"]);
        assert_eq!(info["refusals"], serde_json::json!({}), "{}", agent.log());
        assert_eq!(info["counters"]["peers_suspected"], 0);
        events.saw_only_keys(agent);
    }
}

// C89
#[test]
fn a_cluster_whose_certificates_have_all_expired_is_renewed_by_hand() {
    let cluster = Cluster::of(&["a", "b", "c"]);
    let expiring = ["a", "b"];
    expiring.iter().for_each(|node| issue_for(&cluster, node, Duration::from_secs(8)));
    issue_for(&cluster, "c", Duration::ZERO);
    let a = cluster.start("a", &[]);
    let b = cluster.start("b", &["--seed", &a.address()]);
    a.awaits("b", "live");
    a.run(&["set", "color", "green"]).succeeded();
    eventually("b has it", || b.get("a", "color").is_some());
    let life = |agent: &Agent| agent.json(&["info"])["generation"].clone();
    let born = life(&a);
    eventually("it is warned of", || {
        let warning = a.json(&["info"])["certificate_warning"].clone();
        warning.as_str().is_some_and(|told| told.starts_with("the certificate "))
    });
    eventually("it is warned of in the log", || a.log().contains("the certificate "));
    for (agent, other) in [(&a, "b"), (&b, "a")] {
        eventually("the connection is cut, and why", || {
            agent.json(&["why", other])["cut"]["label"] == "expired"
        });
        let cut = agent.json(&["why", other])["cut"].clone();
        assert!(cut["reason"].as_str().unwrap().contains("expired on 20"), "{cut}");
        let said = agent.run(&["why", other]).succeeded().out;
        assert!(said.contains("its connection was last cut"), "{said}");
        agent.awaits(other, "dead");
    }
    let members = a.json(&["members", "--node", "a"]);
    assert_eq!(members[0]["expires_soon"], true);
    assert!(a.run(&["members"]).succeeded().out.contains(" ! "), "it is marked");
    // One that does not run does not start either, and says what to do.
    let start = cluster.run(&["agent", "--dir", "c"]);
    start.failed(6, &["expired on", "cert renew --break-glass"]);
    // Not by mistake, and not by any authority.
    let renew = |node: &str, more: &[&str]| {
        cluster.run(&[&["cert", "renew", "--ca", "pki", "--dir", node][..], more].concat())
    };
    renew("a", &[]).failed(2, &["--break-glass"]);
    cluster.run(&["ca", "init", "--cluster", "other", "--dir", "other"]).succeeded();
    let other = ["cert", "renew", "--break-glass", "--ca", "other", "--dir", "a"];
    cluster.run(&other).failed(1, &["cluster other"]);
    for node in ["a", "b", "c"] {
        let renewed = renew(node, &["--break-glass", "--json"]).succeeded().json();
        assert_eq!(renewed["certificate"]["name"], format!("spiffe://demo/eu/{node}"));
    }
    // Those that run are back by themselves, in the same life.
    a.awaits("b", "live");
    b.awaits("a", "live");
    assert_eq!(life(&a), born);
    let c = cluster.start("c", &["--seed", &a.address()]);
    eventually("c has what there was", || c.get("a", "color").as_deref() == Some("green"));
}

#[test]
fn break_glass_refuses_a_name_that_only_a_file_states() {
    let cluster = Cluster::of(&["b", "victim"]);
    let renew = |more: &[&str]| {
        let line = ["cert", "renew", "--break-glass", "--ca", "pki", "--dir", "b", "--json"];
        cluster.run(&[&line[..], more].concat())
    };
    let key = fs::read(cluster.dir("b").join("node.key")).unwrap();
    let name = |said: Said| said.succeeded().json()["certificate"]["name"].clone();
    // Signed by another authority of the same name; signed by the right one, but with another key in the directory.
    cluster.run(&["ca", "init", "--cluster", "demo", "--dir", "evil"]).succeeded();
    let line = ["cert", "issue", "--ca", "evil", "--node", "victim", "--datacenter", "eu"];
    cluster.run(&[&line[..], &["--dir", "e"]].concat()).succeeded();
    for (from, key_too, why) in
        [("e", true, "bad_signature"), ("victim", false, "do not belong together")]
    {
        for file in ["node.pem", "node.key"].iter().take(if key_too { 2 } else { 1 }) {
            fs::copy(cluster.dir(from).join(file), cluster.dir("b").join(file)).unwrap();
        }
        renew(&[]).failed(1, &["b/node.pem", why, "--node NAME", "spiffe://demo/eu/victim"]);
        renew(&["--node", "victim"]).failed(1, &["--datacenter NAME"]);
        renew(&["--node", "b", "--datacenter", "eu"]).failed(1, &["which is not the name given"]);
        renew(&["--node", "victim", "--datacenter", "us"])
            .failed(1, &["which is not the name given"]);
        fs::write(cluster.dir("b").join("node.key"), &key).unwrap();
    }
    // Without a key the operator states the name.
    fs::remove_file(cluster.dir("victim").join("node.key")).unwrap();
    let line = ["cert", "renew", "--break-glass", "--ca", "pki", "--dir", "victim", "--json"];
    cluster.run(&line).failed(1, &["node.key", "--node NAME"]);
    let said = cluster.run(&[&line[..], &["--node", "victim", "--datacenter", "eu"]].concat());
    assert_eq!(name(said), "spiffe://demo/eu/victim");
    // Signed by the old authority during a rotation.
    for phase in ["prepare", "switch"] {
        cluster.run(&["ca", "rotate", "--dir", "pki", "--phase", phase]).succeeded();
        assert_eq!(name(cluster.run(&line)), "spiffe://demo/eu/victim");
    }
    // A revoked certificate is not renewed.
    let pki = Authority::load(&cluster.path().join("pki")).unwrap();
    pki.revoke("victim".parse().unwrap(), now()).unwrap();
    pki.save_revocations(&cluster.path().join("pki")).unwrap();
    cluster.run(&line).failed(1, &["is revoked", "cert issue"]);
}

#[test]
fn a_reload_refuses_what_the_watcher_of_the_files_refuses() {
    let cluster = Cluster::of(&["a"]);
    cluster.run(&["ca", "init", "--cluster", "demo", "--dir", "foreign"]).succeeded();
    cluster.configure("a", "log = \"info\"\n");
    let a = cluster.start("a", &[]);
    let (before, dir) = (fingerprint(&a), cluster.dir("a"));
    fs::copy(cluster.path().join("foreign/ca.pem"), dir.join("roots.pem")).unwrap();
    let says = "its own roots refuse the certificate";
    eventually("the watcher refuses it", || problem(&a).is_some_and(|told| told.contains(says)));
    // With it come changes that would be taken alone.
    cluster.configure("a", "log = \"warn\"\n[tags]\nrole = \"db\"\n");
    let refused = problem(&a);
    a.run(&["reload"]).failed(6, &["node.pem", says]);
    a.signal("HUP");
    eventually("the hangup is refused", || a.log().matches("nothing reloaded").count() == 2);
    assert_eq!(problem(&a), refused, "it stays until it is put right");
    assert_eq!(fingerprint(&a), before);
    assert_eq!(counter(&a, "certificates_replaced"), 0);
    assert_eq!(a.json(&["tags"]), serde_json::json!({}), "nothing was changed");
    // Still with the roots of before.
    cluster.issue("b");
    let b = cluster.start("b", &["--seed", &a.address()]);
    b.awaits("a", "live");
    fs::copy(cluster.path().join("pki/ca.pem"), dir.join("roots.pem")).unwrap();
    let reloaded = a.json(&["reload"]);
    assert_eq!(reloaded["applied"], serde_json::json!(["log", "tags"]));
    assert_eq!(problem(&a), None);
}

#[test]
fn a_chain_ends_with_its_intermediate_wherever_its_end_is_told() {
    let cluster = Cluster::of(&["b"]);
    let pki = Chain::new();
    let end = now() + Duration::from_secs(20 * 86_400);
    pki.write(&cluster, "a", end, end + Duration::from_secs(300 * 86_400));
    let (_, port) = free_ports();
    let a = cluster.start("a", &["--metrics", &format!("127.0.0.1:{port}")]);
    let info = a.json(&["info"]);
    let told = info["certificate"]["expires"].as_str().unwrap().to_owned();
    assert_ne!(told, info["certificate"]["not_after"].as_str().unwrap());
    let shown = a.json(&["cert", "show"]);
    assert_eq!(shown[0]["expires"], told.as_str());
    assert_eq!(shown[1]["expires"], told.as_str());
    assert!(a.run(&["cert", "show"]).succeeded().out.contains("ends first"));
    eventually("it says so of itself", || {
        a.json(&["members", "--node", "a"])[0]["not_after"] == told.as_str()
    });
    eventually("metrics have it", || {
        let left = scraped(port, "gossipmonger_certificate_expires_in_seconds");
        left.is_some_and(|left| (19.0 * 86_400.0..20.0 * 86_400.0).contains(&left))
    });
    let log = a.log();
    assert!(log.contains("outlives the intermediate certificate of CN=intermediate"), "{log}");
    // Another intermediate alone is taken as a new certificate, by the watcher.
    let before = fingerprint(&a);
    pki.renew_intermediate(&cluster, "a", end + Duration::from_secs(10 * 86_400));
    eventually("it is in force", || counter(&a, "certificates_replaced") == 1);
    assert_eq!(fingerprint(&a), before);
    assert_ne!(a.json(&["info"])["certificate"]["expires"], told.as_str());
    // One that has ended is refused, by the start as well.
    let file = cluster.dir("a").join("node.pem");
    pki.renew_intermediate(&cluster, "a", now() - Duration::from_secs(9));
    eventually("it is refused", || {
        problem(&a).is_some_and(|told| told.contains("CN=intermediate expired on"))
    });
    a.stop();
    let start = cluster.run(&["agent", "--dir", "a"]);
    start.failed(6, &[&file.file_name().unwrap().to_string_lossy(), "CN=intermediate expired on"]);
}

// C89
#[test]
fn metrics_say_how_long_certificates_have_left() {
    let cluster = Cluster::of(&["a", "b"]);
    let (_, port) = free_ports();
    let a = cluster.start("a", &["--metrics", &format!("127.0.0.1:{port}")]);
    // Of b's hour one part in three is left, and less.
    let name = PeerName::from_uri("spiffe://demo/eu/b").unwrap();
    let not_before = now() - Duration::from_secs(3_600);
    let options = LeafOptions { not_before, ..LeafOptions::new(&name, Duration::from_secs(1_700)) };
    let issued = Authority::load(&cluster.path().join("pki")).unwrap().issue_with(&options);
    issued.unwrap().save(&cluster.dir("b"), Existing::Replace).unwrap();
    let _b = cluster.start("b", &["--seed", &a.address()]);
    a.awaits("b", "live");
    eventually("it is counted", || {
        scraped(port, "gossipmonger_certificates_expiring") == Some(1.0)
    });
    let own = scraped(port, "gossipmonger_certificate_expires_in_seconds").unwrap();
    assert!((300.0 * 86_400.0..366.0 * 86_400.0).contains(&own), "{own}");
    let first = scraped(port, "gossipmonger_certificate_expires_in_seconds_min").unwrap();
    assert!((1_000.0..1_700.0).contains(&first), "{first}");
    let info = a.json(&["info"]);
    assert_eq!(info["certificates_expiring"], 1);
    let warning = info["certificate_warning"].as_str().unwrap();
    assert!(warning.starts_with("the certificate expires in 2"), "{warning}");
    assert!(warning.contains("minutes on 1 node"), "{warning}");
    eventually("it is logged", || a.log().contains("minutes on 1 node"));
}

/// A root and an intermediate of its own, by which a node's certificate is signed.
struct Chain {
    root: Issuer<'static, KeyPair>,
    root_pem: String,
    intermediate: KeyPair,
}

impl Chain {
    fn new() -> Self {
        let (key, intermediate) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let root = Self::params("root", now() + Duration::from_secs(400 * 86_400));
        let root_pem = root.self_signed(&key).unwrap().pem();
        Self { root: Issuer::new(root, key), root_pem, intermediate }
    }

    /// Puts a leaf below the intermediate into a node's directory, with both ends.
    fn write(&self, cluster: &Cluster, node: &str, intermediate: SystemTime, leaf: SystemTime) {
        let dir = cluster.dir(node);
        fs::create_dir_all(&dir).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = Self::params(node, leaf);
        params.is_ca = IsCa::ExplicitNoCa;
        let uri = format!("spiffe://demo/eu/{node}");
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        let issuer = Issuer::new(Self::params("intermediate", intermediate), &self.intermediate);
        let pem = params.signed_by(&key, &issuer).unwrap().pem();
        fs::write(dir.join("node.key"), key.serialize_pem()).unwrap();
        fs::set_permissions(dir.join("node.key"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(dir.join("roots.pem"), &self.root_pem).unwrap();
        fs::write(dir.join("leaf"), pem).unwrap();
        self.renew_intermediate(cluster, node, intermediate);
    }

    fn renew_intermediate(&self, cluster: &Cluster, node: &str, until: SystemTime) {
        let dir = cluster.dir(node);
        let params = Self::params("intermediate", until);
        let intermediate = params.signed_by(&self.intermediate, &self.root).unwrap().pem();
        let leaf = fs::read_to_string(dir.join("leaf")).unwrap();
        fs::write(dir.join("node.new"), leaf + &intermediate).unwrap();
        fs::rename(dir.join("node.new"), dir.join("node.pem")).unwrap();
    }

    fn params(name: &str, until: SystemTime) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = (now() - Duration::from_secs(86_400)).into();
        params.not_after = until.into();
        params
    }
}

/// What an agent tells of from now on.
struct Watched(std::process::Child);

impl Watched {
    fn start(agent: &Agent) -> Self {
        let out = agent.dir.join("events");
        let file = fs::File::create(&out).unwrap();
        let mut command = agent.command(&["events", "--json"]);
        let child = command.stdout(file).stderr(Stdio::null()).spawn().unwrap();
        eventually("it watches", || fs::read_to_string(&out).unwrap().contains("watching"));
        Self(child)
    }

    /// Nobody has come, gone or been missed.
    fn saw_only_keys(mut self, agent: &Agent) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
        for line in fs::read_to_string(agent.dir.join("events")).unwrap().lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            let quiet = ["watching", "updated", "deleted"].map(Value::from);
            assert!(quiet.contains(&event["event"]), "{line}");
        }
    }
}

fn fingerprint(agent: &Agent) -> String {
    agent.json(&["info"])["certificate"]["fingerprint"].as_str().unwrap().to_owned()
}

fn problem(agent: &Agent) -> Option<String> {
    agent.json(&["info"])["certificate_problem"].as_str().map(str::to_owned)
}

fn counter(agent: &Agent, name: &str) -> u64 {
    agent.json(&["info"])["counters"][name].as_u64().unwrap()
}

fn reissue(cluster: &Cluster, node: &str) {
    let line = ["cert", "issue", "--ca", "pki", "--datacenter", "eu", "--force"];
    cluster.run(&[&line[..], &["--node", node, "--dir", node]].concat()).succeeded();
}

/// A certificate that is valid for so long from now on.
fn issue_for(cluster: &Cluster, node: &str, validity: Duration) {
    let name = PeerName::from_uri(&format!("spiffe://demo/eu/{node}")).unwrap();
    let not_before = now() - Duration::from_secs(1);
    let options = LeafOptions { not_before, ..LeafOptions::new(&name, validity) };
    let issued = Authority::load(&cluster.path().join("pki")).unwrap().issue_with(&options);
    issued.unwrap().save(&cluster.dir(node), Existing::Replace).unwrap();
}

fn scraped(port: u16, name: &str) -> Option<f64> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let line = text.lines().find(|line| line.split(' ').next() == Some(name))?;
    line.split(' ').nth(1)?.parse().ok()
}

#[expect(clippy::disallowed_methods, reason = "certificates' dates are wall time")]
fn now() -> SystemTime {
    SystemTime::now()
}
