//! Actors that are called by who has their address.

use std::time::Duration;

use gossipmonger::{
    Counter, Gossipmonger,
    service::{
        Access, Address, CallError, CallFailure, EXPOSED_MAX, Gone, NotRun, OfferError, Remote,
    },
};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::harness::{Lab, all_live, id, until};

#[derive(Debug, Serialize, Deserialize)]
struct Progress(u32);

#[derive(Debug, Serialize, Deserialize)]
struct MayStop;

gossipmonger::service! {
    /// What a worker reports to who has asked it.
    struct Report = "report", 1.0;

    1: cast Progress;
    2: call MayStop -> bool, idempotent;
}

/// A question with the address of who asks.
#[derive(Debug, Serialize, Deserialize)]
struct Work {
    steps: u32,
    report_to: Address<Report>,
}

gossipmonger::service! {
    struct Worker = "worker", 1.0;

    1: call Work -> bool;
}

const LONG: Duration = Duration::from_secs(600);

struct Job;

enum JobMessage {
    Progress(u32),
    MayStop(RpcReplyPort<bool>),
}

#[cfg(feature = "cluster")]
impl ractor::Message for JobMessage {}

#[ractor::actor(message = JobMessage, state = mpsc::UnboundedSender<u32>, arguments = mpsc::UnboundedSender<u32>)]
impl Job {
    async fn pre_start(
        &self,
        _: ActorRef<JobMessage>,
        told: mpsc::UnboundedSender<u32>,
    ) -> Result<mpsc::UnboundedSender<u32>, ActorProcessingErr> {
        Ok(told)
    }

    async fn handle(
        &self,
        _: ActorRef<JobMessage>,
        message: JobMessage,
        told: &mut mpsc::UnboundedSender<u32>,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            JobMessage::Progress(step) => drop(told.send(step)),
            JobMessage::MayStop(reply) => drop(reply.send(true)),
        }
        Ok(())
    }
}

async fn job() -> (ActorRef<JobMessage>, mpsc::UnboundedReceiver<u32>) {
    let (tell, told) = mpsc::unbounded_channel();
    let (job, _) = Actor::spawn(None, Job, tell).await.unwrap();
    (job, told)
}

fn exposes(
    node: &Gossipmonger,
    job: &ActorRef<JobMessage>,
    access: Access,
) -> Result<Address<Report>, OfferError> {
    node.expose(job, access)
        .tells(|progress: Progress| JobMessage::Progress(progress.0))
        .asks(|_: MayStop, reply| JobMessage::MayStop(reply))
        .start()
}

fn failure(result: Result<impl std::fmt::Debug, CallError>) -> CallFailure {
    result.unwrap_err().failure().clone()
}

const NO_SUCH: CallFailure = CallFailure::NotRun(NotRun::NoSuchService);

