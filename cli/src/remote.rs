//! An agent on another machine: its address, and the identity with which the client connects.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::builder::{OsStringValueParser, TypedValueParser};
use gossipmonger::{
    Foreign,
    protocol::id::NodeId,
    tls::{ClientIdentity, Roots},
    unstable::{Host, SERVER_NAME, Verdict, check_address, file, visit},
};
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream, VarInt};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    runtime::Runtime,
    time::timeout,
};

use super::{
    admin::LINE_BYTES_MAX,
    error::{CliError, Exit},
};

/// The environment variables of [`Flags`]. An agent ignores them.
pub(crate) const REMOTE_VARIABLES: [&str; 5] = [AGENT, CERT, KEY, ROOTS, EXPECT];
const AGENT: &str = "GOSSIPMONGER_AGENT";
const CERT: &str = "GOSSIPMONGER_AGENT_CERT";
const KEY: &str = "GOSSIPMONGER_AGENT_KEY";
const ROOTS: &str = "GOSSIPMONGER_AGENT_ROOTS";
const EXPECT: &str = "GOSSIPMONGER_AGENT_EXPECT";

/// The flags of [`Flags`], by their ids.
pub(crate) const FLAGS: [&str; 5] = ["agent", "cert", "client-key", "client-roots", "expect"];
/// Their heading in `--help`.
pub(crate) const HEADING: &str = "Connection";

/// Where to ask, if not in a directory of this machine.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Flags {
    /// Ask the agent at this address, on any machine, instead of the one in --dir.
    #[arg(long, global = true, help_heading = HEADING, value_name = "HOST:PORT", env = AGENT)]
    agent: Option<String>,
    /// With --agent: the client's certificate, or the directory that `cert issue --client` has written
    /// (default: --dir).
    #[arg(long, global = true, help_heading = HEADING, value_name = "DIR|FILE", env = CERT, value_parser = path())]
    cert: Option<PathBuf>,
    /// With --agent: the client's private key (default: beside the certificate, ending in .key).
    #[arg(long = "client-key", id = "client-key", global = true, help_heading = HEADING, value_name = "FILE", env = KEY, value_parser = path())]
    key: Option<PathBuf>,
    /// With --agent: the authorities whose nodes are accepted (default: roots.pem beside the certificate).
    #[arg(long = "client-roots", id = "client-roots", global = true, help_heading = HEADING, value_name = "FILE", env = ROOTS, value_parser = path())]
    roots: Option<PathBuf>,
    /// With --agent: which node has to answer, by its name or its certificate's URI (default: any node
    /// of the cluster).
    #[arg(long, global = true, help_heading = HEADING, value_name = "NODE|URI", env = EXPECT)]
    expect: Option<String>,
}

/// A path that may be empty, since a variable may be.
pub(crate) fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

impl Flags {
    /// Treats an empty variable as unset.
    fn without_empty(self) -> Self {
        let text = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
        let path = |path: Option<PathBuf>| path.filter(|path| !path.as_os_str().is_empty());
        Self {
            agent: text(self.agent),
            cert: path(self.cert),
            key: path(self.key),
            roots: path(self.roots),
            expect: text(self.expect),
        }
    }
}

/// The agent that a command addresses.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// In a directory of this machine, reached over its socket.
    Here(PathBuf),
    /// On any machine, reached over QUIC.
    There(Box<Remote>),
}

impl Target {
    pub(crate) fn new(dir: &Path, flags: Flags) -> Self {
        let flags = flags.without_empty();
        match flags.agent.clone() {
            None => Self::Here(dir.to_owned()),
            Some(address) => {
                let certificate = flags.cert.clone().unwrap_or_else(|| dir.to_owned());
                Self::There(Box::new(Remote { address, certificate, flags }))
            }
        }
    }

    /// The directory, for requests that only the owner of an agent may make.
    pub(crate) fn here(&self) -> Result<&Path, CliError> {
        match self {
            Self::Here(dir) => Ok(dir),
            Self::There(remote) => Err(CliError::usage(format!(
                "this is done on the agent's own machine, with --dir; not with --agent {}",
                remote.address
            ))),
        }
    }
}

impl From<&Path> for Target {
    fn from(dir: &Path) -> Self {
        Self::Here(dir.to_owned())
    }
}

impl From<&Self> for Target {
    fn from(target: &Self) -> Self {
        target.clone()
    }
}

