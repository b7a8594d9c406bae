//! The HTTP interface: who may ask for what, and what those can cost who may not.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    time::Duration,
};

use serde_json::{Value, json};

use super::harness::{Agent, Cluster, eventually, free_ports};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// An agent with a token for each role.
fn agent(cluster: &Cluster, address: &str) -> Agent {
    let tokens: String = ["read", "watch", "admin"]
        .map(|role| format!("[{role}]\nrole = \"{role}\"\ntoken = \"{}\"\n", token(role)))
        .concat();
    let path = cluster.dir("a").join("http-tokens.toml");
    fs::write(&path, tokens).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    cluster.start("a", &["--http", address])
}

fn token(role: &str) -> String {
    format!("{SECRET}{role}")
}

fn address() -> String {
    format!("127.0.0.1:{}", free_ports().1)
}

/// An answer.
#[derive(Debug)]
struct Said {
    status: u16,
    head: String,
    body: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

fn parsed(answer: &str) -> Said {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    let (head, mut body) = (head.to_ascii_lowercase(), body.to_owned());
    if head.contains("transfer-encoding: chunked") {
        body = unchunked(&body);
    }
    Said { status, head, body }
}

fn unchunked(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        body.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
    body
}

/// Sends a request as it is, and reads until the agent closes.
fn raw(address: &str, request: &str) -> Said {
    let mut stream = TcpStream::connect(address).unwrap();
    let _ = stream.write_all(request.as_bytes());
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    parsed(&answer)
}

/// A request with these lines in its head and this body.
fn ask(address: &str, line: &str, head: &[&str], body: &str) -> Said {
    let head: String = head.iter().map(|line| format!("{line}\r\n")).collect();
    let length = body.len();
    raw(
        address,
        &format!(
            "{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n{head}\r\n{body}"
        ),
    )
}

fn bearer(role: &str) -> String {
    format!("Authorization: Bearer {}", token(role))
}

#[test]
fn who_has_no_token_and_no_certificate_gets_probes_and_the_view_and_nothing_of_the_cluster() {
    let cluster = Cluster::of(&["a"]);
    let address = address();
    let agent = agent(&cluster, &address);
    for path in ["/v1/info", "/v1/members", "/v1/members/a/keys", "/metrics", "/v1/events"] {
        let said = ask(&address, &format!("GET {path}"), &[], "");
        assert_eq!(said.status, 401, "{path}: {said:?}");
        assert!(said.head.contains("www-authenticate: bearer"), "{said:?}");
        let wrong = ask(&address, &format!("GET {path}"), &["Authorization: Bearer x"], "");
        assert_eq!(wrong.status, 401, "{path}: {wrong:?}");
    }
    for path in ["/livez", "/readyz", "/v1/openapi.json", "/", "/view.js", "/view.css"] {
        let said = ask(&address, &format!("GET {path}"), &[], "");
        assert_eq!(said.status, 200, "{path}: {said:?}");
        assert!(!said.body.contains("7101") && said.head.contains("nosniff"), "{said:?}");
    }
    let page = ask(&address, "GET /", &[], "");
    assert!(page.head.contains("content-security-policy: default-src 'none'"), "{page:?}");
    let refused = agent.json(&["info"])["counters"]["client_requests_refused"].as_u64();
    assert!(refused >= Some(5), "{refused:?}");
}

#[test]
fn each_role_may_what_the_table_says() {
    let cluster = Cluster::of(&["a"]);
    let address = address();
    let agent = agent(&cluster, &address);
    let status = |line: &str, role: &str, body: &str| {
        ask(&address, line, &[&bearer(role), "Content-Type: application/json"], body).status
    };
    let value = r#"{"value":"green"}"#;
    for (line, body, [read, watch, admin]) in [
        ("GET /v1/members", "", [200, 200, 200]),
        ("GET /metrics", "", [200, 200, 200]),
        ("PUT /v1/keys/color", value, [403, 403, 200]),
        ("DELETE /v1/keys/nothing", "", [403, 403, 200]),
        ("POST /v1/reload", "", [403, 403, 200]),
        // A token would make its holder a member.
        ("POST /v1/tokens", r#"{"ttl_ms":1,"uses":1}"#, [403, 403, 403]),
        ("POST /v1/renew", "", [403, 403, 403]),
    ] {
        assert_eq!(status(line, "read", body), read, "{line}");
        assert_eq!(status(line, "watch", body), watch, "{line}");
        assert_eq!(status(line, "admin", body), admin, "{line}");
    }
    assert_eq!(status("GET /v1/events", "read", ""), 403);
    assert!(agent.log().contains("token admin"), "the log names who changed it: {}", agent.log());
}

#[test]
fn answers_with_the_objects_that_the_program_prints() {
    let cluster = Cluster::of(&["a"]);
    let address = address();
    let agent = agent(&cluster, &address);
    let admin = bearer("admin");
    let set = ask(&address, "PUT /v1/keys/svc/a%20b?ttl_ms=600000", &[&admin], "\u{fc}");
    // The record and the list of services are earlier.
    assert_eq!((set.status, set.json()), (200, json!({"version": 3})), "{set:?}");
    let got = ask(&address, "GET /v1/members/a/keys/svc/a%20b", &[&admin], "").json();
    assert_eq!(got, agent.json(&["get", "a", "svc/a b"]));
    let members = ask(&address, "GET /v1/members", &[&admin], "").json();
    assert_eq!(members[0]["node"], "a");
    let none = ask(&address, "GET /v1/members/a/keys?prefix=nothing", &[&admin], "");
    assert_eq!((none.status, none.json()), (200, json!([])));
    let missing = ask(&address, "GET /v1/members/a/keys/nothing", &[&admin], "");
    assert_eq!((missing.status, &missing.json()["error"]["code"]), (404, &json!("not_found")));
    let large = ask(&address, "PUT /v1/keys/k", &[&admin], &"x".repeat((1 << 20) + 1));
    assert_eq!((large.status, &large.json()["error"]["code"]), (400, &json!("usage")));
}

#[test]
fn other_paths_methods_and_fields_are_refused() {
    let cluster = Cluster::of(&["a"]);
    let address = address();
    let _agent = agent(&cluster, &address);
    let admin = bearer("admin");
    let json = "Content-Type: application/json";
    for (line, body, status) in [
        ("GET /nosuch", "", 404),
        ("GET /v1/members/", "", 404),
        ("GET /v1/members/../../etc/passwd", "", 404),
        ("POST /v1/members", "", 405),
        ("POST /livez", "", 405),
        ("DELETE /", "", 405),
        ("GET /v1/members/NOT%20A%20NAME/why", "", 400),
        ("GET /v1/members/%ff/why", "", 404),
        ("GET /v1/watch?nosuch=1", "", 400),
        ("PUT /v1/keys/k", r#"{"do":"leave"}"#, 400),
        ("PUT /v1/keys/k", r#"{"value":"x","v":2}"#, 400),
        ("PUT /v1/keys/k", "not json", 400),
        ("PATCH /v1/tags", r#"{"set":[]}"#, 400),
    ] {
        let said = ask(&address, line, &[&admin, json], body);
        assert_eq!(said.status, status, "{line} {body}: {said:?}");
    }
    let said = ask(&address, "POST /v1/members", &[&admin], "");
    assert!(said.head.contains("allow: get"), "{said:?}");
}

#[test]
fn a_page_of_another_site_makes_no_browser_ask() {
    let cluster = Cluster::of(&["a"]);
    let address = address();
    let _agent = agent(&cluster, &address);
    let admin = bearer("admin");
    let put = "PUT /v1/keys/k";
    let own = format!("Origin: http://{address}");
    assert_eq!(ask(&address, put, &[&admin, &own, "Sec-Fetch-Site: same-origin"], "x").status, 200);
    for foreign in [
        "Origin: http://evil.example",
        "Origin: null",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
    ] {
        assert_eq!(ask(&address, put, &[&admin, foreign], "x").status, 403, "{foreign}");
        assert_eq!(ask(&address, "GET /metrics", &[&admin, foreign], "").status, 403, "{foreign}");
    }
    // The name of another site that its DNS server has pointed here.
    let request = "GET /v1/members HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n";
    for head in [String::new(), format!("{admin}\r\n")] {
        let said = raw(&address, &format!("{request}{head}\r\n"));
        assert_eq!(said.status, 421, "{said:?}");
    }
}

#[test]
fn a_body_is_as_long_as_its_role_may_send() {
    let cluster = Cluster::of(&["a"]);
    let address = address();
    let agent = agent(&cluster, &address);
    let announced = |role: &str, length: u64| {
        raw(
            &address,
            &format!(
                "PUT /v1/keys/k HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{}\r\nContent-Length: {length}\r\n\r\n",
                bearer(role)
            ),
        )
        .status
    };
    // Before a byte of it was sent.
    assert_eq!(announced("read", 100_000), 413);
    assert_eq!(announced("admin", 1 << 40), 413);
    // In chunks, it is not announced.
    let chunk = format!("{:x}\r\n{}\r\n", 8_192, "x".repeat(8_192));
    let said = raw(
        &address,
        &format!(
            "PUT /v1/keys/k HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{}\r\nTransfer-Encoding: chunked\r\n\r\n{}",
            bearer("read"),
            chunk.repeat(20)
        ),
    );
    assert_eq!(said.status, 413, "{said:?}");
    let head = format!("X: {}", "x".repeat(1_000_000));
    assert_eq!(ask(&address, "GET /livez", &[&head], "").status, 431);
    agent.run(&["info"]).succeeded();
}

#[test]
fn connections_that_say_nothing_keep_out_nobody_who_has_a_token() {
    let cluster = Cluster::of(&["a"]);
    let address = address();
    let agent = agent(&cluster, &address);
    let mut silent = Vec::new();
    for round in 0..4 {
        for _ in 0..80 {
            let mut stream = TcpStream::connect(&address).unwrap();
            // Half of them begin a request and do not end it.
            if round % 2 == 0 {
                let _ = stream.write_all(b"GET /v1/members HTTP/1.1\r\nHost: ");
            }
            silent.push(stream);
        }
        let said = ask(&address, "GET /v1/members", &[&bearer("read")], "");
        assert_eq!(said.status, 200, "{said:?}");
    }
    agent.run(&["info"]).succeeded();
}

#[test]
fn a_reader_of_events_that_takes_nothing_costs_a_bounded_queue_and_others_go_on() {
    let cluster = Cluster::of(&["a"]);
    let address = address();
    let agent = agent(&cluster, &address);
    let mut lazy = TcpStream::connect(&address).unwrap();
    let head = format!("Host: {address}\r\n{}", bearer("watch"));
    write!(lazy, "GET /v1/watch HTTP/1.1\r\n{head}\r\n\r\n").unwrap();
    let mut eager = TcpStream::connect(&address).unwrap();
    eager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(eager, "GET /v1/watch HTTP/1.1\r\n{head}\r\n\r\n").unwrap();
    let mut seen = String::new();
    let mut until = |words: &str| {
        let mut buffer = [0; 64 << 10];
        while !seen.contains(words) {
            let read = eager.read(&mut buffer).unwrap();
            assert!(read > 0, "it ended: {seen}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    };
    until("watching");
    let value = "x".repeat(200_000);
    for n in 0..30 {
        let said = ask(&address, "PUT /v1/keys/k", &[&bearer("admin")], &format!("{n}{value}"));
        assert_eq!(said.status, 200, "{said:?}");
    }
    agent.run(&["set", "last", "one"]).succeeded();
    until("\"key\":\"last\"");
    drop(lazy);
}

#[test]
fn watchers_have_their_places_and_give_them_back() {
    let cluster = Cluster::of(&["a"]);
    let address = address();
    let _agent = agent(&cluster, &address);
    let watch = || {
        let mut stream = TcpStream::connect(&address).unwrap();
        let head = format!("Host: {address}\r\n{}", bearer("watch"));
        write!(stream, "GET /v1/events HTTP/1.1\r\n{head}\r\n\r\n").unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
        (String::from_utf8_lossy(&first).ends_with("200"), stream)
    };
    let open: Vec<_> = (0..8).map(|_| watch()).collect();
    assert!(open.iter().all(|(ok, _)| *ok));
    assert!(!watch().0, "one client has no more than eight");
    drop(open);
    eventually("the places are free again", || watch().0);
}

#[test]
fn a_token_that_is_taken_out_ends_at_once_and_a_file_that_others_read_is_refused() {
    let cluster = Cluster::of(&["a"]);
    let address = address();
    let agent = agent(&cluster, &address);
    let members = || ask(&address, "GET /v1/members", &[&bearer("read")], "").status;
    assert_eq!(members(), 200);
    let mut open = TcpStream::connect(&address).unwrap();
    let head = format!("Host: {address}\r\nConnection: close\r\n{}", bearer("watch"));
    write!(open, "GET /v1/events HTTP/1.1\r\n{head}\r\n\r\n").unwrap();
    let mut first = [0; 12];
    open.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let path = cluster.dir("a").join("http-tokens.toml");
    fs::write(&path, "# none\n").unwrap();
    assert_eq!(members(), 401);
    // Its stream ends as well.
    let mut rest = String::new();
    open.read_to_string(&mut rest).unwrap();
    agent.stop();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    cluster
        .run(&["--dir", "a", "agent", "--listen", "127.0.0.1:0", "--http", &address])
        .failed(2, &["http-tokens.toml", "chmod 600"]);
}

#[test]
fn tokens_do_not_cross_a_network_in_the_clear() {
    let cluster = Cluster::of(&["a"]);
    cluster.configure("a", "http = \"0.0.0.0:0\"\nhttp_tls = false\n");
    cluster
        .run(&["--dir", "a", "agent", "--listen", "127.0.0.1:0"])
        .failed(2, &["gossipmonger.toml", "http_tls", "in the clear"]);
}

#[test]
fn ready_is_who_has_met_the_cluster_or_is_its_first() {
    let cluster = Cluster::of(&["a", "b"]);
    let (first, second) = (address(), address());
    let seed = format!("127.0.0.1:{}", free_ports().0);
    let b = cluster.start("b", &["--seed", &seed, "--http", &second]);
    let waiting = ask(&second, "GET /readyz", &[], "");
    assert_eq!(waiting.status, 503, "{waiting:?}");
    assert!(waiting.json()["problems"][0].as_str().unwrap().contains("seed"), "{waiting:?}");
    assert_eq!(ask(&second, "GET /livez", &[], "").status, 200);
    let a = cluster.start("a", &["--listen", &seed, "--http", &first]);
    assert_eq!(ask(&first, "GET /readyz", &[], "").status, 200);
    eventually("b has met a", || ask(&second, "GET /readyz", &[], "").status == 200);
    a.stop();
    assert_eq!(ask(&second, "GET /readyz", &[], "").status, 200, "it serves while others restart");
    drop(b);
}

#[test]
fn the_view_opens_with_the_token_of_the_agents_own_file() {
    let cluster = Cluster::of(&["a"]);
    let address = address();
    let agent = cluster.start("a", &["--http", &address]);
    let line = agent.run(&["web"]).succeeded().out;
    let token = line.trim().strip_prefix(&format!("http://{address}/#token=")).unwrap();
    let head = format!("Authorization: Bearer {token}");
    assert_eq!(ask(&address, "GET /v1/members", &[&head], "").status, 200);
    assert_eq!(ask(&address, "PUT /v1/keys/k", &[&head], "x").status, 403);
    agent.run(&["web", "--token", "nobody"]).failed(3, &["no token"]);
    let odd = "[odd]\nrole = \"read\"\ntoken = \"+/= of base64, which others write so\"\n";
    fs::write(cluster.dir("a").join("http-tokens.toml"), odd).unwrap();
    let line = agent.run(&["web", "--token", "odd"]).succeeded().out;
    assert!(line.contains("/#token=%2B%2F%3D%20of%20base64"), "{line}");
    agent.stop();
    let agent = cluster.start("a", &[]);
    agent.run(&["web"]).failed(2, &["--http"]);
}

#[test]
fn the_socket_speaks_http_and_the_lines_of_older_programs() {
    let cluster = Cluster::of(&["a"]);
    let agent = cluster.start("a", &[]);
    let say = |words: &str| {
        let mut stream = UnixStream::connect(agent.dir.join("gossipmonger.sock")).unwrap();
        stream.write_all(words.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let lines = say("{\"v\":1,\"do\":\"members\"}\n");
    assert!(lines.starts_with("{\"item\":") && lines.ends_with("{\"done\":{}}\n"), "{lines}");
    let said = parsed(&say("GET /v1/members HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
    assert_eq!((said.status, &said.json()[0]["node"]), (200, &json!("a")));
    let metrics = say("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(metrics.contains("gossipmonger_members"), "{metrics}");
}

#[test]
fn the_openapi_document_has_each_route_that_is_served() {
    let cluster = Cluster::of(&["a"]);
    let address = address();
    let _agent = agent(&cluster, &address);
    let document = ask(&address, "GET /v1/openapi.json", &[], "").json();
    let paths = document["paths"].as_object().unwrap();
    let mut checked = 0;
    for (path, methods) in paths {
        let path = path.replace("{node}", "a").replace("{key}", "k").replace("{id}", "x");
        for method in methods.as_object().unwrap().keys() {
            if path.starts_with("/v1/leave") || path.contains("/watch") || path.contains("/events")
            {
                continue;
            }
            let said = ask(
                &address,
                &format!("{} {path}", method.to_uppercase()),
                &[&bearer("read"), "Content-Type: application/json"],
                "",
            );
            assert!(
                ![404, 405].contains(&said.status) || said.body.contains("no key"),
                "{method} {path}: {said:?}"
            );
            checked += 1;
        }
    }
    assert!(checked > 20, "{checked}");
}

/// A TLS connection with what a directory holds (`client.pem` or `node.pem`), or without a certificate.
fn tls(address: &str, shown: Option<&std::path::Path>) -> Result<Tls, String> {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(std::sync::Arc::new(AnyServer(provider)));
    let config = match shown {
        None => config.with_no_client_auth(),
        Some(dir) => {
            let name = if dir.join("client.pem").exists() { "client" } else { "node" };
            let file = |kind: &str| dir.join(format!("{name}.{kind}"));
            let chain = CertificateDer::pem_file_iter(file("pem")).unwrap();
            let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
            let key = PrivateKeyDer::from_pem_file(file("key")).unwrap();
            config.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let name = "any.name".try_into().unwrap();
    let connection = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    let stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
    Ok(rustls::StreamOwned::new(connection, stream))
}

type Tls = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

/// Asks over TLS; the status, or why there is none.
fn status_over_tls(
    address: &str,
    shown: Option<&std::path::Path>,
    line: &str,
    head: &str,
) -> Result<u16, String> {
    let mut stream = tls(address, shown)?;
    let request = format!(
        "{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{head}Content-Length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    if answer.is_empty() {
        return Err(format!("{read:?}"));
    }
    Ok(parsed(&answer).status)
}

/// Accepts any server: what is tested is whom the server accepts.
#[derive(Debug)]
struct AnyServer(std::sync::Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        unreachable!("TLS 1.3 alone is offered")
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &rustls::pki_types::CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[test]
fn a_clients_certificate_gives_its_role_until_it_is_revoked() {
    let cluster = Cluster::of(&["a", "b"]);
    for (client, role) in [("ann", "admin"), ("rita", "read")] {
        let line = ["cert", "issue", "--ca", "pki", "--client", client, "--role", role];
        cluster.run(&[&line[..], &["--dir", client]].concat()).succeeded();
    }
    let foreign = Cluster::of(&["a"]);
    let line = ["cert", "issue", "--ca", "pki", "--client", "eve", "--role", "admin"];
    foreign.run(&[&line[..], &["--dir", "eve"]].concat()).succeeded();
    let address = address();
    cluster.configure("a", "http_tls = true\n");
    let a = agent(&cluster, &address);
    let (ann, rita, b) = (cluster.dir("ann"), cluster.dir("rita"), cluster.dir("b"));
    let put =
        |who: Option<&std::path::Path>| status_over_tls(&address, who, "DELETE /v1/keys/k", "");
    let get = |who: Option<&std::path::Path>| status_over_tls(&address, who, "GET /v1/members", "");
    assert_eq!((get(None), put(None)), (Ok(401), Ok(401)));
    assert_eq!((get(Some(&rita)), put(Some(&rita))), (Ok(200), Ok(403)));
    assert_eq!((get(Some(&ann)), put(Some(&ann))), (Ok(200), Ok(200)));
    // A member is no client.
    assert_eq!(get(Some(&b)), Ok(403));
    // That of another authority does not get through the handshake.
    assert!(get(Some(&foreign.dir("eve"))).is_err());
    let token = format!("{}\r\n", bearer("read"));
    assert_eq!(status_over_tls(&address, None, "GET /v1/members", &token), Ok(200));
    // An open connection of ann, whose certificate is revoked meanwhile.
    let mut open = tls(&address, Some(&ann)).unwrap();
    let line = format!("GET /v1/tags HTTP/1.1\r\nHost: {address}\r\n\r\n");
    open.write_all(line.as_bytes()).unwrap();
    let mut first = [0; 12];
    open.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    a.run(&["cert", "revoke", "ann", "--ca", &cluster.dir("pki").display().to_string()])
        .succeeded();
    let mut rest = String::new();
    open.write_all(line.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let _ = open.read_to_string(&mut rest);
    assert!(rest.contains("HTTP/1.1 403"), "{rest}");
    assert!(get(Some(&ann)).is_err_and(|_| true) || get(Some(&ann)) == Ok(403));
    // Without TLS nobody gets through.
    let mut plain = TcpStream::connect(&address).unwrap();
    let _ = plain.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut said = Vec::new();
    let _ = plain.read_to_end(&mut said);
    assert!(!String::from_utf8_lossy(&said).contains("HTTP/1.1"), "{said:?}");
}

#[test]
fn a_pipe_in_the_place_of_the_tokens_stops_neither_the_agent_nor_its_end() {
    let cluster = Cluster::of(&["a"]);
    let address = address();
    let agent = agent(&cluster, &address);
    let members = || ask(&address, "GET /v1/members", &[&bearer("read")], "").status;
    assert_eq!(members(), 200);
    let path = cluster.dir("a").join("http-tokens.toml");
    let tokens = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).unwrap();
    for _ in 0..8 {
        assert_eq!(members(), 401);
    }
    assert_eq!(ask(&address, "GET /livez", &[], "").status, 200);
    let log = agent.log();
    assert_eq!(log.matches("no token is accepted").count(), 1, "it is logged once: {log}");
    fs::remove_file(&path).unwrap();
    fs::write(&path, tokens).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(members(), 200);
    agent.stop();
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    cluster
        .run(&["--dir", "a", "agent", "--listen", "127.0.0.1:0", "--http", &address])
        .failed(2, &["http-tokens.toml", "is not a file"]);
}

#[test]
fn a_question_ends_with_whoever_waits_for_it_and_one_client_has_few() {
    let cluster = Cluster::of(&["a"]);
    let address = address();
    let agent = agent(&cluster, &address);
    let question = |role: &str, within: u64| {
        let line = format!("GET /v1/await?version=1&wait=9&within_ms={within} HTTP/1.1");
        format!("{line}\r\nHost: {address}\r\nConnection: close\r\n{}\r\n\r\n", bearer(role))
    };
    let open = |role: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(question(role, 30_000).as_bytes()).unwrap();
        stream
    };
    let waits = |stream: &TcpStream| {
        stream.set_nonblocking(true).unwrap();
        let said = stream.peek(&mut [0]).map_err(|error| error.kind());
        said == Err(std::io::ErrorKind::WouldBlock)
    };
    // Opens as many as may be in progress, and some that are refused.
    let fill = |role: &str| {
        let mut held = Vec::new();
        eventually("one is refused", || {
            held.push(open(role));
            held.iter().any(|stream| !waits(stream))
        });
        held
    };
    // It began before the others, and nobody leaves it.
    let earlier = fill("watch");
    let left = fill("read");
    agent.run(&["set", "k", "v", "--wait", "1"]).succeeded();
    drop(left);
    eventually("they have ended", || {
        !raw(&address, &question("read", 1)).body.contains("are in progress")
    });
    assert_eq!(earlier.iter().filter(|stream| waits(stream)).count(), 4, "those still wait");
}

#[test]
fn a_request_names_one_host() {
    let cluster = Cluster::of(&["a"]);
    let address = address();
    let _agent = agent(&cluster, &address);
    let head = format!("Connection: close\r\n{}\r\n\r\n", bearer("read"));
    let host = format!("Host: {address}\r\n");
    let tags = |version: &str, hosts: &str| {
        raw(&address, &format!("GET /v1/tags HTTP/{version}\r\n{hosts}{head}")).status
    };
    assert_eq!(tags("1.1", &host), 200);
    assert_eq!(tags("1.1", &format!("{host}Host: evil.example\r\n")), 400);
    assert_eq!(tags("1.1", ""), 400);
    assert_eq!(tags("1.0", ""), 200);
}
