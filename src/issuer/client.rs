//! The client of an issuer: a machine with a token, or a member with a certificate.
//!
//! An answer is accepted only if it fits the request: a certificate of our key and our name, signed by
//! an authority we know, and for a token the issuer's proof that it knows the secret too.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, TransportErrorCode, VarInt,
    crypto::rustls::QuicClientConfig,
};
use rustls_pki_types::CertificateDer;

use super::{
    connection::{GIVE_WAY, transport},
    request::{
        ANSWER_BYTES_MAX, Answer, Exported, Granted, ISSUERS_MAX, JOIN_ALPN, Join, PublicKey,
        Refused, Request, is_door,
    },
    token::Token,
};
use crate::{
    clock::Clock,
    foreign::Foreign,
    net::quic::crypto,
    pki::{AuthorityError, Issued, KeyKind, Requested, pem_of},
    protocol::id::{Datacenter, NodeId},
    tls::{
        Identity, LoadError, Pin, Pinned, Refusal, Roots, SERVER_NAME, Tls, Unpinned, Verdict,
        strangers,
    },
};

/// The values that a joining node chooses if the token does not fix them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Its name.
    pub node: Option<NodeId>,
    /// Its datacenter; the issuer's if neither sets one.
    pub datacenter: Option<Datacenter>,
    /// The kind of its key.
    pub key: KeyKind,
}

/// The result of joining.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Joined {
    /// Certificate, key and roots.
    pub issued: Issued,
    /// The issuer's gossip port, on the host that was asked.
    pub gossip_port: u16,
    /// The address of the issuer.
    pub door: SocketAddr,
    /// Addresses (`host:port`) of further issuers.
    pub issuers: Vec<String>,
    /// Our own address on the path to it.
    pub local: IpAddr,
}

/// No certificate was issued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// The host has no address.
    #[error("the host {host} cannot be resolved: {why}")]
    Unknown {
        /// The host, or the address.
        host: String,
        /// The error of the system.
        why: String,
    },
    /// No answer.
    #[error(
        "no issuer answers at {address} (UDP): {why}; does an agent with --issuer run there, and does UDP reach it?"
    )]
    Unreachable {
        /// The issuer's address.
        address: String,
        /// What happened; it may quote the peer.
        why: Foreign,
    },
    /// The issuer is busy, or does not serve us for a while.
    #[error(
        "the issuer at {0} turned us away unheard: it is busy, or this address has failed too often; wait a minute"
    )]
    TurnedAway(String),
    /// The token pins another authority.
    #[error(
        "{address} does not show the authority that the token pins: it is another cluster's issuer, its authority has changed since, or somebody is in between; nothing was sent to it"
    )]
    WrongPin {
        /// The issuer's address.
        address: String,
    },
    /// The handshake failed for another reason.
    #[error("{address}: {refusal}")]
    Handshake {
        /// The issuer's address.
        address: String,
        /// Which side refused, and why.
        refusal: Refusal,
    },
    /// The issuer refused.
    #[error("the issuer at {address} refused: {why}{}", aside(.detail))]
    Refused {
        /// The issuer's address.
        address: String,
        /// The reason.
        why: Refused,
        /// Its further words.
        detail: Foreign,
    },
    /// The answer does not fit the request.
    #[error("{address} gave an answer that cannot be used: {why}")]
    Answer {
        /// The issuer's address.
        address: String,
        /// The fault.
        why: Foreign,
    },
    /// No key could be created.
    #[error(transparent)]
    Key(#[from] AuthorityError),
    /// Our own certificate cannot be used.
    #[error(transparent)]
    Own(#[from] LoadError),
    /// No issuer is known.
    #[error("no issuer is known: `issuers` in the configuration names none")]
    Nobody,
}

impl ClaimError {
    /// Whether the other side refused for good: it would refuse again.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Refused { .. }
                | Self::WrongPin { .. }
                | Self::Handshake { .. }
                | Self::Answer { .. }
        )
    }
}

