//! Services: members find and call each other over the same authenticated QUIC.
//!
//! A node *offers* a service: a name, a version, and numbered methods. The offer stands in the node's own map, so every
//! member finds it in its own memory. A caller picks a live provider (near first, then the less loaded of two),
//! over a connection of its own, which is dialed at the first call. A call ends by its answer, by its deadline, or when
//! membership declares the node dead.
//!
//! ```no_run
//! # use gossipmonger::{Gossipmonger, service::{Access, CallError, OfferError}};
//! # use serde::{Deserialize, Serialize};
//! #[derive(Serialize, Deserialize)]
//! struct Level { item: String }
//!
//! gossipmonger::service! {
//!     /// What a shop has in store.
//!     struct Stock = "stock", 1.0;
//!     1: call Level -> Option<u32>, idempotent;
//! }
//!
//! # async fn offers(node: &Gossipmonger) -> Result<(), OfferError> {
//! let offer = node
//!     .offer::<Stock>(Access::members())
//!     .call(|ask: Level, _| async move { (ask.item == "tea").then_some(3) })
//!     .start()
//!     .await?;
//! # drop(offer);
//! # Ok(())
//! # }
//!
//! // At any other node:
//! # async fn calls(node: &Gossipmonger) -> Result<(), CallError> {
//! let level = node.service::<Stock>().call(Level { item: "tea".into() }).await?;
//! assert_eq!(level, Some(3));
//! # Ok(())
//! # }
//! ```
//!
//! # Guarantees
//!
//! A call runs at most once, unless its method is idempotent. An error says whether the call may have run
//! ([`CallError::may_have_run`]). Requests and casts of one node to another arrive in order, as long as one connection
//! lasts; functions run concurrently, an actor gets its messages in order. Questions above 16 KiB and streams are not
//! ordered with the rest.

// The way of one call through the files. At the caller: `stub` and `ask` (what is called, and the options), `calling` (the
// attempts), `picking` (a provider), `attempting` or `by_stream` (one attempt), `hedge` (two at once); `casting` for a message
// without an answer. At the provider: `node::services::serve` reads the lane, `converse` a stream; `offered` judges access and
// room, `remembered` whether it ran before; `job` is the request that runs, `offer` and `actor` the handlers; `node::services::
// responder` sends the answer.
mod access;
mod actor;
mod ask;
mod attempting;
mod by_stream;
mod calling;
mod casting;
mod changes;
pub mod client;
pub mod codec;
mod context;
mod conversation;
mod counted;
mod definition;
mod directory;
mod error;
mod expose;
mod exposed;
mod figures;
#[cfg(feature = "testkit")]
mod frozen;
mod hedge;
mod inline;
mod job;
mod listed;
#[cfg(feature = "cluster")]
pub mod mesh;
mod maintenance;
mod messages;
mod notify;
mod offer;
mod offer_streams;
mod offered;
mod operate;
mod place;
mod opening;
mod picking;
mod proxy;
mod remembered;
mod remote;
mod reply;
mod side;
pub mod stream;
mod stub;

use std::sync::Arc;

#[doc(hidden)]
pub use self::definition::version;
#[cfg(feature = "testkit")]
pub use self::frozen::{Frozen, frozen};
pub use self::{
    access::Access,
    actor::{ActorOffer, Room},
    ask::Calling,
    changes::{ProviderChange, ProviderChanges, ServiceChange, ServiceChanges},
    context::{CallId, Context},
    definition::{
        Call, Cast, ClientStream, Duplex, Kind, Method, ServerStream, Service, ServiceVersion,
    },
    directory::offered::DirectoryOffer,
    error::{By, CallError, CallFailure, Failure, Lost, NotRun},
    expose::{EXPOSED_MAX, ExposeBuilder},
    figures::{CallEnd, CallOutcome, METHODS_MAX, MethodFigures, ServiceFigures},
    listed::Listed,
    notify::Notification,
    offer::{Offer, OfferBuilder, OfferError},
    opening::Opening,
    operate::{CALLERS_MAX, CallerFigures, Explained, Verdict},
    proxy::{Forward, PROXY_CALLS_MAX, ProxyBuilder, ProxyReply, RemoteGone},
    remote::{Address, Gone, OtherService, Remote},
    stub::{GATHER_AT_ONCE, GATHER_MAX, Prefer, Stub},
};
use self::{calling::Callee, side::Here};
use crate::node::Gossipmonger;
pub use crate::node::services::{caller::Caller, tags::Propagator};
pub use crate::protocol::service::{
    ServiceId, ServiceName,
    identity::{BadTraceContext, TraceContext},
    once::{ONCE_MAX, ONCE_PER_CALLER, ONCE_REPLY_MAX},
};

impl Gossipmonger {
    /// Begins to offer a service: give it a handler for each method, and start it. `access`: who may call it.
    pub fn offer<S: Service>(&self, access: Access) -> OfferBuilder<S> {
        OfferBuilder::new(self.clone(), access)
    }

    /// Calls a service at whatever live nodes offer it.
    ///
    /// # Panics
    /// If the name of the service is not a label.
    #[must_use]
    pub fn service<S: Service>(&self) -> Stub<S> {
        Stub::new(Callee::new(Arc::new(Here::new(self.clone())), id::<S>()))
    }

    /// The service that an address names.
    ///
    /// # Errors
    /// [`OtherService`] if the address names another service than `S`, or another major version of it.
    pub fn bind<S: Service>(&self, address: Address<S>) -> Result<Remote<S>, OtherService> {
        let side = Arc::new(Here::new(self.clone()));
        Remote::bind(Callee::new(side, id::<S>()), address)
    }
}

impl Gossipmonger {
    /// This propagator names the trace of each call of this node, and is notified of each served call that belongs to
    /// one. The first propagator stays.
    pub fn set_propagator(&self, propagator: Arc<dyn Propagator>) {
        self.shared.services.outbound.tags.set_propagator(propagator);
    }
}

fn id<S: Service>() -> ServiceId {
    let name = ServiceName::new(S::NAME).unwrap_or_else(|error| panic!("{error}"));
    ServiceId { name, major: S::VERSION.major }
}
