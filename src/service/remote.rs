//! A service at one node: [`Remote`], and [`Address`], which can be sent in messages.

use std::{fmt, marker::PhantomData, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    Call, Cast, Service,
    ask::{Calling, cast, try_cast},
    calling::{Callee, Where},
    error::CallError,
};
pub use crate::protocol::service::directory::Gone;
use crate::protocol::{
    id::{Generation, NodeId},
    service::directory::Provider,
};

/// A service at one node, in one generation of the node and one registration of the service. It does not follow the
/// service to another node, or to a later process of this one.
pub struct Remote<S> {
    pub(super) callee: Arc<Callee>,
    address: Address<S>,
}

/// Names a [`Remote`]: it can be sent in messages, and bound at another node. It is no permission.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Address<S> {
    node: NodeId,
    generation: u64,
    name: String,
    major: u16,
    epoch: u32,
    #[serde(skip)]
    service: PhantomData<fn() -> S>,
}

/// An address does not name this service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the address is of {found}, not of {wanted}")]
pub struct OtherService {
    found: String,
    wanted: String,
}

impl<S> Clone for Remote<S> {
    fn clone(&self) -> Self {
        Self { callee: Arc::clone(&self.callee), address: self.address.clone() }
    }
}

impl<S> Clone for Address<S> {
    fn clone(&self) -> Self {
        Self {
            node: self.node.clone(),
            generation: self.generation,
            name: self.name.clone(),
            major: self.major,
            epoch: self.epoch,
            service: PhantomData,
        }
    }
}

impl<S> PartialEq for Address<S> {
    fn eq(&self, other: &Self) -> bool {
        let key = |address: &Self| (address.generation, address.major, address.epoch);
        self.node == other.node && self.name == other.name && key(self) == key(other)
    }
}

impl<S> Eq for Address<S> {}

impl<S> fmt::Debug for Remote<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Remote").field(&self.address).finish()
    }
}

impl<S> fmt::Debug for Address<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}#{} at {}@{}",
            self.name, self.major, self.epoch, self.node, self.generation
        )
    }
}

impl<S: Service> Remote<S> {
    pub(super) fn new(callee: Arc<Callee>, provider: &Provider) -> Self {
        let address = Address {
            node: provider.node.clone(),
            generation: provider.generation.0,
            name: callee.id.name.to_string(),
            major: callee.id.major,
            epoch: provider.epoch,
            service: PhantomData,
        };
        Self { callee, address }
    }

    pub(super) fn bind(callee: Arc<Callee>, address: Address<S>) -> Result<Self, OtherService> {
        if address.name != S::NAME || address.major != S::VERSION.major {
            return Err(OtherService {
                found: format!("{}/{}", address.name, address.major),
                wanted: format!("{}/{}", S::NAME, S::VERSION.major),
            });
        }
        Ok(Self { callee, address })
    }

    pub(super) fn place(&self) -> Where {
        let Address { node, generation, epoch, .. } = &self.address;
        Where::At(node.clone(), Generation(*generation), *epoch)
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.address.node
    }

    /// Its address, for messages.
    #[must_use]
    pub fn address(&self) -> Address<S> {
        self.address.clone()
    }

    /// As [`Stub::call`](super::Stub::call), at this node only: it is not tried again elsewhere.
    pub fn call<M: Call<Service = S>>(&self, ask: M) -> Calling<M> {
        Calling::new(Arc::clone(&self.callee), self.place(), &ask)
    }

    /// As [`Stub::cast`](super::Stub::cast).
    ///
    /// # Errors
    /// [`CallError`]; then it was not sent.
    pub async fn cast<M: Cast<Service = S>>(&self, message: M) -> Result<(), CallError> {
        cast(&self.callee, &self.place(), &message).await
    }

    /// As [`Stub::try_cast`](super::Stub::try_cast).
    ///
    /// # Errors
    /// As there.
    pub fn try_cast<M: Cast<Service = S>>(&self, message: &M) -> Result<(), CallError> {
        try_cast(&self.callee, &self.place(), message)
    }

    /// Waits until this offer is gone, and says why. It is gone for good: an unreachable node does not count, since it
    /// may come back. It is gone for this node also if this node itself ends.
    pub async fn gone(&self) -> Gone {
        let (mut changes, mut ends) = (self.callee.changes(), self.callee.ends());
        loop {
            if let Some(gone) = self.is_gone() {
                return gone;
            }
            tokio::select! {
                _ = changes.changed() => {}
                _ = ends.changed() => {}
                () = self.callee.ended() => return Gone::Stopped,
            }
        }
    }

    /// Why this offer is gone; `None` if it is not.
    #[must_use]
    pub fn is_gone(&self) -> Option<Gone> {
        let listings = self.callee.side.outbound().watched.listings();
        let listed = listings.get(&self.callee.id).and_then(|found| found.find(self.node()));
        let generation = Generation(self.address.generation);
        match listed {
            Some(found) if found.generation > generation => Some(Gone::Restarted),
            Some(found) if found.generation == generation && found.epoch == self.address.epoch => {
                None
            }
            Some(_) => Some(Gone::Withdrawn),
            None => self.callee.side.unlisted(self.node(), generation),
        }
    }
}
