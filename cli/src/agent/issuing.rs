//! An agent that issues certificates: what it tells the issuer about the cluster, and the requests of the socket about
//! tokens and revocations.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use gossipmonger::{
    Foreign, Gossipmonger,
    issuer::{Cluster, Door, Issuer, IssuerError, LedgerError, Terms, TokenId},
    protocol::{id::NodeId, revocation::Revocation, route::Counter, state::PeerState},
    tls::{PeerName, Tls},
};
use tokio::task::JoinHandle;

use super::{
    offload::{AUTHORITY, FILE_TIMEOUT, offload},
    settings::Settings,
};
use crate::{
    admin::{TokenMade, TokenRow, Tokens},
    clock::Clock,
    error::CliError,
    repeats::Repeats,
};

/// Opens the CA's directory; `None`: this agent is not an issuer. It waits for files.
pub(super) fn open(
    settings: &Settings,
    dir: &Path,
    name: PeerName,
) -> Result<Option<Issuer>, CliError> {
    let Some(pki) = settings.issuer(dir) else { return Ok(None) };
    Ok(Some(Issuer::open(&pki, name, settings.issuer_validity())?))
}

/// An issuer whose port is bound, but does not accept connections yet.
pub(super) struct Prepared {
    issuer: Issuer,
    door: Door,
    roots: PathBuf,
    issuers: Vec<String>,
}

impl Prepared {
    /// `listen`: the addresses of the gossip.
    pub(super) fn bind(
        issuer: Issuer,
        settings: &Settings,
        dir: &Path,
        listen: &[SocketAddr],
    ) -> Result<Self, CliError> {
        let addresses = settings.issuer_listen(listen);
        check_ports(&addresses).map_err(|why| settings.refused("issuer_listen", why))?;
        let door = Door::bind(&addresses).map_err(|error| {
            CliError::failed(format!(
                "{error}; the issuer listens one port above the gossip port unless --issuer-listen names \
                 another address"
            ))
        })?;
        let (roots, issuers) = (settings.roots(dir), settings.issuers().to_vec());
        Ok(Self { issuer, door, roots, issuers })
    }

    /// Accepts machines that show a token, from now on.
    pub(super) fn open(self, dir: &Path, tls: Tls, node: Gossipmonger) -> Issuing {
        let (issuer, port) = (Arc::new(self.issuer), self.door.port());
        let addresses: Vec<_> = self.door.addresses().iter().map(ToString::to_string).collect();
        let validity = in_hours(issuer.validity());
        tracing::info!(
            addresses = addresses.join(", "),
            validity,
            "issues certificates; make a token with: gossipmonger --dir {} token create",
            dir.display()
        );
        let own = self.door.addresses().first().map(|address| reachable(*address).to_string());
        let view = View {
            node,
            roots: self.roots,
            issuers: self.issuers,
            told: Repeats::default(),
            clock: Clock::start(),
        };
        let serving = tokio::spawn(self.door.serve(Arc::clone(&issuer), tls, Arc::new(view)));
        Issuing { issuer, port, own, serving }
    }
}

/// A running issuer; dropping this ends it.
#[derive(Debug)]
pub(super) struct Issuing {
    issuer: Arc<Issuer>,
    port: u16,
    own: Option<String>,
    serving: JoinHandle<()>,
}

impl Issuing {
    /// Where this process itself reaches its issuer.
    pub(super) fn own(&self) -> Option<&str> {
        self.own.as_deref()
    }

    pub(super) async fn create(&self, terms: Terms) -> Result<TokenMade, CliError> {
        let port = self.port;
        let (token, view) = self.ask(move |issuer| issuer.create(&terms, port)).await?;
        let row = TokenRow::from(view);
        tracing::info!(id = %row.id, expires = %row.expires, uses = row.uses, "token made");
        Ok(TokenMade { token: token.to_text().to_string(), row })
    }

    pub(super) async fn list(&self) -> Result<Tokens, CliError> {
        let tokens = self.ask(|issuer| issuer.tokens().map_err(IssuerError::from)).await?;
        Ok(Tokens { tokens: tokens.into_iter().map(TokenRow::from).collect() })
    }

