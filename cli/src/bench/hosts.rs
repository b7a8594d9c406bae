//! Calls between hosts: a member that offers a service (`bench provide`), and one that calls it (`bench drive`).
//!
//! Both are agents, with the directory, flags, log, socket and signals of `agent`, and work of their own.

use std::path::Path;

use gossipmonger::Gossipmonger;

pub(super) use self::{drive::Drive, provide::Provide};
use super::Before;
use crate::{agent, error::CliError};

mod bulk;
mod drive;
mod histogram;
mod idle;
mod ledger;
mod provide;
mod rates;
mod service;
mod verdicts;

/// Runs a provider until it is told to stop, and then prints what it has done.
pub(super) fn provide(dir: &Path, args: Provide) -> Result<(), CliError> {
    let (flags, offers) = args.prepare()?;
    let before = Before::now();
    let work = move |node: Gossipmonger| async move { before.print(offers.run(&node).await?) };
    agent::run_with(dir, flags, Some(Box::new(|node| Box::pin(work(node)))))
}

/// Runs a member that calls for a while, and prints what came of the calls.
pub(super) fn drive(dir: &Path, args: Drive) -> Result<(), CliError> {
    let (flags, plan) = args.prepare()?;
    let before = Before::now();
    let work = move |node: Gossipmonger| async move { before.print(plan.run(&node).await?) };
    agent::run_with(dir, flags, Some(Box::new(|node| Box::pin(work(node)))))
}
