//! The inputs of whole nodes, recorded in production's shell, give the same outputs in another shell.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use gossipmonger::{
    Backends, ClusterId, Generation, Gossipmonger,
    net::{
        BoxFuture, Connection, Dialed, Ended, Endpoint, Network, NetworkError, Opening,
        memory::MemoryNetwork,
    },
    protocol::{
        message::{Hello, Message},
        peering::{MALFORMED_MAX, PeeringInput},
        route::{Counter, TransportInput},
    },
    tape::{Answer, Record, Tape},
};

use crate::harness::{Lab, PATIENCE, all_live, id, until};
use crate::replay::{Difference, What, kind, kinds, replay};

/// Longer than a round, so that two nodes dial each other before either has reached the other.
const DELAY: Duration = Duration::from_millis(300);
/// Fewest inputs of a node in the trace.
const ENTRIES_MIN: usize = 300;

// --- the replay

#[tokio::test(start_paused = true)]
async fn a_recorded_trace_gives_the_same_outputs_in_another_shell() {
    let records = trace().await;
    for (name, record) in ["a", "b", "c"].iter().zip(&records) {
        let [inputs, outputs] = kinds(record);
        println!("{name}: {} inputs {inputs:?} with outputs {outputs:?}", record.entries.len());
        assert_eq!(record.ignored, 0, "the tape is full");
        // An actor that starts asks first which connections there are.
        let first = &record.entries[0].input;
        assert!(
            matches!(
                first,
                PeeringInput::Look | PeeringInput::Transport(TransportInput::TellLinks)
            ),
            "the tape began late: {first:?}"
        );
        assert_eq!(replay(record), Ok(()), "{name}");
    }
    let [inputs, outputs] = kinds(&records[0]);
    assert!(records[0].entries.len() >= ENTRIES_MIN, "{}", records[0].entries.len());
    for wanted in
        ["Introduced", "Datagram", "Ready", "Ended", "Look", "Transport", "Send", "Admit", "Frame"]
    {
        assert!(inputs.contains_key(wanted), "no input {wanted} in {inputs:?}");
    }
    for wanted in
        ["Settled", "Datagram", "Frame", "Route", "Close", "Admitted", "Filled", "Disconnected"]
    {
        assert!(outputs.contains_key(wanted), "no output {wanted} in {outputs:?}");
    }
    for (what, is_it) in QUESTIONS {
        assert!(answers(&records[0]).any(is_it), "the machine never asked for {what}");
    }
    let chose = chose_of_two(&records[0], "b") || chose_of_two(&records[1], "a");
    assert!(chose, "a and b did not dial each other at once");
}

#[tokio::test(start_paused = true)]
async fn the_replay_finds_an_altered_answer_input_and_output() {
    let [record, ..] = trace().await;
    let introduced = |record: &Record| {
        let settled = |output: &String| output == "Settled(Kept)";
        record.entries.iter().position(|entry| entry.outputs.iter().any(settled)).unwrap()
    };
    let first = introduced(&record);

    let mut closed = record.clone();
    let Some(Answer::Open(_, open)) = closed.entries[first].answers.first_mut() else {
        panic!("not asked: {:?}", closed.entries[first])
    };
    *open = false;
    let Err(Difference { entry, what: What::Outputs { replayed, .. } }) = replay(&closed) else {
        panic!("not found: {:?}", replay(&closed))
    };
    assert_eq!((entry, replayed), (first, vec!["Settled(Ended)".to_owned()]));

    let mut unanswered = record.clone();
    unanswered.entries[first].answers.clear();
    let found = replay(&unanswered).unwrap_err();
    assert_eq!(found.entry, first);
    assert!(matches!(found.what, What::Question { asked: Some(_), recorded: None }), "{found:?}");

    let mut unasked = record.clone();
    let extra = Answer::Own(Generation(1));
    unasked.entries[first].answers.push(extra);
    let what = What::Question { asked: None, recorded: Some(extra) };
    assert_eq!(replay(&unasked), Err(Difference { entry: first, what }));

    let mut missed = record.clone();
    missed.entries.remove(first);
    assert!(replay(&missed).is_err_and(|found| found.entry >= first), "a missed input");

    let mut other = record.clone();
    let frames = |input: &PeeringInput| matches!(input, PeeringInput::Ready(_));
    let ready = other.entries.iter().position(|entry| frames(&entry.input)).unwrap();
    other.entries[ready].input = PeeringInput::Look;
    assert_eq!(replay(&other).unwrap_err().entry, ready);

    let mut silent = record;
    let last = silent.entries.iter().rposition(|entry| !entry.outputs.is_empty()).unwrap();
    silent.entries[last].outputs.pop();
    let found = replay(&silent).unwrap_err();
    assert!(found.entry == last && matches!(found.what, What::Outputs { .. }), "{found:?}");
}

