//! A local ractor actor in front of a remote service.
//!
//! ```text
//!   a message -> proxy actor -> map -> call or cast -> the remote service
//!   the local reply port <- a task for each call <-'
//!   the remote service is gone -> watcher, a child -> the proxy fails -> its supervisor decides
//! ```

use std::{
    fmt,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use ractor::{
    Actor, ActorCell, ActorProcessingErr, ActorRef, Message, RpcReplyPort, SpawnErr,
    SupervisionEvent,
};
use tokio::task::JoinSet;

use super::{
    Call, Cast, Service,
    calling::{Callee, not_run},
    error::{By, CallError, NotRun},
    id,
    notify::Notification,
    remote::{Gone, Remote},
    stub::{Prefer, Stub},
};
use crate::{
    net::BoxFuture,
    protocol::{id::NodeId, route::Counter, service::ServiceId},
};

/// Calls in progress of one proxy, at most, unless [`ProxyBuilder::calls_max`] says otherwise.
pub const PROXY_CALLS_MAX: usize = 1_024;

/// A proxy that has not started: await it. The result is the [`ActorRef`], or why it has not started.
#[must_use = "a proxy starts when it is awaited"]
pub struct ProxyBuilder<S, M, F> {
    arguments: Arguments<S, F>,
    supervisor: ActorCell,
    name: Option<String>,
    message: PhantomData<fn(M)>,
}

impl<S, M, F> fmt::Debug for ProxyBuilder<S, M, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The remote service of a proxy. The map of the proxy gets it with each message.
pub struct Forward<S> {
    remote: Remote<S>,
    /// Aborted with the proxy.
    running: JoinSet<()>,
    calls_max: usize,
    on_error: OnError,
}

type OnError = Arc<dyn Fn(&CallError) + Send + Sync>;

/// What the reply port of a local message takes: the reply itself, or a [`Result`] with the error of the call. Implement
/// it for other types to turn one into the other.
pub trait ProxyReply<R>: Sized + Send + 'static {
    /// What the port gets; `None` drops the port, so its owner gets ractor's own error.
    fn of(result: Result<R, CallError>) -> Option<Self>;
}

impl<R: Send + 'static> ProxyReply<R> for R {
    fn of(result: Result<Self, CallError>) -> Option<Self> {
        result.ok()
    }
}

impl<R: Send + 'static> ProxyReply<R> for Result<R, CallError> {
    fn of(result: Self) -> Option<Self> {
        Some(result)
    }
}

/// Why a proxy has failed: the service that it stands for is gone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{service} at {node} is gone: {why}")]
#[non_exhaustive]
pub struct RemoteGone {
    /// The service.
    pub service: ServiceId,
    /// The node that offered it.
    pub node: NodeId,
    /// Why.
    pub why: Gone,
}

/// The remote service that a proxy stands for.
enum Far<S> {
    /// One that is picked when the proxy starts.
    Any(Stub<S>),
    At(Remote<S>),
}

struct Arguments<S, F> {
    far: Far<S>,
    map: F,
    calls_max: usize,
    on_error: OnError,
}

impl<S: Service> Stub<S> {
    /// An actor of this process that stands for the service at one node. The node is picked when the proxy starts, as
    /// for a call, and stays the same, so messages stay in order. The proxy is a child of `supervisor`. It fails with
    /// [`RemoteGone`] once the service at that node is gone, and its supervisor decides: a new proxy picks another node.
    ///
    /// `map` turns each message into a call or a cast. It runs in the actor, and waits for nothing:
    ///
    /// ```no_run
    /// # use gossipmonger::service::{Forward, Stub};
    /// # use ractor::{ActorCell, ActorRef, RpcReplyPort, SpawnErr};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize)] struct Level(String);
    /// # #[derive(Serialize, Deserialize)] struct Delivered(String, u32);
    /// # gossipmonger::service! {
    /// #     struct Stock = "stock", 1.0;
    /// #     1: call Level -> Option<u32>, idempotent;
    /// #     2: cast Delivered;
    /// # }
    /// enum ShelfMessage {
    ///     Level(String, RpcReplyPort<Option<u32>>),
    ///     Delivered(String, u32),
    ///     Audit,
    /// }
    /// # #[cfg(feature = "cluster")] impl ractor::Message for ShelfMessage {}
    ///
    /// # async fn start(stock: Stub<Stock>, supervisor: ActorCell) -> Result<(), SpawnErr> {
    /// let shelf: ActorRef<ShelfMessage> = stock
    ///     .proxy(supervisor, |message, to: &mut Forward<Stock>| match message {
    ///         ShelfMessage::Level(item, reply) => to.call(Level(item), reply),
    ///         ShelfMessage::Delivered(item, count) => to.cast(Delivered(item, count)),
    ///         other => to.refuse(other),
    ///     })
    ///     .on_error(|error| eprintln!("the shelf: {error}"))
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn proxy<M, F>(&self, supervisor: ActorCell, map: F) -> ProxyBuilder<S, M, F>
    where
        M: Message,
        F: FnMut(M, &mut Forward<S>) + Send + 'static,
    {
        ProxyBuilder::new(Far::Any(self.clone()), supervisor, map)
    }
}

