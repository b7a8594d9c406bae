//! Clients that call services, from the attacker's side: raw lanes with a client's certificate.

use std::{net::SocketAddr, time::Duration};

use gossipmonger::{
    Counter, Generation, Gossipmonger,
    pki::LeafOptions,
    protocol::service::{
        ServiceId, ServiceName,
        frame::{ClientHello, Code, Frame},
    },
    service::{Access, Call, Offer},
    tls::{ClientIdentity, ClientRoles, Role, Roots},
    unstable::{Host, Verdict, rustls_visit},
};
use quinn::TransportConfig;
use serde::{Deserialize, Serialize};

use crate::{
    attacker::{MISBEHAVIOUR, Member, Scene, UNWELCOME, refused, with_transport},
    calls::{Lane, SERVICES_ALPN, hello_of, request},
    clients::client_name,
    harness::{Cluster, until},
    revocation::revoke,
};

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ask(pub(crate) u32);

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Secret;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Wait;

gossipmonger::service! {
    /// What clients may call.
    pub(crate) struct Front = "front", 1.0;

    1: call Ask -> u32, idempotent;
    2: call Secret -> u32;
    3: call Wait -> ();
}

gossipmonger::service! {
    /// What other clients may call.
    pub(crate) struct Back = "back", 1.0;

    1: call Other -> u32;
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Other;

/// Close codes of the wire.
const UNNEEDED: u64 = 9;
const REVOKED: u64 = 10;
const BUSY: u64 = 11;
const RESTARTED: u64 = 12;

pub(crate) async fn front(node: &Gossipmonger, access: Access) -> Offer {
    let builder = node
        .offer::<Front>(access)
        .call(|ask: Ask, _| async move { ask.0 })
        .call(|_: Secret, _| async { 7 })
        .call(|_: Wait, _| std::future::pending())
        .restrict(Secret::METHOD, Access::members().and(Access::clients(Role::Admin)));
    builder.start().await.unwrap()
}

pub(crate) async fn back(node: &Gossipmonger, access: Access) -> Offer {
    node.offer::<Back>(access).call(|_: Other, _| async { 8 }).start().await.unwrap()
}

/// The certificate of a client of this cluster.
pub(crate) fn identity(cluster: &Cluster, name: &str, role: Role) -> (ClientIdentity, Roots) {
    let options = LeafOptions::client(&client_name("demo", name, role), HOUR);
    let issued = cluster.authority.issue_with(&options).unwrap();
    let (certificate, key) = (issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes());
    let identity = ClientIdentity::from_pem(certificate, key).unwrap();
    (identity, Roots::from_pem(cluster.authority.certificate_pem().as_bytes()).unwrap())
}

/// A client's connection for calls.
async fn dial(
    cluster: &Cluster,
    node: &Gossipmonger,
    (name, role): (&str, Role),
) -> Result<Lane, quinn::ConnectionError> {
    let (identity, roots) = identity(cluster, name, role);
    let mut tls = rustls_visit(&identity, roots, Host::AnyNode, Verdict::default()).unwrap();
    tls.alpn_protocols = vec![SERVICES_ALPN.to_vec()];
    let to: SocketAddr = node.addresses()[0].parse().unwrap();
    Lane::open(Member::dial(tls, to, TransportConfig::default()).await?).await
}

fn expecting(expected: u64) -> Frame {
    Frame::ClientHello(ClientHello { expected: Generation(expected), features: 0 })
}

fn bind(index: u32, name: &str) -> Frame {
    Frame::Bind { index, service: ServiceId { name: ServiceName::new(name).unwrap(), major: 1 } }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_offer_admits_clients_they_are_refused_in_the_handshake() {
    let scene = Scene::new(|_| {}).await;
    let _offer = front(&scene.node, Access::members()).await;
    if let Ok(mut lane) = dial(&scene.cluster, &scene.node, ("till", Role::Admin)).await {
        lane.send(&[expecting(0)]).await;
        assert_eq!(lane.next().await, None);
    }
    until("it is counted", || scene.refused("client_certificate") == 1).await;
    assert_eq!(scene.count("service_connections_accepted"), 0);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_last_offer_to_clients_is_withdrawn_no_client_is_admitted() {
    let scene = Scene::new(|_| {}).await;
    let offer = front(&scene.node, Access::clients(Role::Read)).await;
    let mut lane = dial(&scene.cluster, &scene.node, ("till", Role::Read)).await.unwrap();
    lane.send(&[expecting(0), bind(0, "front"), request(0, 1, 1, &[7])]).await;
    assert_eq!(lane.next().await, Some(Frame::Welcome));
    assert!(matches!(lane.next().await, Some(Frame::Reply { .. })));
    drop(offer);
    lane.send(&[request(0, 2, 1, &[7])]).await;
    let refused = lane.next().await;
    assert!(
        matches!(refused, Some(Frame::Refuse { code: Code::NoSuchService, .. })),
        "{refused:?}"
    );
    let mut late = dial(&scene.cluster, &scene.node, ("till", Role::Read)).await.unwrap();
    late.send(&[expecting(0)]).await;
    assert_eq!(late.member.cut_off().await.0, UNWELCOME);
    assert_eq!(scene.refused("client"), 1);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_introduces_itself_as_a_member_is_refused_and_so_is_a_member_as_a_client() {
    let mut scene = Scene::new(|_| {}).await;
    let _offer = front(&scene.node, Access::members().and(Access::clients(Role::Read))).await;
    for name in ["m", "n", "till"] {
        let mut lane = dial(&scene.cluster, &scene.node, ("till", Role::Admin)).await.unwrap();
        lane.send(&[hello_of(&scene, name), bind(0, "front"), request(0, 1, 1, &[7])]).await;
        assert_eq!(lane.member.cut_off().await.0, UNWELCOME, "{name}");
    }
    assert_eq!(scene.refused("client"), 3);
    let mut tls = scene.member("x");
    tls.alpn_protocols = vec![SERVICES_ALPN.to_vec()];
    let member = Member::dial(tls, scene.address(), TransportConfig::default()).await.unwrap();
    let mut lane = Lane::open(member).await.unwrap();
    lane.send(&[expecting(0), bind(0, "front"), request(0, 1, 1, &[7])]).await;
    assert_eq!(lane.member.cut_off().await.0, UNWELCOME);
    assert_eq!((scene.refused("no_role"), scene.count("calls_answered")), (1, 0));
    // And no client becomes a member by the protocol of gossip.
    let (identity, roots) = identity(&scene.cluster, "till", Role::Admin);
    let mut tls = rustls_visit(&identity, roots, Host::AnyNode, Verdict::default()).unwrap();
    tls.alpn_protocols = vec![gossipmonger::unstable::ALPN[0].to_vec()];
    if let Ok(member) = Member::dial(tls, scene.address(), TransportConfig::default()).await {
        assert_eq!(member.introduce(crate::attacker::hello("demo", "till")).await, None);
    }
    until("it is counted", || scene.refused("client_certificate") == 1).await;
    scene.still_gossips().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_reaches_no_other_process_than_the_one_that_it_expects() {
    let scene = Scene::new(|_| {}).await;
    let _offer = front(&scene.node, Access::clients(Role::Read)).await;
    let (own, _) = scene.node.snapshot().version(scene.node.node()).unwrap();
    for expected in [own.0 - 1, own.0 + 1, u64::MAX] {
        let mut lane = dial(&scene.cluster, &scene.node, ("till", Role::Read)).await.unwrap();
        lane.send(&[expecting(expected), bind(0, "front"), request(0, 1, 1, &[7])]).await;
        assert_eq!(lane.member.cut_off().await.0, RESTARTED);
    }
    assert_eq!((scene.refused("restarted"), scene.count("calls_answered")), (3, 0));
    for expected in [own.0, 0] {
        let mut lane = dial(&scene.cluster, &scene.node, ("till", Role::Read)).await.unwrap();
        lane.send(&[expecting(expected)]).await;
        assert_eq!(lane.next().await, Some(Frame::Welcome));
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_break_the_protocol_are_cut_off_and_counted() {
    let mut scene = Scene::new(|_| {}).await;
    let _offer = front(&scene.node, Access::clients(Role::Read)).await;
    let cases = [
        vec![bind(0, "front")],
        vec![expecting(0), expecting(0)],
        vec![expecting(0), hello_of(&scene, "till")],
        vec![expecting(0), Frame::Welcome],
        vec![expecting(0), request(0, 1, 1, &[])],
    ];
    for (n, frames) in cases.into_iter().enumerate() {
        let before = scene.refused("service_protocol");
        let mut lane = dial(&scene.cluster, &scene.node, ("till", Role::Read)).await.unwrap();
        lane.send(&frames).await;
        assert_eq!(lane.member.cut_off().await.0, MISBEHAVIOUR, "case {n}");
        until("it is counted", || scene.refused("service_protocol") == before + 1).await;
    }
    scene.still_gossips().await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_a_client_there_is_none_and_you_may_not_are_one_answer() {
    let scene = Scene::new(|_| {}).await;
    let _front = front(&scene.node, Access::clients(Role::Read)).await;
    let _back = back(&scene.node, Access::clients(Role::Watch).and(Access::client("other"))).await;
    let mut lane = dial(&scene.cluster, &scene.node, ("till", Role::Read)).await.unwrap();
    lane.send(&[
        expecting(0),
        bind(0, "front"),
        bind(1, "back"),
        bind(2, "none"),
        request(1, 1, 1, &[]),
        request(2, 2, 1, &[]),
        request(0, 3, 2, &[]),
        request(0, 4, 99, &[]),
        request(0, 5, 1, &[7]),
    ])
    .await;
    assert_eq!(lane.next().await, Some(Frame::Welcome));
    let mut answers = std::collections::BTreeMap::new();
    for _ in 0..5 {
        match lane.next().await.unwrap() {
            Frame::Refuse { id, code, retry_after_ms, words } => {
                answers.insert(id, Some((code, retry_after_ms, words)));
            }
            Frame::Reply { id, .. } => drop(answers.insert(id, None)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(answers[&1], answers[&2], "a service");
    assert_eq!(answers[&1].as_ref().unwrap().0, Code::NoSuchService);
    assert_eq!(answers[&3], answers[&4], "a method");
    assert_eq!(answers[&3].as_ref().unwrap().0, Code::NoSuchMethod);
    assert_eq!(answers[&5], None);
    // Who may gets an answer.
    for who in [("other", Role::Read), ("till", Role::Watch), ("till", Role::Admin)] {
        let mut lane = dial(&scene.cluster, &scene.node, who).await.unwrap();
        lane.send(&[expecting(0), bind(0, "back"), request(0, 1, 1, &[])]).await;
        assert_eq!(lane.next().await, Some(Frame::Welcome));
        assert!(matches!(lane.next().await, Some(Frame::Reply { .. })), "{who:?}");
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_take_no_more_than_their_part_of_the_connections() {
    let scene = Scene::new(|config| {
        config.services.client_connections_in = 3;
        config.services.connections_per_peer = 2;
    })
    .await;
    let _offer = front(&scene.node, Access::members().and(Access::clients(Role::Read))).await;
    let mut held = Vec::new();
    for (name, expected) in
        [("a", None), ("a", None), ("a", Some(BUSY)), ("b", None), ("c", Some(BUSY))]
    {
        let mut lane = dial(&scene.cluster, &scene.node, (name, Role::Read)).await.unwrap();
        lane.send(&[expecting(0)]).await;
        match expected {
            Some(code) => assert_eq!(lane.member.cut_off().await.0, code, "{name}"),
            None => assert_eq!(lane.next().await, Some(Frame::Welcome), "{name}"),
        }
        held.push(lane);
    }
    assert_eq!(scene.refused("service_connections_max"), 2);
    let stub = scene.friend.service::<Front>();
    stub.ready(1, HOUR).await.unwrap();
    assert_eq!(stub.call(Ask(3)).await.unwrap(), 3, "a member has its own places");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_revoked_or_loses_its_role_loses_its_connections_in_the_middle() {
    let cluster = Cluster::new("demo");
    let (config, network) = with_transport(&cluster, "m");
    let node = crate::start::spawn(config).await.unwrap().0;
    let _offer = front(&node, Access::clients(Role::Read)).await;
    let mut revoked = dial(&cluster, &node, ("till", Role::Read)).await.unwrap();
    let mut other = dial(&cluster, &node, ("shop", Role::Read)).await.unwrap();
    for lane in [&mut revoked, &mut other] {
        lane.send(&[expecting(0), bind(0, "front"), request(0, 1, 3, &[])]).await;
        assert_eq!(lane.next().await, Some(Frame::Welcome));
        lane.send(&[request(0, 2, 1, &[7])]).await;
        assert!(matches!(lane.next().await, Some(Frame::Reply { id: 2, .. })));
    }
    node.revoke(revoke(&cluster, "till")).await.unwrap();
    assert_eq!(revoked.member.cut_off().await.0, REVOKED);
    assert_eq!(refused(&node, "revoked"), 1);
    // The other one goes on, until it has another role.
    other.send(&[request(0, 3, 1, &[7])]).await;
    assert!(matches!(other.next().await, Some(Frame::Reply { id: 3, .. })));
    let uri = client_name("demo", "shop", Role::Read).to_uri();
    network.set_roles(ClientRoles::from_iter([(uri, Role::Watch)]));
    assert_eq!(other.member.cut_off().await.0, UNNEEDED);
    assert_eq!(node.counters().get(Counter::CallsAnswered), 3);
    node.shutdown().await;
}

pub(crate) const HOUR: Duration = Duration::from_secs(3_600);
