//! Callers that are written by hand, without sockets.

use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use gossipmonger::{
    Config, Counter, Gossipmonger,
    net::{
        BoxFuture, Connection, Dialed, Endpoint, Network, NetworkError, Opening, Protocol, Stream,
        memory::MemoryNetwork,
    },
    protocol::service::{
        ServiceId, ServiceName,
        frame::{Frame, Frames, Hello, Request},
        identity::Tag,
    },
    service::Access,
    tls::PeerName,
};
use serde::{Deserialize, Serialize};

use crate::{
    harness::{Lab, all_live, id, until},
    start::Start,
};

#[derive(Debug, Serialize, Deserialize)]
struct Echo(u8);

gossipmonger::service! {
    struct Tester = "tester", 1.0;
    1: call Echo -> u8;
}

/// A network that keeps the endpoint of its node.
#[derive(Debug)]
struct Tapped(Arc<dyn Network>, Arc<OnceLock<Arc<dyn Endpoint>>>);

impl Network for Tapped {
    fn open<'a>(
        &'a self,
        opening: Opening<'a>,
    ) -> BoxFuture<'a, Result<Arc<dyn Endpoint>, NetworkError>> {
        Box::pin(async {
            let endpoint = self.0.open(opening).await?;
            let _ = self.1.set(Arc::clone(&endpoint));
            Ok(endpoint)
        })
    }
}

/// A lane, and what it lasts as long as.
struct ByHand {
    lane: Stream,
    frames: Frames,
    _connection: Arc<dyn Connection>,
    _node: Gossipmonger,
}

impl ByHand {
    /// Opens a lane from a node `x`, and introduces it.
    async fn dial(lab: &Lab, to: &Gossipmonger) -> Self {
        let name = PeerName {
            cluster: "test".parse().unwrap(),
            datacenter: "dc".parse().unwrap(),
            node: id("x"),
        };
        let endpoint = Arc::default();
        let network = Arc::new(Tapped(lab.network.place(), Arc::clone(&endpoint)));
        let config = Start::on(Config::new(&name), network).local();
        let node = lab.spawn_with(config, &[to.node().as_str()]).await;
        all_live(&[&node, to]).await;
        let address = [MemoryNetwork::address(to.node())];
        let mut dial = endpoint.get().unwrap().dial(&address, None, Protocol::Services);
        let connection = loop {
            match dial.next().await.unwrap() {
                Dialed::Reached(_, connection) => break connection,
                Dialed::About(_) => {}
                _ => panic!("{} is not reached", to.node()),
            }
        };
        let lane = connection.open().await.unwrap();
        let generation = |of: &Gossipmonger| of.snapshot().version(of.node()).unwrap().0;
        let hello = Hello {
            cluster: name.cluster,
            node: name.node,
            generation: generation(&node),
            expected: generation(to),
            features: 0,
        };
        let (frames, _connection) = (Frames::default(), connection);
        let mut by_hand = Self { lane, frames, _connection, _node: node };
        by_hand.send([Frame::Hello(hello)]).await;
        let chunk = by_hand.chunk().await;
        by_hand.frames.push(chunk);
        assert_eq!(by_hand.frames.take(), Ok(Some(Frame::Welcome)));
        by_hand
    }

    /// Sends all frames as one chunk.
    async fn send(&mut self, frames: impl IntoIterator<Item = Frame>) {
        let mut bytes = BytesMut::new();
        frames.into_iter().for_each(|frame| frame.encode(&mut bytes));
        self.lane.0.write(&mut [bytes.freeze()]).await.unwrap();
    }

    async fn chunk(&mut self) -> Bytes {
        self.lane.1.read(usize::MAX).await.unwrap().expect("the lane goes on")
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_reads_no_answers_has_no_whole_chunk_of_requests_run() {
    const QUEUE_BYTES: usize = 16 << 10;
    let lab = Lab::default();
    let mut config = lab.config("b");
    config.services.lane_queue_bytes = QUEUE_BYTES;
    let b = lab.spawn_with(config, &[]).await;
    let offer = b.offer::<Tester>(Access::members()).call(|ask: Echo, _| async move { ask.0 });
    let _offer = offer.start().await.unwrap();
    let mut caller = ByHand::dial(&lab, &b).await;
    let service = ServiceId { name: ServiceName::new("tester").unwrap(), major: 1 };
    caller.send([Frame::Bind { index: 0, service }]).await;
    // Requests for a method that there is not: each is refused at once, by the task that reads it.
    let request = |id| {
        Frame::Request(Request {
            index: 0,
            id,
            method: 9,
            left_ms: 9_000,
            body: Bytes::new(),
            tag: Tag::default(),
        })
    };
    caller.send((0..5_000).map(request)).await;
    let first = caller.chunk().await.len();
    assert!((1..QUEUE_BYTES + 100).contains(&first), "{first} bytes of answers waited");
    until("all are refused", || b.counters().get(Counter::CallsRefused) == 5_000).await;
}
