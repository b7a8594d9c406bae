//! Clients of services: programs with a client's certificate that find and call services over QUIC.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use gossipmonger::{
    Counter, Gossipmonger,
    net::BoxFuture,
    protocol::service::frame::{Frame, Frames},
    service::{
        Access, CallError, CallFailure, Gone, Lost, NotRun, OfferError, Stub,
        client::{Client, ClientOptions, ConnectError},
    },
    tls::{Role, Tls},
    unstable::Verdict,
};
use serde::{Deserialize, Serialize};

use crate::{
    attacker::{server, with_transport},
    calling_clients::{Ask, Back, Front, HOUR, Other, Secret, Wait, back, front, identity},
    calls::SERVICES_ALPN,
    harness::{Cluster, PATIENCE, all_live, id, until},
    revocation::revoke,
};

async fn connect(
    cluster: &Cluster,
    who: (&str, Role),
    hosts: &[&Gossipmonger],
) -> Result<Client, ConnectError> {
    connect_with(cluster, who, hosts, ClientOptions::default()).await
}

async fn connect_with(
    cluster: &Cluster,
    (name, role): (&str, Role),
    hosts: &[&Gossipmonger],
    options: ClientOptions,
) -> Result<Client, ConnectError> {
    let (identity, roots) = identity(cluster, name, role);
    let hosts = hosts.iter().map(|host| host.addresses()[0].clone());
    Client::connect(hosts, identity, roots, options).await
}

/// Options by which the silence of a node ends no connection before membership has judged it.
fn patient() -> ClientOptions {
    let mut options = ClientOptions::default();
    options.quic.idle_timeout = Duration::from_secs(300);
    options
}

/// A call that was sent, and has no answer yet.
async fn begun(stub: &Stub<Front>) -> BoxFuture<'static, Result<(), CallError>> {
    let mut waits = stub.call(Wait).within(HOUR).into_future();
    // What comes behind it on the same lane is answered.
    tokio::select! {
        biased;
        ended = &mut waits => panic!("{ended:?}"),
        answer = stub.call(Ask(7)).within(HOUR) => assert_eq!(answer.unwrap(), 7),
    }
    waits
}

fn failure(error: &CallError) -> (CallFailure, String, usize) {
    (error.failure().clone(), error.to_string(), error.attempts().len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_offer_admits_clients_no_client_is_connected() {
    let cluster = Cluster::new("demo");
    let node = cluster.spawn("n0", &[]).await;
    let none = connect(&cluster, ("till", Role::Admin), &[]).await.unwrap_err();
    assert!(matches!(none, ConnectError::NoHosts), "{none}");
    let refused = connect(&cluster, ("till", Role::Admin), &[&node]).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Unanswered(_)), "{refused}");
    let _offer = front(&node, Access::members()).await;
    let refused = connect(&cluster, ("till", Role::Admin), &[&node]).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Unanswered(_)), "{refused}");
    // Of another cluster, although the node would admit it by its roots.
    let _open = back(&node, Access::clients(Role::Read)).await;
    let mut options = ClientOptions::default();
    options.cluster = Some("other".parse().unwrap());
    let other = connect_with(&cluster, ("till", Role::Read), &[&node], options).await.unwrap_err();
    assert!(other.to_string().contains("our cluster is other"), "{other}");
    connect(&cluster, ("till", Role::Read), &[&node]).await.unwrap();
}

#[derive(Debug, Serialize, Deserialize)]
struct Nothing;

