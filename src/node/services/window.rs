//! The receive windows of connections for calls, from one budget of the node.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{
    net::Connection,
    protocol::service::{
        introduction::Purpose,
        limits::ServiceLimits,
        windows::{Connections, Holder, Windows},
    },
};

/// The budget of a node.
#[derive(Debug)]
pub(crate) struct Budget(Mutex<Windows>);

/// The window of one connection; given back when dropped.
#[derive(Debug)]
pub(crate) struct Window {
    budget: Arc<Budget>,
    holder: Holder,
    bytes: u32,
}

impl Budget {
    pub(super) fn new(limits: &ServiceLimits) -> Arc<Self> {
        let connections = Connections {
            all: limits.connections_in + limits.connections_out,
            of_clients: limits.client_connections_in,
        };
        Arc::new(Self(Mutex::new(Windows::new(limits.window_bytes as u64, connections))))
    }

    fn windows<T>(&self, work: impl FnOnce(&mut Windows) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sets the window of a connection; `None` if there is no room for one.
    pub(crate) fn open(
        self: &Arc<Self>,
        connection: &dyn Connection,
        holder: Holder,
        purpose: Purpose,
    ) -> Option<Window> {
        let bytes = self.windows(|windows| windows.grant(holder, purpose.window()))?;
        connection.set_receive_window(bytes);
        Some(Window { budget: Arc::clone(self), holder, bytes })
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.budget.windows(|windows| windows.give_back(self.holder, self.bytes));
    }
}
