//! Untrusted text of peers, agents, certificates and impostors controls no terminal and forges no line of a log.

use std::{fs, net::UdpSocket, sync::Arc, thread};

use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, VarInt, crypto::rustls::QuicClientConfig,
};
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::{
    DigitallySignedStruct, Side, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs::{cipher_suite::TLS13_AES_128_GCM_SHA256, default_provider},
    pki_types::{CertificateDer, ServerName, UnixTime},
    quic::{Keys, Version},
};
use serde_json::{Value, json};

use crate::harness::{Cluster, Said, eventually, free_ports, hostile_agent};

/// A title and a clear screen, by ESC and by C1; a line end and a line that looks like one of the log; a text that
/// runs from right to left.
const WORDS: &str =
    "\u{1b}]0;pwned\u{7}\u{9b}2J\r\n2026-01-01T00:00:00.000000Z  INFO certificate issued\u{202e}x";

#[test]
fn answers_of_an_agent_do_not_control_the_terminal() {
    let cluster = Cluster::new();
    let certificate = json!({"name": WORDS, "subject": WORDS, "issuer": WORDS, "serial": WORDS,
        "not_before": WORDS, "not_after": WORDS, "expires": WORDS, "fingerprint": WORDS,
        "authority": false});
    let revocation = json!({"node": "b", "cutoff": WORDS, "expires": WORDS, "issuer": "\u{9b}é"});
    let change = json!({"at": WORDS, "age_ms": 1, "from": "live", "to": "dead", "cause": WORDS,
        "sentence": WORDS, "phi": 1.0, "observers": [], "stall_ms": 0.0, "evidence": null});
    let cut = json!({"at": WORDS, "age_ms": 1, "by_peer": true, "label": WORDS, "reason": WORDS});
    let why = json!({"node": "b", "state": "dead", "phi": 1.0, "local": false, "changes": [change],
        "cut": cut, "revoked": revocation});
    let info = json!({"node": "a", "cluster": "demo", "datacenter": "eu", "addresses": [WORDS],
        "generation": 1, "version": 1, "keys": 1, "tags": {WORDS: WORDS}, "members": {}, "program": WORDS,
        "pid": 1, "directory": WORDS, "store": WORDS, "metrics": WORDS, "gossip_interval_ms": 1,
        "dead_peer_phi": 1.0, "health": 0, "seeds": [WORDS], "certificate": certificate,
        "certificate_problem": WORDS, "seed_failures": [], "behind": null, "certificates_expiring": 0, "certificate_warning": WORDS,
        "counters": {WORDS: 1}, "refusals": {WORDS: 1}});
    let token = json!({"token": WORDS, "id": WORDS, "state": WORDS, "node": null, "datacenter": null,
        "created": WORDS, "expires": WORDS, "uses": 1, "used": 0, "by": []});
    let failed = |code: &str| json!({"error": {"code": code, "message": WORDS}});
    let revoked =
        json!({"node": "b", "cutoff": WORDS, "expires": WORDS, "issuer": WORDS, "statements": []});
    for (number, (code, lines, command, answer)) in [
        (1, 1, &["members"][..], failed("failed")),
        (1, 1, &["members"], failed(WORDS)),
        (3, 1, &["get", "b", "key"], failed("not_found")),
        (0, 4, &["why", "b"], json!({ "done": why })),
        (0, 22, &["info"], json!({ "done": info })),
        (0, 3, &["token", "create"], json!({ "done": token })),
        (0, 1, &["cert", "renew"], json!({"done": {"certificate": certificate}})),
        (0, 2, &["cert", "revoke", "b"], json!({ "done": revoked })),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("agent{number}");
        fs::create_dir(cluster.dir(&name)).unwrap();
        hostile_agent(&cluster.dir(&name), &answer);
        let said = cluster.run(&[&["--dir", &name], command].concat());
        assert_eq!(said.code, code, "{command:?}: {:?} {:?}", said.out, said.err);
        harmless(&said);
        let text = format!("{}{}", said.out, said.err);
        assert_eq!(text.lines().count(), lines, "{command:?}: {text}");
        if code == 0 {
            let json = cluster.run(&[&["--dir", &name], command, &["--json"]].concat()).succeeded();
            harmless(&json);
            assert!(
                contains(&json.json(), WORDS),
                "JSON says what the agent has said: {}",
                json.out
            );
        }
    }
}

#[test]
fn an_impostor_at_an_address_does_not_control_the_terminal() {
    let cluster = Cluster::of(&["a"]);
    let line = ["cert", "issue", "--ca", "pki", "--client", "alice", "--role", "read"];
    cluster.run(&[&line[..], &["--dir", "alice"]].concat()).succeeded();
    let address = format!("127.0.0.1:{}", impostor());
    let asked = cluster.run(&["--agent", &address, "--cert", "alice", "members"]);
    cluster.configure("a", &format!("issuers = [{address:?}]\n"));
    let renewed = cluster.run(&["--dir", "a", "cert", "renew"]);
    for said in [asked, renewed] {
        assert_ne!(said.code, 0);
        // It has arrived, and is escaped.
        assert!(said.err.contains("\\u{1b}]0;pwned\\u{7}"), "{}", said.err);
        assert_eq!(said.err.lines().count(), 1, "{}", said.err);
        harmless(&said);
    }
}

