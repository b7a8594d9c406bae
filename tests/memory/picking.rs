//! Which providers get the calls of a caller: by trust, by share, and by key.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use gossipmonger::{
    Datacenter, Gossipmonger,
    service::{Access, CallFailure, NotRun, Offer, Prefer, ProviderChange, Remote, Stub},
};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::harness::{Lab, all_live, id, until};

/// Asks who answers.
#[derive(Serialize, Deserialize)]
struct Who;

/// Asks the owner of a key who it is.
#[derive(Serialize, Deserialize)]
struct Of(String);

gossipmonger::service! {
    /// For tests.
    struct Names = "names", 1.0;

    1: call Who -> String, idempotent;
    2: call Of -> String;
}

async fn offers(node: &Gossipmonger) -> Offer {
    let (name, owner) = (node.node().to_string(), node.node().to_string());
    node.offer::<Names>(Access::members())
        .call(move |_: Who, _| std::future::ready(name.clone()))
        .call_by_key(
            |ask: &Of| ask.0.clone(),
            move |ask: Of, context| {
                assert!(context.owns(&ask.0));
                std::future::ready(owner.clone())
            },
        )
        .start()
        .await
        .unwrap()
}

/// `a` in `eu`, `b` in `eu` and `c` in `us` offer it.
async fn three(lab: &Lab) -> ([Gossipmonger; 3], [Offer; 3]) {
    let nodes = [
        lab.spawn_with(lab.config_in("eu", "a"), &[]).await,
        lab.spawn_with(lab.config_in("eu", "b"), &["a"]).await,
        lab.spawn_with(lab.config_in("us", "c"), &["a"]).await,
    ];
    all_live(&nodes.each_ref()).await;
    let offers = [offers(&nodes[0]).await, offers(&nodes[1]).await, offers(&nodes[2]).await];
    let found = || nodes.iter().all(|node| node.service::<Names>().providers().len() == 3);
    until("all find three providers", found).await;
    (nodes, offers)
}

fn us() -> Access {
    Access::datacenter(Datacenter::new("us").unwrap())
}

async fn answers(names: &Stub<Names>, calls: usize) -> BTreeMap<String, usize> {
    let mut answers = BTreeMap::new();
    for _ in 0..calls {
        *answers.entry(names.call(Who).await.unwrap()).or_default() += 1;
    }
    answers
}

#[tokio::test(start_paused = true)]
async fn nodes_that_a_caller_does_not_let_answer_get_nothing_of_it() {
    let lab = Lab::default();
    let ([a, _b, c], _offers) = three(&lab).await;
    let names = a.service::<Names>().only_from(us());
    assert_eq!(answers(&names, 50).await, [("c".to_owned(), 50)].into());
    assert!(names.at(&id("b")).is_none() && names.at(&id("c")).is_some());
    assert!((0..50).all(|key| *names.by_key([key]).unwrap().node() == id("c")));
    assert_eq!(names.providers().len(), 1);
    let asked = names.gather(&Who, Duration::from_secs(1)).await;
    assert_eq!(asked, [(id("c"), Ok("c".to_owned()))]);
    names.ready(1, Duration::from_secs(1)).await.unwrap();
    names.ready(2, Duration::from_secs(1)).await.unwrap_err();
    let joined = names.watch().next().await.unwrap();
    let only_c = |remote: &Remote<Names>| *remote.node() == id("c");
    assert!(matches!(joined, ProviderChange::Joined { remote, .. } if only_c(&remote)));
    // It bounds a preference, and is not bounded by one.
    let here = names.clone().prefer(Prefer::Here).call(Who).await.unwrap_err();
    assert_eq!(*here.failure(), CallFailure::NotRun(NotRun::NoProvider));
    c.shutdown().await;
    until("a knows that c has left", || names.providers().is_empty()).await;
    let left = names.call(Who).await.unwrap_err();
    assert_eq!(*left.failure(), CallFailure::NotRun(NotRun::NoProvider));
}