gossipmonger::service! {
    /// A name of a built-in service.
    struct Taken = "gossipmonger.directory", 1.0;
    1: call Nothing -> ();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_names_of_built_in_services_are_reserved() {
    let cluster = Cluster::new("demo");
    let node = cluster.spawn("n0", &[]).await;
    let offer = node.offer::<Taken>(Access::members()).call(|_: Nothing, _| async {});
    let refused = offer.start().await.unwrap_err();
    assert_eq!(refused, OfferError::Reserved("gossipmonger.directory"));
    let many = (0..65).map(|n| Access::client(format!("c{n}")));
    let many = many.fold(Access::nobody(), Access::and);
    let offer = node.offer::<Back>(many).call(|_: Other, _| async { 1 });
    assert_eq!(offer.start().await.unwrap_err(), OfferError::TooManyClients);
    assert_eq!(node.offered().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_a_client_that_may_not_call_the_service_does_not_exist() {
    let cluster = Cluster::new("demo");
    let nodes = cluster.spawn_many(2).await;
    all_live(&nodes).await;
    let _front = front(&nodes[1], Access::clients(Role::Read)).await;
    let _back = back(&nodes[1], Access::clients(Role::Watch).and(Access::client("shop"))).await;
    let _directory = nodes[0].offer_directory().unwrap();
    let till = connect(&cluster, ("till", Role::Read), &[&nodes[0]]).await.unwrap();
    assert_eq!(till.host(), Some(id("n0")));
    till.service::<Front>().ready(1, HOUR).await.unwrap();
    let forbidden = till.service::<Back>().call(Other).await.unwrap_err();
    let none = till.service::<Missing>().call(Absent).await.unwrap_err();
    assert_eq!(failure(&forbidden), failure(&none));
    assert_eq!(*none.failure(), CallFailure::NotRun(NotRun::NoProvider));
    // A method that is narrowed is as unknown as any other one.
    let secret = till.service::<Front>().call(Secret).await.unwrap_err();
    assert_eq!(*secret.failure(), CallFailure::NotRun(NotRun::NoSuchMethod));
    assert_eq!(till.service::<Front>().call(Ask(7)).await.unwrap(), 7);
    for who in [("shop", Role::Read), ("till", Role::Admin)] {
        let client = connect(&cluster, who, &[&nodes[0]]).await.unwrap();
        let stub = client.service::<Back>();
        stub.ready(1, HOUR).await.unwrap();
        assert_eq!(stub.call(Other).await.unwrap(), 8, "{who:?}");
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Absent;

gossipmonger::service! {
    /// Offered nowhere.
    struct Missing = "missing", 1.0;
    1: call Absent -> ();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_directory_shows_a_client_only_what_it_may_call() {
    let cluster = Cluster::new("demo");
    let nodes = cluster.spawn_many(3).await;
    all_live(&nodes).await;
    let _directory = nodes[0].offer_directory().unwrap();
    let _named = front(&nodes[1], Access::members().and(Access::client("shop"))).await;
    let _watch = back(&nodes[1], Access::clients(Role::Watch)).await;
    let _inner = front(&nodes[2], Access::members()).await;
    until("the first node knows all", || nodes[0].offered().len() == 5).await;
    let sees = async |name: &str, role: Role| {
        let client = connect(&cluster, (name, role), &[&nodes[0]]).await.unwrap();
        let mut seen: Vec<_> = client
            .offered()
            .into_iter()
            .map(|listed| format!("{} at {}", listed.service, listed.node))
            .filter(|shown| !shown.starts_with("gossipmonger."))
            .collect();
        seen.sort();
        seen
    };
    assert!(sees("till", Role::Read).await.is_empty());
    assert_eq!(sees("shop", Role::Read).await, ["front at n1"]);
    assert_eq!(sees("till", Role::Watch).await, ["back at n1"]);
    assert_eq!(sees("shop", Role::Admin).await, ["back at n1", "front at n1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_calls_by_all_ways_that_a_node_does() {
    let cluster = Cluster::new("demo");
    let nodes = cluster.spawn_many(3).await;
    all_live(&nodes).await;
    let mut offers = Vec::new();
    for node in &nodes[1..] {
        offers.push(front(node, Access::clients(Role::Read)).await);
    }
    let client = connect(&cluster, ("till", Role::Read), &[&nodes[1]]).await.unwrap();
    let stub = client.service::<Front>();
    stub.ready(2, HOUR).await.unwrap();
    let calls = (0..100).map(|n| tokio::spawn(stub.call(Ask(n)).into_future()));
    for (n, call) in calls.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(call.await.unwrap().unwrap(), n as u32);
    }
    let answers = stub.gather(&Ask(1), HOUR).await;
    assert!(answers.iter().all(|(_, answer)| answer.as_ref().is_ok_and(|answer| *answer == 1)));
    assert_eq!(answers.iter().map(|(node, _)| node.as_str()).collect::<Vec<_>>(), ["n1", "n2"]);
    let owner = stub.by_key("order 7").unwrap();
    let same = nodes[0].service::<Front>();
    same.ready(2, HOUR).await.unwrap();
    assert_eq!(owner.node(), same.by_key("order 7").unwrap().node(), "whoever asks");
    let there = client.bind(stub.at(&id("n2")).unwrap().address()).unwrap();
    assert_eq!(there.call(Ask(9)).await.unwrap(), 9);
    // One connection for the directory, one for calls.
    assert_eq!(nodes[1].counters().get(Counter::ServiceConnectionsAccepted), 2);
    client.close().await;
    let stopped = stub.call(Ask(1)).await.unwrap_err();
    assert_eq!(*stopped.failure(), CallFailure::NotRun(NotRun::Stopped));
}

#[derive(Debug, Serialize, Deserialize)]
struct Long(Vec<u8>);

#[derive(Debug, Serialize, Deserialize)]
struct Count(u32);

gossipmonger::service! {
    /// Long messages, and a stream.
    struct Wide = "wide", 1.0;
    1: call Long -> Vec<u8>, idempotent;
    2: stream Count -> u32;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_sends_and_gets_long_messages_and_streams() {
    let cluster = Cluster::new("demo");
    let node = cluster.spawn("n0", &[]).await;
    let _offer = node
        .offer::<Wide>(Access::clients(Role::Read))
        .call(|ask: Long, _| async move { ask.0 })
        .stream(|ask: Count, mut items, _| async move {
            for n in 0..ask.0 {
                items.send(&n).await?;
            }
            Ok(())
        })
        .start()
        .await
        .unwrap();
    let client = connect(&cluster, ("till", Role::Read), &[&node]).await.unwrap();
    let stub = client.service::<Wide>();
    for length in [10, 20_000, 500_000] {
        let body: Vec<u8> = (0..length).map(|n| n as u8).collect();
        assert_eq!(stub.call(Long(body.clone())).within(HOUR).await.unwrap(), body, "{length}");
    }
    let mut numbers = stub.stream(Count(1_000)).await.unwrap();
    for expected in 0..1_000 {
        assert_eq!(numbers.next().await.unwrap(), Some(expected));
    }
    assert_eq!(numbers.next().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_cannot_prove_the_name_in_the_directory_is_not_called() {
    let cluster = Cluster::new("demo");
    let host = cluster.spawn("n0", &[]).await;
    let honest = cluster.spawn("n1", &[&host]).await;
    // This one tells the address of another node as its own.
    let mut config = cluster.config("n2");
    config.seeds = host.addresses().to_vec();
    config.advertise = honest.addresses().to_vec();
    let liar = crate::start::spawn(config).await.unwrap().0;
    let _directory = host.offer_directory().unwrap();
    let _offer = front(&liar, Access::clients(Role::Read)).await;
    let _other = back(&honest, Access::clients(Role::Read)).await;
    let client = connect(&cluster, ("till", Role::Read), &[&host]).await.unwrap();
    let stub = client.service::<Front>();
    stub.ready(1, HOUR).await.unwrap();
    let refused = stub.call(Ask(1)).await.unwrap_err();
    assert!(matches!(refused.failure(), CallFailure::NotRun(NotRun::NotConnected(_))), "{refused}");
    assert!(refused.to_string().contains("expected n2"), "{refused}");
    assert_eq!(honest.counters().get(Counter::ServiceConnectionsAccepted), 0);
}

/// A member that gives this answer to each question of the directory; returns its address.
fn hostile(cluster: &Cluster, name: &str, answer: &'static [u8]) -> String {
    let (identity, roots) = cluster.identity(name);
    let shows = Tls::new(identity, roots).unwrap().rustls_server(Verdict::default()).cert_resolver;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(shows);
    tls.alpn_protocols = vec![SERVICES_ALPN.to_vec()];
    let endpoint = server(tls);
    let address = endpoint.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let Ok(connection) = incoming.await else { continue };
            let Ok((mut send, mut receive)) = connection.accept_bi().await else { continue };
            let mut frames = Frames::default();
            let mut answers = BytesMut::new();
            Frame::Welcome.encode(&mut answers);
            while let Ok(Some(chunk)) = receive.read_chunk(65_536, true).await {
                frames.push(chunk.bytes);
                while let Some(frame) = frames.take().unwrap() {
                    if let Frame::Request(request) = frame {
                        let body = Bytes::from_static(answer);
                        Frame::Reply { id: request.id, load: 0, body }.encode(&mut answers);
                    }
                }
                let _ = send.write_all(&answers.split()).await;
            }
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_breaks_the_rules_of_the_directory_is_left_for_the_next_one() {
    let cluster = Cluster::new("demo");
    let honest = cluster.spawn("n0", &[]).await;
    let _offer = front(&honest, Access::clients(Role::Read)).await;
    let row: &[u8] = &[7, 9, 1, 1, b'a', 1, 2, b'e', b'u', 0, 0, 1, 1, b'x', 0, 0];
    for (name, answer, why) in [
        ("garbled", &b"\xff\xff\xff"[..], "not understood"),
        ("endless", &[7, 9, 0, 1], "have no end"),
        ("nowhere", row, "cannot be dialed"),
    ] {
        let host = hostile(&cluster, name, answer);
        let (identity, roots) = identity(&cluster, "till", Role::Read);
        let options = ClientOptions::default();
        let refused = Client::connect([&host], identity.clone(), roots.clone(), options).await;
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains(why), "{name}: {refused}");
        let hosts = [host, honest.addresses()[0].clone()];
        let options = ClientOptions::default();
        let client = Client::connect(hosts, identity, roots, options).await.unwrap();
        assert_eq!(client.host(), Some(id("n0")));
        assert_eq!(client.service::<Front>().call(Ask(1)).await.unwrap(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_to_a_provider_that_dies_end_when_the_directory_says_so() {
    let cluster = Cluster::new("demo");
    let hosts = cluster.spawn_many(2).await;
    let (mut config, network) = with_transport(&cluster, "victim");
    config.seeds = hosts[0].addresses().to_vec();
    let victim = crate::start::spawn(config).await.unwrap().0;
    all_live(&[hosts[0].clone(), hosts[1].clone(), victim.clone()]).await;
    let _directory = hosts[0].offer_directory().unwrap();
    let _offer = front(&victim, Access::clients(Role::Read)).await;
    let till = ("till", Role::Read);
    let client = connect_with(&cluster, till, &[&hosts[0]], patient()).await.unwrap();
    let stub = client.service::<Front>();
    stub.ready(1, HOUR).await.unwrap();
    let there = stub.at(&id("victim")).unwrap();
    let mut calls = Vec::new();
    for _ in 0..20 {
        calls.push(begun(&stub).await);
    }
    network.silence();
    for call in calls {
        let failed = tokio::time::timeout(PATIENCE, call).await;
        let failed = failed.expect("it waits on").unwrap_err();
        assert_eq!(*failed.failure(), CallFailure::Unknown(Lost::NodeDead), "{failed}");
    }
    assert_eq!(there.gone().await, Gone::NodeDead);
    assert!(stub.providers().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_withdrawn_or_restarted_is_gone_for_the_client_and_comes_back() {
    let cluster = Cluster::new("demo");
    let nodes = cluster.spawn_many(2).await;
    all_live(&nodes).await;
    let _directory = nodes[0].offer_directory().unwrap();
    let offer = front(&nodes[1], Access::clients(Role::Read)).await;
    let client = connect(&cluster, ("till", Role::Read), &[&nodes[0]]).await.unwrap();
    let stub = client.service::<Front>();
    stub.ready(1, HOUR).await.unwrap();
    let first = stub.at(&id("n1")).unwrap();
    drop(offer);
    assert_eq!(first.gone().await, Gone::Withdrawn);
    let _again = front(&nodes[1], Access::clients(Role::Read)).await;
    stub.ready(1, HOUR).await.unwrap();
    assert_eq!(stub.call(Ask(3)).await.unwrap(), 3);
    let second = stub.at(&id("n1")).unwrap();
    let pending = begun(&stub).await;
    nodes[1].shutdown().await;
    let later = cluster.spawn("n1", &[&nodes[0]]).await;
    let _offer = front(&later, Access::clients(Role::Read)).await;
    let gone = second.gone().await;
    assert!(matches!(gone, Gone::Restarted | Gone::NodeLeft | Gone::NodeDead), "{gone:?}");
    assert!(pending.await.unwrap_err().may_have_run());
    until("the later process is listed", || {
        stub.at(&id("n1")).is_some_and(|found| found.is_gone().is_none())
    })
    .await;
    assert_eq!(stub.call(Ask(4)).await.unwrap(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_its_host_is_lost_a_client_goes_on_to_the_next_one() {
    let cluster = Cluster::new("demo");
    let (config, network) = with_transport(&cluster, "n0");
    let first = crate::start::spawn(config).await.unwrap().0;
    let second = cluster.spawn("n1", &[&first]).await;
    let third = cluster.spawn("n2", &[&first]).await;
    all_live(&[first.clone(), second.clone(), third.clone()]).await;
    let _directories = [&first, &second].map(|node| node.offer_directory().unwrap());
    let mut options = ClientOptions::default();
    options.quic.idle_timeout = Duration::from_secs(3);
    let till = ("till", Role::Read);
    let client = connect_with(&cluster, till, &[&first, &second], options).await.unwrap();
    assert_eq!(client.host(), Some(id("n0")));
    // Without a word.
    network.silence();
    until("the second one tells", || client.host() == Some(id("n1"))).await;
    let _offer = front(&third, Access::clients(Role::Read)).await;
    let stub = client.service::<Front>();
    stub.ready(1, HOUR).await.unwrap();
    assert_eq!(stub.call(Ask(5)).await.unwrap(), 5);
    // The third one has offered the directory with its first offer to clients: the client has learned of it.
    until("the client knows of it", || {
        let offered = client.offered();
        offered.iter().any(|listed| {
            listed.service.as_str() == "gossipmonger.directory" && listed.node == id("n2")
        })
    })
    .await;
    second.shutdown().await;
    until("the third one tells", || client.host() == Some(id("n2"))).await;
    assert_eq!(stub.call(Ask(6)).await.unwrap(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_revoked_loses_its_calls_and_its_host() {
    let cluster = Cluster::new("demo");
    let nodes = cluster.spawn_many(2).await;
    all_live(&nodes).await;
    let _offer = front(&nodes[1], Access::clients(Role::Read)).await;
    let client = connect(&cluster, ("till", Role::Read), &[&nodes[1]]).await.unwrap();
    let other = connect(&cluster, ("shop", Role::Read), &[&nodes[1]]).await.unwrap();
    let stub = client.service::<Front>();
    let pending = begun(&stub).await;
    nodes[0].revoke(revoke(&cluster, "till")).await.unwrap();
    let failed = tokio::time::timeout(PATIENCE, pending).await.expect("it waits on");
    let failed = failed.unwrap_err();
    assert!(matches!(failed.failure(), CallFailure::Unknown(Lost::Connection(_))), "{failed}");
    until("it has no host", || client.host().is_none()).await;
    assert!(stub.call(Ask(2)).await.is_err());
    assert_eq!(other.service::<Front>().call(Ask(3)).await.unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_drains_does_not_wait_for_the_questions_of_clients() {
    let cluster = Cluster::new("demo");
    let node = cluster.spawn("n0", &[]).await;
    let _offer = front(&node, Access::clients(Role::Read)).await;
    let client = connect(&cluster, ("till", Role::Read), &[&node]).await.unwrap();
    assert_eq!(client.service::<Front>().call(Ask(1)).await.unwrap(), 1);
    assert!(node.drain(HOUR).await, "the question for changes has ended");
}
