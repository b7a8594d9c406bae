//! A client, for those that hold it: its tasks, and how its calls see it.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{runtime, task::JoinSet};

use super::{
    super::{
        Gone, Listed, Propagator,
        side::{End, Here, Side},
    },
    inner::{Failures, Inner},
};
use crate::{
    counters::Counters,
    node::services::{
        dial::{self, Dialer},
        link::Link,
        outbound::Outbound,
    },
    protocol::{
        close::Close,
        id::{Generation, NodeId},
        route::Counter,
        service::{
            balance::Balance,
            frame::{ClientHello, Frame},
            introduction::Purpose,
        },
        state::PeerState,
        time::Time,
    },
    tls::{ClientIdentity, LoadError, Roots},
};

/// Dials the providers.
struct ByClient(Arc<Inner>);

impl Dialer for ByClient {
    fn name(&self) -> &dyn fmt::Display {
        &self.0.name
    }

    fn outbound(&self) -> &Arc<Outbound> {
        &self.0.outbound
    }

    fn addresses(&self, peer: &NodeId) -> Vec<String> {
        self.0.addresses_of(peer)
    }

    fn introduction(&self, purpose: Purpose, expected: Generation) -> Frame {
        Frame::ClientHello(ClientHello { expected, features: purpose.features() })
    }

    fn timeout(&self) -> Duration {
        self.0.dial_timeout
    }

    fn count(&self, counter: Counter) {
        self.0.counters.add(counter, 1);
    }
}

/// A client, for its handles: its tasks end with the last of them.
#[derive(Debug)]
pub(super) struct Handle {
    inner: Arc<Inner>,
    runtime: runtime::Handle,
    tasks: Mutex<JoinSet<()>>,
}

impl Handle {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self { inner, runtime: runtime::Handle::current(), tasks: Mutex::default() }
    }

    /// Runs a task until it ends, or the client does.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        if !self.inner.end.is_set() {
            tasks.spawn_on(task, &self.runtime);
        }
    }

    /// Waits until a directory was read, or none was found.
    pub(super) async fn read_first(&self) -> Result<(), Failures> {
        self.inner.first.wait().await
    }

    pub(super) fn offered(&self) -> Vec<Listed> {
        Listed::all(&self.inner.outbound.watched.listings())
    }

    pub(super) fn host(&self) -> Option<NodeId> {
        self.inner.host()
    }

    pub(super) fn reload(&self, identity: ClientIdentity, roots: Roots) -> Result<(), LoadError> {
        self.inner.tls.reload(identity, roots)
    }

    pub(super) fn set_propagator(&self, propagator: Arc<dyn Propagator>) {
        self.inner.outbound.tags.set_propagator(propagator);
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.inner.counters
    }

    fn end(&self) {
        self.inner.end.set(());
        self.inner.outbound.end_all();
        self.inner.set_host(None);
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }

    pub(super) async fn close(&self) {
        self.end();
        self.inner.endpoint.close(Close::Shutdown as u32, b"the client has ended").await;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.end();
    }
}

impl Side for Handle {
    fn outbound(&self) -> &Arc<Outbound> {
        &self.inner.outbound
    }

    fn has_ended(&self) -> bool {
        self.inner.end.is_set()
    }

    fn ended(&self) -> End<'_> {
        Box::pin(self.inner.end.wait())
    }

    fn runtime(&self) -> &runtime::Handle {
        &self.runtime
    }

    fn count(&self, counter: Counter) {
        self.inner.counters.add(counter, 1);
    }

    fn dial(&self, link: Arc<Link>) {
        let (dialer, endpoint) =
            (ByClient(Arc::clone(&self.inner)), Arc::clone(&self.inner.endpoint));
        self.spawn(dial::run(dialer, endpoint, link));
    }

    fn balance(&self) -> Balance {
        Balance::outside(self.inner.home.get().cloned())
    }

    fn suspicion(&self, _node: &NodeId, _now: Time) -> f64 {
        0.0
    }

    fn unlisted(&self, node: &NodeId, generation: Generation) -> Option<Gone> {
        if self.has_ended() {
            return Some(Gone::Stopped);
        }
        let watched = &self.inner.outbound.watched;
        match watched.state(node) {
            None => Some(Gone::NodeForgotten),
            Some((_, PeerState::Live | PeerState::Suspect)) => {
                watched.ended(node, generation).or(Some(Gone::Withdrawn))
            }
            // If it has not ended, it may come back.
            Some(_) => watched.ended(node, generation),
        }
    }

    fn here(&self) -> Option<&Here> {
        None
    }
}
