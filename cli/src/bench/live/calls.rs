//! Calls to agents of each datacenter: how long a small one takes, and how many bytes large ones move.

use std::{collections::BTreeMap, thread, time::Duration};

use gossipmonger::protocol::id::{Datacenter, NodeId};
use serde_json::{Value, json};

use super::{Args, nodes::Nodes};
use crate::{
    admin::Request,
    bench::{Faults, MIB, Report, rounded, statistics::quantiles_to},
    client,
    error::CliError,
    probe::{PROBE_BYTES_MAX, PROBE_CALLS_MAX, PROBE_TOTAL_MAX, ProbeView},
    remote::Target,
    stopwatch::Stopwatch,
};

/// What the calls to one datacenter did.
#[derive(Debug, Default)]
struct Sum {
    nodes: usize,
    calls: usize,
    sent: u64,
    received: u64,
    replies_ms: Vec<f64>,
}

/// Small calls, one after the other.
pub(super) fn latency(
    agent: &Target,
    args: &Args,
    nodes: &Nodes,
    out: &mut Report,
) -> Result<(), CliError> {
    let mut faults = Faults::default();
    let mut sums: BTreeMap<Datacenter, Sum> = BTreeMap::new();
    for (node, datacenter) in &nodes.called {
        let sum = sums.entry(datacenter.clone()).or_default();
        sum.nodes += 1;
        // The first call may dial a connection: `bench dial` measures that.
        if !Sum::default().call(agent, node, (1, SMALL_BYTES), &mut faults)? {
            continue;
        }
        let mut left = args.calls;
        while left > 0 {
            let calls = left.min(PROBE_CALLS_MAX as usize);
            left -= calls;
            if !sum.call(agent, node, (calls, SMALL_BYTES), &mut faults)? {
                break;
            }
        }
    }
    let total = |part: fn(&Sum) -> usize| sums.values().map(part).sum::<usize>();
    let (calls, replies) = (total(|sum| sum.calls), total(|sum| sum.replies_ms.len()));
    let wanted = nodes.called.len() * args.calls;
    faults.require(wanted > 0, || "no node could be called".to_owned());
    faults.require(calls == wanted && replies == wanted, || {
        format!("of {wanted} calls {calls} were made, and {replies} had the right reply")
    });
    out.insert("calls".into(), calls.into());
    out.insert("replies".into(), replies.into());
    let by: Value = sums
        .into_iter()
        .map(|(name, sum)| (name.to_string(), quantiles_to(sum.replies_ms, 3)))
        .collect();
    out.insert("call_ms".into(), by);
    faults.judge(out, &["call_ms"]);
    Ok(())
}

/// Large calls to each node, one after the other, at most so many bytes a second.
pub(super) fn throughput(
    agent: &Target,
    args: &Args,
    nodes: &Nodes,
    out: &mut Report,
) -> Result<(), CliError> {
    let mut faults = Faults::default();
    let mut sums: BTreeMap<Datacenter, Sum> = BTreeMap::new();
    let (watch, mut all) = (Stopwatch::start(), 0);
    let shares = shares(args.bytes, nodes.called.len());
    for ((node, datacenter), share) in nodes.called.iter().zip(shares) {
        let sum = sums.entry(datacenter.clone()).or_default();
        sum.nodes += 1;
        for (calls, bytes) in requests(share) {
            let due = all as f64 / args.bytes_per_second as f64;
            thread::sleep(Duration::from_secs_f64((due - watch.seconds()).max(0.0)));
            all += calls * bytes;
            if !sum.call(agent, node, (calls, bytes), &mut faults)? {
                break;
            }
        }
    }
    let total = |part: fn(&Sum) -> u64| sums.values().map(part).sum::<u64>();
    let (sent, received) = (total(|sum| sum.sent), total(|sum| sum.received));
    let wanted = args.bytes as u64;
    faults.require(sent == wanted && received == wanted, || {
        format!("of {wanted} bytes {sent} were sent, and the receivers have counted {received}")
    });
    out.insert("bytes_sent".into(), sent.into());
    out.insert("bytes_received".into(), received.into());
    let by: Value = sums.iter().map(|(name, sum)| (name.to_string(), sum.throughput())).collect();
    out.insert("throughput".into(), by);
    faults.judge(out, &["throughput"]);
    Ok(())
}

impl Sum {
    /// Lets the agent make calls; whether all had their right replies.
    fn call(
        &mut self,
        agent: &Target,
        node: &NodeId,
        (calls, bytes): (usize, usize),
        faults: &mut Faults,
    ) -> Result<bool, CliError> {
        let calls = u32::try_from(calls).map_err(CliError::failed)?;
        let request = Request::Probe { node: node.clone(), calls, bytes };
        let view: ProbeView = match client::call(agent, request) {
            Ok(view) => view,
            // The node is gone since: that is its fault, not the agent's.
            Err(error) if error.exit() == crate::error::Exit::Failed => {
                faults.require(false, || format!("{node}: {error}"));
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        let replies = view.replies_ms.len();
        self.calls += view.calls as usize;
        self.sent += u64::from(view.calls) * bytes as u64;
        self.received += view.received;
        self.replies_ms.extend(view.replies_ms);
        if let Some(problem) = &view.problem {
            faults.require(false, || format!("{node} did not answer a call: {problem}"));
        }
        let wrong = view.wrong;
        faults.require(wrong == 0, || format!("{node} gave {wrong} wrong replies"));
        let whole = replies == calls as usize;
        let expected = calls as u64 * bytes as u64;
        faults.require(!whole || view.received == expected, || {
            format!("{node} has counted {} of {expected} bytes", view.received)
        });
        Ok(whole)
    }

    fn throughput(&self) -> Value {
        let seconds = self.replies_ms.iter().sum::<f64>() / 1_000.0;
        let rate = (seconds > 0.0).then(|| rounded(self.received as f64 / MIB / seconds, 2));
        json!({ "bytes": self.received, "mib_per_s": rate, "calls": self.calls, "nodes": self.nodes })
    }
}

/// How many bytes each of so many nodes gets: together exactly all.
fn shares(all: usize, nodes: usize) -> impl Iterator<Item = usize> {
    (0..nodes).map(move |index| all / nodes + usize::from(index < all % nodes))
}

/// Calls and bytes of each request that together send so many bytes.
fn requests(mut bytes: usize) -> Vec<(usize, usize)> {
    let mut requests = Vec::new();
    while bytes > 0 {
        let request = match bytes / PROBE_BYTES_MAX {
            0 => (1, bytes),
            calls => (calls.min(PROBE_TOTAL_MAX / PROBE_BYTES_MAX), PROBE_BYTES_MAX),
        };
        bytes -= request.0 * request.1;
        requests.push(request);
    }
    requests
}

/// Bytes of a small call.
const SMALL_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_bytes_that_are_allowed_are_sent() {
        for (all, nodes) in [(1, 3), (4 << 20, 5), (300_000, 1), (256 << 20, 64)] {
            let sent =
                |share| requests(share).iter().map(|(calls, bytes)| calls * bytes).sum::<usize>();
            assert_eq!(shares(all, nodes).map(sent).sum::<usize>(), all);
            assert!(shares(all, nodes).flat_map(requests).all(|(calls, bytes)| {
                bytes <= PROBE_BYTES_MAX && calls * bytes <= PROBE_TOTAL_MAX
            }));
        }
    }
}
