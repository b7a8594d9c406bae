//! Answers to `bench live`: calls to the agent of another node, and the copies of this node's keys.

use std::io;

use gossipmonger::{Member, protocol::id::NodeId};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    peers::{self, Agents, AskCopies, Copies, Probe, Probed, Silent, WITHIN},
    server::{Agent, Caller, unknown_node},
};
use crate::{
    clock::Clock,
    error::CliError,
    paths::milliseconds,
    probe::{CopiesView, PROBE_BYTES_MAX, PROBE_CALLS_MAX, PROBE_TOTAL_MAX, ProbeView},
};

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Caller<R, W> {
    pub(super) async fn copies(&mut self, agent: &Agent, prefix: String) -> io::Result<()> {
        let gathered = match agent.gathering(self.client()).await {
            Ok(_turn) => {
                let owner = agent.node.node().clone();
                peers::gather(&agent.node, &AskCopies { owner, prefix }).await
            }
            Err(error) => return self.fail(&error).await,
        };
        for (member, answer) in gathered {
            self.item(&copies(member, answer)).await?;
        }
        self.done().await
    }
}

fn copies(member: Member, answer: Result<Copies, Silent>) -> CopiesView {
    let (answer, problem) = match answer {
        Ok(answer) => (answer, None),
        Err(silent) => (Copies::default(), Some(silent.why.into())),
    };
    let sums = answer.sums.into_iter().map(|(key, sum)| (key, format!("{sum:016x}"))).collect();
    let Member { node, datacenter, .. } = member;
    CopiesView { node, datacenter, sums, omitted: answer.omitted, problem }
}

/// Calls the agent of a node so many times, one call after the other, until one has no reply.
pub(super) async fn probe(
    agent: &Agent,
    client: Option<&str>,
    peer: NodeId,
    (calls, bytes): (u32, usize),
) -> Result<ProbeView, CliError> {
    check(calls, bytes)?;
    let node = &agent.node;
    let member = node.snapshot().member(&peer).ok_or_else(|| unknown_node(&peer))?;
    let providers = node.service::<Agents>().providers();
    let Some(remote) = providers.into_iter().find(|remote| *remote.node() == peer) else {
        return Err(CliError::failed(format!(
            "{peer} cannot be called: it offers no gossipmonger.agent/1 (it is no agent, an older one, or not live)"
        )));
    };
    let _turn = agent.question(client).await?;
    let mut view = ProbeView {
        node: peer,
        datacenter: member.datacenter,
        calls: 0,
        replies_ms: Vec::new(),
        wrong: 0,
        received: 0,
        problem: None,
    };
    let clock = Clock::start();
    for number in 0..u64::from(calls) {
        let probe = Probe { number, payload: payload(number, bytes) };
        let expected = Probed::of(&probe);
        let at = clock.now();
        view.calls += 1;
        match remote.call(probe).within(WITHIN).await {
            Ok(reply) if reply == expected => {
                view.replies_ms.push(milliseconds(clock.now().since(at)));
                view.received += reply.bytes;
            }
            Ok(_) => view.wrong += 1,
            Err(error) => {
                view.problem = Some(error.to_string().into());
                break;
            }
        }
    }
    Ok(view)
}

fn check(calls: u32, bytes: usize) -> Result<(), CliError> {
    let all = usize::try_from(calls).unwrap_or(usize::MAX).saturating_mul(bytes);
    if (1..=PROBE_CALLS_MAX).contains(&calls) && bytes <= PROBE_BYTES_MAX && all <= PROBE_TOTAL_MAX
    {
        return Ok(());
    }
    Err(CliError::usage(format!(
        "{calls} calls of {bytes} bytes are refused: 1 to {PROBE_CALLS_MAX} calls of at most {PROBE_BYTES_MAX} bytes, \
         together {PROBE_TOTAL_MAX}, are allowed"
    )))
}

/// Bytes that differ from call to call.
fn payload(number: u64, bytes: usize) -> String {
    let mut text = format!("{number:016x}");
    text.extend((text.len()..bytes).map(|at| char::from(b'!' + (at * 31 % 90) as u8)));
    text.truncate(bytes);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_more_calls_and_bytes_than_are_allowed() {
        for (calls, bytes) in
            [(0, 1), (PROBE_CALLS_MAX + 1, 1), (1, PROBE_BYTES_MAX + 1), (5, PROBE_BYTES_MAX)]
        {
            assert!(check(calls, bytes).is_err(), "{calls} calls of {bytes}");
        }
        for (calls, bytes) in [(1, 0), (PROBE_CALLS_MAX, 64), (4, PROBE_BYTES_MAX)] {
            assert!(check(calls, bytes).is_ok(), "{calls} calls of {bytes}");
        }
    }

    #[test]
    fn a_payload_has_the_size_that_was_asked_for_and_no_two_are_equal() {
        for bytes in [0, 3, 16, 1_000] {
            assert_eq!(payload(7, bytes).len(), bytes);
        }
        assert_ne!(payload(1, 64), payload(2, 64));
        let probe = |payload: &str| Probed::of(&Probe { number: 1, payload: payload.to_owned() });
        assert_ne!(probe("ab"), probe("ba"));
    }
}