type Question = (&'static str, fn(&Answer) -> bool);

const QUESTIONS: [Question; 5] = [
    ("its generation", |answer| matches!(answer, Answer::Own(_))),
    ("the wall clock", |answer| matches!(answer, Answer::Wall(_))),
    ("an open connection", |answer| matches!(answer, Answer::Open(_, true))),
    ("what was received", |answer| matches!(answer, Answer::Received(..))),
    ("packets", |answer| matches!(answer, Answer::Packets(..))),
];

fn answers(record: &Record) -> impl Iterator<Item = &Answer> {
    record.entries.iter().flat_map(|entry| &entry.answers)
}

/// Whether the peer was connected already when another connection to it came, so that the machine had to choose. The
/// other end may hear of the choice before it has to make its own.
fn chose_of_two(record: &Record, peer: &str) -> bool {
    let chose =
        |output: &String| output.starts_with("Settled(Duplicate") || kind(output) == "Close";
    record.entries.iter().any(|entry| {
        let of_peer =
            matches!(&entry.input, PeeringInput::Introduced(new) if new.met.node == id(peer));
        of_peer && entry.outputs.iter().any(chose)
    })
}

// --- the trace

/// Three nodes from their first input to their end: two dial each other at once, all write, one is cut off and
/// comes back, and a fourth one sends what is no heartbeat.
async fn trace() -> [Record; 3] {
    let lab = Lab::default();
    let tapes = [Tape::default(), Tape::default(), Tape::default()];
    let rude = Arc::new(Rude { network: lab.network.clone(), endpoint: Mutex::default() });
    lab.network.set_delay(DELAY);
    let (a, b) = tokio::join!(
        spawn(&lab, ("a", &["b"]), &tapes[0], lab.network.place()),
        spawn(&lab, ("b", &["a"]), &tapes[1], lab.network.place()),
    );
    all_live(&[&a, &b]).await;
    lab.network.set_delay(Duration::ZERO);
    let c = spawn(&lab, ("c", &["a"]), &tapes[2], rude.clone()).await;
    let all = [&a, &b, &c];
    all_live(&all).await;
    for node in all {
        node.set("color", "green").await.unwrap();
    }
    let colored = || all.iter().all(|on| all.iter().all(|of| on.get(of.node(), "color").is_some()));
    until("all have what all wrote", colored).await;
    lab.isolate(c.node(), &[&a, &b]);
    until("c is dead", || [&a, &b].iter().all(|node| node.dead_peers().len() == 1)).await;
    a.set("while", "apart").await.unwrap();
    lab.network.heal();
    all_live(&all).await;
    until("c has what it missed", || c.get(a.node(), "while").is_some()).await;
    rude.misbehave("a:1").await;
    until("it is counted", || a.counters().get(Counter::PeersCutOff) == 1).await;
    until("a has looked at the loss", || {
        answers(&tapes[0].record()).any(|answer| matches!(answer, Answer::Packets(..)))
    })
    .await;
    for node in [&b, &c, &a] {
        node.shutdown().await;
    }
    tapes.map(|tape| tape.record())
}

async fn spawn(
    lab: &Lab,
    (name, seeds): (&str, &[&str]),
    tape: &Tape,
    network: Arc<dyn Network>,
) -> Gossipmonger {
    let (mut config, _) = lab.config(name).parts();
    config.seeds = seeds.iter().map(|seed| MemoryNetwork::address(&id(seed))).collect();
    let backends = Backends::new(network).with_tape(tape.clone());
    Gossipmonger::spawn(config, backends).await.unwrap().0
}

/// The network of a node that also opens an endpoint for one more name, which no node uses.
#[derive(Debug)]
struct Rude {
    network: MemoryNetwork,
    endpoint: Mutex<Option<Arc<dyn Endpoint>>>,
}

impl Network for Rude {
    fn open<'a>(
        &'a self,
        opening: Opening<'a>,
    ) -> BoxFuture<'a, Result<Arc<dyn Endpoint>, NetworkError>> {
        Box::pin(async move {
            let mut rude = opening.clone();
            rude.name.node = id("rude");
            let endpoint = self.network.place().open(rude).await?;
            *self.endpoint.lock().unwrap() = Some(endpoint);
            self.network.place().open(opening).await
        })
    }
}

impl Rude {
    /// Introduces itself, and sends datagrams that are no heartbeats until it is disconnected.
    async fn misbehave(&self, address: &str) {
        let endpoint = self.endpoint.lock().unwrap().clone().unwrap();
        let connection = connect(endpoint.as_ref(), address).await;
        let hello = Hello {
            cluster: ClusterId::new("test").unwrap(),
            node: id("rude"),
            generation: Generation(1),
            known: Generation::ZERO,
            features: 0,
        };
        let frame = Message::Hello(hello).encode().unwrap();
        let (mut to, mut from) = connection.open().await.unwrap();
        to.write(&mut [frame.into()]).await.unwrap();
        assert!(from.read(1 << 10).await.unwrap().is_some(), "no welcome");
        for _ in 0..MALFORMED_MAX {
            assert!(connection.send_datagram(Bytes::from_static(b"no heartbeat")));
        }
        let ended = tokio::time::timeout(PATIENCE, connection.closed()).await.unwrap();
        assert!(matches!(ended, Ended::Closed { .. }), "{ended:?}");
    }
}

async fn connect(endpoint: &dyn Endpoint, address: &str) -> Arc<dyn Connection> {
    let mut dial = endpoint.dial(&[address.to_owned()], None, gossipmonger::net::Protocol::Gossip);
    loop {
        match dial.next().await {
            Some(Dialed::About(_)) => {}
            Some(Dialed::Reached(_, connection)) => return connection,
            _ => panic!("nobody is at {address}"),
        }
    }
}
