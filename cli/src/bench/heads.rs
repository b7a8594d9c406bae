//! The cost of signed heads for a node that knows no other yet: it applies many nodes' maps, each with its certificate
//! and the signature of its owner; and the same unsigned.

use std::sync::Arc;

use gossipmonger::{
    Config,
    protocol::{
        delta::Delta,
        digest::Digest,
        id::NodeId,
        replica::Replica,
        route::{Counter, Output},
        seal::{Seals, Signing},
        sketch::SketchKey,
        time::Time,
        write::Write,
    },
    store::Stored,
    tls::Tls,
};
use imbl::OrdMap;
use serde_json::{Value, json};

use super::{Report, faults::Faults, in_range, machine, rounded};
use crate::{clock::Clock, error::CliError, throwaway::Throwaway};

/// The arguments of `heads`.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// How many nodes are taken up.
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    nodes: usize,
    /// Keys of each, of 100 bytes.
    #[arg(long, default_value_t = 1, value_name = "K")]
    keys: usize,
}

/// Measures the CPU time of one thread.
pub(super) fn heads(args: &Args) -> Result<Report, CliError> {
    in_range("nodes", args.nodes, 1, 30_000)?;
    in_range("keys", args.keys, 0, 1_000)?;
    let authority = Throwaway::new("bench")?;
    let mut report = Report::new();
    for (name, signing) in [("unsigned", Signing::Off), ("signed", Signing::Require)] {
        let mut reader = replica(&authority, "reader", signing)?;
        let mut news = Vec::with_capacity(args.nodes);
        for index in 0..args.nodes {
            news.push(told(&authority, &format!("node-{index}"), args.keys, signing)?);
        }
        let (from, mut out) = (NodeId::new("node-0").map_err(CliError::failed)?, Vec::new());
        let mut taken = Taken { signed: signing == Signing::Require, ..Taken::default() };
        let before = machine::thread_cpu_seconds();
        for delta in &news {
            reader.apply(Time::ZERO, &from, delta, &mut out);
            out.drain(..).for_each(|output| taken.count(&output));
        }
        let cpu = machine::thread_cpu_seconds() - before;
        taken.nodes = reader.peer_count();
        taken.keys = reader.peers().map(|(_, copy)| copy.entries().len()).sum();
        taken.faults(args.nodes, args.nodes * args.keys).judge(&mut report, &[]);
        let each = cpu * 1e6 / args.nodes as f64;
        let figures = json!({
            "cpu_s": rounded(cpu, 3),
            "cpu_us_per_node": rounded(each, 1),
            "seals_verified": taken.seals,
            "certificates_checked": taken.certificates,
            "entries": taken.keys,
        });
        report.insert(name.into(), figures);
        if Faults::check(&report).is_err() {
            report.insert(name.into(), Value::Null);
        }
    }
    report.insert("scenario".into(), "heads".into());
    report.insert("nodes".into(), args.nodes.into());
    report.insert("keys".into(), args.keys.into());
    Ok(report)
}

/// What the reader has applied, and what it verified for that.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    signed: bool,
    nodes: usize,
    keys: usize,
    seals: u64,
    certificates: u64,
}

impl Taken {
    const fn count(&mut self, output: &Output) {
        match output {
            Output::Count(Counter::SealsVerified, times) => self.seals += *times,
            Output::Count(Counter::CredentialsVetted, times) => self.certificates += *times,
            _ => {}
        }
    }

    /// Every map must have been applied whole, and its signature verified if there is one.
    fn faults(&self, nodes: usize, keys: usize) -> Faults {
        let mut faults = Faults::default();
        faults.require(self.nodes == nodes, || format!("{} of {nodes} were taken up", self.nodes));
        faults.require(self.keys == keys, || format!("{} of {keys} keys were taken up", self.keys));
        let wanted = if self.signed { nodes as u64 } else { 0 };
        let Self { seals, certificates, .. } = *self;
        faults.require(seals == wanted && certificates == wanted, || {
            format!(
                "{wanted} heads are signed: {seals} signatures, {certificates} certificates checked"
            )
        });
        faults
    }
}

/// All state that a node publishes.
fn told(
    authority: &Throwaway,
    name: &str,
    keys: usize,
    signing: Signing,
) -> Result<Delta, CliError> {
    let mut owner = replica(authority, name, signing)?;
    for key in 0..keys {
        let write = Write::set(format!("key-{key}"), vec![7; 100]);
        owner.write(Time::ZERO, vec![write], &mut Vec::new()).map_err(CliError::failed)?;
    }
    let asks = NodeId::new("reader").map_err(CliError::failed)?;
    Ok(owner.answer(Time::ZERO, &asks, &Digest::default(), &mut Vec::new()).1)
}

fn replica(authority: &Throwaway, name: &str, signing: Signing) -> Result<Replica, CliError> {
    let (identity, roots) = authority.issue(name, "here")?.parts()?;
    let tls = Tls::new(identity.clone(), roots).map_err(CliError::failed)?;
    let mut config = Config::new(identity.name());
    config.peers_max = 32_000;
    let (stored, none) = (Stored::default(), OrdMap::new());
    let config = config.replica(SketchKey([0; 16]));
    // A certificate vouches for no generation that began before it was valid.
    let (wall, mut out) = (Clock::wall(), Vec::new());
    let mut replica = Replica::start(config, stored, &none, false, Time::ZERO, wall, &mut out);
    replica.set_seals(Some(Seals { notary: Arc::new(tls), signing }));
    Ok(replica)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_that_were_not_taken_up_or_not_verified_are_void() {
        let good = Taken { signed: true, nodes: 5, keys: 10, seals: 5, certificates: 5 };
        assert!(good.faults(5, 10).is_empty());
        for void in [
            Taken { nodes: 4, ..good },
            Taken { keys: 9, ..good },
            Taken { seals: 0, ..good },
            Taken { certificates: 4, ..good },
            Taken { signed: false, ..good },
        ] {
            assert!(!void.faults(5, 10).is_empty(), "{void:?}");
        }
    }
}
