//! What a member may use up over all of its connections: one share, whatever it opens.

use gossipmonger::{
    Generation,
    protocol::{digest::Digest, message::Message, seal::Signing},
};
use quinn::TransportConfig;

use crate::{
    attacker::{Member, Scene, frame, hello},
    harness::until,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_alternates_two_certificates_has_no_third_connection() {
    let mut scene = Scene::with(Signing::Prefer, |config| config.quic.exchanges = EXCHANGES).await;
    let honest = scene.introduced("y").await;
    let two = [scene.member("x"), scene.member("x")];
    let mut members = Vec::new();
    for n in 0..4 * EXCHANGES {
        let tls = two[n % 2].clone();
        let member = Member::dial(tls, scene.address(), TransportConfig::default()).await.unwrap();
        let hello = gossipmonger::protocol::message::Hello {
            generation: Generation(1_000),
            ..hello("demo", "x")
        };
        assert!(matches!(member.introduce(hello).await, Some(Message::Welcome(_))));
        // An exchange that it begins and does not go on with, as many as each connection gives it.
        let (mut send, receive) = member.open().await;
        let _ = send.write_all(&[0]).await;
        members.push((member, send, receive));
    }
    let open =
        || members.iter().filter(|(member, ..)| member.connection.close_reason().is_none()).count();
    until("the connections before the last two are closed", || open() <= 2).await;
    assert!(open() > 0);
    let answer = honest.ask(&frame(&Message::Syn { digest: Digest::default() })).await;
    assert!(matches!(answer, Some(Message::SynAck { .. })), "{answer:?}");
    scene.still_gossips().await;
    scene.end().await;
}

/// Exchanges that the node answers at once.
const EXCHANGES: usize = 8;
