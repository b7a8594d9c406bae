//! A real issuer on loopback, and its clients: honest ones, and attackers.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use quinn::{ClientConfig, Connection, Endpoint, VarInt, crypto::rustls::QuicClientConfig};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, SanType};
use rustls::{pki_types::CertificateDer, sign::CertifiedKey};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::{
    connection::transport, grant::backdate, places::*, renewal::*, request::*, server::*, *,
};
use crate::{
    clock::Clock,
    foreign::Foreign,
    pki::{Authority, AuthorityOptions, Issued, KeyKind, LeafOptions, leaf::BACKDATE},
    protocol::id::{ClusterId, Datacenter, NodeId},
    tls::{
        CertificateSummary, Identity, PeerName, Pinned, Roots, SERVER_NAME, Tls, Verdict, strangers,
    },
};

#[tokio::test]
async fn refuses_a_token_of_another_secret_and_one_it_never_made() {
    let bench = Bench::start();
    let token = bench.token(terms());
    let forged = Token::from_parts(token.id(), &bench.stranger());
    assert_eq!(bench.refused(&forged, "b").await, Refused::WrongSecret);
    assert_eq!(bench.refused(&bench.stranger(), "b").await, Refused::UnknownToken);
    assert_eq!(bench.told(), ["join_wrong_secret", "join_unknown_token"]);
    bench.join(&token, "b").await.unwrap();
}

#[tokio::test]
async fn refuses_a_token_that_is_used_expired_revoked_or_for_another() {
    let bench = Bench::start();
    let used = bench.token(terms());
    bench.join(&used, "b").await.unwrap();
    assert_eq!(bench.refused(&used, "c").await, Refused::Used);
    let revoked = bench.token(terms());
    bench.issuer.revoke(revoked.id()).unwrap();
    assert_eq!(bench.refused(&revoked, "c").await, Refused::TokenRevoked);
    let for_c = bench.token(Terms { node: Some(node("c")), ..terms() });
    assert_eq!(bench.refused(&for_c, "d").await, Refused::WrongName);
    let short = bench.token(Terms { ttl: Duration::from_nanos(1), ..terms() });
    assert_eq!(bench.refused(&short, "c").await, Refused::Expired);
    // The refused requests have used up nothing.
    bench.join(&for_c, "c").await.unwrap();
}

#[tokio::test]
async fn refuses_the_name_of_one_that_lives() {
    let bench = Bench::start();
    bench.cluster.living.lock().unwrap().insert("b".to_owned());
    let token = bench.token(terms());
    assert_eq!(bench.refused(&token, "b").await, Refused::NameTaken);
    assert_eq!(bench.told(), ["join_name_taken"]);
    bench.join(&token, "c").await.unwrap();
}

#[tokio::test]
async fn a_joiner_refuses_another_authority_before_it_says_a_word() {
    let (ours, other) = (Bench::start(), Bench::start());
    let token = ours.token(terms());
    let elsewhere = Token::at(&token, other.door.port());
    let error = other.join(&elsewhere, "b").await.unwrap_err();
    assert!(matches!(error, ClaimError::WrongPin { .. }), "{error}");
    other.until_told("join_wrong_pin").await;
    assert!(other.cluster.granted.lock().unwrap().is_empty());
}

// C84
#[tokio::test]
async fn takes_nothing_but_the_public_key_of_a_request() {
    let bench = Bench::start();
    let token = bench.token(Terms { node: Some(node("b")), ..terms() });
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["a.example.org".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.subject_alt_names.push(SanType::URI("spiffe://demo/eu/a".try_into().unwrap()));
    let csr = params.serialize_request(&key).unwrap().der().to_vec();

    let connection = bench.dial(&token).await;
    let mut join = claim(&token, csr);
    join.prove(&token.key(), &Exported::of(&connection).unwrap());
    let Answer::Granted(granted) = say(&connection, &Request::Join(join).encode()).await else {
        panic!("refused");
    };
    let certificate = CertificateDer::from(granted.certificate);
    let summary = CertificateSummary::from_certificate(&certificate).unwrap();
    assert_eq!(summary.name.unwrap().to_string(), "spiffe://demo/eu/b");
    assert!(!summary.is_authority);
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).unwrap();
    let names = parsed.subject_alternative_name().unwrap().unwrap().value;
    assert_eq!(names.general_names.len(), 1, "{names:?}");
    assert_eq!(parsed.public_key().raw, rcgen::PublicKeyData::subject_public_key_info(&key));
}

