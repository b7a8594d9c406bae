//! The keys that `bench live` writes: below a prefix of its own, limited in number and time, deleted at the end.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use rand::RngExt;

use super::{Args, locked};
use crate::{
    admin::{Bytes, Entry, Info, Request, Written},
    bench::values::fresh,
    client,
    error::{CliError, Exit},
    probe::shown_sum,
    remote::Target,
};

/// The keys of one run.
pub(super) struct Keys {
    agent: Target,
    prefix: String,
    value_bytes: usize,
    ttl: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// No key is written any more.
    ended: bool,
    /// The sum of the last value of each key, whether or not its write was answered.
    sums: BTreeMap<String, String>,
}

impl Keys {
    pub(super) fn new(agent: &Target, args: &Args) -> Self {
        let run: u64 = rand::rng().random();
        Self {
            agent: agent.clone(),
            prefix: format!("bench.live/{run:016x}/"),
            value_bytes: args.value_bytes,
            ttl: Duration::from_secs(args.seconds + args.timeout) + TTL_MARGIN,
            state: Mutex::default(),
        }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Writes a value that was never written before.
    ///
    /// # Errors
    /// The agent refuses it; or the run has ended.
    pub(super) fn write(&self, index: usize) -> Result<Written, CliError> {
        let key = format!("{}{:02}", self.prefix, index % KEYS_MAX);
        let value = fresh(self.value_bytes).text;
        // Held until the answer: what is written after the deletion would stay.
        let mut state = locked(&self.state);
        if state.ended {
            return Err(CliError::new(Exit::Interrupted, "the run has ended"));
        }
        state.sums.insert(key.clone(), shown_sum(value.as_bytes()));
        let ttl_ms = Some(u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX));
        let request = Request::Set { key, value: Bytes::of(value.as_bytes()), ttl_ms };
        client::call_within(&self.agent, request, WITHIN).map_err(|error| match error.exit() {
            Exit::Usage => {
                let why = format!(
                    "bench live writes keys and calls agents, which needs role admin: {error}"
                );
                CliError::new(Exit::Usage, why)
            }
            _ => error,
        })
    }

    /// The sums of all values that a copy must have.
    pub(super) fn sums(&self) -> BTreeMap<String, String> {
        locked(&self.state).sums.clone()
    }

    /// Ends the run, deletes all that it has written, and looks whether something is left.
    ///
    /// # Errors
    /// Keys are left. They expire.
    pub(super) fn clean(&self) -> Result<(), CliError> {
        let mut state = locked(&self.state);
        state.ended = true;
        if state.sums.is_empty() {
            return Ok(());
        }
        let left = self.delete(state.sums.keys());
        let ttl = self.ttl.as_secs();
        left.map_err(|error| {
            let prefix = &self.prefix;
            CliError::new(
                error.exit(),
                format!("keys below {prefix} may be left: they expire within {ttl} s ({error})"),
            )
        })
    }

    fn delete<'a>(&self, keys: impl Iterator<Item = &'a String>) -> Result<(), CliError> {
        for key in keys {
            let request = Request::Delete { key: key.clone() };
            match client::call_within::<Written>(&self.agent, request, WITHIN) {
                // Its write was refused, or it has expired.
                Err(error) if error.exit() != Exit::NotFound && !is_refusal(&error) => {
                    return Err(error);
                }
                _ => {}
            }
        }
        let Info { node, .. } = client::call_within(&self.agent, Request::Info, WITHIN)?;
        let request = Request::List { node, prefix: self.prefix.clone() };
        let left: Vec<Entry> = client::list_within(&self.agent, request, WITHIN)?;
        match left.len() {
            0 => Ok(()),
            left => Err(CliError::failed(format!("{left} are"))),
        }
    }
}

/// A client that may not delete may not write either: what it has tried to write is not there, and the list shows it.
fn is_refusal(error: &CliError) -> bool {
    error.exit() == Exit::Usage
}

/// Keys at once: later writes replace the values of earlier ones.
pub(super) const KEYS_MAX: usize = 64;
/// How long the agent may take for one request about them.
const WITHIN: Duration = Duration::from_secs(10);
/// How much longer than the run its keys last if nobody deletes them.
const TTL_MARGIN: Duration = Duration::from_secs(60);
