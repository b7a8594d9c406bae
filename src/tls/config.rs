//! A node's TLS: its certificate and the peers it accepts, replaceable while it runs.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    client::Resumption,
    pki_types::{CertificateDer, UnixTime},
    server::NoServerSessionStorage,
};
use tokio::sync::watch;

use super::{
    certificate::CertificateSummary,
    client::Client,
    files::LoadError,
    identity::Identity,
    name::{NameError, PeerName},
    provider::{ADMIN_ALPN, SERVICES_ALPN, TLS13_SUITES, alpn, provider},
    refusal::{Refusal, Verdict},
    revoked::seconds,
    role::ClientRoles,
    roots::Roots,
    state::{Expect, Shared, State},
    verifier::{Shown, Verifier},
};
use crate::{
    clock::Clock,
    protocol::{id::ClusterId, sketch::SketchKey},
};

/// A node's TLS: its certificate and the peers it accepts, replaceable while it runs.
///
/// Clones share one state: a reload through any of them affects all.
#[derive(Clone)]
pub struct Tls {
    pub(super) shared: Shared,
    pub(super) cluster: ClusterId,
    /// How often it was reloaded.
    reloads: Arc<watch::Sender<u64>>,
    roles: Arc<ArcSwap<ClientRoles>>,
}

#[doc(hidden)]
impl Tls {
    /// A node that shows `identity` and accepts the nodes of its cluster that `roots` vouch for.
    ///
    /// It does not check whether the node's roots accept its own identity: see [`Roots::judge`].
    ///
    /// # Errors
    /// [`LoadError::Unsupported`] if rustls cannot use the roots.
    pub fn new(identity: Identity, roots: Roots) -> Result<Self, LoadError> {
        let cluster = identity.name().cluster.clone();
        let state = State::new(identity, roots)?;
        let shared = Arc::new(ArcSwap::from_pointee(state));
        Ok(Self { shared, cluster, reloads: Arc::default(), roles: Arc::default() })
    }

    /// Makes all handshakes from now on use another certificate and other roots. Open connections
    /// stay open. After an error everything is as before.
    ///
    /// # Errors
    /// [`ReloadError`] if the certificate has another name, or the roots cannot be used.
    pub fn reload(&self, identity: Identity, roots: Roots) -> Result<(), ReloadError> {
        let now = self.shared.load();
        if identity.name() != now.identity.name() {
            return Err(ReloadError::OtherName {
                ours: now.identity.name().to_uri(),
                new: identity.name().to_uri(),
            });
        }
        let revoked = Arc::clone(&now.revoked);
        self.shared.store(Arc::new(State { revoked, ..State::new(identity, roots)? }));
        self.reloads.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Changes with every reload and every change of roles.
    pub(crate) fn reloads(&self) -> watch::Receiver<u64> {
        self.reloads.subscribe()
    }

    /// The present identity of this node.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.shared.load().identity.clone()
    }

    /// The present hash key of sketches, derived from the roots.
    #[must_use]
    pub fn sketch_key(&self) -> SketchKey {
        self.shared.load().sketch_key
    }

    /// The content of the present leaf, and when its chain ends by our roots.
    #[must_use]
    pub fn certificate(&self) -> CertificateSummary {
        let state = self.shared.load();
        CertificateSummary { expires: state.expires, ..state.identity.certificate().clone() }
    }

    /// The validity of the present identity, start and end, in seconds since 1970. It ends with the first
    /// certificate of its chain that ends.
    #[must_use]
    pub fn validity(&self) -> (u64, u64) {
        let state = self.shared.load();
        let certificate = state.identity.certificate();
        (seconds(certificate.not_before), seconds(state.expires))
    }