#[tokio::test]
async fn refuses_a_proof_that_was_recorded_on_another_connection() {
    let bench = Bench::start();
    let token = bench.token(terms());
    let (first, second) = (bench.dial(&token).await, bench.dial(&token).await);
    let mut join = claim(&token, csr());
    join.prove(&token.key(), &Exported::of(&first).unwrap());
    let recorded = Request::Join(join).encode();
    let answer = say(&second, &recorded).await;
    assert!(matches!(answer, Answer::Refused(Refused::WrongSecret, _)), "{answer:?}");
    let answer = say(&first, &recorded).await;
    assert!(matches!(answer, Answer::Granted(_)), "{answer:?}");
}

#[tokio::test]
async fn refuses_a_request_whose_key_or_name_was_exchanged() {
    let bench = Bench::start();
    let token = bench.token(terms());
    let connection = bench.dial(&token).await;
    let mut join = claim(&token, csr());
    join.prove(&token.key(), &Exported::of(&connection).unwrap());
    join.csr = csr();
    let answer = say(&connection, &Request::Join(join).encode()).await;
    assert!(matches!(answer, Answer::Refused(Refused::WrongSecret, _)), "{answer:?}");

    let connection = bench.dial(&token).await;
    let mut join = claim(&token, vec![1, 2, 3]);
    join.prove(&token.key(), &Exported::of(&connection).unwrap());
    let answer = say(&connection, &Request::Join(join).encode()).await;
    assert!(matches!(answer, Answer::Refused(Refused::BadKey, _)), "{answer:?}");
}

// C90
#[tokio::test]
async fn refuses_junk_and_what_is_too_long() {
    let bench = Bench::start();
    let token = bench.token(terms());
    for junk in [vec![], vec![0xff; 64], vec![0; 64], vec![7; REQUEST_BYTES_MAX + 1]] {
        let connection = bench.dial(&token).await;
        let answer = say(&connection, &junk).await;
        assert!(matches!(answer, Answer::Refused(Refused::BadRequest, _)), "{answer:?}");
    }
    assert_eq!(bench.told(), ["join_bad_request"; 4]);
    bench.join(&token, "b").await.unwrap();
}

#[tokio::test]
async fn silent_visitors_keep_no_joiner_and_no_member_out() {
    let bench = Bench::start();
    let member = bench.join(&bench.token(terms()), "m").await.unwrap().issued;
    // As many as all slots together, from many sources.
    let mut silent = Vec::new();
    for source in 0..CONNECTIONS_MAX / VISITORS_PER_SOURCE {
        for _ in 0..VISITORS_PER_SOURCE {
            silent.push(bench.stranger_of(&format!("127.0.1.{}:0", source + 1)).await);
        }
    }
    bench.renew(&member, KeyKind::Ed25519).await.unwrap();
    bench.join(&bench.token(terms()), "b").await.unwrap();
    assert!(!bench.told().contains(&"join_busy"), "{:?}", bench.told());
}

#[tokio::test]
async fn one_source_has_a_few_places_at_once() {
    let bench = Bench::start();
    let mut silent = Vec::new();
    for _ in 0..VISITORS_PER_SOURCE + 2 {
        silent.push(bench.stranger_of("127.0.1.1:0").await);
    }
    for (_, connection) in &silent[..2] {
        // The oldest give way, and receive the reason.
        let ended = connection.closed().await;
        assert!(ended.to_string().contains("another visitor"), "{ended}");
    }
    assert!(silent[2..].iter().all(|(_, connection)| connection.close_reason().is_none()));
    assert_eq!(bench.told(), ["join_gave_way"; 2]);
}

#[tokio::test]
async fn the_close_reason_of_a_visitor_is_escaped() {
    let bench = Bench::start();
    let (endpoint, connection) = bench.stranger_of("127.0.0.1:0").await;
    connection
        .close(VarInt::from_u32(0), b"\x1b[2J\n2026-01-01T00:00:00Z  INFO certificate issued");
    endpoint.wait_idle().await;
    bench.until_told("join_broken").await;
    let details = bench.cluster.details.lock().unwrap().clone();
    assert!(details[0].unescaped().contains('\n'), "{details:?}");
    let shown = details[0].to_string();
    assert!(shown.contains("\\u{1b}[2J\\n2026") && !shown.contains('\n'), "{shown}");
}

