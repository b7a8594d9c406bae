//! `debug`: one archive with what a person needs who looks for a fault, and without secrets: no private key, no token, and
//! no value of any key.

use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt, path::PathBuf, time::UNIX_EPOCH};

use gossipmonger::{Foreign, protocol::id::NodeId};
use serde_json::Value;

use super::{
    admin::{Info, MemberView, Request, State},
    client,
    clock::Clock,
    error::CliError,
    output,
    remote::Target,
};

/// Write an archive for the diagnosis of a fault: state, configuration, evidence, counters and the end of the log.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gossipmonger --dir a debug
  gossipmonger --dir a debug --out /tmp/a.tar

It holds names, addresses and tags of all nodes. It holds no private key, no token, and no value of any key. What could
not be had is listed in problems.txt.")]
pub(crate) struct Debug {
    /// The file to write; it must not exist. Default: gossipmonger-debug-NODE-SECONDS.tar in the current directory.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// The archive while it is made.
struct Archive {
    tar: tar::Builder<std::fs::File>,
    /// Seconds since 1970.
    now: u64,
    problems: String,
}

pub(crate) fn debug(agent: &Target, args: Debug) -> Result<(), CliError> {
    let info: Value = client::call(agent, Request::Info)?;
    let about: Info = serde_json::from_value(info.clone()).map_err(CliError::failed)?;
    let now = Clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let default = || format!("gossipmonger-debug-{}-{now}.tar", about.node).into();
    let path = args.out.unwrap_or_else(default);
    let mut archive = Archive::create(&path, now)?;
    archive.json("info.json", &info)?;
    let members = archive.list(agent, "members.json", Request::Members)?;
    for (name, request) in [
        ("config.json", Request::Config),
        ("services.json", Request::Services),
        ("callers.json", Request::Callers { service: None }),
        ("paths.json", Request::Paths),
        ("reachability.json", Request::Reachability),
        ("behind.json", Request::Behind),
        ("revocations.json", Request::Revocations),
    ] {
        archive.list(agent, name, request)?;
    }
    for node in not_live(members, &mut archive.problems) {
        let name = format!("why/{node}.json");
        match client::call::<Value>(agent, Request::Why { node }) {
            Ok(why) => archive.json(&name, &why)?,
            Err(error) => archive.miss(&name, &error),
        }
    }
    archive.log(agent)?;
    archive.metrics(agent)?;
    archive.finish()?;
    output::line(&path.display().to_string())
}

/// The nodes whose history belongs into the archive.
fn not_live(members: Vec<Value>, problems: &mut String) -> Vec<NodeId> {
    let members = members.into_iter().filter_map(|row| serde_json::from_value(row).ok());
    let members = members.filter(|member: &MemberView| member.state != State::Live);
    let mut nodes: Vec<_> = members.map(|member| member.node).collect();
    if nodes.len() > WHY_MAX {
        problems.push_str(&format!(
            "why: of {} nodes that are not live, the first {WHY_MAX} are here\n",
            nodes.len()
        ));
        nodes.truncate(WHY_MAX);
    }
    nodes
}

impl Archive {
    fn create(path: &PathBuf, now: u64) -> Result<Self, CliError> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|error| CliError::usage(format!("{}: {error}", path.display())))?;
        Ok(Self { tar: tar::Builder::new(file), now, problems: String::new() })
    }

    fn add(&mut self, name: &str, content: &[u8]) -> Result<(), CliError> {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.now);
        header.set_cksum();
        Ok(self.tar.append_data(&mut header, format!("gossipmonger-debug/{name}"), content)?)
    }

    fn json(&mut self, name: &str, value: &Value) -> Result<(), CliError> {
        let mut text = serde_json::to_string_pretty(value).map_err(CliError::failed)?;
        text.push('\n');
        self.add(name, text.as_bytes())
    }

    /// Adds the items of an answer, and returns them; none if they could not be had.
    fn list(
        &mut self,
        agent: &Target,
        name: &str,
        request: Request,
    ) -> Result<Vec<Value>, CliError> {
        match client::list::<Value>(agent.clone(), request) {
            Ok(items) => {
                self.json(name, &Value::Array(items.clone()))?;
                Ok(items)
            }
            Err(error) => {
                self.miss(name, &error);
                Ok(Vec::new())
            }
        }
    }

    fn miss(&mut self, name: &str, error: &dyn std::fmt::Display) {
        self.problems.push_str(&format!("{name}: {error}\n"));
    }

    fn log(&mut self, agent: &Target) -> Result<(), CliError> {
        match client::list::<Foreign>(agent.clone(), Request::LogTail) {
            Ok(lines) => {
                let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
                self.add("log.txt", lines.as_bytes())
            }
            Err(error) => {
                self.miss("log.txt", &error);
                Ok(())
            }
        }
    }

    /// The socket has the metrics, and it is on the agent's own machine.
    fn metrics(&mut self, agent: &Target) -> Result<(), CliError> {
        match agent.here().and_then(client::metrics) {
            Ok(page) => self.add("metrics.txt", &page),
            Err(error) => {
                self.miss("metrics.txt", &error);
                Ok(())
            }
        }
    }

    fn finish(mut self) -> Result<(), CliError> {
        let problems = std::mem::take(&mut self.problems);
        self.add("problems.txt", problems.as_bytes())?;
        Ok(self.tar.into_inner()?.sync_all()?)
    }
}

/// Histories of nodes that are not live.
const WHY_MAX: usize = 100;
