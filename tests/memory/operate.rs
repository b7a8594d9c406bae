//! What an operator asks a node about services.

use std::time::Duration;

use bytes::Bytes;
use gossipmonger::{
    Gossipmonger,
    service::{
        Access, CallFailure, Gone, NotRun, Offer, ServiceChange, ServiceChanges, ServiceId,
        ServiceName, Verdict,
    },
    subscription::SubscriptionError,
};
use serde::{Deserialize, Serialize};

use crate::harness::{Lab, all_live, id, until};

#[derive(Debug, Serialize, Deserialize)]
struct Ask(u32);

gossipmonger::service! {
    struct Desk = "desk", 4.2;
    1: call Ask -> u32;
}

const LONG: Duration = Duration::from_secs(600);

fn desk(major: u16) -> ServiceId {
    ServiceId { name: ServiceName::new("desk").unwrap(), major }
}

async fn offers(node: &Gossipmonger, access: Access) -> Offer {
    let offer = node.offer::<Desk>(access).call(|ask: Ask, _| async move { ask.0 + 1 });
    offer.start().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_method_is_called_by_its_number_with_bytes() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let call = async |major, method, question: &'static [u8]| {
        let question = Bytes::from_static(question);
        a.call_encoded(b.node(), (&desk(major), method), question, LONG).await
    };
    let failure = |called: Result<Bytes, _>| {
        let error: gossipmonger::service::CallError = called.unwrap_err();
        error.failure().clone()
    };
    let none = CallFailure::NotRun(NotRun::NoProvider);
    assert_eq!(failure(call(4, 1, &[7]).await), none);
    let _offer = offers(&b, Access::members()).await;
    a.service::<Desk>().ready(1, LONG).await.unwrap();
    assert_eq!(failure(call(5, 1, &[7]).await), none);
    let unknown = CallFailure::NotRun(NotRun::NoSuchMethod);
    assert_eq!(failure(call(4, 9, &[7]).await), unknown);
    let malformed = failure(call(4, 1, &[7, 7]).await);
    assert!(matches!(malformed, CallFailure::NotRun(NotRun::Malformed(_))), "{malformed:?}");
    assert_eq!(call(4, 1, &[7]).await.unwrap(), [8_u8][..]);
}

#[tokio::test(start_paused = true)]
async fn a_node_knows_who_calls_its_services_and_since_when() {
    let lab = Lab::default();
    let a = lab.spawn("a", &[]).await;
    let b = lab.spawn("b", &["a"]).await;
    let c = lab.spawn("c", &["a"]).await;
    all_live(&[&a, &b, &c]).await;
    let _offer = offers(&b, Access::node(id("a"))).await;
    assert!(b.callers().is_empty());
    for node in [&a, &c] {
        node.service::<Desk>().ready(1, LONG).await.unwrap();
    }
    for n in 0..3 {
        assert_eq!(a.service::<Desk>().call(Ask(n)).await.unwrap(), n + 1);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // Who is refused calls as well.
    assert!(c.service::<Desk>().call(Ask(1)).await.is_err());
    let callers = b.callers();
    let [first, second] = &callers[..] else { panic!("{callers:?}") };
    assert_eq!((&first.service, &first.caller[..], first.calls), (&desk(4), "node a", 3));
    assert_eq!((&second.caller[..], second.calls), ("node c", 1));
    assert!(first.last.since(first.first) >= Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_node_explains_which_providers_it_calls() {
    let lab = Lab::default();
    let a = lab.spawn("a", &[]).await;
    assert_eq!(a.explain(&desk(4)), []);
    let b = lab.spawn("b", &["a"]).await;
    let far = lab.spawn_with(lab.config_in("far", "f"), &["a"]).await;
    all_live(&[&a, &b, &far]).await;
    let _offers = [
        offers(&a, Access::members()).await,
        offers(&b, Access::members()).await,
        offers(&far, Access::members()).await,
    ];
    a.service::<Desk>().ready(3, LONG).await.unwrap();
    let verdicts = || {
        let explained = a.explain(&desk(4)).into_iter();
        explained.map(|row| (row.offer.node.to_string(), row.verdict)).collect::<Vec<_>>()
    };
    let of = |name: &str, verdict| (name.to_owned(), verdict);
    let expected = [
        of("a", Verdict::Picked),
        of("b", Verdict::Picked),
        of("f", Verdict::Farther { nearer: 2 }),
    ];
    assert_eq!(verdicts(), expected);
    let row = |name: &str| {
        let explained = a.explain(&desk(4)).into_iter();
        explained.into_iter().find(|row| row.offer.node == id(name)).unwrap()
    };
    assert!(!row("b").connected);
    a.service::<Desk>().at(&id("b")).unwrap().call(Ask(1)).await.unwrap();
    assert!(row("b").connected && row("b").not_dialed.is_none());
    assert!(b.drain(LONG).await);
    let expected = [of("a", Verdict::Picked), of("b", Verdict::Draining), of("f", Verdict::Picked)];
    until("it drains", || verdicts() == expected).await;
}

async fn next(changes: &mut ServiceChanges) -> ServiceChange {
    tokio::time::timeout(LONG, changes.next()).await.expect("no change").unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_all_nodes_offer_is_watched_from_now_on_until_the_node_ends() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let _before = offers(&a, Access::members()).await;
    let mut changes = a.watch_services();
    let offer = offers(&b, Access::members()).await;
    let ServiceChange::Joined(joined) = next(&mut changes).await else { panic!("no offer") };
    assert_eq!((&joined.node, joined.version.to_string()), (b.node(), "4.2".to_owned()));
    assert!(offer.withdraw(LONG).await);
    let left = next(&mut changes).await;
    assert_eq!(left, ServiceChange::Left { offer: joined, why: Gone::Withdrawn });
    a.shutdown().await;
    let ended = changes.next().await;
    assert!(matches!(ended, Err(SubscriptionError::Ended)), "{ended:?}");
}