#[tokio::test]
async fn refuses_a_source_that_has_tried_too_often() {
    let bench = Bench::start();
    let stranger = bench.stranger();
    for attempt in 0..3 * ATTEMPTS_PER_MINUTE {
        if let Err(ClaimError::TurnedAway(_)) = bench.join(&stranger, "b").await {
            assert!(attempt >= ATTEMPTS_PER_MINUTE, "{attempt}");
            bench.until_told("join_rate_limited").await;
            return;
        }
    }
    panic!("never turned away");
}

#[tokio::test]
async fn of_many_with_one_token_one_gets_in() {
    let bench = Arc::new(Bench::start());
    let token = bench.token(terms());
    let tries: Vec<_> = (0..8)
        .map(|n| {
            let (bench, token) = (Arc::clone(&bench), token.clone());
            tokio::spawn(async move { bench.join(&token, &format!("n{n}")).await })
        })
        .collect();
    let mut won = 0;
    for tried in tries {
        match tried.await.unwrap() {
            Ok(_) => won += 1,
            Err(ClaimError::Refused { why, .. }) => assert_eq!(why, Refused::Used),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(won, 1);
}

/// Another member of the cluster, between the joining node and the issuer, with a valid certificate.
#[tokio::test]
async fn a_joiner_refuses_an_answer_of_one_that_does_not_know_the_secret() {
    let bench = Bench::start();
    let token = bench.token(terms());
    let member = Bench::of(&bench.directory);
    let granted = Granted {
        certificate: vec![1],
        roots: vec![vec![2]],
        gossip_port: 1,
        issuers: Vec::new(),
        proof: [0; 32],
    };
    let (port, answering) = member.answer_with(Answer::Granted(granted));
    let error = bench.join(&Token::at(&token, port), "b").await.unwrap_err();
    assert!(error.to_string().contains("does not know the token's secret"), "{error}");
    answering.abort();
}

#[tokio::test]
async fn renews_a_member_under_its_name_with_a_new_key() {
    let bench = Bench::start();
    let token = bench.token(Terms { datacenter: Some(Datacenter::new("us").unwrap()), ..terms() });
    let joined = bench.join(&token, "b").await.unwrap();
    assert_eq!(
        (joined.gossip_port, &joined.issuers[..]),
        (7101, &["d.example.org:7102".to_owned()][..])
    );
    let first = joined.issued;
    for kind in [KeyKind::Ed25519, KeyKind::P256] {
        let renewed = bench.renew(&first, kind).await.unwrap();
        assert_eq!(renewed.certificate.name, first.certificate.name);
        assert_ne!(*renewed.key_pem, *first.key_pem);
        let identity = identity(&renewed);
        assert_eq!(identity.key_kind(), kind);
        assert_eq!(identity.name().to_string(), "spiffe://demo/us/b");
    }
    let granted = bench.cluster.granted.lock().unwrap().clone();
    assert_eq!(granted, [("b".to_owned(), false), ("b".to_owned(), true), ("b".to_owned(), true)]);
}

// C83
#[tokio::test]
async fn renews_nobody_without_a_certificate_or_with_one_of_another_authority() {
    let (bench, foreign) = (Bench::start(), Bench::start());
    let token = bench.token(terms());
    let connection = bench.dial(&token).await;
    let answer = say(&connection, &Request::Renew { csr: csr() }.encode()).await;
    assert!(matches!(answer, Answer::Refused(Refused::NoCertificate, _)), "{answer:?}");

    let theirs = foreign.join(&foreign.token(terms()), "b").await.unwrap().issued;
    let theirs = Issued { roots_pem: bench.roots(), ..theirs };
    let error = bench.renew(&theirs, KeyKind::Ed25519).await.unwrap_err();
    assert!(matches!(error, ClaimError::Handshake { .. }), "{error}");
    bench.until_told("bad_signature").await;
}

// C88
#[tokio::test]
async fn renews_nobody_whose_certificate_its_authority_has_revoked() {
    let bench = Bench::start();
    let stolen = bench.join(&bench.token(terms()), "b").await.unwrap().issued;
    // The gossip does not know it yet: the handshake still succeeds.
    bench.issuer.revoke_node(node("b")).unwrap();
    let error = bench.renew(&stolen, KeyKind::Ed25519).await.unwrap_err();
    assert!(matches!(error, ClaimError::Refused { why: Refused::NoCertificate, .. }), "{error}");
    assert_eq!(bench.told(), ["renew_no_certificate"]);
}

#[tokio::test]
async fn gives_a_short_certificate_most_of_its_life_before_it_is_due() {
    let bench = Bench::start();
    let issued = bench.join(&bench.token(terms()), "b").await.unwrap().issued;
    let certificate = issued.certificate;
    let whole = lifetime(&certificate);
    assert!(whole >= VALIDITY && whole <= VALIDITY * 21 / 20 + Duration::from_secs(1));
    let due = renewal_due(&certificate);
    assert!(due > Clock::wall() && certificate.not_after.duration_since(due).unwrap() < whole / 2);
    assert_eq!(backdate(crate::pki::leaf::LEAF_VALIDITY_AUTOMATED), BACKDATE);
}

#[test]
fn refuses_to_issue_for_another_cluster_or_for_no_time() {
    let directory = authority();
    let other = PeerName::from_uri("spiffe://other/eu/a").unwrap();
    let error = Issuer::open(directory.path(), other, VALIDITY).unwrap_err().to_string();
    assert!(error.contains("cluster demo") && error.contains("cluster other"), "{error}");
    let error = Issuer::open(directory.path(), name("a"), Duration::ZERO).unwrap_err();
    assert!(matches!(error, IssuerError::Validity(_)), "{error}");
}

#[tokio::test]
async fn a_door_that_ends_gives_its_port_back_although_somebody_is_in_it() {
    let bench = Bench::start();
    let (door, _visitor) = (bench.door, bench.stranger_of("127.0.0.1:0").await);
    std::net::UdpSocket::bind(door).unwrap_err();
    drop(bench);
    let free = async {
        while std::net::UdpSocket::bind(door).is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, free).await.expect("the port is free");
}

/// An issuer with an open listener, and its simulated cluster.
struct Bench {
    directory: Arc<TempDir>,
    issuer: Arc<Issuer>,
    door: SocketAddr,
    cluster: Arc<Told>,
    tls: Tls,
    serving: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Told {
    living: Mutex<BTreeSet<String>>,
    refused: Mutex<Vec<&'static str>>,
    details: Mutex<Vec<Foreign>>,
    granted: Mutex<Vec<(String, bool)>>,
}

impl Cluster for Told {
    fn lives(&self, node: &NodeId) -> bool {
        self.living.lock().unwrap().contains(node.as_str())
    }

    fn gossip_port(&self) -> u16 {
        7101
    }

    fn roots_pem(&self) -> String {
        String::new()
    }

    fn issuers(&self) -> Vec<String> {
        vec!["d.example.org:7102".to_owned(), "no door".to_owned()]
    }

    fn refused(&self, _source: SocketAddr, label: &'static str, detail: &Foreign) {
        self.refused.lock().unwrap().push(label);
        self.details.lock().unwrap().push(detail.clone());
    }

    fn granted(&self, _source: SocketAddr, name: &PeerName, renewal: bool) {
        self.granted.lock().unwrap().push((name.node.to_string(), renewal));
    }
}

impl Bench {
    fn start() -> Self {
        Self::of(&Arc::new(authority()))
    }

    fn of(directory: &Arc<TempDir>) -> Self {
        let authority = Authority::load(directory.path()).unwrap();
        let own = authority.issue_with(&LeafOptions::new(&name("a"), VALIDITY)).unwrap();
        let tls = Tls::new(identity(&own), roots(&own.roots_pem)).unwrap();
        let issuer = Arc::new(Issuer::open(directory.path(), name("a"), VALIDITY).unwrap());
        let bound = Door::bind(&[([127, 0, 0, 1], 0).into()]).unwrap();
        let (door, cluster) = (bound.addresses()[0], Arc::new(Told::default()));
        let view: Arc<dyn Cluster> = Arc::clone(&cluster) as Arc<dyn Cluster>;
        let serving = tokio::spawn(bound.serve(Arc::clone(&issuer), tls.clone(), view));
        Self { directory: Arc::clone(directory), issuer, door, cluster, tls, serving }
    }

    fn token(&self, terms: Terms) -> Token {
        self.issuer.create(&terms, self.door.port()).unwrap().0
    }

    /// A token of this authority and listener that was never created.
    fn stranger(&self) -> Token {
        Token::generate(node("a"), self.door.port(), self.issuer.look().unwrap().pin).unwrap()
    }

    fn roots(&self) -> String {
        Authority::load(self.directory.path()).unwrap().certificate_pem().to_owned()
    }

    async fn join(&self, token: &Token, name: &str) -> Result<Joined, ClaimError> {
        let asked = Asked { node: Some(node(name)), ..Asked::default() };
        join(token, "127.0.0.1", &asked).await
    }

    async fn refused(&self, token: &Token, name: &str) -> Refused {
        match self.join(token, name).await.unwrap_err() {
            ClaimError::Refused { why, .. } => why,
            error => panic!("{error}"),
        }
    }

    async fn renew(&self, issued: &Issued, key: KeyKind) -> Result<Issued, ClaimError> {
        let doors = [self.door.to_string()];
        renew(identity(issued), &roots(&issued.roots_pem), &doors, key).await
    }

    /// A connection of a client that has read the token and does not follow the protocol.
    async fn dial(&self, token: &Token) -> Connection {
        let tls = strangers(Arc::new(Pinned::new(token.pin())), JOIN_ALPN);
        let crypto = QuicClientConfig::try_from(tls).unwrap();
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(transport());
        let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
        endpoint.connect_with(config, self.door, SERVER_NAME).unwrap().await.unwrap()
    }

    /// A connection from this address, without token and certificate.
    async fn stranger_of(&self, address: &str) -> (Endpoint, Connection) {
        let tls = strangers(Arc::new(Pinned::new(self.stranger().pin())), JOIN_ALPN);
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        config.transport_config(transport());
        let endpoint = Endpoint::client(address.parse().unwrap()).unwrap();
        let connecting = endpoint.connect_with(config, self.door, SERVER_NAME).unwrap();
        (endpoint, connecting.await.unwrap())
    }

    /// An issuer that gives every client the same answer.
    fn answer_with(&self, answer: Answer) -> (u16, JoinHandle<()>) {
        let shown = self.issuer.look().unwrap();
        #[derive(Debug)]
        struct One(Arc<CertifiedKey>);
        impl rustls::server::ResolvesServerCert for One {
            fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
                Some(Arc::clone(&self.0))
            }
        }
        let resolver = Arc::new(One(Arc::clone(&shown.certified)));
        let tls = self.tls.door(resolver, JOIN_ALPN, Verdict::default());
        let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
        let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let endpoint = Endpoint::server(config, ([127, 0, 0, 1], 0).into()).unwrap();
        let port = endpoint.local_addr().unwrap().port();
        let answering = tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let connection = incoming.await.unwrap();
                let (mut send, mut receive) = connection.accept_bi().await.unwrap();
                receive.read_to_end(REQUEST_BYTES_MAX).await.unwrap();
                send.write_all(&answer.encode()).await.unwrap();
                send.finish().unwrap();
                connection.closed().await;
            }
        });
        (port, answering)
    }

    fn told(&self) -> Vec<&'static str> {
        self.cluster.refused.lock().unwrap().clone()
    }

    async fn until_told(&self, label: &str) {
        let told = async {
            while !self.told().contains(&label) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, told).await.expect(label);
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Sends bytes on a connection; returns the issuer's answer.
async fn say(connection: &Connection, bytes: &[u8]) -> Answer {
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    // It may be refused before all of it has been read.
    let _ = send.write_all(bytes).await;
    let _ = send.finish();
    Answer::decode(&receive.read_to_end(ANSWER_BYTES_MAX).await.unwrap()).unwrap()
}

fn authority() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let cluster = ClusterId::new("demo").unwrap();
    let authority = Authority::create(cluster, &AuthorityOptions::default()).unwrap();
    authority.save(directory.path()).unwrap();
    directory
}

fn claim(token: &Token, csr: Vec<u8>) -> Join {
    Join { token: token.id(), node: Some(node("b")), datacenter: None, csr, proof: [0; 32] }
}

fn csr() -> Vec<u8> {
    crate::pki::Requested::new(KeyKind::Ed25519).unwrap().csr
}

fn terms() -> Terms {
    Terms { node: None, datacenter: None, ttl: Duration::from_secs(3600), uses: 1 }
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn name(node: &str) -> PeerName {
    PeerName::from_uri(&format!("spiffe://demo/eu/{node}")).unwrap()
}

fn identity(issued: &Issued) -> Identity {
    Identity::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap()
}

fn roots(pem: &str) -> Roots {
    Roots::from_pem(pem.as_bytes()).unwrap()
}

const VALIDITY: Duration = Duration::from_secs(600);
/// Far longer than any machine needs.
const DEADLINE: Duration = Duration::from_secs(60);
