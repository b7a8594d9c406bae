//! The certificates of `certs/`: each is accepted or refused by a running node as its row in
//! `certs/README.md` says, as a node and as a client.

#[path = "../../certs/make.rs"]
mod make;

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use gossipmonger::{
    Gossipmonger,
    clients::{ClientHandler, Visitor},
    net::{BoxFuture, Stream, quic::QuicNetwork, read_to_end},
    protocol::message::Message,
    tls::{ClientIdentity, Identity, Roots},
    unstable::{ADMIN_ALPN, ALPN, Host, Verdict, rustls_visit},
};
use quinn::TransportConfig;

use crate::start::{Start, spawn};
use crate::{
    attacker::{Member, hello, refused},
    harness::until,
};

// C83, C84, C89, C92
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_certificate_is_accepted_or_refused_as_its_row_says() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path();
    let with_openssl = make::make(dir, &repository().join("certs/openssl-chain.sh")).unwrap();
    if !with_openssl {
        println!("SKIPPED: no openssl command on this host, so no chain made by it was tried");
    }
    let node = node(dir).await;
    let (rows, mut seen) = (rows(), BTreeSet::new());
    for Row { name, as_node, as_client } in &rows {
        if name.starts_with("openssl") && !with_openssl {
            continue;
        }
        for (protocol, expected) in [(ALPN[0], as_node), (ADMIN_ALPN, as_client)] {
            let before = refused(&node, expected);
            let said = try_it(dir, name, &node, protocol).await;
            if matches!(expected.as_str(), "in" | "read" | "watch" | "admin") {
                assert_eq!(said.as_deref(), Some(expected.as_str()), "{name}");
            } else {
                assert_eq!(said, None, "{name} was to be refused: {expected}");
                until(&format!("{name}: {expected}: {:?}", node.counters().refusals()), || {
                    refused(&node, expected) == before + 1
                })
                .await;
            }
        }
        seen.insert(name.clone());
    }
    assert_eq!(seen, made(dir), "each that is made has its row");
    node.shutdown().await;
}

/// Whether a node lets it in, or with which role.
async fn try_it(
    dir: &Path,
    name: &str,
    node: &Gossipmonger,
    protocol: &'static [u8],
) -> Option<String> {
    let to: SocketAddr = node.addresses()[0].parse().unwrap();
    let identity = identity(&dir.join(name));
    let roots = Roots::from_pem_file(dir.join("roots.pem")).unwrap();
    // The attacker accepts whoever answers.
    let host = Host::Uri("spiffe://demo/eu/good".to_owned());
    let mut tls = rustls_visit(&identity, roots, host, Verdict::default()).unwrap();
    tls.alpn_protocols = vec![protocol.to_vec()];
    let member = Member::dial(tls, to, TransportConfig::default()).await.ok()?;
    if protocol == ALPN[0] {
        let welcome = member.introduce(hello("demo", name)).await;
        return matches!(welcome, Some(Message::Welcome(_))).then(|| "in".to_owned());
    }
    let (mut send, mut receive) = member.connection.open_bi().await.ok()?;
    send.write_all(b"who am I").await.ok()?;
    send.finish().ok()?;
    String::from_utf8(receive.read_to_end(100).await.ok()?).ok()
}

async fn node(dir: &Path) -> Gossipmonger {
    let good = dir.join("good");
    let identity = Identity::from_pem_files(good.join("node.pem"), good.join("node.key"));
    let roots = Roots::from_pem_file(dir.join("roots.pem")).unwrap();
    let transport = Arc::new(QuicNetwork::new(identity.unwrap(), roots).unwrap());
    let mut config = Start::quic(transport).local();
    config.quic.handshakes_per_source = 1_000;
    let node = spawn(config).await.unwrap().0;
    node.serve_clients(Arc::new(SaysTheRole));
    node
}

/// Answers each request with the role of who asks.
#[derive(Debug)]
struct SaysTheRole;

impl ClientHandler for SaysTheRole {
    fn answer(&self, visitor: Visitor, (mut send, mut receive): Stream) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let _ = read_to_end(receive.as_mut(), 100).await;
            let _ = send.write(&mut [visitor.client.role.as_str().into()]).await;
            send.finish();
            send.delivered().await;
        })
    }
}

/// With the clock as it was, or will be, when it is valid.
fn identity(dir: &Path) -> ClientIdentity {
    let file = |name: &str| {
        let (node, client) = (dir.join("node"), dir.join("client"));
        let path = [node, client].map(|path| path.with_extension(name));
        fs::read(path.iter().find(|path| path.exists()).unwrap()).unwrap()
    };
    let (certificate, key) = (file("pem"), file("key"));
    let at = std::time::UNIX_EPOCH + Duration::from_secs(1);
    ClientIdentity::from_pem_at(&certificate, &key, at).unwrap()
}

struct Row {
    name: String,
    as_node: String,
    as_client: String,
}

/// The table of the README.
fn rows() -> Vec<Row> {
    let readme = fs::read_to_string(repository().join("certs/README.md")).unwrap();
    let (_, table) = readme.split_once("| directory |").unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let mut cells = row.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`'));
        let name = cells.next().unwrap().to_owned();
        let (as_node, as_client) = (cells.nth(1).unwrap().to_owned(), cells.next().unwrap());
        Row { name, as_node, as_client: as_client.to_owned() }
    })
    .collect()
}

/// The directories of certificates, without those of the authorities.
fn made(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    let directories = entries.filter(|entry| entry.path().is_dir());
    let names = directories.map(|entry| entry.file_name().into_string().unwrap());
    names.filter(|name| !name.starts_with("pki")).collect()
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