    /// The content of the leaf of a chain (the leaf first), and when the chain ends by the present roots.
    ///
    /// # Errors
    /// [`NameError`] if there is none, or it cannot be read.
    pub fn summary(&self, chain: &[CertificateDer<'_>]) -> Result<CertificateSummary, NameError> {
        let leaf = chain.first().ok_or(NameError::NoCertificate)?;
        let summary = CertificateSummary::from_certificate(leaf)?;
        let end = self.shared.load().chains.end(chain, Clock::wall());
        Ok(CertificateSummary { expires: end.map_or(summary.not_after, |end| end.at), ..summary })
    }

    /// The name that the leaf of a chain (the leaf first) proves, of the form of our cluster's names.
    ///
    /// # Errors
    /// [`NameError`] if there is none, or it names no node.
    pub fn name_of(&self, chain: &[CertificateDer<'_>]) -> Result<PeerName, NameError> {
        let leaf = chain.first().ok_or(NameError::NoCertificate)?;
        PeerName::named(leaf, self.shared.load().identity.naming())
    }

    /// Verifies again a chain that a peer has shown (the leaf first), by the present roots and date,
    /// which may differ from those of the handshake. `dialed`: the peer is the one that accepted.
    ///
    /// # Errors
    /// The [`Refusal`] that it would receive if it connected now.
    pub fn verify_again(&self, chain: &[CertificateDer<'_>], dialed: bool) -> Result<(), Refusal> {
        let (leaf, rest) = chain
            .split_first()
            .ok_or_else(|| Refusal::of_tls(&rustls::Error::NoCertificatesPresented))?;
        let state = self.shared.load();
        let verified = if dialed {
            state.chains.verify_acceptor(leaf, rest, UnixTime::now())
        } else {
            state.chains.verify_dialer(leaf, rest, UnixTime::now())
        };
        verified.map_err(|error| Refusal::of_tls(&error))
    }

    /// Assigns roles to certificates that contain none, replacing the previous assignment.
    pub fn set_roles(&self, roles: ClientRoles) {
        self.roles.store(Arc::new(roles));
        self.reloads.send_modify(|count| *count += 1);
    }

    /// The client that has shown this chain (the leaf first), and its role: by the present roots,
    /// roles and dates. The result of the handshake may be out of date.
    ///
    /// # Errors
    /// The [`Refusal`] that it would receive if it connected now.
    pub fn client(&self, chain: &[CertificateDer<'_>]) -> Result<Client, Refusal> {
        let state = self.shared.load();
        let (leaf, rest) = chain
            .split_first()
            .ok_or_else(|| Refusal::of_tls(&rustls::Error::NoCertificatesPresented))?;
        let chained = state.chains.verify_dialer(leaf, rest, UnixTime::now());
        chained.map_err(|error| Refusal::of_tls(&error))?;
        Client::identify(leaf, &state.identity, &self.roles.load(), &state.revoked.load())
    }

    /// For dialing one peer. `verdict` receives our verifier's finding.
    #[must_use]
    pub fn rustls_client(&self, expect: Expect, verdict: Verdict) -> rustls::ClientConfig {
        let verifier = Verifier::new(self.shared.clone(), expect, verdict);
        let mut config = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect(TLS13_SUITES)
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(Shown(self.shared.clone())));
        config.alpn_protocols = alpn();
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        config.enable_sni = false;
        config
    }

    /// For accepting one peer. `verdict` receives our verifier's finding.
    #[must_use]
    pub fn rustls_server(&self, verdict: Verdict) -> rustls::ServerConfig {
        self.server_with(Verifier::new(self.shared.clone(), Expect::AnyNode, verdict))
    }

    /// For accepting one peer that speaks HTTP over TCP: a client with a certificate, or anybody without one. The caller
    /// asks [`Tls::client`] who it is.
    #[must_use]
    pub fn rustls_http(&self, verdict: Verdict) -> rustls::ServerConfig {
        let verifier = Verifier::new(self.shared.clone(), Expect::AnyNode, verdict);
        let verifier = verifier.or_clients(Arc::clone(&self.roles)).or_nobody();
        let mut config = self.server_with(verifier);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config
    }

    /// As [`Tls::rustls_client`], for calls between services.
    #[must_use]
    pub(crate) fn rustls_caller(&self, expect: Expect, verdict: Verdict) -> rustls::ClientConfig {
        let mut config = self.rustls_client(expect, verdict);
        config.alpn_protocols = vec![SERVICES_ALPN.to_vec()];
        config
    }

    /// As [`Tls::rustls_server`], for clients and for calls between services as well: the protocol in the handshake
    /// ([`ALPN`](super::ALPN), [`ADMIN_ALPN`] or the services') says what the peer wants to be, and its certificate
    /// what it may be. The caller compares the two after the handshake.
    #[must_use]
    pub(crate) fn rustls_server_for(
        &self,
        admitted: Admitted,
        verdict: Verdict,
    ) -> rustls::ServerConfig {
        let Admitted { clients, services, calling_clients } = admitted;
        let mut verifier = Verifier::new(self.shared.clone(), Expect::AnyNode, verdict);
        if clients || services && calling_clients {
            verifier = verifier.or_clients(Arc::clone(&self.roles));
        }
        let mut config = self.server_with(verifier);
        config.alpn_protocols.extend(clients.then(|| ADMIN_ALPN.to_vec()));
        config.alpn_protocols.extend(services.then(|| SERVICES_ALPN.to_vec()));
        config
    }

    fn server_with(&self, verifier: Verifier) -> rustls::ServerConfig {
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect(TLS13_SUITES)
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(Shown(self.shared.clone())));
        config.alpn_protocols = alpn();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        config
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self.shared.load(), f)
    }
}

/// The peers that a handshake accepts beside members.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admitted {
    /// Clients with requests for the node itself.
    pub(crate) clients: bool,
    /// Callers of services.
    pub(crate) services: bool,
    /// Clients among these.
    pub(crate) calling_clients: bool,
}

