//! The receive windows of connections for calls, from one budget of the node.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{
    net::Connection,
    protocol::service::{introduction::Purpose, windows::Windows},
};

/// The budget of a node.
#[derive(Debug)]
pub(crate) struct Budget(Mutex<Windows>);

/// The window of one connection; given back when dropped.
#[derive(Debug)]
pub(crate) struct Window {
    budget: Arc<Budget>,
    bytes: u32,
}

impl Budget {
    pub(super) fn new(bytes: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Windows::new(bytes))))
    }

    fn windows<T>(&self, work: impl FnOnce(&mut Windows) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sets the window of a connection; `None` if there is no room for one.
    pub(super) fn open(
        self: &Arc<Self>,
        connection: &dyn Connection,
        purpose: Purpose,
    ) -> Option<Window> {
        let bytes = self.windows(|windows| windows.grant(purpose.window()))?;
        connection.set_receive_window(bytes);
        Some(Window { budget: Arc::clone(self), bytes })
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.budget.windows(|windows| windows.give_back(self.bytes));
    }
}
