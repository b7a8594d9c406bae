//! A transport that can be told to push no news, so that only exchanges carry it.
//!
//! A node pushes each update to its neighbours at once. Without this, an exchange that is measured would
//! find that its update is there already.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use gossipmonger::{
    protocol::route::TransportInput,
    transport::{BoxFuture, NodeLink, OpenTransport, Opening, Transport, TransportError},
};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};

/// Wraps a transport.
#[derive(Debug)]
pub(super) struct Quiet<T> {
    inner: Arc<T>,
    reins: Handed,
}

/// What the transport of a node was started with, and its switch.
#[derive(Clone, Debug)]
pub(super) struct Reins {
    pub(super) node: NodeLink,
    pub(super) actor: ActorRef<TransportInput>,
    switch: Arc<Switch>,
}

/// Where the reins are found once the node has started.
pub(super) type Handed = Arc<Mutex<Option<Reins>>>;

#[derive(Debug, Default)]
struct Switch {
    quiet: AtomicBool,
    dropped: AtomicU64,
}

impl<T> Quiet<T> {
    pub(super) fn new(inner: Arc<T>) -> (Self, Handed) {
        let reins = Handed::default();
        (Self { inner, reins: Arc::clone(&reins) }, reins)
    }
}

impl Reins {
    pub(super) fn of(handed: &Handed) -> Option<Self> {
        handed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on nothing is pushed.
    pub(super) fn push_nothing(&self) {
        self.switch.quiet.store(true, Ordering::Relaxed);
    }

    /// How often something would have been pushed since.
    pub(super) fn dropped(&self) -> u64 {
        self.switch.dropped.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct OpenQuiet {
    inner: Arc<dyn OpenTransport>,
    reins: Handed,
}

impl<T: Transport> Transport for Quiet<T> {
    fn open<'a>(
        &'a self,
        opening: Opening<'a>,
    ) -> BoxFuture<'a, Result<Arc<dyn OpenTransport>, TransportError>> {
        Box::pin(async move {
            let inner = self.inner.open(opening).await?;
            let open: Arc<dyn OpenTransport> =
                Arc::new(OpenQuiet { inner, reins: Arc::clone(&self.reins) });
            Ok(open)
        })
    }
}

impl OpenTransport for OpenQuiet {
    fn addresses(&self) -> Vec<String> {
        self.inner.addresses()
    }

    fn start(
        &self,
        node: NodeLink,
        supervisor: ActorCell,
    ) -> BoxFuture<'_, Result<ActorRef<TransportInput>, SpawnErr>> {
        Box::pin(async move {
            let inner = self.inner.start(node.clone(), supervisor.clone()).await?;
            let switch = Arc::<Switch>::default();
            let gate = (inner.clone(), Arc::clone(&switch));
            let (gate, _) = Actor::spawn_linked(None, Gate, gate, supervisor).await?;
            let reins = Reins { node, actor: inner, switch };
            *self.reins.lock().unwrap_or_else(PoisonError::into_inner) = Some(reins);
            Ok(gate)
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

/// Hands on everything but what is pushed while it is quiet.
#[derive(Debug)]
struct Gate;

type GateState = (ActorRef<TransportInput>, Arc<Switch>);

#[ractor::actor(message = TransportInput, state = GateState, arguments = GateState)]
impl Gate {
    async fn pre_start(
        &self,
        _: ActorRef<TransportInput>,
        gate: GateState,
    ) -> Result<GateState, ActorProcessingErr> {
        Ok(gate)
    }

    async fn handle(
        &self,
        _: ActorRef<TransportInput>,
        input: TransportInput,
        (inner, switch): &mut GateState,
    ) -> Result<(), ActorProcessingErr> {
        if matches!(input, TransportInput::Gossip { .. }) && switch.quiet.load(Ordering::Relaxed) {
            switch.dropped.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        Ok(inner.cast(input)?)
    }
}
