//! `ca init`, `cert issue` and `cert show`; later operations are in [`by_hand`] and [`revocations`].

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use gossipmonger::{
    pki::{
        Authority, AuthorityError, AuthorityOptions, Existing, KeyKind, LEAF_VALIDITY, LeafOptions,
    },
    protocol::id::{ClientId, ClusterId, Datacenter, NodeId},
    tls::{CertificateSummary, ClientName, PeerName, Role},
    unstable::{AUTHORITY_VALIDITY, date, file},
};
use serde::Serialize;

use super::{
    admin::CertificateView,
    by_hand::{self, Renew, Rotate, Status},
    error::CliError,
    output,
    remote::Target,
    revocations,
};
use crate::clock::Clock;

/// Make a certificate authority for a cluster, and replace it.
#[derive(Debug, clap::Args)]
pub(crate) struct Ca {
    #[command(subcommand)]
    command: CaCommand,
}

#[derive(Debug, clap::Subcommand)]
enum CaCommand {
    /// Make a certificate authority in --dir.
    Init(Init),
    /// Put a new authority in the place of that in --dir, one phase at a time.
    Rotate(Rotate),
    /// Show which authorities are in --dir, and which phase of a rotation is next.
    Status(Status),
}

#[derive(Debug, clap::Args)]
struct Init {
    /// The name of the cluster: a-z, 0-9, '.', '_' and '-'.
    #[arg(long, value_name = "NAME", value_parser = new_name::<ClusterId>)]
    cluster: ClusterId,
    /// The kind of the new key.
    #[arg(long = "key-type", alias = "key", value_enum, default_value_t)]
    key: Key,
    /// How long it is valid.
    #[arg(long, value_name = "N", default_value_t = days(AUTHORITY_VALIDITY), value_parser = valid_days())]
    days: u64,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// Issue nodes' certificates, and show them.
#[derive(Debug, clap::Args)]
pub(crate) struct Cert {
    #[command(subcommand)]
    command: CertCommand,
}

#[derive(Debug, clap::Subcommand)]
enum CertCommand {
    /// Issue a node's or a client's certificate and key into --dir, and put the roots beside them.
    Issue(Issue),
    /// Renew the certificate in --dir now: from an issuer, or from the authority's files.
    Renew(Renew),
    /// Show the certificates of a directory (--dir) or a file.
    Show(Show),
    Revoke(revocations::Revoke),
    Revocations(revocations::List),
}

#[derive(Debug, clap::Args)]
struct Issue {
    /// The directory of the authority.
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    /// The name of the node, unique in the cluster.
    #[arg(long, value_name = "NAME", required_unless_present = "client", value_parser = new_name::<NodeId>)]
    node: Option<NodeId>,
    /// The datacenter it is in.
    #[arg(long, value_name = "NAME", requires = "node", required_unless_present = "client", value_parser = new_name::<Datacenter>)]
    datacenter: Option<Datacenter>,
    /// Instead of a node: a person or program that may ask agents from other machines, by --agent.
    #[arg(long, value_name = "NAME", conflicts_with = "node", requires = "role", value_parser = new_name::<ClientId>)]
    client: Option<ClientId>,
    /// What the client may do: read, watch or admin.
    #[arg(long, value_name = "ROLE", requires = "client")]
    role: Option<Role>,
    /// The kind of the new key.
    #[arg(long = "key-type", alias = "key", value_enum, default_value_t)]
    key: Key,
    /// How long it is valid.
    #[arg(long, value_name = "N", default_value_t = days(LEAF_VALIDITY), value_parser = valid_days())]
    days: u64,
    /// A DNS name to add, for other users of the certificate; may be given several times.
    #[arg(long, value_name = "NAME")]
    dns: Vec<String>,
    /// An IP address to add, likewise.
    #[arg(long, value_name = "ADDR")]
    ip: Vec<IpAddr>,
    /// Replaces a certificate and key that are there.
    #[arg(long)]
    force: bool,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Show {
    /// A PEM file; without it, the certificates in --dir.
    file: Option<PathBuf>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub(super) enum Key {
    /// Small and fast.
    #[default]
    Ed25519,
    /// For tools that do not know Ed25519.
    P256,
}

pub(crate) fn ca(dir: Option<&Path>, args: Ca) -> Result<(), CliError> {
    let dir = required(dir)?;
    match args.command {
        CaCommand::Init(args) => init(dir, args),
        CaCommand::Rotate(args) => by_hand::rotate(dir, &args),
        CaCommand::Status(args) => by_hand::status(dir, &args),
    }
}

fn init(dir: &Path, init: Init) -> Result<(), CliError> {
    let mut options = AuthorityOptions { key: init.key.into(), ..AuthorityOptions::default() };
    options.not_after = Clock::wall() + DAY * u32::try_from(init.days).unwrap_or(u32::MAX);
    let authority = Authority::create(init.cluster, &options)?;
    authority.save(dir)?;
    made(dir, authority.certificate(), init.json)
}

impl Cert {
    /// Whether the command sends a request to an agent.
    pub(crate) const fn asks_an_agent(&self) -> bool {
        matches!(self.command, CertCommand::Revoke(_) | CertCommand::Revocations(_))
    }
}

pub(crate) fn cert(dir: Option<&Path>, agent: &Target, args: Cert) -> Result<(), CliError> {
    match args.command {
        CertCommand::Issue(args) => issue(required(dir)?, args),
        CertCommand::Renew(args) => by_hand::renew(required(dir)?, &args),
        CertCommand::Show(args) => show(dir, &args),
        CertCommand::Revoke(args) => revocations::revoke(agent, &args),
        CertCommand::Revocations(args) => revocations::list(agent, &args),
    }
}

fn issue(dir: &Path, args: Issue) -> Result<(), CliError> {
    if dir.join(file::AUTHORITY_KEY).exists() {
        return Err(CliError::usage(format!(
            "{} holds an authority's key, which no agent may have: choose another --dir",
            dir.display()
        )));
    }
    let authority = Authority::load(&args.ca)?;
    let cluster = authority.cluster().clone();
    let validity = DAY * u32::try_from(args.days).unwrap_or(u32::MAX);
    let leaf = match (args.node, args.datacenter, args.client, args.role) {
        (Some(node), Some(datacenter), ..) => {
            LeafOptions::new(&PeerName { cluster, datacenter, node }, validity)
        }
        (_, _, Some(client), Some(role)) => {
            LeafOptions::client(&ClientName { cluster, role, client }, validity)
        }
        _ => {
            return Err(CliError::usage(
                "say for whom: --node and --datacenter, or --client and --role",
            ));
        }
    };
    let options =
        LeafOptions { key: args.key.into(), dns_names: args.dns, ip_addresses: args.ip, ..leaf };
    let existing = if args.force { Existing::Replace } else { Existing::Refuse };
    let issued = authority.issue_with(&options)?;
    issued.save(dir, existing).map_err(|error| match error {
        AuthorityError::Exists { .. } => {
            CliError::failed(format!("{error}; --force replaces it by a new one"))
        }
        error => error.into(),
    })?;
    made(dir, &issued.certificate, args.json)
}

#[derive(Serialize)]
struct Made {
    directory: String,
    certificate: CertificateView,
}

pub(super) fn made(
    dir: &Path,
    certificate: &CertificateSummary,
    json: bool,
) -> Result<(), CliError> {
    let directory = dir.display().to_string();
    if json {
        return output::json(&Made { directory, certificate: certificate.into() });
    }
    output::lines(&format!("{certificate}\nwritten to   {directory}"))
}

#[derive(Serialize)]
struct Shown {
    file: String,
    #[serde(flatten)]
    certificate: CertificateView,
}

fn show(dir: Option<&Path>, args: &Show) -> Result<(), CliError> {
    let files = match (&args.file, dir) {
        (Some(file), _) if file.is_dir() => in_directory(file)?,
        (Some(file), _) => vec![file.clone()],
        (None, dir) => in_directory(required(dir)?)?,
    };
    let mut shown = Vec::new();
    for file in files {
        let certificates = CertificateSummary::from_pem_file(&file).map_err(CliError::usage)?;
        shown.extend(certificates.into_iter().map(|certificate| (file.clone(), certificate)));
    }
    if args.json {
        let shown = shown.iter().map(|(file, certificate)| Shown {
            file: file.display().to_string(),
            certificate: certificate.into(),
        });
        return output::json(&shown.collect::<Vec<_>>());
    }
    let shown = shown
        .iter()
        .map(|(file, certificate)| format!("file         {}\n{certificate}", file.display()));
    output::lines(&shown.collect::<Vec<_>>().join("\n\n"))
}

/// The certificates of an agent, or of a CA.
fn in_directory(dir: &Path) -> Result<Vec<PathBuf>, CliError> {
    let names = [file::CERTIFICATE, file::CLIENT_CERTIFICATE, file::ROOTS, file::AUTHORITY];
    let files: Vec<_> =
        names.iter().map(|name| dir.join(name)).filter(|file| file.exists()).collect();
    if files.is_empty() {
        let dir = dir.display();
        return Err(CliError::usage(format!("{dir} has none of {}", names.join(", "))));
    }
    Ok(files)
}

fn required(dir: Option<&Path>) -> Result<&Path, CliError> {
    dir.ok_or_else(|| CliError::usage("say where: --dir DIR is needed here"))
}

impl From<&CertificateSummary> for CertificateView {
    fn from(summary: &CertificateSummary) -> Self {
        Self {
            name: match (&summary.name, &summary.client) {
                (Ok(name), _) => Some(name.to_uri().into()),
                (Err(_), client) => client.as_ref().map(|client| client.to_uri().into()),
            },
            subject: summary.subject.as_str().into(),
            issuer: summary.issuer.as_str().into(),
            serial: summary.serial.as_str().into(),
            not_before: date(summary.not_before).into(),
            not_after: date(summary.not_after).into(),
            expires: date(summary.expires).into(),
            fingerprint: summary.fingerprint.as_str().into(),
            authority: summary.is_authority,
        }
    }
}

impl From<Key> for KeyKind {
    fn from(key: Key) -> Self {
        match key {
            Key::Ed25519 => Self::Ed25519,
            Key::P256 => Self::P256,
        }
    }
}

impl From<AuthorityError> for CliError {
    fn from(error: AuthorityError) -> Self {
        Self::failed(error)
    }
}

/// Parses a new name. Commands would take a name that begins with '-' for an option.
pub(super) fn new_name<N: FromStr<Err: fmt::Display>>(text: &str) -> Result<N, String> {
    match text {
        text if text.starts_with('-') => {
            Err(format!("{text:?} begins with '-'; choose another name"))
        }
        text => text.parse().map_err(|error: N::Err| error.to_string()),
    }
}

pub(super) fn valid_days() -> clap::builder::RangedU64ValueParser<u64> {
    clap::value_parser!(u64).range(1..=DAYS_MAX)
}

pub(super) const fn days(time: Duration) -> u64 {
    time.as_secs() / DAY.as_secs()
}

pub(super) const DAY: Duration = Duration::from_secs(86_400);
/// A hundred years: longer periods are mistakes.
const DAYS_MAX: u64 = 36_500;