/// Requests a first certificate from the issuer on `host`. In a tokio runtime.
///
/// # Errors
/// [`ClaimError`]. The token may have been used up only if the answer was lost.
pub async fn join(token: &Token, host: &str, asked: &Asked) -> Result<Joined, ClaimError> {
    let mut last = ClaimError::Nobody;
    for door in resolve(&host_and_port(host, token.port())).await? {
        match join_at(token, door, asked).await {
            Err(error @ (ClaimError::Unreachable { .. } | ClaimError::TurnedAway(_))) => {
                last = error;
            }
            decided => return decided,
        }
    }
    Err(last)
}

async fn join_at(token: &Token, door: SocketAddr, asked: &Asked) -> Result<Joined, ClaimError> {
    let verifier = Arc::new(Pinned::new(token.pin()));
    let config = strangers(Arc::clone(&verifier), JOIN_ALPN);
    let explain = |error: &ConnectionError| match verifier.refused() {
        Some(Unpinned::Foreign) => ClaimError::WrongPin { address: door.to_string() },
        Some(Unpinned::Unusable(refusal)) => {
            ClaimError::Handshake { address: door.to_string(), refusal: refusal.clone() }
        }
        None => broken(&door, error, &Verdict::default()),
    };
    let call = Call::dial(door, config, &explain).await?;
    let joined = call.join(token, asked).await;
    call.end().await;
    joined
}

