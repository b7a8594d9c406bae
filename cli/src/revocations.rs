//! `cert revoke` and `cert revocations`: which certificates are no longer accepted.

use std::path::{Path, PathBuf};

use gossipmonger::{
    Foreign,
    pki::Authority,
    protocol::{
        id::NodeId,
        revocation::{REVOCATIONS_MAX, Revocation, Revocations, date},
    },
};
use serde::{Deserialize, Serialize};

use super::{
    admin::Request,
    client,
    error::{CliError, Exit},
    output,
    remote::Target,
};
use crate::clock::Clock;

/// Revoke all certificates that a node has, everywhere and at once. It needs a running agent.
#[derive(Debug, clap::Args)]
pub(crate) struct Revoke {
    /// The node. It may have any state, and need not be known.
    node: NodeId,
    /// The directory of the authority that signs; without it the agent does, if it is an issuer.
    #[arg(long, value_name = "DIR")]
    ca: Option<PathBuf>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// List whose certificates are revoked, as far as the agent has heard.
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Before that, tells the agent what the authority of this directory has revoked; after a rotation
    /// that is also what the one before had.
    #[arg(long, value_name = "DIR")]
    ca: Option<PathBuf>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// A statement, as the program shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RevocationView {
    pub(crate) node: NodeId,
    /// Certificates valid from then or earlier are revoked, by RFC 3339.
    pub(crate) cutoff: Foreign,
    /// Until when such a certificate may be valid.
    pub(crate) expires: Foreign,
    /// SHA-256 of the CA's public key, in hexadecimal.
    pub(crate) issuer: Foreign,
}

/// The agent has revoked; what it knows now.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Revoked {
    #[serde(flatten)]
    pub(crate) view: RevocationView,
    /// All statements, in hexadecimal, for the CA's list.
    pub(crate) statements: Vec<String>,
}

pub(crate) fn revoke(agent: &Target, args: &Revoke) -> Result<(), CliError> {
    let authority = args.ca.as_ref().map(|ca| Authority::load(ca)).transpose()?;
    let statement = match (&authority, &args.ca) {
        (Some(authority), Some(ca)) => {
            let statement = authority.revoke(args.node.clone(), Clock::wall())?;
            // First: whatever happens now, the CA issues nothing that is revoked.
            authority.save_revocations(ca)?;
            Some(statement)
        }
        _ => None,
    };
    let text = statement.as_ref().map(Revocation::to_text);
    let request = Request::Revoke { node: args.node.clone(), statement: text };
    let revoked: Revoked = client::call(agent, request)?;
    if let (Some(authority), Some(ca)) = (&authority, &args.ca) {
        take_over(authority, ca, &revoked)?;
    }
    // A statement that was signed here needs no confirmation from the agent.
    let view = statement.as_ref().map_or(revoked.view, RevocationView::from);
    if view.node != args.node {
        let (asked, node) = (&args.node, &view.node);
        return Err(CliError::failed(format!(
            "the agent was asked to revoke {asked}, and answered about {node}"
        )));
    }
    if args.json {
        return output::json(&view);
    }
    let RevocationView { node, cutoff, .. } = &view;
    output::lines(&format!(
        "{node} is revoked: its certificates valid from {cutoff} or earlier are refused by all nodes\n\
         that this one reaches, and by the others once they are back; it needs a new one to come back"
    ))
}

/// Adds the statements of other issuers, from the agent's answer, to the CA's list, if a CA of the directory has signed
/// them. A note names those that are not verified and not added.
fn take_over(authority: &Authority, ca: &Path, revoked: &Revoked) -> Result<(), CliError> {
    let told = revoked.statements.iter().take(REVOCATIONS_MAX);
    let refused = authority.heed(told.filter_map(|text| Revocation::from_text(text).ok()));
    authority.save_revocations(ca)?;
    if let Some((first, why)) = refused.first() {
        let (number, node, ca) = (refused.len(), &first.node, ca.display());
        output::note(&format!(
            "{number} revocations in the agent's answer are not verified and not added to {ca}; the first is of {node}: {why}"
        ));
    }
    Ok(())
}

pub(crate) fn list(agent: &Target, args: &List) -> Result<(), CliError> {
    if let Some(ca) = &args.ca {
        tell_all(agent, ca)?;
    }
    let revoked: Vec<RevocationView> = client::list(agent, Request::Revocations)?;
    if args.json {
        return output::json(&revoked);
    }
    let rows: Vec<_> = revoked
        .iter()
        .map(|view| {
            let RevocationView { node, cutoff, expires, issuer } = view;
            let issuer = issuer.clone().cut(ISSUER_SHOWN);
            [node.to_string(), cutoff.to_string(), expires.to_string(), issuer.to_string()]
        })
        .collect();
    output::table(["NODE", "VALID UNTIL", "KEPT UNTIL", "AUTHORITY"], &rows)
}

/// Sends the agent all revocations of a CA.
fn tell_all(agent: &Target, ca: &Path) -> Result<(), CliError> {
    let authority = Authority::load(ca)?;
    let statements = authority.statements()?;
    authority.save_revocations(ca)?;
    let mut refused = Ok(());
    // A statement that is refused does not stop the others.
    for statement in statements {
        let (node, statement) = (statement.node.clone(), Some(statement.to_text()));
        let told = client::call::<Revoked>(agent, Request::Revoke { node, statement });
        match told {
            Err(error) if error.exit() == Exit::NoAgent => return Err(error),
            Err(error) if refused.is_ok() => refused = Err(error),
            _ => {}
        }
    }
    refused
}

impl From<&Revocation> for RevocationView {
    fn from(statement: &Revocation) -> Self {
        Self {
            node: statement.node.clone(),
            cutoff: date(statement.cutoff).into(),
            expires: date(statement.expires).into(),
            issuer: statement.issuer.to_string().into(),
        }
    }
}

impl Revoked {
    /// The revocation of a node; `None` if there is none.
    pub(crate) fn of(revocations: &Revocations, node: &NodeId) -> Option<Self> {
        let latest = revocations.of(node).max_by_key(|statement| statement.cutoff)?;
        let statements = revocations.iter().map(Revocation::to_text).collect();
        Some(Self { view: latest.into(), statements })
    }
}

/// This many characters distinguish the name of a CA from others.
const ISSUER_SHOWN: usize = 16;