impl<S: Service> Remote<S> {
    /// As [`Stub::proxy`], for this node.
    pub fn proxy<M, F>(&self, supervisor: ActorCell, map: F) -> ProxyBuilder<S, M, F>
    where
        M: Message,
        F: FnMut(M, &mut Forward<S>) + Send + 'static,
    {
        ProxyBuilder::new(Far::At(self.clone()), supervisor, map)
    }
}

impl<S: Service, M: Message, F: FnMut(M, &mut Forward<S>) + Send + 'static> ProxyBuilder<S, M, F> {
    fn new(far: Far<S>, supervisor: ActorCell, map: F) -> Self {
        let on_error: OnError = Arc::new(|_| {});
        let arguments = Arguments { far, map, calls_max: PROXY_CALLS_MAX, on_error };
        Self { arguments, supervisor, name: None, message: PhantomData }
    }

    /// The name of the actor in ractor's registry. Default: none.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Calls in progress at once, at most; a further one fails with `Overloaded { by: By::Caller }`. Default
    /// [`PROXY_CALLS_MAX`].
    pub fn calls_max(mut self, calls: usize) -> Self {
        self.arguments.calls_max = calls;
        self
    }

    /// Is given the error of each call and cast that fails, since not every reply port can take one. It runs in the
    /// actor or in a task: it should not block.
    pub fn on_error(mut self, hook: impl Fn(&CallError) + Send + Sync + 'static) -> Self {
        self.arguments.on_error = Arc::new(hook);
        self
    }
}

impl<S, M, F> IntoFuture for ProxyBuilder<S, M, F>
where
    S: Service,
    M: Message,
    F: FnMut(M, &mut Forward<S>) + Send + 'static,
{
    /// [`SpawnErr::StartupFailed`] has a [`CallError`] if no node offers the service, and [`RemoteGone`] if the node does
    /// not any more.
    type Output = Result<ActorRef<M>, SpawnErr>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { arguments, supervisor, name, message } = self;
        Box::pin(async move {
            let proxy = Proxy { far: PhantomData::<fn() -> S>, message, map: PhantomData };
            let (proxy, _) = Actor::spawn_linked(name, proxy, arguments, supervisor).await?;
            Ok(proxy)
        })
    }
}

impl<S: Service> Forward<S> {
    /// The service that the proxy stands for.
    #[must_use]
    pub const fn remote(&self) -> &Remote<S> {
        &self.remote
    }

    /// Calls it, and answers the port. The deadline is the timeout of the port, if it has one. Calls and casts leave in
    /// the order of the messages, as long as the connection has room.
    ///
    /// If the call fails, the hook of [`ProxyBuilder::on_error`] gets the error; the port gets it only if it takes a
    /// `Result<_, CallError>`, and is dropped otherwise.
    pub fn call<A, T>(&mut self, ask: A, reply: RpcReplyPort<T>)
    where
        A: Call<Service = S>,
        T: ProxyReply<A::Reply>,
    {
        if reply.is_closed() {
            return;
        }
        self.call_then(ask, reply.get_timeout(), move |result| {
            if let Some(answer) = T::of(result) {
                let _ = reply.send(answer);
            }
        });
    }

    /// Calls it, and gives the result to a function, which should not block. `within`: the deadline; `None` is the
    /// default one.
    pub fn call_then<A: Call<Service = S>>(
        &mut self,
        ask: A,
        within: Option<Duration>,
        then: impl FnOnce(Result<A::Reply, CallError>) + Send + 'static,
    ) {
        while self.running.try_join_next().is_some() {}
        let on_error = Arc::clone(&self.on_error);
        let end = move |result: Result<A::Reply, CallError>| {
            if let Err(error) = &result {
                on_error(error);
            }
            then(result);
        };
        if self.running.len() >= self.calls_max {
            self.count();
            let full = NotRun::Overloaded { by: By::Caller, retry_after: Duration::ZERO };
            return end(Err(not_run(full, Vec::new())));
        }
        let mut calling = self.remote.call(ask);
        if let Some(within) = within {
            calling = calling.within(within);
        }
        let mut call = Box::pin(calling.run());
        // The first poll queues the request: here, and not in a task, so that requests stay in order.
        match poll_now(call.as_mut()) {
            Poll::Ready(result) => end(result),
            Poll::Pending => drop(self.running.spawn(async move { end(call.await) })),
        }
    }

