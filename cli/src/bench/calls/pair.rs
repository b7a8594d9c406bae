//! Two nodes: one offers the service, the other calls it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use gossipmonger::{
    Gossipmonger,
    protocol::{id::NodeId, route::Counter},
    service::{Access, Offer, Stub},
    unstable::disconnect,
};
use ractor::Actor;

use super::{
    Mode,
    service::{Echo, Echoes, Far, FarActor, FarMessage, Told},
};
use crate::{
    bench::cluster::{Cluster, Settings},
    error::CliError,
};

/// How many requests run at the other node, and how many wait: none may be refused here.
pub(super) const ROOM: [usize; 2] = [1_000, 1_000_000];
/// How long the caller waits for the offer.
const READY: Duration = Duration::from_secs(30);

/// Both nodes.
#[derive(Debug)]
pub(super) struct Pair {
    _cluster: Cluster,
    near: Gossipmonger,
    /// The name of the other node.
    other: NodeId,
    stub: Stub<Echoes>,
    far: Arc<Far>,
    _offer: Offer,
}

impl Pair {
    /// Starts both, and waits until the caller has found the service.
    pub(super) async fn start(mode: Mode, spoil: Option<u64>) -> Result<Self, CliError> {
        let mut cluster = Cluster::new(Settings { nodes: 2, interval: None, base_port: 0 })?;
        cluster.start_all().await?;
        let node = |index| cluster.node(index).cloned().expect("it was started");
        let (near, there) = (node(0), node(1));
        let far = Arc::new(Far::new(spoil));
        let offer = offer(&there, mode, &far).await?;
        let stub = near.service::<Echoes>();
        stub.ready(1, READY).await.map_err(CliError::failed)?;
        let other = there.node().clone();
        Ok(Self { _cluster: cluster, near, other, stub, far, _offer: offer })
    }

    /// Asks for an echo.
    pub(super) async fn call(&self, body: Bytes) -> Result<Bytes, CliError> {
        self.stub.call(Echo(body)).await.map_err(CliError::failed)
    }

    /// Sends a message, and waits for room only.
    pub(super) async fn cast(&self, body: Bytes) -> Result<(), CliError> {
        self.stub.cast(Told(body)).await.map_err(CliError::failed)
    }

    /// Messages that the other node has handled.
    pub(super) fn received(&self) -> u64 {
        self.far.received()
    }

    /// A counter of the node that calls.
    pub(super) fn counted(&self, counter: Counter) -> u64 {
        self.near.counters().get(counter)
    }

    /// Closes the connection; returns whether there was one.
    pub(super) fn disconnect(&self) -> bool {
        disconnect(&self.near, &self.other)
    }
}

async fn offer(node: &Gossipmonger, mode: Mode, far: &Arc<Far>) -> Result<Offer, CliError> {
    let builder = node.offer::<Echoes>(Access::members()).room(ROOM[0], ROOM[1]).per_caller(100);
    let started = match mode {
        Mode::Function => {
            let (answers, takes) = (Arc::clone(far), Arc::clone(far));
            let builder = builder.call(move |Echo(body), _| {
                let far = Arc::clone(&answers);
                async move { far.answer(body) }
            });
            let builder = builder.cast(move |told: Told, _| {
                let far = Arc::clone(&takes);
                async move { far.take(&told) }
            });
            builder.start().await
        }
        Mode::Actor => {
            let spawned = Actor::spawn(None, FarActor, Arc::clone(far)).await;
            let (actor, _) = spawned.map_err(CliError::failed)?;
            let builder = builder.actor(&actor);
            let builder = builder.asks(|Echo(body), reply| FarMessage::Echo(body, reply));
            // As fast as they come: that is what is measured.
            builder.tells(FarMessage::Told).casts_per_second(u32::MAX).start().await
        }
    };
    started.map_err(CliError::failed)
}
