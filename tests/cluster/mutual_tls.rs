//! Who gets in over real QUIC on loopback, and what both sides are told when somebody does not.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, SystemTime},
};

use gossipmonger::{
    pki::{
        Authority, AuthorityOptions, Existing, Issued, KeyKind, LEAF_VALIDITY, LeafOptions, Usage,
    },
    protocol::id::{ClusterId, Datacenter, NodeId},
    tls::{Identity, PeerName, Refusal, RefusedBy, Rejection, Roots, Tls},
    unstable::{Expect, SERVER_NAME, Verdict, peer_certificate, peer_name},
};
use quinn::{
    Connection, ConnectionError, Endpoint,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

// C83
#[tokio::test]
async fn refuses_a_dialer_without_certificate() {
    let ca = authority("demo");
    let mut client = client_of(&node(&ca, "b"), Expect::AnyNode);
    client.rustls.client_auth_cert_resolver = Arc::new(Shows(None));
    let end = handshake(client, &node(&ca, "a")).await;
    end.acceptor_refuses(Rejection::NoCertificate);
    end.dialer_is_told(Rejection::NoCertificate);
}

// C83
#[tokio::test]
async fn refuses_a_foreign_ca() {
    let (ours, foreign) = (authority("demo"), authority("other"));
    let stranger = tls(&issue(&foreign, "demo", "b"), &ours);
    let end = handshake(client_of(&stranger, Expect::AnyNode), &node(&ours, "a")).await;
    end.acceptor_refuses(Rejection::UnknownAuthority);
    end.dialer_is_told(Rejection::UnknownAuthority);

    let end = handshake(client_of(&node(&ours, "a"), Expect::AnyNode), &stranger).await;
    end.dialer_refuses(Rejection::UnknownAuthority);
    end.acceptor_is_told(Rejection::UnknownAuthority);
}

// C83
#[tokio::test]
async fn refuses_a_foreign_ca_of_the_same_name() {
    let (ours, foreign) = (authority("demo"), authority("demo"));
    let stranger = tls(&issue(&foreign, "demo", "b"), &ours);
    let end = handshake(client_of(&stranger, Expect::AnyNode), &node(&ours, "a")).await;
    end.acceptor_refuses(Rejection::BadSignature);
    end.dialer_is_told(Rejection::BadSignature);

    let end = handshake(client_of(&node(&ours, "a"), Expect::AnyNode), &stranger).await;
    end.dialer_refuses(Rejection::BadSignature);
    end.acceptor_is_told(Rejection::BadSignature);
}

// C84
#[tokio::test]
async fn refuses_a_certificate_shown_without_its_key() {
    let ca = authority("demo");
    let (victim, thief) = (issue(&ca, "demo", "b"), issue(&ca, "demo", "c"));
    let stolen = CertifiedKey::new(
        chain(&victim.certificate_pem),
        rustls::crypto::aws_lc_rs::sign::any_supported_type(&key(&thief.key_pem)).unwrap(),
    );
    let mut client = client_of(&node(&ca, "c"), Expect::AnyNode);
    client.rustls.client_auth_cert_resolver = Arc::new(Shows(Some(Arc::new(stolen))));
    let end = handshake(client, &node(&ca, "a")).await;
    end.acceptor_refuses(Rejection::BadSignature);
    end.dialer_is_told(Rejection::BadSignature);
}

#[tokio::test]
async fn refuses_a_certificate_that_a_node_signed() {
    let ca = authority("demo");
    let b = issue(&ca, "demo", "b");
    let issuer = rcgen::Issuer::from_ca_cert_pem(
        &b.certificate_pem,
        rcgen::KeyPair::from_pem(&b.key_pem).unwrap(),
    )
    .unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names =
        vec![rcgen::SanType::URI(name("demo", "a").to_uri().try_into().unwrap())];
    params.not_after = (now() + DAY).into();
    let forged_key = rcgen::KeyPair::generate().unwrap();
    let forged = params.signed_by(&forged_key, &issuer).unwrap();
    let chain = forged.pem() + &b.certificate_pem;
    let identity =
        Identity::from_pem(chain.as_bytes(), forged_key.serialize_pem().as_bytes()).unwrap();
    let forger = Tls::new(identity, roots(&[&ca])).unwrap();

    let end = handshake(client_of(&forger, Expect::AnyNode), &node(&ca, "c")).await;
    end.acceptor_refuses(Rejection::NotByAuthority);
    end.dialer_is_told(Rejection::Other);
}

// C89
#[tokio::test]
async fn refuses_an_expired_certificate() {
    let ca = authority("demo");
    let expired = outdated(&ca, "b", -3 * DAYS, -2 * DAYS);
    let end = handshake(client_of(&expired, Expect::AnyNode), &node(&ca, "a")).await;
    end.acceptor_refuses(Rejection::Expired);
    end.dialer_is_told(Rejection::Expired);
    assert!(end.acceptor.to_string().contains("it expired on 20"), "{}", end.acceptor);

    let end = handshake(client_of(&node(&ca, "a"), Expect::AnyNode), &expired).await;
    end.dialer_refuses(Rejection::Expired);
    end.acceptor_is_told(Rejection::Expired);
}

#[tokio::test]
async fn refuses_a_certificate_that_is_not_valid_yet() {
    let ca = authority("demo");
    let early = outdated(&ca, "b", 2 * DAYS, 3 * DAYS);
    let end = handshake(client_of(&early, Expect::AnyNode), &node(&ca, "a")).await;
    end.acceptor_refuses(Rejection::NotYetValid);
    end.dialer_is_told(Rejection::NotYetValid);

    let end = handshake(client_of(&node(&ca, "a"), Expect::AnyNode), &early).await;
    end.dialer_refuses(Rejection::NotYetValid);
    end.acceptor_is_told(Rejection::NotYetValid);
}

// C84
#[tokio::test]
async fn refuses_another_node_than_the_one_dialed() {
    let ca = authority("demo");
    let end = handshake(client_of(&node(&ca, "a"), expect("b")), &node(&ca, "c")).await;
    end.dialer_refuses(Rejection::WrongName);
    end.acceptor_is_told(Rejection::WrongName);
    assert!(
        end.dialer.detail.unescaped().contains("it is spiffe://demo/eu/c, we dialed b"),
        "{}",
        end.dialer
    );
}

// C92
#[tokio::test]
async fn refuses_another_cluster_under_the_same_ca() {
    let ca = authority("demo");
    let other = tls(&issue(&ca, "staging", "b"), &ca);
    let end = handshake(client_of(&other, Expect::AnyNode), &node(&ca, "a")).await;
    end.dialer_refuses(Rejection::WrongCluster);
    end.acceptor_is_told(Rejection::WrongCluster);

    // A dialer that does not mind does not get in either.
    let mut careless = client_of(&node(&ca, "b"), Expect::AnyNode);
    careless.rustls.client_auth_cert_resolver =
        Arc::new(Shows(Some(certified(&issue(&ca, "staging", "b")))));
    let end = handshake(careless, &node(&ca, "a")).await;
    end.acceptor_refuses(Rejection::WrongCluster);
    end.dialer_is_told(Rejection::WrongCluster);
    assert!(
        end.acceptor
            .detail
            .unescaped()
            .contains("it is spiffe://staging/eu/b, our cluster is demo"),
        "{}",
        end.acceptor
    );
}

#[tokio::test]
async fn refuses_a_certificate_that_does_not_name_one_node() {
    let ca = authority("demo");
    let (b, c) = (name("demo", "b").to_uri(), name("demo", "c").to_uri());
    let foreign = "https://demo/eu/b".to_owned();
    for uris in [vec![], vec![b.clone(), c], vec![b.clone(), foreign.clone()], vec![foreign]] {
        let options =
            LeafOptions { uris: uris.clone(), ..LeafOptions::new(&name("demo", "b"), DAY) };
        let mut client = client_of(&node(&ca, "b"), Expect::AnyNode);
        client.rustls.client_auth_cert_resolver =
            Arc::new(Shows(Some(certified(&ca.issue_with(&options).unwrap()))));
        let end = handshake(client, &node(&ca, "a")).await;
        end.acceptor_refuses(Rejection::NoName);
        // The code does not tell a missing name from a wrong one; the advice covers both.
        end.dialer_is_told(Rejection::WrongName);
    }
}

#[tokio::test]
async fn refuses_a_certificate_for_another_purpose() {
    let ca = authority("demo");
    let with = |usage| {
        let usages = vec![usage];
        let options = LeafOptions { usages, ..LeafOptions::new(&name("demo", "b"), DAY) };
        tls(&ca.issue_with(&options).unwrap(), &ca)
    };
    let end = handshake(client_of(&with(Usage::Server), Expect::AnyNode), &node(&ca, "a")).await;
    end.acceptor_refuses(Rejection::WrongPurpose);
    end.dialer_is_told(Rejection::WrongPurpose);

    let end = handshake(client_of(&node(&ca, "a"), Expect::AnyNode), &with(Usage::Client)).await;
    end.dialer_refuses(Rejection::WrongPurpose);
    end.acceptor_is_told(Rejection::WrongPurpose);
}

// C100
#[tokio::test]
async fn refuses_a_protocol_version_it_does_not_speak() {
    let ca = authority("demo");
    for versions in [vec![b"gossipmonger/999".to_vec()], vec![]] {
        let mut client = client_of(&node(&ca, "b"), Expect::AnyNode);
        client.rustls.alpn_protocols = versions;
        let end = handshake(client, &node(&ca, "a")).await;
        end.acceptor_refuses(Rejection::NoCommonVersion);
        end.dialer_is_told(Rejection::NoCommonVersion);
    }
}

#[tokio::test]
async fn reports_by_the_code_alone_where_no_verdict_is_at_hand() {
    let (ours, foreign) = (authority("demo"), authority("demo"));
    let stranger = tls(&issue(&foreign, "demo", "b"), &ours);
    let end = handshake(client_of(&stranger, Expect::AnyNode), &node(&ours, "a")).await;
    let by_code = Refusal::of(&end.acceptor_error).unwrap();
    assert_eq!((by_code.by, by_code.reason), (RefusedBy::Us, Rejection::BadSignature));
}

// C83
#[tokio::test]
async fn lets_the_right_certificates_in() {
    let ca = authority("demo");
    for kind in [KeyKind::Ed25519, KeyKind::P256] {
        let options = LeafOptions { key: kind, ..LeafOptions::new(&name("demo", "b"), DAY) };
        let b = tls(&ca.issue_with(&options).unwrap(), &ca);
        let a = node(&ca, "a");
        let pair = Pair::connect(client_of(&a, expect("b")), &b).await;
        assert_eq!(peer_name(&pair.dialer).unwrap(), name("demo", "b"));
        assert_eq!(peer_name(&pair.acceptor).unwrap(), name("demo", "a"));
        let seen = peer_certificate(&pair.acceptor).unwrap();
        assert_eq!(seen, *a.identity().certificate());
        pair.carries_data().await;
    }
}

#[tokio::test]
async fn lets_an_authority_with_p256_and_a_leaf_without_key_usage_in() {
    let options = AuthorityOptions { key: KeyKind::P256, ..AuthorityOptions::default() };
    let ca = Authority::create(ClusterId::new("demo").unwrap(), &options).unwrap();
    let options = LeafOptions { usages: vec![], ..LeafOptions::new(&name("demo", "b"), DAY) };
    let b = tls(&ca.issue_with(&options).unwrap(), &ca);
    Pair::connect(client_of(&node(&ca, "a"), Expect::AnyNode), &b).await.carries_data().await;
    Pair::connect(client_of(&b, Expect::AnyNode), &node(&ca, "a")).await.carries_data().await;
}

#[tokio::test]
async fn does_not_resume_a_session() {
    let ca = authority("demo");
    let (a, b) = (node(&ca, "a"), node(&ca, "b"));
    let server = serve(&b);
    let client = endpoint();
    let (crypto, _) = a.dial(expect("b"));
    let config = quinn::ClientConfig::new(crypto);
    for _ in 0..2 {
        let connecting =
            client.connect_with(config.clone(), server.address(), SERVER_NAME).unwrap();
        // The same configuration twice: were there a ticket, 0-RTT would now be possible.
        let connecting = connecting.into_0rtt().err().expect("0-RTT must not be offered");
        let (dialed, accepted) = tokio::join!(connecting, server.accept());
        let pair = Pair { dialer: dialed.unwrap(), acceptor: accepted.0.unwrap() };
        pair.carries_data().await;
    }
}

// C87, C97
#[tokio::test]
async fn reload_switches_new_handshakes_and_keeps_old_connections() {
    let (old, new) = (authority("demo"), authority("demo"));
    let (a, b) = (node(&old, "a"), node(&old, "b"));
    let server = serve(&b);
    let client = client_of(&a, expect("b"));
    let before = Pair::over(client.clone(), &server).await;

    // First everybody trusts both authorities, then everybody gets a certificate of the new one,
    // then the old one goes. The endpoint and the configurations are never made again.
    for tls in [&a, &b] {
        tls.reload(tls.identity(), roots(&[&old, &new])).unwrap();
    }
    b.reload(identity(&issue(&new, "demo", "b")), roots(&[&old, &new])).unwrap();
    let mixed = Pair::over(client.clone(), &server).await;
    assert_eq!(peer_certificate(&mixed.dialer).unwrap(), *b.identity().certificate());
    a.reload(identity(&issue(&new, "demo", "a")), roots(&[&new])).unwrap();
    b.reload(b.identity(), roots(&[&new])).unwrap();
    let after = Pair::over(client, &server).await;
    assert_eq!(peer_certificate(&after.acceptor).unwrap(), *a.identity().certificate());

    for pair in [before, mixed, after] {
        pair.carries_data().await;
    }
    let end = handshake(client_of(&node(&old, "c"), Expect::AnyNode), &b).await;
    end.dialer_refuses(Rejection::BadSignature);
}

#[tokio::test]
async fn lets_a_chain_made_by_openssl_in_both_ways() {
    if !openssl_is_here() {
        println!("SKIPPED: no openssl command on this host, so no chain made by it was tried");
        return;
    }
    for kind in ["p256", "rsa"] {
        let directory = tempfile::tempdir().unwrap();
        let a = openssl_node(directory.path(), kind, "a");
        let b = openssl_node(directory.path(), kind, "b");
        for (dialer, acceptor, expected) in [(&a, &b, "b"), (&b, &a, "a")] {
            let pair = Pair::connect(client_of(dialer, expect(expected)), acceptor).await;
            assert_eq!(peer_name(&pair.dialer).unwrap(), name("demo", expected));
            pair.carries_data().await;
        }
        // Not everything that openssl signs gets in.
        let end = handshake(client_of(&a, Expect::AnyNode), &node(&authority("demo"), "c")).await;
        end.dialer_refuses(Rejection::UnknownAuthority);
    }
}

#[test]
fn openssl_reads_and_verifies_what_our_authority_issues() {
    if !openssl_is_here() {
        println!("SKIPPED: no openssl command on this host, so it verified nothing of ours");
        return;
    }
    for key in [KeyKind::Ed25519, KeyKind::P256] {
        let directory = tempfile::tempdir().unwrap();
        let options = AuthorityOptions { key, ..AuthorityOptions::default() };
        let ca = Authority::create(ClusterId::new("demo").unwrap(), &options).unwrap();
        let options = LeafOptions { key, ..LeafOptions::new(&name("demo", "a"), LEAF_VALIDITY) };
        let issued = ca.issue_with(&options).unwrap();
        issued.save(directory.path(), Existing::Refuse).unwrap();
        let openssl = |arguments: &[&str]| {
            let output = Command::new("openssl")
                .args(arguments)
                .current_dir(directory.path())
                .output()
                .unwrap();
            assert!(output.status.success(), "{arguments:?}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        for purpose in ["sslserver", "sslclient"] {
            openssl(&[
                "verify",
                "-x509_strict",
                "-purpose",
                purpose,
                "-CAfile",
                "roots.pem",
                "node.pem",
            ]);
        }
        let text = openssl(&["x509", "-in", "node.pem", "-noout", "-text"]);
        assert!(text.contains("URI:spiffe://demo/eu/a"), "{text}");
        openssl(&["pkey", "-in", "node.key", "-noout"]);
    }
}

/// One side's view of a refused handshake, and the other's.
struct End {
    dialer: Refusal,
    acceptor: Refusal,
    acceptor_error: ConnectionError,
}

impl End {
    fn dialer_refuses(&self, reason: Rejection) {
        assert_eq!(
            (self.dialer.by, self.dialer.reason),
            (RefusedBy::Us, reason),
            "{}",
            self.dialer
        );
    }

    fn acceptor_refuses(&self, reason: Rejection) {
        let found = (self.acceptor.by, self.acceptor.reason);
        assert_eq!(found, (RefusedBy::Us, reason), "{}", self.acceptor);
    }

    fn dialer_is_told(&self, reason: Rejection) {
        let found = (self.dialer.by, self.dialer.reason);
        assert_eq!(found, (RefusedBy::Peer, reason), "{}", self.dialer);
    }

    fn acceptor_is_told(&self, reason: Rejection) {
        let found = (self.acceptor.by, self.acceptor.reason);
        assert_eq!(found, (RefusedBy::Peer, reason), "{}", self.acceptor);
    }
}

/// A dialer's TLS, open to tampering.
#[derive(Clone)]
struct Client {
    rustls: rustls::ClientConfig,
    verdict: Verdict,
}

fn client_of(tls: &Tls, expect: Expect) -> Client {
    let verdict = Verdict::default();
    Client { rustls: tls.rustls_client(expect, verdict.clone()), verdict }
}

/// An endpoint that accepts with a verdict for each handshake.
struct Server {
    endpoint: Endpoint,
    tls: Tls,
}

impl Server {
    fn address(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap()
    }

    async fn accept(&self) -> (Result<Connection, ConnectionError>, Verdict) {
        let incoming = self.endpoint.accept().await.unwrap();
        let (crypto, verdict) = self.tls.accept();
        let config = Arc::new(quinn::ServerConfig::with_crypto(crypto));
        let result = match incoming.accept_with(config) {
            Ok(connecting) => connecting.await,
            Err(e) => Err(e),
        };
        (result, verdict)
    }
}

fn serve(tls: &Tls) -> Server {
    // With the rustls configuration, to show that both ways lead to the same.
    let config = QuicServerConfig::try_from(tls.rustls_server(Verdict::default())).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(config));
    let endpoint = Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    Server { endpoint, tls: tls.clone() }
}

fn endpoint() -> Endpoint {
    Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap()
}

async fn dial(
    client: Client,
    endpoint: &Endpoint,
    to: SocketAddr,
) -> Result<Connection, ConnectionError> {
    let crypto = Arc::new(QuicClientConfig::try_from(client.rustls).unwrap());
    let config = quinn::ClientConfig::new(crypto);
    endpoint.connect_with(config, to, SERVER_NAME).unwrap().await
}

/// A handshake that must fail, with what both sides say about it. The dialer may believe for a
/// moment that it is connected.
async fn handshake(client: Client, acceptor: &Tls) -> End {
    let (server, endpoint) = (serve(acceptor), endpoint());
    let dialer_verdict = client.verdict.clone();
    let work = async {
        let dialed = dial(client, &endpoint, server.address());
        let (dialed, (accepted, verdict)) = tokio::join!(dialed, server.accept());
        (ended(dialed).await, ended(accepted).await, verdict)
    };
    let (dialer_error, acceptor_error, acceptor_verdict) =
        tokio::time::timeout(DEADLINE, work).await.expect("the handshake was not refused");
    End {
        dialer: dialer_verdict.refusal(&dialer_error).expect("the dialer was told nothing"),
        acceptor: acceptor_verdict.refusal(&acceptor_error).expect("the acceptor was told nothing"),
        acceptor_error,
    }
}

async fn ended(connection: Result<Connection, ConnectionError>) -> ConnectionError {
    match connection {
        Ok(connection) => connection.closed().await,
        Err(e) => e,
    }
}

/// Both ends of a connection.
struct Pair {
    dialer: Connection,
    acceptor: Connection,
}

impl Pair {
    async fn connect(client: Client, acceptor: &Tls) -> Self {
        Self::over(client, &serve(acceptor)).await
    }

    async fn over(client: Client, server: &Server) -> Self {
        let endpoint = endpoint();
        let work =
            async { tokio::join!(dial(client, &endpoint, server.address()), server.accept()) };
        let (dialed, (accepted, _)) = tokio::time::timeout(DEADLINE, work).await.unwrap();
        Self { dialer: dialed.unwrap(), acceptor: accepted.unwrap() }
    }

    /// Only data in both directions shows that both sides accepted.
    async fn carries_data(&self) {
        let asks = async {
            let (mut send, mut receive) = self.dialer.open_bi().await.unwrap();
            send.write_all(b"rumour").await.unwrap();
            send.finish().unwrap();
            receive.read_to_end(100).await.unwrap()
        };
        let answers = async {
            let (mut send, mut receive) = self.acceptor.accept_bi().await.unwrap();
            send.write_all(&receive.read_to_end(100).await.unwrap()).await.unwrap();
            send.finish().unwrap();
        };
        let work = async { tokio::join!(asks, answers) };
        let (echo, ()) = tokio::time::timeout(DEADLINE, work).await.unwrap();
        assert_eq!(echo, b"rumour");
    }
}

/// Shows this certificate, or none.
#[derive(Debug)]
struct Shows(Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

fn authority(cluster: &str) -> Authority {
    Authority::create(ClusterId::new(cluster).unwrap(), &AuthorityOptions::default()).unwrap()
}

fn name(cluster: &str, node: &str) -> PeerName {
    PeerName {
        cluster: ClusterId::new(cluster).unwrap(),
        datacenter: Datacenter::new("eu").unwrap(),
        node: NodeId::new(node).unwrap(),
    }
}

fn expect(node: &str) -> Expect {
    Expect::Node(NodeId::new(node).unwrap())
}

fn issue(authority: &Authority, cluster: &str, node: &str) -> Issued {
    authority.issue_with(&LeafOptions::new(&name(cluster, node), DAY)).unwrap()
}

fn identity(issued: &Issued) -> Identity {
    Identity::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap()
}

fn roots(authorities: &[&Authority]) -> Roots {
    let pem: String = authorities.iter().map(|a| a.certificate_pem()).collect();
    Roots::from_pem(pem.as_bytes()).unwrap()
}

fn tls(issued: &Issued, trusted: &Authority) -> Tls {
    Tls::new(identity(issued), roots(&[trusted])).unwrap()
}

fn node(authority: &Authority, node: &str) -> Tls {
    tls(&issue(authority, "demo", node), authority)
}

/// A node whose certificate is valid from and until so many seconds from now; its own clock lets
/// it load that.
fn outdated(authority: &Authority, node: &str, from: i64, until: i64) -> Tls {
    let at = |seconds: i64| {
        let distance = Duration::from_secs(seconds.unsigned_abs());
        if seconds < 0 { now() - distance } else { now() + distance }
    };
    let issued = authority
        .issue_with(&LeafOptions {
            not_before: at(from),
            not_after: at(until),
            ..LeafOptions::new(&name("demo", node), DAY)
        })
        .unwrap();
    let (certificate, key) = (issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes());
    let identity = Identity::from_pem_at(certificate, key, at(from)).unwrap();
    Tls::new(identity, roots(&[authority])).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "certificates' dates are wall time")]
fn now() -> SystemTime {
    SystemTime::now()
}

fn chain(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap()
}

fn key(pem: &str) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn certified(issued: &Issued) -> Arc<CertifiedKey> {
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key(&issued.key_pem)).unwrap();
    Arc::new(CertifiedKey::new(chain(&issued.certificate_pem), key))
}

fn openssl_is_here() -> bool {
    Command::new("openssl").arg("version").output().is_ok_and(|output| output.status.success())
}

fn openssl_node(directory: &Path, kind: &str, node: &str) -> Tls {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("certs/openssl-chain.sh");
    let output = Command::new("sh")
        .arg(script)
        .arg(directory)
        .args([kind, "demo", "eu", node])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = |extension| directory.join(node).with_extension(extension);
    let identity = Identity::from_pem_files(file("pem"), file("key")).unwrap();
    let roots = Roots::from_pem_file(directory.join("roots.pem")).unwrap();
    roots.check(&identity, now()).unwrap();
    Tls::new(identity, roots).unwrap()
}

const DAYS: i64 = 24 * 60 * 60;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const DEADLINE: Duration = Duration::from_secs(10);