#[tokio::test(start_paused = true)]
async fn a_share_of_the_calls_goes_to_some_nodes_and_the_rest_to_the_others() {
    let lab = Lab::default();
    let ([a, b, c], [_on_a, on_b, _on_c]) = three(&lab).await;
    let names = a.service::<Names>().prefer(Prefer::Anywhere).share(Access::node(id("b")), 0.1);
    let answers_of = answers(&names, 1_000).await;
    // Of 1,000 with a tenth each: 100, with a standard deviation of 9.5.
    assert!((50..150).contains(&answers_of["b"]), "{answers_of:?}");
    assert!(answers_of["a"] > 300 && answers_of["c"] > 300, "{answers_of:?}");
    // Without the few the others get all, and without the others the few.
    drop(on_b);
    until("b is gone", || names.providers().len() == 2).await;
    assert!(!answers(&names, 100).await.contains_key("b"));
    let never = a.service::<Names>().prefer(Prefer::Anywhere).share(Access::node(id("a")), 0.0);
    c.shutdown().await;
    assert_eq!(answers(&never, 10).await, [("a".to_owned(), 10)].into());
    drop(b);
}

#[tokio::test(start_paused = true)]
async fn a_question_for_another_owner_goes_on_to_it() {
    let lab = Lab::default();
    let ([a, ..], _offers) = three(&lab).await;
    let names = a.service::<Names>();
    for key in 0..30 {
        let key = format!("key {key}");
        let owner = names.by_key(&key).unwrap().node().to_string();
        for asked in names.providers() {
            assert_eq!(asked.call(Of(key.clone())).await.unwrap(), owner);
        }
        assert_eq!(names.call(Of(key)).await.unwrap(), owner);
    }
}

#[tokio::test(start_paused = true)]
async fn two_nodes_that_name_each_other_end_the_call() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    // The offers of each node claim that the key of each question is one of the other.
    let offer = |node: &Gossipmonger| {
        let node = node.clone();
        async move {
            let (own, of) = (node.node().clone(), node.service::<Names>());
            let builder = node.offer::<Names>(Access::members());
            let foreign = move |_: &Of| {
                let of_other = |key: &u32| {
                    of.by_key(key.to_be_bytes()).is_none_or(|owner| *owner.node() != own)
                };
                (0_u32..).find(of_other).unwrap_or(0).to_be_bytes()
            };
            let builder = builder
                .call(|_: Who, _| std::future::ready(String::new()))
                .call_by_key(foreign, |_: Of, _| std::future::ready("never".to_owned()));
            builder.start().await.unwrap()
        }
    };
    let _offers = [offer(&a).await, offer(&b).await];
    until("a finds both", || a.service::<Names>().providers().len() == 2).await;
    until("b finds both", || b.service::<Names>().providers().len() == 2).await;
    let names = a.service::<Names>();
    for asked in names.providers() {
        let failed = asked.call(Of(String::new())).await.unwrap_err();
        let not_owner = matches!(failed.failure(), CallFailure::NotRun(NotRun::NotOwner { .. }));
        assert!(not_owner && failed.attempts().len() == 2, "{failed}");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_of_a_caller_run_one_at_a_time_in_their_order_if_the_offer_says_so() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let (log, turns) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Semaphore::new(0)));
    let (written, turn) = (Arc::clone(&log), Arc::clone(&turns));
    let _offer = b
        .offer::<Names>(Access::members())
        .call(|_: Who, _| std::future::ready(String::new()))
        .call(move |ask: Of, _| {
            let (written, turn) = (Arc::clone(&written), Arc::clone(&turn));
            async move {
                written.lock().unwrap().push(ask.0.clone());
                turn.acquire().await.unwrap().forget();
                ask.0
            }
        })
        .one_at_a_time()
        .start()
        .await
        .unwrap();
    let names = a.service::<Names>();
    names.ready(1, Duration::from_secs(9)).await.unwrap();
    let long = Duration::from_secs(600);
    let calls: Vec<_> = (0..20)
        .map(|n| tokio::spawn(names.call(Of(n.to_string())).within(long).into_future()))
        .collect();
    for n in 0..20 {
        until("the next one begins", || log.lock().unwrap().len() > n).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(log.lock().unwrap().len(), n + 1, "one at a time");
        turns.add_permits(1);
    }
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let in_order: Vec<_> = (0..20).map(|n: u32| n.to_string()).collect();
    assert_eq!(*log.lock().unwrap(), in_order);
}
