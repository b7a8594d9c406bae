//! What an endpoint shows to those that it dials, and whom it accepts there: as a node, or as a client.

use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::CertificateDer;

use super::{
    super::{Peer, Proof, Protocol, Shown},
    crypto::INITIAL_SUITE,
};
use crate::{
    protocol::id::NodeId,
    tls::{
        CallerState, CallerTls, CertificateSummary, Expect, Identity, NameError, Tls, Verdict,
        chain_fingerprint,
    },
};

/// The papers of the process that dials.
#[derive(Clone, Debug)]
pub(super) enum Papers {
    /// Of a node.
    Node(Tls),
    /// Of a client that calls services.
    Client(CallerTls),
}

/// The papers at the moment of one handshake.
#[derive(Debug)]
pub(super) enum Present {
    Node(Tls, Box<Identity>),
    Client(CallerTls, Arc<CallerState>),
}

impl Papers {
    /// The papers of now.
    pub(super) fn present(&self) -> Present {
        match self {
            Self::Node(tls) => Present::Node(tls.clone(), Box::new(tls.identity())),
            Self::Client(tls) => Present::Client(tls.clone(), tls.state()),
        }
    }
}

impl Present {
    /// For dialing one node: this one, or any.
    pub(super) fn dial(
        &self,
        expected: Option<&NodeId>,
        protocol: Protocol,
    ) -> (Arc<QuicClientConfig>, Verdict) {
        match self {
            Self::Node(tls, _) => {
                let expect = expected.map_or(Expect::AnyNode, |node| Expect::Node(node.clone()));
                match protocol {
                    Protocol::Services => tls.dial_services(expect),
                    Protocol::Gossip | Protocol::Clients => tls.dial(expect),
                }
            }
            Self::Client(tls, state) => {
                let verdict = Verdict::default();
                let config = tls.rustls_caller(state, expected, verdict.clone());
                (Arc::new(QuicClientConfig::try_from(config).expect(INITIAL_SUITE)), verdict)
            }
        }
    }

    /// The peer that has shown this chain.
    pub(super) fn peer(&self, chain: Vec<CertificateDer<'static>>) -> Result<Peer, NameError> {
        match self {
            Self::Node(tls, ours) => {
                let theirs = tls.summary(&chain)?;
                let name = tls.name_of(&chain).ok();
                let datacenter = name.as_ref().map(|name| name.datacenter.clone());
                let datacenter = datacenter.filter(|_| ours.naming().tells_datacenter());
                let proof = Proof {
                    ours: shown(&tls.summary(ours.chain())?, ours.chain()),
                    theirs: shown(&theirs, &chain),
                };
                Ok(Peer { name, client: theirs.client, datacenter, chain, proof })
            }
            Self::Client(tls, state) => {
                let name = tls.name_of(&chain)?;
                let datacenter = tls.tells_datacenter().then(|| name.datacenter.clone());
                let shown = |chain: &[CertificateDer<'_>]| {
                    let expires = Some(state.end(chain)?);
                    Ok(Shown { fingerprint: chain_fingerprint(chain), expires })
                };
                let proof = Proof { ours: shown(state.chain())?, theirs: shown(&chain)? };
                Ok(Peer { name: Some(name), client: None, datacenter, chain, proof })
            }
        }
    }
}

fn shown(summary: &CertificateSummary, chain: &[CertificateDer<'_>]) -> Shown {
    Shown { fingerprint: chain_fingerprint(chain), expires: Some(summary.expires) }
}
