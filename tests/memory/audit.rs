//! What is logged of calls for those who audit them.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex},
    time::Duration,
};

use gossipmonger::service::{Access, Call, CallFailure, NotRun};
use serde::{Deserialize, Serialize};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

use crate::harness::{Lab, id, until};

#[derive(Serialize, Deserialize)]
struct Open(u32);

#[derive(Serialize, Deserialize)]
struct Knock;

gossipmonger::service! {
    /// For tests.
    struct Door = "door", 1.0;

    1: call Open -> u32;
    2: cast Knock;
}

const LONG: Duration = Duration::from_secs(600);

/// Keeps the lines of the audit trail.
#[derive(Clone, Default)]
struct Trail(Arc<Mutex<Vec<Line>>>);

#[derive(Clone, Debug)]
struct Line {
    level: Level,
    fields: BTreeMap<&'static str, String>,
}

impl Trail {
    fn lines(&self) -> Vec<Line> {
        self.0.lock().unwrap().clone()
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

impl Subscriber for Trail {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "gossipmonger::audit"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line { level: *event.metadata().level(), fields: BTreeMap::new() };
        event.record(&mut line);
        self.0.lock().unwrap().push(line);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn fields(line: &Line, names: &[&str]) -> Vec<String> {
    names.iter().map(|name| line.fields.get(name).cloned().unwrap_or_default()).collect()
}

#[tokio::test(start_paused = true)]
async fn who_may_not_call_is_logged_a_few_times_in_a_second() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let _offer = b
        .offer::<Door>(Access::members())
        .call(|open: Open, _| std::future::ready(open.0))
        .cast(|_: Knock, _| std::future::ready(()))
        .restrict(Open::METHOD, Access::node(id("c")))
        .start()
        .await
        .unwrap();
    let door = a.service::<Door>();
    door.ready(1, LONG).await.unwrap();
    let trail = Trail::default();
    let _guard = tracing::subscriber::set_default(trail.clone());
    for _ in 0..100 {
        let refused = door.call(Open(1)).await.unwrap_err();
        assert_eq!(*refused.failure(), CallFailure::NotRun(NotRun::Forbidden));
    }
    let lines = trail.lines();
    assert_eq!(lines.len(), 3, "a burst");
    let told = fields(&lines[0], &["caller", "service", "method", "code"]);
    assert_eq!(told, ["node a", "door/1", "1", "forbidden"]);
    assert_eq!(lines[0].level, Level::WARN);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let _ = door.call(Open(1)).await;
    let suppressed: usize =
        fields(trail.lines().last().unwrap(), &["suppressed"])[0].parse().unwrap();
    assert_eq!(suppressed + trail.lines().len(), 101, "none is forgotten");
}

#[tokio::test(start_paused = true)]
async fn each_call_of_an_audited_offer_is_logged_with_its_caller_and_its_end() {
    let lab = Lab::default();
    let (a, b) = lab.pair().await;
    let offer = |audited: bool| {
        let builder = b
            .offer::<Door>(Access::members())
            .call(|open: Open, _| async move {
                match open.0 {
                    0 => panic!("a handler panics on purpose"),
                    1 => std::future::pending().await,
                    more => more,
                }
            })
            .cast(|_: Knock, _| std::future::ready(()))
            .room(1, 0);
        if audited { builder.audited() } else { builder }
    };
    let door = a.service::<Door>();
    let trail = Trail::default();
    let _guard = tracing::subscriber::set_default(trail.clone());
    {
        let _offer = offer(false).start().await.unwrap();
        door.ready(1, LONG).await.unwrap();
        door.call(Open(2)).await.unwrap();
        assert!(trail.lines().is_empty());
    }
    until("it is withdrawn", || door.providers().is_empty()).await;
    let _offer = offer(true).start().await.unwrap();
    door.ready(1, LONG).await.unwrap();
    door.call(Open(2)).await.unwrap();
    door.call(Open(0)).await.unwrap_err();
    let waits = tokio::spawn(door.call(Open(1)).within(LONG).into_future());
    until("it runs", || b.service::<Door>().providers().len() == 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let there = door.at(&id("b")).unwrap();
    there.call(Open(3)).await.unwrap_err();
    waits.abort();
    until("all have ended", || trail.lines().len() == 4).await;
    door.cast(Knock).await.unwrap();
    until("the message is told", || trail.lines().len() == 5).await;
    let told: Vec<_> =
        trail.lines().iter().map(|line| fields(line, &["method", "outcome"])).collect();
    let expected = [
        ["Open", "ok"],
        ["Open", "failed"],
        ["Open", "shed"],
        ["Open", "cancelled"],
        ["Knock", "ok"],
    ];
    assert_eq!(told, expected);
    assert!(trail.lines().iter().all(|line| line.fields["caller"] == "node a"));
    assert!(trail.lines()[3].fields["took"].starts_with('1'), "{:?}", trail.lines()[3]);
}