    pub(super) async fn revoke(&self, id: &str) -> Result<TokenRow, CliError> {
        let id: TokenId = id.parse().map_err(CliError::usage)?;
        let view = self.ask(move |issuer| issuer.revoke(id).map_err(IssuerError::from)).await?;
        tracing::info!(%id, "token revoked");
        Ok(view.into())
    }

    /// Signs the revocation of a node.
    pub(super) async fn revoke_node(&self, node: NodeId) -> Result<Revocation, CliError> {
        self.ask(move |issuer| issuer.revoke_node(node)).await
    }

    /// Files are accessed on another thread, with a time limit.
    async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Issuer) -> Result<T, IssuerError> + Send + 'static,
    ) -> Result<T, CliError> {
        let issuer = Arc::clone(&self.issuer);
        let asked = move || Ok(ask(&issuer)?);
        offload(&AUTHORITY, "the directory of the authority", FILE_TIMEOUT, asked).await
    }
}

impl Drop for Issuing {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl From<IssuerError> for CliError {
    fn from(error: IssuerError) -> Self {
        match error {
            IssuerError::Ledger(LedgerError::Unknown(_)) => Self::not_found(error),
            IssuerError::Ledger(LedgerError::Terms) => Self::usage(error),
            // The directory may be mounted, or its files completed, in a moment.
            IssuerError::Authority(_) => Self::credentials(error),
            IssuerError::OtherCluster { .. } | IssuerError::Validity(_) => Self::usage(error),
            _ => Self::failed(error),
        }
    }
}

/// The cluster as this node sees it.
struct View {
    node: Gossipmonger,
    roots: PathBuf,
    issuers: Vec<String>,
    told: Repeats,
    clock: Clock,
}

impl Cluster for View {
    /// A node that nobody hears may live on the other side of a partition; only dead nodes and nodes that left make
    /// room.
    fn lives(&self, node: &NodeId) -> bool {
        let member = self.node.snapshot().member(node);
        member.is_some_and(|member| !matches!(member.state, PeerState::Dead | PeerState::Left))
    }

    fn gossip_port(&self) -> u16 {
        let first = self.node.addresses().first();
        first.and_then(|address| address.rsplit_once(':')?.1.parse().ok()).unwrap_or(0)
    }

    fn roots_pem(&self) -> String {
        std::fs::read_to_string(&self.roots).unwrap_or_default()
    }

    fn issuers(&self) -> Vec<String> {
        self.issuers.clone()
    }

    fn refused(&self, source: SocketAddr, label: &'static str, detail: &Foreign) {
        self.node.counters().refuse(label);
        if self.told.is_new(label, &source.ip().to_string(), self.clock.now()) {
            tracing::warn!(%source, reason = label, "gave no certificate: {detail}");
        } else {
            tracing::debug!(%source, reason = label, "gave no certificate: {detail}");
        }
    }

    fn granted(&self, source: SocketAddr, name: &PeerName, renewal: bool) {
        if renewal {
            self.node.counters().add(Counter::CertificatesRenewed, 1);
            tracing::info!(%source, %name, "certificate renewed");
        } else {
            self.node.counters().add(Counter::CertificatesIssued, 1);
            tracing::info!(%source, %name, "certificate issued to one who joins");
        }
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").finish_non_exhaustive()
    }
}

/// In the notation of the documents: `72h`, not `3days`.
fn in_hours(validity: Duration) -> String {
    match validity.as_secs() {
        seconds if seconds % 3_600 == 0 => format!("{}h", seconds / 3_600),
        _ => humantime::format_duration(validity).to_string(),
    }
}

/// A token names one port.
fn check_ports(addresses: &[SocketAddr]) -> Result<(), &'static str> {
    let others = addresses.iter().skip(1).map(SocketAddr::port);
    let first = addresses.first().map_or(0, SocketAddr::port);
    if others.into_iter().all(|port| port == 0 || port == first) {
        return Ok(());
    }
    Err(
        "issuer_listen is refused: a token names one port, so all its addresses need the same (or name \
         them all, if those of listen have several)",
    )
}

/// Nobody can dial an unspecified address, so this is the loopback address instead.
fn reachable(bound: SocketAddr) -> SocketAddr {
    match bound {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, v4.port()).into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, v6.port()).into(),
        bound => bound,
    }
}