/// The same address with another number.
fn guessed(node: &Gossipmonger, address: &Address<Report>, number: u64) -> Remote<Report> {
    let mut json = serde_json::to_value(address).unwrap();
    json["of"]["Exposed"]["number"] = number.into();
    node.bind(serde_json::from_value(json).unwrap()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_address_is_no_permission_and_of_one_service_only() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let (job, _told) = job().await;
    let address = exposes(&b, &job, Access::node(id("c"))).unwrap();
    let there = a.bind(address.clone()).unwrap();
    assert_eq!(failure(there.call(MayStop).await), CallFailure::NotRun(NotRun::Forbidden));
    assert_eq!(b.counters().get(Counter::CallsRefused), 1);
    let text = serde_json::to_string(&address).unwrap();
    let wrong = a.bind::<Worker>(serde_json::from_str(&text).unwrap()).unwrap_err();
    assert!(wrong.to_string().contains("report/1"), "{wrong}");
    let missing = b
        .expose(&job, Access::members())
        .tells(|progress: Progress| JobMessage::Progress(progress.0))
        .start()
        .unwrap_err();
    assert!(matches!(missing, OfferError::NoHandler { number: 2, .. }), "{missing:?}");
}

#[tokio::test(start_paused = true)]
async fn nobody_offers_or_announces_the_service_of_exposed_actors() {
    #[derive(Serialize, Deserialize)]
    struct Ping;
    gossipmonger::service! { struct Taken = "gossipmonger.exposed", 1.0; 1: call Ping -> (); }
    let lab = Lab::default();
    let a = lab.spawn("a", &[]).await;
    let refused = a.offer::<Taken>(Access::members()).call(|_: Ping, _| async {}).start().await;
    assert!(matches!(refused, Err(OfferError::Reserved(_))), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_has_ended_is_refused_as_no_such_service() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let (job, _told) = job().await;
    let address = exposes(&b, &job, Access::members()).unwrap();
    let (there, here) = (a.bind(address.clone()).unwrap(), b.bind(address.clone()).unwrap());
    assert!(there.call(MayStop).await.unwrap() && here.call(MayStop).await.unwrap());
    let watched = here.clone();
    let gone = tokio::spawn(async move { watched.gone().await });
    job.stop_and_wait(None, None).await.unwrap();
    assert_eq!(gone.await.unwrap(), Gone::Withdrawn);
    assert_eq!(failure(here.call(MayStop).await), NO_SUCH);
    assert_eq!(there.is_gone(), None, "it has not heard of the end");
    assert_eq!(failure(there.call(MayStop).await), NO_SUCH);
    assert_eq!((there.is_gone(), there.gone().await), (Some(Gone::Withdrawn), Gone::Withdrawn));
    assert_eq!(b.counters().get(Counter::ExposedUnknown), 1);
    // It is not asked again.
    assert_eq!(failure(there.call(MayStop).await), NO_SUCH);
    assert_eq!(failure(there.cast(Progress(1)).await), NO_SUCH);
    assert_eq!(b.counters().get(Counter::ExposedUnknown), 1);
    // However many references are out of date: the connection stays.
    for _ in 0..1_000 {
        assert_eq!(failure(a.bind(address.clone()).unwrap().call(MayStop).await), NO_SUCH);
    }
    assert_eq!(b.counters().get(Counter::ServiceConnectionsAccepted), 1);
}

#[tokio::test(start_paused = true)]
async fn who_guesses_numbers_is_cut_off_and_others_are_not() {
    let lab = Lab::default();
    let a = lab.spawn("a", &[]).await;
    let b = lab.spawn("b", &["a"]).await;
    let c = lab.spawn("c", &["a"]).await;
    all_live(&[&a, &b, &c]).await;
    let (job, _told) = job().await;
    let address = exposes(&b, &job, Access::members()).unwrap();
    let mut guesses = 0;
    let cut_off = loop {
        let failed = failure(guessed(&a, &address, guesses).call(MayStop).await);
        guesses += 1;
        if failed != NO_SUCH {
            break failed;
        }
        assert!(guesses < 400, "it may go on for ever");
    };
    assert!(matches!(cut_off, CallFailure::Unknown(_)), "{cut_off:?}");
    assert!(guesses >= 256, "{guesses}");
    assert_eq!(b.counters().refusals()["service_protocol"], 1);
    assert_eq!(b.counters().get(Counter::ExposedUnknown), guesses);
    assert!(c.bind(address).unwrap().call(MayStop).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn an_actor_is_called_back_and_no_node_is_told_of_it() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let worker = b.clone();
    let _offer = b
        .offer::<Worker>(Access::members())
        .call(move |work: Work, _| {
            let report = worker.bind(work.report_to).unwrap();
            async move {
                for step in 0..work.steps {
                    report.cast(Progress(step)).await.unwrap();
                }
                report.call(MayStop).await.unwrap()
            }
        })
        .start()
        .await
        .unwrap();
    let workers = a.service::<Worker>();
    workers.ready(1, LONG).await.unwrap();
    let version = a.snapshot().version(a.node());
    let (job, mut told) = job().await;
    let report_to = exposes(&a, &job, Access::node(id("b"))).unwrap();
    assert!(workers.call(Work { steps: 100, report_to: report_to.clone() }).await.unwrap());
    for step in 0..100 {
        assert_eq!(told.recv().await, Some(step));
    }
    assert_eq!(a.snapshot().version(a.node()), version);
    assert_eq!(b.offered().len(), 1, "only the worker");
    let twice = exposes(&a, &job, Access::members()).unwrap();
    assert_ne!(twice, report_to);
    // The node that has it ends.
    let there = b.bind(report_to).unwrap();
    a.leave_for_now().await.unwrap();
    assert_eq!(there.gone().await, Gone::NodeLeft);
}

#[tokio::test(start_paused = true)]
async fn a_node_exposes_no_more_actors_than_it_may() {
    let lab = Lab::default();
    let a = lab.spawn("a", &[]).await;
    let (job, _told) = job().await;
    for _ in 0..EXPOSED_MAX {
        exposes(&a, &job, Access::nobody()).unwrap();
    }
    let refused = exposes(&a, &job, Access::nobody()).unwrap_err();
    assert_eq!(refused, OfferError::TooManyExposed);
    job.stop_and_wait(None, None).await.unwrap();
    let (job, _told) = crate::exposed::job().await;
    until("there is room again", || exposes(&a, &job, Access::nobody()).is_ok()).await;
    assert!(a.drain(LONG).await);
    assert_eq!(exposes(&a, &job, Access::nobody()).unwrap_err(), OfferError::Draining);
}