/// Requests a further certificate of the same name, from the first of the issuers that grants it.
/// In a tokio runtime.
///
/// # Errors
/// [`ClaimError`] of the last one asked.
pub async fn renew(
    identity: Identity,
    roots: &Roots,
    issuers: &[String],
    key: KeyKind,
) -> Result<Issued, ClaimError> {
    let mut last = ClaimError::Nobody;
    let tls = Tls::new(identity, roots.clone())?;
    for issuer in issuers {
        let doors = match resolve(issuer).await {
            Ok(doors) => doors,
            Err(error) => {
                last = error;
                continue;
            }
        };
        for door in doors {
            match renew_at(&tls, roots, door, key).await {
                Ok(issued) => return Ok(issued),
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}

async fn renew_at(
    tls: &Tls,
    roots: &Roots,
    door: SocketAddr,
    key: KeyKind,
) -> Result<Issued, ClaimError> {
    let verdict = Verdict::default();
    let config = tls.member(JOIN_ALPN, verdict.clone());
    let call = Call::dial(door, config, &|error| broken(&door, error, &verdict)).await?;
    let renewed = call.renew(tls, roots, key, &verdict).await;
    call.end().await;
    renewed
}

/// A connection to an issuer.
struct Call {
    door: SocketAddr,
    connection: Connection,
    endpoint: Endpoint,
}

impl Call {
    async fn dial(
        door: SocketAddr,
        tls: rustls::ClientConfig,
        explain: &(dyn Fn(&ConnectionError) -> ClaimError + Sync),
    ) -> Result<Self, ClaimError> {
        let unreachable = |why: &dyn fmt::Display| ClaimError::Unreachable {
            address: door.to_string(),
            why: why.to_string().into(),
        };
        let crypto = QuicClientConfig::try_from(tls).expect(crypto::INITIAL_SUITE);
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(transport());
        let endpoint = Endpoint::client(unspecified(door)).map_err(|e| unreachable(&e))?;
        let connecting =
            endpoint.connect_with(config, door, SERVER_NAME).map_err(|e| unreachable(&e))?;
        match tokio::time::timeout(DIAL_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => Ok(Self { door, connection, endpoint }),
            Ok(Err(error)) => {
                // So that the other side receives the reason.
                idle(&endpoint).await;
                Err(explain(&error))
            }
            Err(_) => Err(unreachable(&"no answer in time")),
        }
    }

    async fn join(&self, token: &Token, asked: &Asked) -> Result<Joined, ClaimError> {
        let requested = Requested::new(asked.key)?;
        let exported = self.exported()?;
        let mut join = Join {
            token: token.id(),
            node: asked.node.clone(),
            datacenter: asked.datacenter.clone(),
            csr: requested.csr.clone(),
            proof: [0; 32],
        };
        join.prove(&token.key(), &exported);
        let granted = self.ask(&Request::Join(join), &Verdict::default()).await?;
        if !granted.is_proved(&token.key(), &exported) {
            return Err(self.bad("it does not know the token's secret"));
        }
        let roots = granted.roots.iter().map(|root| CertificateDer::from(root.as_slice()));
        if !roots.clone().any(|root| Pin::of(&root) == Some(token.pin())) {
            return Err(self.bad("its roots lack the authority that the token pins"));
        }
        let roots_pem: String = roots.map(|root| pem_of(&root)).collect();
        let roots = Roots::from_pem(roots_pem.as_bytes()).map_err(|e| self.bad(e))?;
        let issued = self.accept(requested, &granted, roots_pem, &roots)?;
        let name = issued.certificate.name.clone().map_err(|e| self.bad(e))?;
        let other = asked.node.as_ref().is_some_and(|node| *node != name.node)
            || asked.datacenter.as_ref().is_some_and(|datacenter| *datacenter != name.datacenter);
        if other {
            return Err(self.bad(format!("it is of {name}, which was not asked for")));
        }
        let (gossip_port, local) = (granted.gossip_port, local_address(self.door));
        let mut issuers = granted.issuers;
        issuers.retain(|door| is_door(door));
        issuers.truncate(ISSUERS_MAX);
        Ok(Joined { issued, gossip_port, door: self.door, issuers, local })
    }

    async fn renew(
        &self,
        tls: &Tls,
        roots: &Roots,
        key: KeyKind,
        verdict: &Verdict,
    ) -> Result<Issued, ClaimError> {
        let requested = Requested::new(key)?;
        let request = Request::Renew { csr: requested.csr.clone() };
        let granted = self.ask(&request, verdict).await?;
        // The roots in the answer are not used: the authority has not signed them.
        let issued = self.accept(requested, &granted, String::new(), roots)?;
        if issued.certificate.name.as_ref() != Ok(tls.identity().name()) {
            return Err(self.bad("the certificate is not of this node"));
        }
        Ok(issued)
    }

    fn exported(&self) -> Result<Exported, ClaimError> {
        Exported::of(&self.connection).ok_or_else(|| self.bad("TLS gives no exporter"))
    }

    /// Sends a request, and reads the whole answer.
    async fn ask(&self, request: &Request, verdict: &Verdict) -> Result<Granted, ClaimError> {
        let asked = async {
            let (mut send, mut receive) = self.connection.open_bi().await?;
            // An issuer that refuses early has given the reason in the answer, or in the close.
            let _ = send.write_all(&request.encode()).await;
            let _ = send.finish();
            match receive.read_to_end(ANSWER_BYTES_MAX).await {
                Ok(answer) => Ok(answer),
                Err(_) => Err(self.connection.closed().await),
            }
        };
        let answer = match tokio::time::timeout(ANSWER_TIMEOUT, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(broken(&self.door, &error, verdict)),
            Err(_) => return Err(self.bad("none in time")),
        };
        match Answer::decode(&answer).map_err(|e| self.bad(e))? {
            Answer::Granted(granted) => Ok(granted),
            Answer::Refused(why, detail) => {
                let detail = Foreign::from(detail).cut(WORDS_MAX);
                Err(ClaimError::Refused { address: self.door.to_string(), why, detail })
            }
        }
    }

    /// Checks a certificate against the key that was sent and the roots.
    fn accept(
        &self,
        requested: Requested,
        granted: &Granted,
        roots_pem: String,
        roots: &Roots,
    ) -> Result<Issued, ClaimError> {
        let key = PublicKey::from_csr(&requested.csr).map_err(|e| self.bad(e))?;
        let certificate = CertificateDer::from(granted.certificate.clone());
        if !key.is_of(&certificate) {
            return Err(self.bad("the certificate is of another key"));
        }
        let issued = requested.issued(&certificate, roots_pem).map_err(|e| self.bad(e))?;
        let (chain, key) = (issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes());
        let identity = Identity::from_pem(chain, key).map_err(|e| self.bad(e))?;
        // A certificate that begins a moment later must not be lost: that happens after a revocation,
        // and if our clock is behind.
        let now = Clock::wall().max(issued.certificate.not_before);
        roots.check(&identity, now).map_err(|e| self.bad(e))?;
        Ok(issued)
    }

    /// Ends it, and informs the other side.
    async fn end(self) {
        self.connection.close(VarInt::from_u32(0), b"");
        idle(&self.endpoint).await;
    }

    fn bad(&self, why: impl fmt::Display) -> ClaimError {
        let why = Foreign::from(why.to_string()).cut(WORDS_MAX);
        ClaimError::Answer { address: self.door.to_string(), why }
    }
}

/// Waits until everything is sent.
async fn idle(endpoint: &Endpoint) {
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, endpoint.wait_idle()).await;
}

fn broken(door: &SocketAddr, error: &ConnectionError, verdict: &Verdict) -> ClaimError {
    let address = door.to_string();
    match error {
        ConnectionError::ConnectionClosed(close)
            // APPLICATION_ERROR: the issuer gave our slot to another client during the handshake.
            if [TransportErrorCode::CONNECTION_REFUSED, TransportErrorCode::APPLICATION_ERROR]
                .contains(&close.error_code) =>
        {
            ClaimError::TurnedAway(address)
        }
        ConnectionError::ApplicationClosed(close) if close.error_code == GIVE_WAY => {
            ClaimError::TurnedAway(address)
        }
        error => match verdict.refusal(error) {
            Some(refusal) => ClaimError::Handshake { address, refusal },
            None => {
                let why = Foreign::from(error.to_string()).cut(WORDS_MAX);
                ClaimError::Unreachable { address, why }
            }
        },
    }
}

async fn resolve(address: &str) -> Result<Vec<SocketAddr>, ClaimError> {
    let unknown = |why: String| ClaimError::Unknown { host: address.to_owned(), why };
    let found = tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host(address)).await;
    let found = found.map_err(|_| unknown("no answer in time".to_owned()))?;
    let mut doors: Vec<_> = found.map_err(|e| unknown(e.to_string()))?.collect();
    doors.dedup();
    doors.truncate(ADDRESSES_MAX);
    if doors.is_empty() {
        return Err(unknown("it has no address".to_owned()));
    }
    Ok(doors)
}

/// `HOST:PORT`, with brackets around the host if it is an IPv6 address.
#[must_use]
pub fn host_and_port(host: &str, port: u16) -> String {
    match host.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]:{port}"),
        Err(_) => format!("{host}:{port}"),
    }
}

fn unspecified(towards: SocketAddr) -> SocketAddr {
    match towards {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// The address from which the system would send; nothing is sent.
fn local_address(towards: SocketAddr) -> IpAddr {
    let socket = UdpSocket::bind(unspecified(towards)).and_then(|socket| {
        socket.connect(towards)?;
        socket.local_addr()
    });
    socket.map_or_else(|_| unspecified(towards).ip(), |address| address.ip())
}

fn aside(detail: &Foreign) -> String {
    if detail.is_empty() { String::new() } else { format!(" ({detail})") }
}

/// Maximum length of the peer's text in an error, in characters.
const WORDS_MAX: usize = 200;
/// Maximum number of addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// The timeout of a handshake, per address.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// The timeout of an answer: longer than the issuer's own.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(12);
/// How long a close may take to be sent.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
