//! The first start: an agent makes what it needs in a directory that has no certificate yet.

use std::{fs, io, path::Path};

use gossipmonger::{
    pki::{Authority, AuthorityOptions, Existing, LeafOptions},
    protocol::id::{ClusterId, Datacenter, NodeId},
    tls::PeerName,
    unstable::{LEAF_VALIDITY_AUTOMATED, file},
};

use super::directory::CONFIG;
use crate::{certificates::new_name, error::CliError, join, output};

/// What an agent does before its first start. Later starts ignore it.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Setup {
    /// Make a new cluster of this name: its authority in DIR/pki, and this agent gives out certificates by token.
    #[arg(long, help_heading = HEADING, value_name = "CLUSTER", conflicts_with = "join", value_parser = new_name::<ClusterId>)]
    create: Option<ClusterId>,
    /// Join a cluster: the token that `token create` has printed, and the host of that agent.
    #[arg(long, help_heading = HEADING, value_name = "TOKEN@HOST")]
    join: Option<String>,
    /// The name of this node. Default: the name of its directory.
    #[arg(long, help_heading = HEADING, value_name = "NAME", value_parser = new_name::<NodeId>)]
    node: Option<NodeId>,
    /// The datacenter it is in. Default: that of the issuer, or `dc1`.
    #[arg(long, help_heading = HEADING, value_name = "NAME", value_parser = new_name::<Datacenter>)]
    datacenter: Option<Datacenter>,
}

impl Setup {
    /// Makes certificate, key, roots and configuration, if the directory has no certificate.
    pub(super) fn prepare(self, dir: &Path) -> Result<(), CliError> {
        let Self { create, join, node, datacenter } = self;
        if create.is_none() && join.is_none() {
            if node.is_some() || datacenter.is_some() {
                return Err(CliError::usage(
                    "--node and --datacenter need --create or --join: otherwise the certificate has the names",
                ));
            }
            return Ok(());
        }
        if dir.join(file::CERTIFICATE).exists() {
            return Ok(());
        }
        if let Some(place) = join {
            let Some((token, host)) = place.rsplit_once('@') else {
                return Err(CliError::usage("--join wants TOKEN@HOST"));
            };
            return join::prepare(dir, token, host, node.or_else(|| name_of(dir).ok()), datacenter);
        }
        let node = node.map_or_else(|| name_of(dir), Ok)?;
        match create {
            Some(cluster) => found(dir, cluster, node, datacenter),
            None => Ok(()),
        }
    }
}

/// Makes the authority and the first node.
fn found(
    dir: &Path,
    cluster: ClusterId,
    node: NodeId,
    datacenter: Option<Datacenter>,
) -> Result<(), CliError> {
    let pki = dir.join(PKI);
    let authority = if pki.join(file::AUTHORITY_KEY).exists() {
        Authority::load(&pki)?
    } else {
        let made = Authority::create(cluster.clone(), &AuthorityOptions::default())?;
        made.save(&pki)?;
        made
    };
    if *authority.cluster() != cluster {
        return Err(CliError::usage(format!(
            "{} has the authority of the cluster {}, not of {cluster}",
            pki.display(),
            authority.cluster()
        )));
    }
    let datacenter = datacenter.map_or_else(|| FIRST.parse().map_err(CliError::failed), Ok)?;
    let name = PeerName { cluster, datacenter, node };
    let issued = authority.issue_with(&LeafOptions::new(&name, LEAF_VALIDITY_AUTOMATED))?;
    // The certificate last: with it the first start is over.
    configure(&dir.join(CONFIG))?;
    issued.save(dir, Existing::Refuse)?;
    let PeerName { cluster, datacenter, node } = name;
    output::line(&format!(
        "made the cluster {cluster} with the node {node} in {datacenter}; its authority is in {}: guard it",
        pki.display()
    ))
}

/// Writes a configuration, if there is none.
fn configure(path: &Path) -> Result<(), CliError> {
    let text = format!(
        "# Written by `gossipmonger agent --create`; change what you like.\n\
         # This agent gives out certificates by token.\nissuer = {PKI:?}\n"
    );
    let failed = |error| CliError::failed(format!("{}: {error}", path.display()));
    match fs::OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(mut file) => io::Write::write_all(&mut file, text.as_bytes()).map_err(|error| {
            // Half of it, or nothing, would be the configuration of later starts.
            let _ = fs::remove_file(path);
            failed(error)
        }),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// The name of a directory, as that of a node.
fn name_of(dir: &Path) -> Result<NodeId, CliError> {
    let whole = std::path::absolute(dir)?;
    let name = whole.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    new_name(name).map_err(|error| {
        CliError::usage(format!(
            "the directory's name is not one of a node ({error}): say --node NAME"
        ))
    })
}

/// The heading of these flags in `--help`.
const HEADING: &str = "First start";
/// The directory of the authority, in that of the agent.
const PKI: &str = "pki";
/// The datacenter of the first node.
const FIRST: &str = "dc1";
