//! What a node is built on, beside its configuration: [`Backends`].

use std::sync::Arc;

use crate::{
    ambient::Ambient,
    net::{Network, quic::QuicNetwork},
    store::{Store, memory::MemoryStore},
};

/// The network and the store of a node: the original's `transport` and `storage`.
///
/// A [`QuicNetwork`], or an `Arc` of any [`Network`], converts into backends with a store in memory.
#[derive(Clone, Debug)]
pub struct Backends {
    pub(crate) network: Arc<dyn Network>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) ambient: Ambient,
    #[cfg(feature = "sim")]
    pub(crate) tape: Option<super::tape::Tape>,
}

impl Backends {
    /// This network, and a store in memory.
    #[must_use]
    pub fn new(network: Arc<dyn Network>) -> Self {
        Self {
            network,
            store: Arc::new(MemoryStore::new()),
            ambient: Ambient::default(),
            #[cfg(feature = "sim")]
            tape: None,
        }
    }

    /// The same network with this store. The node takes the store, and lets go of it when it ends.
    #[must_use]
    pub fn with_store(self, store: Arc<dyn Store>) -> Self {
        Self { store, ..self }
    }

    /// The same in these surroundings.
    #[cfg(feature = "testkit")]
    #[must_use]
    pub(crate) fn with_ambient(self, ambient: Ambient) -> Self {
        Self { ambient, ..self }
    }

    /// The same with this tape, which records the inputs of the machine that owns the node's connections.
    #[cfg(feature = "sim")]
    #[doc(hidden)]
    #[must_use]
    pub fn with_tape(self, tape: super::tape::Tape) -> Self {
        Self { tape: Some(tape), ..self }
    }
}

impl From<QuicNetwork> for Backends {
    fn from(network: QuicNetwork) -> Self {
        Self::new(Arc::new(network))
    }
}

impl<N: Network> From<Arc<N>> for Backends {
    fn from(network: Arc<N>) -> Self {
        Self::new(network)
    }
}