    /// Sends it a message without an answer. It never waits: if there is no room, the hook of
    /// [`ProxyBuilder::on_error`] gets the error and the message is lost.
    pub fn cast<A: Cast<Service = S>>(&mut self, message: A) {
        if let Err(error) = self.remote.try_cast(&message) {
            self.count();
            (self.on_error)(&error);
        }
    }

    /// Drops a message for which the remote service has no method, and with it its reply port. It is counted.
    pub fn refuse<M>(&mut self, message: M) {
        self.count();
        drop(message);
    }

    fn count(&self) {
        self.remote.callee.count(Counter::ProxyMessagesRefused);
    }
}

impl<S> fmt::Debug for Forward<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forward").field("remote", &self.remote).finish_non_exhaustive()
    }
}

fn poll_now<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// The actor that stands for a remote service.
struct Proxy<S, M, F> {
    far: PhantomData<fn() -> S>,
    message: PhantomData<fn(M)>,
    map: PhantomData<fn() -> F>,
}

struct State<S, F> {
    forward: Forward<S>,
    map: F,
    /// Signals the watcher that the remote service is gone.
    _gone: Notification,
}

#[ractor::actor(message = M, state = State<S, F>, arguments = Arguments<S, F>)]
impl<S: Service, M: Message, F: FnMut(M, &mut Forward<S>) + Send + 'static> Proxy<S, M, F> {
    async fn pre_start(
        &self,
        myself: ActorRef<M>,
        arguments: Arguments<S, F>,
    ) -> Result<State<S, F>, ActorProcessingErr> {
        let Arguments { far, map, calls_max, on_error } = arguments;
        let remote = match far {
            Far::At(remote) => remote,
            Far::Any(stub) => picked(&stub)?,
        };
        if let Some(why) = remote.is_gone() {
            return Err(RemoteGone::new(&remote, why).into());
        }
        let far = RemoteGone::new(&remote, Gone::Stopped);
        let (watcher, _) = Actor::spawn_linked(None, Watcher, far, myself.get_cell()).await?;
        let gone = remote.notify(&watcher, FarGone);
        let forward = Forward { remote, running: JoinSet::new(), calls_max, on_error };
        Ok(State { forward, map, _gone: gone })
    }

    async fn handle(
        &self,
        _: ActorRef<M>,
        message: M,
        state: &mut State<S, F>,
    ) -> Result<(), ActorProcessingErr> {
        (state.map)(message, &mut state.forward);
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<M>,
        event: SupervisionEvent,
        state: &mut State<S, F>,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(_, error) => {
                // Membership ends these, and their callers are to learn how.
                state.forward.running.detach_all();
                Err(error)
            }
            _ => Ok(()),
        }
    }
}

/// The provider that a proxy stands for from its start: one that has all methods, if there is one.
fn picked<S: Service>(stub: &Stub<S>) -> Result<Remote<S>, CallError> {
    let newest = S::METHODS.iter().map(|method| method.since).max().unwrap_or(0);
    let pick = |since| pick(&stub.callee, &stub.prefer, since);
    match pick(newest) {
        Err(NotRun::TooOld { .. }) => pick(0),
        picked => picked,
    }
    .map_err(|why| not_run(why, Vec::new()))
}

fn pick<S: Service>(
    callee: &Arc<Callee>,
    prefer: &Prefer,
    since: u16,
) -> Result<Remote<S>, NotRun> {
    let remote = |provider: &_, _| Remote::new(Arc::clone(callee), provider);
    callee.pick((prefer, since), &[], callee.now(), remote)
}

impl RemoteGone {
    fn new<S: Service>(remote: &Remote<S>, why: Gone) -> Self {
        Self { service: id::<S>(), node: remote.node().clone(), why }
    }
}

/// A child of a proxy that fails when the remote service is gone: a message of the proxy's own type cannot say so.
struct Watcher;

struct FarGone(Gone);

#[cfg(feature = "cluster")]
impl Message for FarGone {}

#[ractor::actor(message = FarGone, state = RemoteGone, arguments = RemoteGone)]
impl Watcher {
    async fn pre_start(
        &self,
        _: ActorRef<FarGone>,
        far: RemoteGone,
    ) -> Result<RemoteGone, ActorProcessingErr> {
        Ok(far)
    }

    async fn handle(
        &self,
        _: ActorRef<FarGone>,
        FarGone(why): FarGone,
        far: &mut RemoteGone,
    ) -> Result<(), ActorProcessingErr> {
        Err(RemoteGone { why, ..far.clone() }.into())
    }
}
