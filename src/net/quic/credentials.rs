//! The certificates that an endpoint presents when it dials, and those that it accepts there: as a node, or as a client.

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

/// The certificate and roots of the process that dials, which may be replaced while it runs.
#[derive(Clone, Debug)]
pub(super) enum CredentialSource {
    /// Of a node.
    Node(Tls),
    /// Of a client that calls services.
    Client(CallerTls),
}

/// The certificate and roots of one handshake.
#[derive(Debug)]
pub(super) enum Credentials {
    Node(Tls, Box<Identity>),
    Client(CallerTls, Arc<CallerState>),
}

impl CredentialSource {
    /// Those that are active now.
    pub(super) fn current(&self) -> Credentials {
        match self {
            Self::Node(tls) => Credentials::Node(tls.clone(), Box::new(tls.identity())),
            Self::Client(tls) => Credentials::Client(tls.clone(), tls.state()),
        }
    }
}

impl Credentials {
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

    /// The peer that has presented this chain.
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
