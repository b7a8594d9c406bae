//! What a supervisor asks: is the process alive, and may it have traffic.

use std::time::SystemTime;

use gossipmonger::protocol::state::PeerState;
use http::{Response, StatusCode};
use serde_json::json;

use super::answer::{Body, text};
use crate::{agent::server::Agent, clock::Clock};

/// 200 while the node runs.
pub(super) fn live(agent: &Agent) -> Response<Body> {
    match agent.node.has_ended() {
        false => text(StatusCode::OK, KIND, "{\"live\":true}\n"),
        true => text(StatusCode::SERVICE_UNAVAILABLE, KIND, "{\"live\":false}\n"),
    }
}

/// 200 when the node has met the cluster or is its first node, its store takes writes and its certificate is valid.
pub(super) fn ready(agent: &Agent) -> Response<Body> {
    let problems = problems(agent, Clock::wall());
    let status = if problems.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({"ready": problems.is_empty(), "problems": problems});
    text(status, KIND, format!("{body}\n"))
}

fn problems(agent: &Agent, now: SystemTime) -> Vec<String> {
    let node = &agent.node;
    let mut problems = Vec::new();
    if node.has_ended() {
        problems.push("the node ends".to_owned());
    }
    let certificate = agent.reloader.certificate();
    if certificate.expires <= now {
        problems.push("the node's certificate has expired".to_owned());
    }
    if now < certificate.not_before {
        problems.push("the node's certificate is not valid yet".to_owned());
    }
    if node.counters().store_is_failing() {
        problems.push("the store takes no writes: see the log".to_owned());
    }
    if !has_met(agent) {
        problems.push("no seed has been reached yet".to_owned());
    }
    problems
}

/// Whether the node has met another one since its start, or has nobody to meet.
fn has_met(agent: &Agent) -> bool {
    let node = &agent.node;
    let alone = node.config().seeds.is_empty();
    alone
        || agent.met(|| {
            node.snapshot().members().any(|member| {
                !member.local && matches!(member.state, PeerState::Live | PeerState::Suspect)
            })
        })
}

const KIND: &str = "application/json";
