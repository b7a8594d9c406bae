//! A service that a node offers by itself, as long as something needs it.

use std::{
    any::Any,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The built-in service and its users.
#[derive(Default)]
pub(crate) struct BuiltIn(Mutex<State>);

#[derive(Default)]
struct State {
    users: usize,
    /// Dropping it withdraws the service.
    offer: Option<Box<dyn Any + Send>>,
}

impl BuiltIn {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more user. The first one offers the service.
    ///
    /// # Errors
    /// That of the offer; then there is no further user.
    pub(crate) fn enter<E>(
        &self,
        offer: impl FnOnce() -> Result<Box<dyn Any + Send>, E>,
    ) -> Result<(), E> {
        let mut state = self.state();
        if state.users == 0 {
            state.offer = Some(offer()?);
        }
        state.users += 1;
        Ok(())
    }

    /// One user less. The last one withdraws the service.
    pub(crate) fn leave(&self) {
        let mut state = self.state();
        state.users -= 1;
        if state.users == 0 {
            // Under the lock: a next user must find the service withdrawn.
            drop(state.offer.take());
        }
    }
}

impl fmt::Debug for BuiltIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuiltIn").field("users", &self.state().users).finish()
    }
}
