//! A custom store: the whole state in one file, which every commit replaces.
//!
//! It suits small states, since every commit writes all of it. It promises that the new state is on
//! the disk after a commit, that after a crash at any moment the file holds the state before or after
//! a commit and never a mixture, and that a damaged file is refused. It does not prevent a second
//! process from opening the file. The shipped store behind the feature `redb` prevents that, and
//! writes only the changes.
//!
//!     cargo run --example own_store

use std::{
    error::Error,
    fmt::Write as _,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use gossipmonger::{
    Backends, ClusterId, Config, Datacenter, Generation, Gossipmonger, NodeId, Revocation, Version,
    net::memory::MemoryNetwork,
    store::{Change, EndpointKeys, Head, KnownPeer, Store, StoreError, Stored, StoredEntry},
    tls::PeerName,
};
use tokio::task::JoinHandle;

type Any = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Any> {
    let directory = std::env::temp_dir().join(format!("gossipmonger-own-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    let ran = tokio::time::timeout(Duration::from_secs(60), run(&directory.join("state"))).await;
    fs::remove_dir_all(&directory)?;
    ran?
}

async fn run(file: &Path) -> Result<(), Any> {
    let (node, _) = start(file).await?;
    // Returns when the file has it.
    node.set("color", "green").await?;
    node.set("bytes", vec![0, 10, 255]).await?;
    node.delete("color").await?;
    node.set_with_ttl("size", "large", Duration::from_secs(3_600)).await?;
    let (first_generation, version) = node.snapshot().version(node.node()).ok_or("no version")?;
    node.shutdown().await;

    let (node, _) = start(file).await?;
    let (second_generation, _) = node.snapshot().version(node.node()).ok_or("no version")?;
    assert!(second_generation > first_generation, "every start begins a new generation");
    assert_eq!(node.get(node.node(), "color"), None);
    assert_eq!(node.get_str(node.node(), "size").as_deref(), Some("large"));
    assert_eq!(node.get(node.node(), "bytes").as_deref(), Some(&[0, 10, 255][..]));
    node.shutdown().await;
    println!("a second generation continued the first at version {}", version.0);

    let mut damaged = fs::read(file)?;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(file, damaged)?;
    match FileStore::open(file) {
        Err(refused @ StoreError::Damaged { .. }) => println!("one flipped bit: {refused}"),
        other => return Err(format!("a damaged file was read: {other:?}").into()),
    }
    Ok(())
}

async fn start(file: &Path) -> Result<(Gossipmonger, JoinHandle<()>), Any> {
    let (cluster, datacenter) = (ClusterId::new("test")?, Datacenter::new("here")?);
    let config = Config::new(&PeerName { cluster, datacenter, node: NodeId::new("a")? });
    let backends = Backends::new(MemoryNetwork::new().place());
    let store = std::sync::Arc::new(FileStore::open(file)?);
    Ok(Gossipmonger::spawn(config, backends.with_store(store)).await?)
}

/// The state as lines of text, the last of them a checksum.
#[derive(Debug)]
struct FileStore {
    path: PathBuf,
    stored: Mutex<Stored>,
}

impl FileStore {
    fn open(path: &Path) -> Result<Self, StoreError> {
        let damaged = |reason: &str| StoreError::Damaged {
            location: path.display().to_string(),
            reason: reason.to_owned(),
        };
        let stored = match fs::read_to_string(path) {
            Ok(text) => {
                let body = text.rsplit_once("sum ").ok_or_else(|| damaged("no checksum"))?;
                if body.1.trim_end() != checksum(body.0) {
                    return Err(damaged("the checksum does not match"));
                }
                decode(body.0).ok_or_else(|| damaged("not as it was written"))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Stored::default(),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(damaged("not text"));
            }
            Err(error) => return Err(failed(path, &error)),
        };
        Ok(Self { path: path.to_owned(), stored: Mutex::new(stored) })
    }

    /// Writes the new file beside the old one, syncs it and renames it; then syncs the directory,
    /// which holds the new name.
    fn replace(&self, text: &str) -> io::Result<()> {
        let beside = self.path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        match self.path.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    }
}

impl Store for FileStore {
    fn load(&self) -> Result<Stored, StoreError> {
        Ok(self.stored.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        // On a copy: a later load must not see the changes of a failed commit.
        let mut next = stored.clone();
        changes.iter().for_each(|change| next.apply(change));
        let body = encode(&next);
        let text = format!("{body}sum {}\n", checksum(&body));
        self.replace(&text).map_err(|error| failed(&self.path, &error))?;
        *stored = next;
        Ok(())
    }
}

fn failed(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Io { location: path.display().to_string(), reason: error.to_string() }
}

/// FNV-1a of 64 bits: it detects accidental damage, not manipulation.
fn checksum(text: &str) -> String {
    let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", text.bytes().fold(0xcbf2_9ce4_8422_2325, hash))
}

fn encode(stored: &Stored) -> String {
    let mut out = String::new();
    let mut line = |parts: &[String]| {
        let _ = writeln!(out, "{}", parts.join(" "));
    };
    let number = |n: u64| n.to_string();
    let text = |s: &str| hex(s.as_bytes());
    if let Some((cluster, node)) = &stored.identity {
        line(&["identity".into(), text(cluster.as_str()), text(node.as_str())]);
    }
    let Head { generation, max_version, gc_floor, ancestry } = &stored.head;
    line(&["head".into(), number(generation.0), number(max_version.0), number(gc_floor.0)]);
    for (generation, version) in ancestry {
        line(&["ancestor".into(), number(generation.0), number(version.0)]);
    }
    for (key, entry) in &stored.entries {
        let value = entry.value.as_ref().map_or_else(|| "-".into(), |value| hex(value));
        let since = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let expires =
            entry.expires.map_or_else(|| "-".into(), |at| since(at).as_millis().to_string());
        line(&["entry".into(), text(key.as_str()), number(entry.version.0), value, expires]);
    }
    if let Some(tags) = &stored.tags {
        line(&["tags".into()]);
        tags.iter().for_each(|(name, value)| line(&["tag".into(), text(name), text(value)]));
    }
    if stored.left {
        line(&["left".into()]);
    }
    for peer in stored.peers.values() {
        let (node, datacenter) = (text(peer.node.as_str()), text(peer.datacenter.as_str()));
        let mut parts = vec!["peer".into(), node, datacenter, number(peer.generation.0)];
        parts.push(number(u64::from(peer.dead)));
        parts.extend(peer.addresses.iter().map(|address| text(address)));
        line(&parts);
    }
    for statement in &stored.revocations {
        line(&["revocation".into(), statement.to_text()]);
    }
    if let Some(keys) = &stored.endpoint_keys {
        line(&["keys".into(), hex(&keys.reset), number(keys.connection_id)]);
    }
    out
}

fn decode(text: &str) -> Option<Stored> {
    let mut stored = Stored::default();
    for line in text.lines() {
        let parts: Vec<&str> = line.split(' ').collect();
        match parts[..] {
            ["identity", cluster, node] => {
                let cluster = ClusterId::new(&string(cluster)?).ok()?;
                stored.identity = Some((cluster, NodeId::new(&string(node)?).ok()?));
            }
            ["head", generation, version, floor] => {
                stored.head.generation = Generation(generation.parse().ok()?);
                stored.head.max_version = Version(version.parse().ok()?);
                stored.head.gc_floor = Version(floor.parse().ok()?);
            }
            ["ancestor", generation, version] => {
                let generation = Generation(generation.parse().ok()?);
                stored.head.ancestry.push((generation, Version(version.parse().ok()?)));
            }
            ["entry", key, version, value, expires] => {
                let entry = StoredEntry {
                    version: Version(version.parse().ok()?),
                    value: if value == "-" { None } else { Some(bytes(value)?.into()) },
                    expires: match expires {
                        "-" => None,
                        at => {
                            let since = Duration::from_millis(at.parse().ok()?);
                            Some(SystemTime::UNIX_EPOCH + since)
                        }
                    },
                };
                stored.entries.insert(string(key)?.into(), entry);
            }
            ["tags"] => stored.tags = Some(std::collections::BTreeMap::new()),
            ["tag", name, value] => {
                stored.tags.as_mut()?.insert(string(name)?, string(value)?);
            }
            ["left"] => stored.left = true,
            ["peer", node, datacenter, generation, dead, ref addresses @ ..] => {
                let peer = KnownPeer {
                    node: NodeId::new(&string(node)?).ok()?,
                    datacenter: Datacenter::new(&string(datacenter)?).ok()?,
                    addresses: addresses.iter().map(|at| string(at)).collect::<Option<_>>()?,
                    generation: Generation(generation.parse().ok()?),
                    dead: dead == "1",
                };
                stored.peers.insert(peer.node.clone(), peer);
            }
            ["keys", reset, connection_id] => {
                let reset = bytes(reset)?.try_into().ok()?;
                let connection_id = connection_id.parse().ok()?;
                stored.endpoint_keys = Some(EndpointKeys { reset, connection_id });
            }
            ["revocation", statement] => {
                stored.revocations.insert(Revocation::from_text(statement).ok()?);
            }
            _ => return None,
        }
    }
    Some(stored)
}

/// Never empty, so that a line always has all its parts; an empty value is `.`.
fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    if bytes.is_empty() { ".".into() } else { digits.collect() }
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    if hex == "." {
        return Some(Vec::new());
    }
    let pairs = (0..hex.len()).step_by(2).map(|at| hex.get(at..at + 2));
    pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}

fn string(hex: &str) -> Option<String> {
    String::from_utf8(bytes(hex)?).ok()
}
