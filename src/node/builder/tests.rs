//! Which settings are refused, and what is built from the others. Tests have the features `redb` and `config-file`;
//! `tests/docs/features.sh` builds a program without them.

use std::{fs, path::PathBuf, time::Duration};

use tempfile::TempDir;

use super::*;
use crate::pki::throwaway;

/// Directories `a` and `b` of one cluster, and `other/a` of another.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        throwaway(place.0.path(), "demo", ["a", "b"]).unwrap();
        throwaway(place.0.path().join("other"), "demo", ["a"]).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn builder(&self) -> Builder {
        Gossipmonger::builder().directory(self.path("a"))
    }

    fn identity(&self) -> (Identity, Roots) {
        let [certificate, key, roots] =
            ["a/node.pem", "a/node.key", "a/roots.pem"].map(|name| self.path(name));
        (
            Identity::from_pem_files(&certificate, &key).unwrap(),
            Roots::from_pem_file(&roots).unwrap(),
        )
    }
}

/// The refusal of a builder.
fn refusal(builder: Builder) -> String {
    builder.build().map(|parts| parts.config).unwrap_err().to_string()
}

fn refuses(builder: Builder, parts: &[&str]) {
    let error = refusal(builder);
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

#[test]
fn refuses_a_node_without_a_certificate_and_says_how_to_get_one() {
    let advice = ["`directory` is missing", "gossipmonger join", "pki::throwaway"];
    refuses(Gossipmonger::builder(), &advice);
    refuses(Gossipmonger::builder().directory("/nonexistent/a"), &["/nonexistent/a", advice[1]]);
    let place = Place::new();
    for file in ["node.pem", "node.key", "roots.pem"] {
        let (whole, away) = (place.path("a").join(file), place.path("away"));
        fs::rename(&whole, &away).unwrap();
        refuses(place.builder(), &[file, advice[0], advice[1]]);
        fs::rename(&away, &whole).unwrap();
    }
    assert!(place.builder().build().is_ok());
}

#[test]
fn refuses_a_certificate_of_another_cluster_and_names_the_file() {
    let place = Place::new();
    fs::copy(place.path("other/a/roots.pem"), place.path("a/roots.pem")).unwrap();
    refuses(place.builder(), &["a/node.pem", "its own roots refuse the certificate"]);
    let (identity, _) = place.identity();
    let roots = Roots::from_pem_file(place.path("other/a/roots.pem")).unwrap();
    refuses(Gossipmonger::builder().identity(identity, roots), &["its own roots refuse"]);
}

#[test]
fn refuses_settings_that_contradict_each_other() {
    let place = Place::new();
    let (identity, roots) = place.identity();
    refuses(
        place.builder().identity(identity, roots),
        &["`directory` and `identity` contradict each other", "keep one"],
    );
    let renamed = |mut config: Config| {
        config.node = "b".parse().unwrap();
        config
    };
    refuses(place.builder().configure(renamed), &["node = b", "the certificate says a"]);
}

#[test]
fn refuses_addresses_that_cannot_be_used_and_names_the_setting() {
    let place = Place::new();
    refuses(place.builder().listen("localhost:7101"), &["listen = \"localhost:7101\"", "IP:PORT"]);
    refuses(place.builder().listen("0.0.0.0:0"), &["listen = 0.0.0.0:0", "set advertise"]);
    refuses(place.builder().seeds(["https://a:7101"]), &["seeds", "a URL is not expected"]);
    refuses(place.builder().advertise("a"), &["advertise = \"a\"", "host:port"]);
    refuses(
        place.builder().configure(|config| Config { gossip_fanout: 0, ..config }),
        &["gossip_fanout = 0", "1 to 32"],
    );
}

#[test]
fn refuses_to_leave_a_store_behind_or_to_have_two() {
    let place = Place::new();
    let memory = || Arc::new(crate::store::memory::MemoryStore::new());
    refuses(
        place.builder().keep_store().store(memory()),
        &["`store` and `keep_store` contradict each other"],
    );
    let (identity, roots) = place.identity();
    let alone = Gossipmonger::builder().identity(identity, roots);
    refuses(alone.keep_store(), &["`directory` is missing", "`keep_store` keeps the store in it"]);
    drop(place.builder().keep_store().build().unwrap());
    refuses(place.builder(), &["`store` is missing", "store.redb", "keep_store"]);
    assert!(place.builder().keep_store().build().is_ok());
    assert!(place.builder().store(memory()).build().is_ok());
}

#[test]
fn refuses_a_file_with_a_mistake_and_names_file_and_key() {
    let place = Place::new();
    for (text, says) in [
        ("gosip_fanout = 1\n", "line 1: unknown key gosip_fanout; did you mean gossip_fanout?"),
        ("gossip_fanout = 0\n", "gossip_fanout = 0 is refused: 1 to 32 is allowed"),
        ("cluster = \"demo\"\n", "cluster and datacenter are what the certificate says"),
        ("listen = [\"a:1\"]\n", "write IP:PORT"),
    ] {
        fs::write(place.path("a/gossipmonger.toml"), text).unwrap();
        refuses(place.builder(), &["a/gossipmonger.toml: ", says]);
    }
    fs::remove_file(place.path("a/gossipmonger.toml")).unwrap();
    std::os::unix::fs::symlink("/nonexistent", place.path("a/gossipmonger.toml")).unwrap();
    refuses(place.builder(), &["a/gossipmonger.toml", "/nonexistent, which is not there"]);
}

#[test]
fn what_code_says_counts_whatever_the_file_says() {
    let place = Place::new();
    // As `join` writes it, with more.
    let text = "listen = [\"0.0.0.0:0\"]\nseeds = [\"a:1\"]\nissuers = [\"a:2\"]\nlog = \"debug\"\n\
                gossip_fanout = 5\ngossip_interval = \"3s\"\n[tags]\nrack = \"1\"\n";
    fs::write(place.path("a/gossipmonger.toml"), text).unwrap();
    // Alone the file is incomplete: nobody can dial the node.
    refuses(place.builder(), &["gossipmonger.toml: listen = 0.0.0.0:0", "set advertise"]);
    let built = place.builder().advertise("a.example:7101").seeds(["b:1", "c:1"]);
    let config = built.configure(Config::local).build().unwrap().config;
    assert_eq!(config.listen, ["0.0.0.0:0".parse().unwrap()]);
    assert_eq!(
        (config.advertise, config.seeds),
        (vec!["a.example:7101".to_owned()], vec!["b:1".to_owned(), "c:1".to_owned()],)
    );
    assert_eq!((config.gossip_fanout, config.gossip_interval), (5, Duration::from_millis(200)));
    assert_eq!(config.tags["rack"], "1");
    let none = place.builder().listen("127.0.0.1:0").seeds([""; 0]).build().unwrap().config;
    assert_eq!((none.listen, none.seeds), (vec!["127.0.0.1:0".parse().unwrap()], Vec::new()));
}

#[test]
fn the_file_names_the_files_of_the_certificate_and_of_the_store() {
    let place = Place::new();
    fs::rename(place.path("a/node.pem"), place.path("a/chain.pem")).unwrap();
    let text = "certificate = \"chain.pem\"\nstore = \"kept\"\n";
    fs::write(place.path("a/gossipmonger.toml"), text).unwrap();
    assert_eq!(place.builder().build().unwrap().config.node.as_str(), "a");
    drop(place.builder().keep_store().build().unwrap());
    assert!(place.path("a/kept").exists());
    let text = text.replace("kept", "memory");
    fs::write(place.path("a/gossipmonger.toml"), text).unwrap();
    refuses(place.builder().keep_store(), &["store = \"memory\" and `keep_store` contradict"]);
}

#[test]
fn without_settings_it_is_the_default_configuration_of_the_certificate() {
    let place = Place::new();
    let config = place.builder().build().unwrap().config;
    assert_eq!(config, Config::new(place.identity().0.name()));
    let (identity, roots) = place.identity();
    let built = Gossipmonger::builder().identity(identity, roots).build().unwrap();
    assert_eq!(built.config, config);
    assert_eq!(built.network.identity().name().node.as_str(), "a");
}

#[tokio::test]
async fn a_refusal_reaches_who_spawns() {
    let error = Gossipmonger::builder().spawn().await.unwrap_err();
    assert!(matches!(error, SpawnError::Build(BuildError::Missing { setting: "directory", .. })));
}

#[tokio::test]
async fn two_nodes_of_throwaway_directories_find_each_other() {
    let place = Place::new();
    let (a, a_runs) = place.builder().configure(Config::local).spawn().await.unwrap();
    let b = Gossipmonger::builder().directory(place.path("b")).seeds(a.addresses());
    let (b, b_runs) = b.configure(Config::local).spawn().await.unwrap();
    let mut events = a.subscribe();
    let met = async {
        while a.live_peers().is_empty() {
            events.next().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(30), met).await.expect("b is a member");
    b.leave_for_now().await.unwrap();
    a.leave_for_now().await.unwrap();
    a_runs.await.unwrap();
    b_runs.await.unwrap();
}