#[test]
fn a_visitor_of_an_issuer_forges_no_line_of_its_log() {
    let cluster = Cluster::of(&["a"]);
    for format in ["text", "json"] {
        let _ = fs::remove_file(cluster.dir("a").join("log"));
        let door = format!("127.0.0.1:{}", free_ports().0);
        cluster.configure("a", &format!("log_format = {format:?}\n"));
        let agent = cluster.start("a", &["--issuer", "pki", "--issuer-listen", &door]);
        close_with(&door, WORDS.as_bytes());
        eventually("it is logged", || agent.log().contains("pwned"));
        let log = agent.log();
        assert!(!log.chars().any(|c| c != '\n' && is_unsafe(c)), "{log:?}");
        let told = log.lines().filter(|line| line.contains("INFO certificate issued"));
        assert!(
            told.clone().count() > 0 && told.clone().all(|line| line.contains("pwned")),
            "{log}"
        );
        if format == "json" {
            let line = log.lines().rfind(|line| line.contains("pwned")).unwrap();
            let event: Value = serde_json::from_str(line).unwrap();
            assert_eq!(event["reason"], "join_broken");
        }
        agent.stop();
    }
}

#[test]
fn names_in_a_foreign_certificate_do_not_control_the_terminal() {
    let cluster = Cluster::new();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, WORDS);
    let key = KeyPair::generate().unwrap();
    fs::write(cluster.path().join("x.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    for more in [&[][..], &["--json"]] {
        let said = cluster.run(&[&["cert", "show", "x.pem"], more].concat()).succeeded();
        harmless(&said);
        assert!(said.out.contains("pwned"), "{}", said.out);
        assert_eq!(said.out.lines().count(), if more.is_empty() { 8 } else { 1 }, "{}", said.out);
    }
}

/// The output has no unsafe characters but line ends.
#[track_caller]
fn harmless(said: &Said) {
    for text in [&said.out, &said.err] {
        assert!(!text.chars().any(|c| c != '\n' && is_unsafe(c)), "{text:?}");
    }
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || ('\u{200b}'..='\u{200f}').contains(&c)
        || ('\u{2028}'..='\u{202e}').contains(&c)
}

fn contains(json: &Value, text: &str) -> bool {
    match json {
        Value::String(string) => string == text,
        Value::Array(values) => values.iter().any(|value| contains(value, text)),
        Value::Object(values) => values.values().any(|value| contains(value, text)),
        _ => false,
    }
}

/// Connects to an issuer's door without a token or certificate, and closes with these words.
fn close_with(door: &str, words: &[u8]) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (endpoint, connection) = stranger("127.0.0.1:0", door).await;
        connection.unwrap().close(VarInt::from_u32(0), words);
        endpoint.wait_idle().await;
    });
}

/// A connection from an address to an issuer's door, without a token or certificate.
pub(crate) async fn stranger(
    from: &str,
    door: &str,
) -> (Endpoint, Result<Connection, ConnectionError>) {
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"gossipmonger-join/1".to_vec()];
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let endpoint = Endpoint::client(from.parse().unwrap()).unwrap();
    let connecting = endpoint.connect_with(config, door.parse().unwrap(), "x").unwrap();
    (endpoint, connecting.await)
}

/// Answers every dialer with a close in an Initial packet. It needs no certificate: the keys of that packet follow from
/// the dialer's packet (RFC 9001 section 5.2). Returns its port.
fn impostor() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut buffer = [0; 2_000];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            // Initial packets of a client are padded to this, RFC 9000 section 14.1.
            if len >= 1_200 {
                let _ = socket.send_to(&close_initial(&buffer[..len]), from);
            }
        }
    });
    port
}

fn close_initial(dialed: &[u8]) -> Vec<u8> {
    let to = usize::from(dialed[5]);
    let their_dcid = &dialed[6..6 + to];
    let from = usize::from(dialed[6 + to]);
    let their_scid = &dialed[7 + to..7 + to + from];
    let suite = TLS13_AES_128_GCM_SHA256.tls13().unwrap();
    let keys = Keys::initial(Version::V1, suite, suite.quic.unwrap(), their_dcid, Side::Server);
    let length = |len: usize| (u32::try_from(len).unwrap() | 0x8000_0000).to_be_bytes();
    // CONNECTION_CLOSE with PROTOCOL_VIOLATION and the words.
    let mut payload = vec![0x1c, 0x0a, 0];
    payload.extend(length(WORDS.len()));
    payload.extend(WORDS.as_bytes());
    payload.resize(600, 0);
    let mut packet = vec![0xc3, 0, 0, 0, 1, dialed[6 + to]];
    packet.extend(their_scid);
    packet.extend([8, 9, 9, 9, 9, 9, 9, 9, 9, 0]);
    packet.extend(length(4 + payload.len() + 16));
    let at = packet.len();
    packet.extend([0; 4]);
    let tag = keys.local.packet.encrypt_in_place(0, &packet, &mut payload).unwrap();
    packet.extend(&payload);
    packet.extend(tag.as_ref());
    let sample = packet[at + 4..at + 20].to_vec();
    let (head, rest) = packet.split_at_mut(at);
    keys.local.header.encrypt_in_place(&sample, &mut head[0], &mut rest[..4]).unwrap();
    packet
}

/// Accepts any certificate.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