/// A reload was refused; everything is as before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// A node keeps its name as long as it runs.
    #[error(
        "the new certificate is of {new}, this node is {ours}; put its own certificate back, or restart the node under its new name"
    )]
    OtherName {
        /// Our name.
        ours: String,
        /// That of the new certificate.
        new: String,
    },
    /// The files cannot be used.
    #[error(transparent)]
    Load(#[from] LoadError),
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::{
        ClientConnection, HandshakeKind, NamedGroup, ProtocolVersion, ServerConnection,
        crypto::{CryptoProvider, aws_lc_rs},
        pki_types::ServerName,
        server::ServerSessionMemoryCache,
    };

    use super::*;
    use crate::{
        pki::{Authority, AuthorityOptions},
        protocol::id::{ClusterId, Datacenter, NodeId},
        tls::{Rejection, SERVER_NAME, provider::ALPN},
    };

    #[test]
    fn refuses_to_become_another_node_by_a_reload() {
        let authority = authority();
        let tls = node(&authority, "a");
        let error = tls.reload(identity(&authority, "b"), roots(&authority)).unwrap_err();
        assert!(error.to_string().contains("is of spiffe://demo/eu/b, this node is"), "{error}");
        assert_eq!(tls.identity().name().node.as_str(), "a");
    }

    #[test]
    fn refuses_roots_that_are_none() {
        let leaf = authority()
            .issue(NodeId::new("a").unwrap(), Datacenter::new("eu").unwrap(), DAY)
            .unwrap();
        let error = Roots::from_pem(leaf.certificate_pem.as_bytes()).unwrap_err();
        assert!(matches!(error, LoadError::NotAnAuthority { .. }), "{error}");
        let error = Roots::from_pem(b"").unwrap_err();
        assert!(matches!(error, LoadError::NoCertificate), "{error}");
    }

    #[test]
    fn tells_when_the_own_roots_would_refuse_the_own_certificate() {
        let (ours, foreign) = (authority(), authority());
        let identity = identity(&ours, "a");
        let now = Clock::wall();
        roots(&ours).check(&identity, now).unwrap();
        let reason = |refused: Result<(), Refusal>| refused.unwrap_err().reason;
        assert_eq!(reason(roots(&foreign).check(&identity, now)), Rejection::BadSignature);
        assert_eq!(reason(roots(&ours).check(&identity, now + 2 * DAY)), Rejection::Expired);
        assert_eq!(reason(roots(&ours).check(&identity, now - DAY)), Rejection::NotYetValid);
    }

    #[test]
    fn keeps_the_sketch_key_while_authorities_rotate() {
        let (old, new) = (authority(), authority());
        let key = |roots: &Roots| roots.sketch_key(&ClusterId::new("demo").unwrap());
        let bundle = |pem: [&Authority; 2]| {
            let pem = pem.map(Authority::certificate_pem).concat();
            Roots::from_pem(pem.as_bytes()).unwrap()
        };
        let (first, second) = (key(&roots(&old)), key(&roots(&new)));
        assert_ne!(first, second);
        assert_ne!(first, roots(&old).sketch_key(&ClusterId::new("other").unwrap()));
        let both = key(&bundle([&old, &new]));
        assert_eq!(both, key(&bundle([&new, &old])));
        assert!(both == first || both == second);
    }

    #[test]
    fn refuses_a_hello_of_tls_1_2() {
        let (mut client, mut server) = pair();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        let place = hello.windows(ONLY_TLS13.len()).position(|w| w == ONLY_TLS13);
        let version = place.expect("we offer TLS 1.3 and nothing else") + ONLY_TLS13.len() - 1;
        hello[version] = 3;
        server.read_tls(&mut hello.as_slice()).unwrap();
        let error = server.process_new_packets().unwrap_err();
        assert!(matches!(error, rustls::Error::PeerIncompatible(_)), "{error}");
    }

    #[test]
    fn negotiates_tls_1_3_with_a_post_quantum_group_and_gives_no_ticket() {
        let (mut client, mut server) = pair();
        shake_hands(&mut client, &mut server).unwrap();
        for (version, group, alpn) in [
            (
                client.protocol_version(),
                client.negotiated_key_exchange_group(),
                client.alpn_protocol(),
            ),
            (
                server.protocol_version(),
                server.negotiated_key_exchange_group(),
                server.alpn_protocol(),
            ),
        ] {
            assert_eq!(version, Some(ProtocolVersion::TLSv1_3));
            assert_eq!(group.map(|group| group.name()), Some(NamedGroup::X25519MLKEM768));
            assert_eq!(alpn, Some(ALPN[0]));
        }
        assert_eq!(client.tls13_tickets_received(), 0);
        assert_eq!(server.server_name(), None);
    }

    #[test]
    fn keeps_nothing_that_a_session_could_be_resumed_from() {
        let server = node(&authority(), "a").rustls_server(Verdict::default());
        assert_eq!((server.send_tls13_tickets, server.max_early_data_size), (0, 0));
        assert!(!server.session_storage.can_cache() && !server.ticketer.enabled());
    }

    #[test]
    fn does_not_use_the_tickets_of_a_server_that_gives_some() {
        let authority = authority();
        let client = node(&authority, "a").rustls_client(Expect::AnyNode, Verdict::default());
        let mut server = node(&authority, "b").rustls_server(Verdict::default());
        server.session_storage = ServerSessionMemoryCache::new(16);
        server.send_tls13_tickets = 2;
        for _ in 0..2 {
            let (mut client, mut server) = pair_of(client.clone(), server.clone());
            shake_hands(&mut client, &mut server).unwrap();
            assert_eq!(client.tls13_tickets_received(), 2);
            assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
        }
    }

    #[test]
    fn falls_back_to_x25519_with_a_peer_that_knows_no_post_quantum_group() {
        let authority = authority();
        let (a, b) = (node(&authority, "a"), node(&authority, "b"));
        let classical = CryptoProvider {
            kx_groups: vec![aws_lc_rs::kx_group::X25519],
            ..aws_lc_rs::default_provider()
        };
        let verifier = Verifier::new(a.shared.clone(), Expect::AnyNode, Verdict::default());
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(classical))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(Shown(a.shared)));
        config.alpn_protocols = alpn();
        let (mut client, mut server) = pair_of(config, b.rustls_server(Verdict::default()));
        shake_hands(&mut client, &mut server).unwrap();
        let group = server.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(group, NamedGroup::X25519);
    }

    fn pair() -> (ClientConnection, ServerConnection) {
        let authority = authority();
        let (a, b) = (node(&authority, "a"), node(&authority, "b"));
        let client = a.rustls_client(Expect::AnyNode, Verdict::default());
        pair_of(client, b.rustls_server(Verdict::default()))
    }

    fn pair_of(
        client: rustls::ClientConfig,
        server: rustls::ServerConfig,
    ) -> (ClientConnection, ServerConnection) {
        let name = ServerName::try_from(SERVER_NAME).unwrap();
        (
            ClientConnection::new(Arc::new(client), name).unwrap(),
            ServerConnection::new(Arc::new(server)).unwrap(),
        )
    }

    /// Passes bytes until neither side has any, so that data after the handshake arrives too.
    fn shake_hands(
        client: &mut ClientConnection,
        server: &mut ServerConnection,
    ) -> Result<(), rustls::Error> {
        while client.wants_write() || server.wants_write() {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut bytes.as_slice()).unwrap();
            server.process_new_packets()?;
            bytes.clear();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut bytes.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        Ok(())
    }

    fn authority() -> Authority {
        let options = AuthorityOptions::default();
        Authority::create(ClusterId::new("demo").unwrap(), &options).unwrap()
    }

    fn identity(authority: &Authority, node: &str) -> Identity {
        let (node, datacenter) = (NodeId::new(node).unwrap(), Datacenter::new("eu").unwrap());
        let issued = authority.issue(node, datacenter, DAY).unwrap();
        Identity::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap()
    }

    fn roots(authority: &Authority) -> Roots {
        Roots::from_pem(authority.certificate_pem().as_bytes()).unwrap()
    }

    fn node(authority: &Authority, node: &str) -> Tls {
        Tls::new(identity(authority, node), roots(authority)).unwrap()
    }

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    /// The extension `supported_versions` with one version, 0x0304.
    const ONLY_TLS13: [u8; 7] = [0, 0x2b, 0, 3, 2, 3, 4];
}