/// An agent that is reached over QUIC.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    address: String,
    certificate: PathBuf,
    flags: Flags,
}

impl Remote {
    fn identity(&self) -> Result<(ClientIdentity, Roots), CliError> {
        let place = &self.certificate;
        let certificate =
            if place.is_dir() { place.join(file::CLIENT_CERTIFICATE) } else { place.clone() };
        if !certificate.exists() {
            return Err(CliError::usage(format!(
                "there is no {}; to ask --agent {}, make it with: gossipmonger cert issue --ca PKI \
                 --client NAME --role read|watch|admin --dir DIR, and say --cert DIR",
                certificate.display(),
                self.address
            )));
        }
        let key = self.flags.key.clone().unwrap_or_else(|| certificate.with_extension("key"));
        let roots = self.flags.roots.clone();
        let roots = roots.unwrap_or_else(|| certificate.with_file_name(file::ROOTS));
        let identity =
            ClientIdentity::from_pem_files(&certificate, &key).map_err(CliError::usage)?;
        Ok((identity, Roots::from_pem_file(&roots).map_err(CliError::usage)?))
    }

    fn host(&self) -> Result<Host, CliError> {
        Ok(match &self.flags.expect {
            None => Host::AnyNode,
            Some(uri) if uri.contains("://") => Host::Uri(uri.clone()),
            Some(node) => Host::Node(NodeId::new(node).map_err(CliError::usage)?),
        })
    }

    /// Connects to the agent, and opens a stream for a request.
    pub(crate) fn visit(&self) -> Result<Visit, CliError> {
        let (identity, roots) = self.identity()?;
        let (crypto, verdict) = visit(&identity, roots, self.host()?).map_err(CliError::usage)?;
        let mut config = ClientConfig::new(crypto);
        let mut transport = quinn::TransportConfig::default();
        transport
            .keep_alive_interval(Some(KEEP_ALIVE))
            .max_concurrent_bidi_streams(VarInt::from_u32(0))
            .max_concurrent_uni_streams(VarInt::from_u32(0));
        config.transport_config(Arc::new(transport));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let reached = runtime.block_on(self.reach(&config, &verdict))?;
        let Reached { endpoint, connection, send, receive } = reached;
        let (address, receive) = (self.address.clone(), BufReader::new(receive));
        Ok(Visit { runtime, address, verdict, endpoint, connection, send, receive, patience: None })
    }

    async fn reach(&self, config: &ClientConfig, verdict: &Verdict) -> Result<Reached, CliError> {
        let resolved = timeout(CONNECT_TIMEOUT, tokio::net::lookup_host(&self.address)).await;
        let addresses = match resolved {
            Ok(Ok(addresses)) => addresses.take(ATTEMPTS_MAX).collect::<Vec<_>>(),
            Ok(Err(error)) => {
                // An address that is not HOST:PORT has no better reason.
                let refused = check_address("agent", &self.address).err();
                let why = refused.map_or_else(|| error.to_string(), |refused| refused.allowed);
                return Err(CliError::usage(format!("--agent {} is refused: {why}", self.address)));
            }
            Err(_) => {
                let address = &self.address;
                return Err(CliError::failed(format!("--agent {address}: not resolved in time")));
            }
        };
        let mut last = CliError::usage(format!("--agent {}: no address", self.address));
        for address in addresses {
            match timeout(CONNECT_TIMEOUT, connect(address, config)).await {
                Ok(Ok(reached)) => return Ok(reached),
                Ok(Err(Failure::Connection(reason))) => {
                    last = explained(&self.address, &reason, verdict);
                    // An agent that refuses at one address also refuses at its others.
                    if last.exit() == Exit::Usage {
                        return Err(last);
                    }
                }
                Ok(Err(Failure::Other(error))) => last = CliError::failed(error),
                Err(_) => last = silent(&self.address),
            }
        }
        Err(last)
    }
}

/// A connection with a stream for one request.
pub(crate) struct Visit {
    runtime: Runtime,
    address: String,
    verdict: Verdict,
    endpoint: Endpoint,
    connection: Connection,
    send: SendStream,
    receive: BufReader<RecvStream>,
    patience: Option<Duration>,
}

impl Visit {
    /// Limits the time that a line may take to arrive; `None`: no limit.
    pub(crate) fn wait_at_most(&mut self, patience: Option<Duration>) {
        self.patience = patience;
    }

