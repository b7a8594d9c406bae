//! A service at one node: [`Remote`], and [`Address`], which can be sent in messages.

use std::{fmt, marker::PhantomData, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    Call, Cast, Service,
    ask::{Calling, cast, try_cast},
    calling::Callee,
    error::CallError,
    exposed::Exposed,
    place::Where,
};
pub use crate::protocol::service::directory::Gone;
use crate::protocol::{
    id::{Generation, NodeId},
    service::{directory::Provider, exposed::exposed},
};

/// A service at one node, in one generation of the node and one registration of the service. It does not follow the
/// service to another node, or to a later process of this one.
pub struct Remote<S> {
    pub(super) callee: Arc<Callee>,
    address: Address<S>,
    place: Where,
}

/// The name of a [`Remote`]: it can be sent in messages, and bound at another node. It is no permission.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Address<S> {
    node: NodeId,
    generation: u64,
    name: String,
    major: u16,
    of: Of,
    #[serde(skip)]
    service: PhantomData<fn() -> S>,
}

/// What an address is of, at its node.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Of {
    /// An offer, by its registration.
    Offer { epoch: u32 },
    /// An actor without an offer, by its number.
    Exposed { number: u64 },
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
        Self {
            callee: Arc::clone(&self.callee),
            address: self.address.clone(),
            place: self.place.clone(),
        }
    }
}

impl<S> Clone for Address<S> {
    fn clone(&self) -> Self {
        Self {
            node: self.node.clone(),
            generation: self.generation,
            name: self.name.clone(),
            major: self.major,
            of: self.of,
            service: PhantomData,
        }
    }
}

impl<S> PartialEq for Address<S> {
    fn eq(&self, other: &Self) -> bool {
        let key = |address: &Self| (address.generation, address.major, address.of);
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
        write!(f, "{}/{}", self.name, self.major)?;
        match self.of {
            Of::Offer { epoch } => write!(f, "#{epoch}")?,
            Of::Exposed { number } => write!(f, "~{number:016x}")?,
        }
        write!(f, " at {}@{}", self.node, self.generation)
    }
}

impl<S: Service> Address<S> {
    /// Of an actor that is no named service.
    pub(super) fn exposed(node: NodeId, generation: Generation, number: u64) -> Self {
        Self {
            node,
            generation: generation.0,
            name: S::NAME.to_owned(),
            major: S::VERSION.major,
            of: Of::Exposed { number },
            service: PhantomData,
        }
    }
}

impl<S: Service> Remote<S> {
    pub(super) fn new(callee: Arc<Callee>, provider: &Provider) -> Self {
        let address = Address {
            node: provider.node.clone(),
            generation: provider.generation.0,
            name: callee.id.name.to_string(),
            major: callee.id.major,
            of: Of::Offer { epoch: provider.epoch },
            service: PhantomData,
        };
        Self {
            callee,
            address,
            place: Where::At(provider.node.clone(), provider.generation, provider.epoch),
        }
    }

    /// `callee`: of the service `S`.
    pub(super) fn bind(mut callee: Callee, address: Address<S>) -> Result<Self, OtherService> {
        if address.name != S::NAME || address.major != S::VERSION.major {
            return Err(OtherService {
                found: format!("{}/{}", address.name, address.major),
                wanted: format!("{}/{}", S::NAME, S::VERSION.major),
            });
        }
        callee.counts(S::METHODS);
        let (node, generation) = (address.node.clone(), Generation(address.generation));
        let place = match address.of {
            Of::Offer { epoch } => Where::At(node, generation, epoch),
            Of::Exposed { number } => {
                callee.id = exposed();
                Where::Exposed(Arc::new(Exposed::new(node, generation, number)))
            }
        };
        Ok(Self { callee: Arc::new(callee), address, place })
    }

    pub(super) fn place(&self) -> Where {
        self.place.clone()
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.address.node
    }

    /// The life of the node in which it offers this.
    #[cfg(feature = "cluster")]
    pub(super) const fn generation(&self) -> Generation {
        Generation(self.address.generation)
    }

    /// Its address, for messages.
    #[must_use]
    pub fn address(&self) -> Address<S> {
        self.address.clone()
    }

    /// As [`Stub::call`](super::Stub::call), at this node: it is not tried again elsewhere, unless this node names the owner
    /// of its key ([`NotRun::NotOwner`](super::NotRun::NotOwner)).
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

    /// Waits until this offer is gone for good, and returns why. An unreachable node does not count, since it may come
    /// back. The end of this node itself counts.
    ///
    /// The end of an [exposed](crate::Gossipmonger::expose) actor of another node is known only after a call through
    /// this reference, or a clone of it, has failed for that reason; the end of its node is known at once.
    pub async fn gone(&self) -> Gone {
        let (mut changes, mut ends) = (self.callee.changes(), self.callee.ends());
        loop {
            if let Some(gone) = self.is_gone() {
                return gone;
            }
            tokio::select! {
                biased;
                _ = changes.changed() => {}
                _ = ends.changed() => {}
                () = self.exposed_ended() => return Gone::Withdrawn,
                () = self.callee.ended() => return Gone::Stopped,
            }
        }
    }

    async fn exposed_ended(&self) {
        match &self.place {
            Where::Exposed(exposed) => exposed.over(self.callee.side.as_ref()).await,
            Where::Any(_) | Where::At(..) => std::future::pending().await,
        }
    }

    /// Why this offer is gone; `None` if it is not.
    #[must_use]
    pub fn is_gone(&self) -> Option<Gone> {
        if let Where::Exposed(exposed) = &self.place {
            return exposed.gone(self.callee.side.as_ref());
        }
        let listings = self.callee.side.outbound().watched.listings();
        let listed = listings.get(&self.callee.id).and_then(|found| found.find(self.node()));
        let generation = Generation(self.address.generation);
        match listed {
            Some(found) if found.generation > generation => Some(Gone::Restarted),
            Some(found)
                if found.generation == generation
                    && self.address.of == (Of::Offer { epoch: found.epoch }) =>
            {
                None
            }
            Some(_) => Some(Gone::Withdrawn),
            None => self.callee.side.unlisted(self.node(), generation),
        }
    }
}
