//! What the tasks of connections work with.

use std::sync::Arc;

use super::{super::host::Host, link::Link, table::Links, tasks::Spawner};
use crate::net::{BoxFuture, Endpoint};

/// The context of a connection's task.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) links: Arc<Links>,
    pub(crate) endpoint: Arc<dyn Endpoint>,
    pub(crate) spawner: Spawner,
    /// Dials the peer of a connection once more. A pointer, because the task that dials serves the connection that
    /// it gets, and the task that serves a connection asks for another one when a certificate changes.
    pub(crate) renew: Renew,
}

/// See [`Context::renew`].
pub(crate) type Renew = fn(Context, Arc<Link>) -> BoxFuture<'static, ()>;

impl Context {
    pub(crate) fn host(&self) -> &Host {
        self.links.host()
    }
}