    /// Sends a request. If it is wrong, the answer says so.
    pub(crate) fn write(&mut self, line: &[u8]) {
        // The stream stays open: its end would mean that the client has ended. An agent that refuses before it has read
        // everything stops the stream, and sends the reason.
        let written = async { timeout(WRITE_TIMEOUT, self.send.write_all(line)).await };
        let _ = self.runtime.block_on(written);
    }

    /// The next line of the answer; `None`: the agent has ended.
    pub(crate) fn line(&mut self) -> Result<Option<Vec<u8>>, CliError> {
        let mut line = Vec::new();
        let mut limited = (&mut self.receive).take(LINE_BYTES_MAX as u64);
        let read = async {
            let read = limited.read_until(b'\n', &mut line);
            match self.patience {
                Some(patience) => timeout(patience, read).await.ok(),
                None => Some(read.await),
            }
        };
        let Some(read) = self.runtime.block_on(read) else {
            let address = &self.address;
            return Err(CliError::failed(format!(
                "the agent at {address} has not answered in time"
            )));
        };
        if line.last() == Some(&b'\n') {
            return Ok(Some(line));
        }
        match self.connection.close_reason() {
            Some(reason) if is_end(&reason) => Ok(None),
            Some(reason) => Err(explained(&self.address, &reason, &self.verdict)),
            None => {
                let why = |error: io::Error| format!(": {}", Foreign::from(error.to_string()));
                let why = read.err().map_or_else(String::new, why);
                let address = &self.address;
                Err(CliError::failed(format!("the agent at {address} broke off its answer{why}")))
            }
        }
    }
}

impl Drop for Visit {
    /// Closes the connection explicitly, so that its place is free at once.
    fn drop(&mut self) {
        self.connection.close(VarInt::from_u32(0), b"done");
        let gone = async { timeout(CLOSE_TIMEOUT, self.endpoint.wait_idle()).await };
        let _ = self.runtime.block_on(gone);
    }
}

struct Reached {
    endpoint: Endpoint,
    connection: Connection,
    send: SendStream,
    receive: RecvStream,
}

enum Failure {
    Connection(ConnectionError),
    Other(String),
}

async fn connect(address: SocketAddr, config: &ClientConfig) -> Result<Reached, Failure> {
    let from: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let other = |error: &dyn std::fmt::Display| Failure::Other(format!("{address}: {error}"));
    let endpoint = Endpoint::client(from).map_err(|error| other(&error))?;
    let connecting = endpoint.connect_with(config.clone(), address, SERVER_NAME);
    let connecting = connecting.map_err(|error| other(&error))?;
    let connection = connecting.await.map_err(Failure::Connection)?;
    let (send, receive) = connection.open_bi().await.map_err(Failure::Connection)?;
    Ok(Reached { endpoint, connection, send, receive })
}

/// Whether the agent has ended in an orderly way.
fn is_end(reason: &ConnectionError) -> bool {
    matches!(reason, ConnectionError::ApplicationClosed(closed)
        if closed.error_code == VarInt::from_u32(0))
}

/// Why there is no answer.
fn explained(address: &str, reason: &ConnectionError, verdict: &Verdict) -> CliError {
    if let Some(refusal) = verdict.refusal(reason) {
        return CliError::usage(format!("{address}: {refusal}"));
    }
    match reason {
        ConnectionError::ApplicationClosed(closed) => {
            let words = Foreign::lossy(&closed.reason).cut(WORDS_MAX);
            CliError::usage(format!("the agent at {address} turned us away; it says: {words}"))
        }
        ConnectionError::TimedOut => silent(address),
        other => {
            // It may quote the other end, which may have no certificate.
            let why = Foreign::from(other.to_string()).cut(WORDS_MAX);
            let broke = format!("the connection to the agent at {address} broke: {why}");
            CliError::new(Exit::NoAgent, broke)
        }
    }
}

fn silent(address: &str) -> CliError {
    CliError::new(
        Exit::NoAgent,
        format!("no agent answers at {address}: is it started, and does its UDP port get through?"),
    )
}

/// A connection in use is kept alive, since `watch` may have nothing to report for days.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// How long an address may take to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the sending of a request may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the sending of the close may take.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(20);
/// How many addresses of one name are tried.
const ATTEMPTS_MAX: usize = 8;
/// Longest explanation of an agent that is shown, in characters.
const WORDS_MAX: usize = 200;
