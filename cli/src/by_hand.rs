//! `ca rotate`, `ca status` and `cert renew`: manual operations on certificates in use.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use gossipmonger::{
    Foreign,
    pki::{Authority, AuthorityOptions, Existing, LEAF_VALIDITY, LeafOptions},
    protocol::id::{Datacenter, NodeId},
    tls::{CertificateSummary, Identity, PeerName, Roots},
    unstable::{
        AUTHORITY_VALIDITY, date, file,
        rotation::{self, RotationPhase},
    },
};
use serde::Serialize;

use super::{
    admin::{CertificateView, Renewed, Request},
    agent::{directory::CONFIG, renewal::renew_alone},
    certificates::{DAY, Key, days, made, valid_days},
    client,
    error::{CliError, Exit},
    output,
};
use crate::{clock::Clock, config::ConfigFile};

#[derive(Debug, clap::Args)]
pub(super) struct Rotate {
    /// Which phase; without it, the next one.
    #[arg(long, value_enum)]
    phase: Option<Phase>,
    /// The kind of key of the new authority.
    #[arg(long = "key-type", alias = "key", value_enum, default_value_t)]
    key: Key,
    /// How long the new authority is valid.
    #[arg(long, value_name = "N", default_value_t = days(AUTHORITY_VALIDITY), value_parser = valid_days())]
    days: u64,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Status {
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Renew {
    /// Renews from the authority's files, and asks nobody: also when the certificate, or every one of the
    /// cluster, has expired. Agents that run take the new certificate within seconds.
    #[arg(long, requires = "ca")]
    break_glass: bool,
    /// The directory of the authority, on this machine.
    #[arg(long, value_name = "DIR", requires = "break_glass")]
    ca: Option<PathBuf>,
    /// The name of the node in --dir; with --datacenter, also replaces a certificate that cannot be verified.
    #[arg(long, value_name = "NAME", requires = "break_glass")]
    node: Option<NodeId>,
    /// The datacenter of the node in --dir.
    #[arg(long, value_name = "NAME", requires = "break_glass")]
    datacenter: Option<Datacenter>,
    /// The kind of key.
    #[arg(long = "key-type", alias = "key", value_enum, default_value_t)]
    key: Key,
    /// How long it is valid.
    #[arg(long, value_name = "N", default_value_t = days(LEAF_VALIDITY), value_parser = valid_days())]
    days: u64,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// A phase of a rotation.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Phase {
    /// Make the new authority, and the bundle of roots that holds both.
    Prepare,
    /// Issue from the new one.
    Switch,
    /// Drop the old one.
    Finish,
}

pub(super) fn rotate(dir: &Path, args: &Rotate) -> Result<(), CliError> {
    let next = || match RotationPhase::of(dir) {
        RotationPhase::Settled => Phase::Prepare,
        RotationPhase::Prepared => Phase::Switch,
        RotationPhase::Switched => Phase::Finish,
    };
    let phase = args.phase.unwrap_or_else(next);
    match phase {
        Phase::Prepare => {
            let mut options =
                AuthorityOptions { key: args.key.into(), ..AuthorityOptions::default() };
            let validity = DAY * u32::try_from(args.days).unwrap_or(u32::MAX);
            options.not_after = Clock::wall() + validity;
            rotation::prepare(dir, &options)?;
        }
        Phase::Switch => rotation::switch(dir)?,
        Phase::Finish => rotation::finish(dir)?,
    }
    show(dir, args.json)
}

pub(super) fn status(dir: &Path, args: &Status) -> Result<(), CliError> {
    show(dir, args.json)
}

/// The last part of the output of `ca rotate` and `ca status`.
#[derive(Serialize)]
struct Standing {
    directory: String,
    phase: &'static str,
    /// The CA that issues is the first.
    authorities: Vec<CertificateView>,
    roots: String,
    next: String,
}

fn show(dir: &Path, json: bool) -> Result<(), CliError> {
    let (phase, found) = (RotationPhase::of(dir), rotation::authorities_in(dir)?);
    let next = next(dir, phase);
    let roots = match dir.join(file::ROOTS) {
        bundle if bundle.exists() => bundle,
        _ => dir.join(file::AUTHORITY),
    };
    let roots = roots.display().to_string();
    if json {
        return output::json(&Standing {
            directory: dir.display().to_string(),
            phase: phase.as_str(),
            authorities: found.iter().map(CertificateView::from).collect(),
            roots,
            next,
        });
    }
    let role = |at: usize| match (at, phase) {
        (0, _) => "issues",
        (_, RotationPhase::Prepared) => "follows",
        _ => "was before",
    };
    let line = |(at, one): (usize, &CertificateSummary)| {
        format!("{:12} sha256 {}, until {}", role(at), one.fingerprint, date(one.not_after))
    };
    let authorities: Vec<_> = found.iter().enumerate().map(line).collect();
    let phase = format!("{:12} {phase}", "phase");
    output::lines(&format!("{phase}\n{}\n{:12} {roots}\n{next}", authorities.join("\n"), "roots"))
}

/// What the operator must do next.
fn next(dir: &Path, phase: RotationPhase) -> String {
    let (dir, roots) = (dir.display(), dir.join(file::ROOTS));
    let roots = roots.display();
    match phase {
        RotationPhase::Settled => format!(
            "nodes that have older roots may get {roots}, if it is there; to begin a rotation: \
             ca rotate --phase prepare --dir {dir}"
        ),
        RotationPhase::Prepared => format!(
            "copy {roots} over the roots.pem of every node (agents take it within seconds); when all \
             have it: ca rotate --phase switch --dir {dir}"
        ),
        RotationPhase::Switched => format!(
            "issue every node a new certificate (they renew by themselves, or cert issue --force); when \
             all have one: ca rotate --phase finish --dir {dir}"
        ),
    }
}

/// Renews the certificate in a directory.
pub(super) fn renew(dir: &Path, args: &Renew) -> Result<(), CliError> {
    match &args.ca {
        Some(ca) if args.break_glass => break_glass(dir, ca, args),
        _ => renew_from_issuer(dir, args),
    }
}

/// Issues a certificate to the node of the directory; its old certificate may have expired.
fn break_glass(dir: &Path, ca: &Path, args: &Renew) -> Result<(), CliError> {
    refuse_foreign_files(dir)?;
    let authority = Authority::load(ca)?;
    let (name, since) = own_name(dir, ca, &authority, args)?;
    if authority.has_revoked(&name.node, since) {
        return Err(CliError::failed(format!(
            "the certificate of {name} is revoked; if the node is to come back: gossipmonger cert issue --ca {} \
             --node {} --datacenter {} --dir {} --force",
            ca.display(),
            name.node,
            name.datacenter,
            dir.display()
        )));
    }
    let validity = DAY * u32::try_from(args.days).unwrap_or(u32::MAX);
    let options = LeafOptions { key: args.key.into(), ..LeafOptions::new(&name, validity) };
    let issued = authority.issue_with(&options)?;
    // First: this step breaks nothing that is active.
    rotation::replace_roots(&dir.join(file::ROOTS), authority.roots_pem())?;
    issued.save(dir, Existing::Replace)?;
    made(dir, &issued.certificate, args.json)
}

/// The name in the directory's certificate, and the start of its validity. The file alone proves nothing: a CA of `ca`
/// must have signed it and the directory's key must be its key, or the operator states the same name.
fn own_name(
    dir: &Path,
    ca: &Path,
    authority: &Authority,
    args: &Renew,
) -> Result<(PeerName, SystemTime), CliError> {
    let path = dir.join(file::CERTIFICATE);
    let failed = |why: &dyn std::fmt::Display| {
        CliError::failed(format!("{}: {}", path.display(), Foreign::from(why.to_string())))
    };
    let old = CertificateSummary::from_pem_file(&path).map_err(CliError::failed)?.swap_remove(0);
    let since = old.not_before;
    let name = old.name.map_err(|error| failed(&error))?;
    if name.cluster != *authority.cluster() {
        let (ca, whose) = (ca.display(), authority.cluster());
        return Err(failed(&format!(
            "it is of {name}, the authority in {ca} is of cluster {whose}"
        )));
    }
    if args.node.as_ref().is_some_and(|node| *node != name.node)
        || args.datacenter.as_ref().is_some_and(|datacenter| *datacenter != name.datacenter)
    {
        return Err(failed(&format!("it is of {name}, which is not the name given")));
    }
    let said = args.node.is_some() && args.datacenter.is_some();
    match prove(dir, authority, since) {
        Err(why) if !said => Err(failed(&format!(
            "it does not prove the name of this directory's node: {why}; if the name in it, {name}, is right, state it \
             with --node NAME --datacenter NAME"
        ))),
        _ => Ok((name, since)),
    }
}

/// Checks that certificate and key of a directory belong together and that the CA has signed the certificate, as of the
/// start of its validity: it may have expired since.
fn prove(dir: &Path, authority: &Authority, since: SystemTime) -> Result<(), String> {
    let roots = Roots::from_pem(authority.roots_pem().as_bytes()).map_err(|e| e.to_string())?;
    let (certificate, key) = (dir.join(file::CERTIFICATE), dir.join(file::KEY));
    let identity =
        Identity::from_pem_files_at(&certificate, &key, since).map_err(|e| e.to_string())?;
    roots.check(&identity, since).map_err(|refusal| refusal.reason.to_string())
}

/// The agent renews if one runs there, otherwise this process.
fn renew_from_issuer(dir: &Path, args: &Renew) -> Result<(), CliError> {
    let certificate = match client::call::<Renewed>(dir, Request::Renew) {
        Ok(renewed) => renewed.certificate,
        Err(error) if error.exit() == Exit::NoAgent => renew_alone(dir)?,
        Err(error) => return Err(error),
    };
    if args.json {
        return output::json(&Renewed { certificate });
    }
    output::line(&format!("renewed; valid until {}", certificate.expires))
}

/// Refuses if the configuration places the files elsewhere: then another PKI replaces them.
fn refuse_foreign_files(dir: &Path) -> Result<(), CliError> {
    let path = dir.join(CONFIG);
    if !path.exists() {
        return Ok(());
    }
    let config = ConfigFile::read(&path, []).map_err(CliError::usage)?;
    let elsewhere = [
        (config.certificate, file::CERTIFICATE),
        (config.key, file::KEY),
        (config.roots, file::ROOTS),
    ];
    let elsewhere = elsewhere
        .into_iter()
        .find_map(|(given, ours)| given.filter(|given| dir.join(given) != dir.join(ours)));
    match elsewhere {
        Some(given) => Err(CliError::usage(format!(
            "{} says that {} is used: that is another PKI's, which has to renew it",
            path.display(),
            given.display()
        ))),
        None => Ok(()),
    }
}
