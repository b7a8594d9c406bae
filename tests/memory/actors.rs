//! Offers that an actor answers: what its mailbox gets, and what ends a call.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use gossipmonger::{
    Counter,
    service::{Access, CallFailure, Failure},
};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use serde::{Deserialize, Serialize, Serializer, ser::Error};
use tokio::sync::mpsc;

use crate::harness::{Lab, until};

#[derive(Serialize, Deserialize)]
struct Ask(u32);

#[derive(Serialize, Deserialize)]
struct Tell;

/// An answer that the provider cannot encode, if it is odd.
#[derive(Debug, PartialEq, Deserialize)]
struct Answer(u32);

impl Serialize for Answer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            1 => panic!("an answer panics on purpose"),
            3 => Err(S::Error::custom("not on purpose")),
            even => even.serialize(serializer),
        }
    }
}

gossipmonger::service! {
    /// For tests.
    struct Desk = "desk", 1.0;

    1: call Ask -> Answer;
    2: cast Tell;
}

const LONG: Duration = Duration::from_secs(600);

enum Message {
    Ask(u32, RpcReplyPort<Answer>),
    Tell,
}

#[cfg(feature = "cluster")]
impl ractor::Message for Message {}

/// Answers, but keeps the port of 5, and tells the test when that is closed. Counts what it is told.
struct Clerk(Arc<AtomicUsize>, mpsc::UnboundedSender<()>);

#[ractor::actor(message = Message, state = (), arguments = ())]
impl Clerk {
    async fn pre_start(&self, _: ActorRef<Message>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        _: ActorRef<Message>,
        message: Message,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Tell => _ = self.0.fetch_add(1, Ordering::Relaxed),
            Message::Ask(5, port) => {
                let told = self.1.clone();
                tokio::spawn(async move {
                    while !port.is_closed() {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    let _ = told.send(());
                });
            }
            Message::Ask(number, port) => _ = port.send(Answer(number)),
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn an_actor_gets_no_more_messages_in_a_second_than_its_offer_allows() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let told = Arc::new(AtomicUsize::new(0));
    let (closed, _) = mpsc::unbounded_channel();
    let (clerk, _) = Actor::spawn(None, Clerk(Arc::clone(&told), closed), ()).await.unwrap();
    let _offer = b
        .offer::<Desk>(Access::members())
        .actor(&clerk)
        .asks::<Ask>(|ask, port| Message::Ask(ask.0, port))
        .tells::<Tell>(|_| Message::Tell)
        .casts_per_second(100)
        .start()
        .await
        .unwrap();
    let desk = a.service::<Desk>();
    desk.ready(1, LONG).await.unwrap();
    for _ in 0..1_000 {
        desk.cast(Tell).await.unwrap();
    }
    // In order: what was sent before it has arrived.
    assert_eq!(desk.call(Ask(2)).await.unwrap(), Answer(2));
    let got = told.load(Ordering::Relaxed);
    assert!((51..100).contains(&got), "one caller gets half: {got}");
    assert_eq!(b.counters().get(Counter::CastsRefused) as usize, 1_000 - got);
    clerk.stop(None);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_encoded_ends_its_call_and_not_the_actor() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let (closed, mut closes) = mpsc::unbounded_channel();
    let (clerk, _) = Actor::spawn(None, Clerk(Arc::default(), closed), ()).await.unwrap();
    let _offer = b
        .offer::<Desk>(Access::members())
        .actor(&clerk)
        .asks::<Ask>(|ask, port| Message::Ask(ask.0, port))
        .tells::<Tell>(|_| Message::Tell)
        .start()
        .await
        .unwrap();
    let desk = a.service::<Desk>();
    desk.ready(1, LONG).await.unwrap();
    let failed = desk.call(Ask(1)).await.unwrap_err();
    assert_eq!(*failed.failure(), CallFailure::Failed(Failure::Panicked));
    let failed = desk.call(Ask(3)).await.unwrap_err();
    assert_eq!(*failed.failure(), CallFailure::Failed(Failure::NoAnswer));
    assert_eq!(desk.call(Ask(4)).await.unwrap(), Answer(4));
    // A caller that gives up closes the port.
    desk.call(Ask(5)).within(Duration::from_secs(1)).await.unwrap_err();
    closes.recv().await.unwrap();
    until("nothing is under way", || b.counters().get(Counter::CallsAnswered) == 1).await;
    clerk.stop(None);
}
