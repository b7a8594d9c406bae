//! The `gossipmonger` program: one file for each group of subcommands.
//!
//! Subcommands that concern a running agent talk to it over the Unix socket in its directory, or with `--agent`
//! over QUIC (`admin.rs`).

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand, parser::ValueSource};

mod access;
mod admin;
mod agent;
mod api;
mod all_keys;
mod archive;
mod bench;
mod by_hand;
mod call;
mod certificates;
mod client;
mod completion;
mod config;
mod control;
mod demo;
mod effective;
mod error;
mod expiry;
mod experiment;
mod help;
mod join;
mod keys;
mod man;
mod members;
mod monitor;
mod notices;
mod output;
mod paths;
mod plot;
mod probe;
mod revocations;
mod remote;
mod services;
mod simulate;
mod spread;
mod stopwatch;
mod terminal;
mod throwaway;
mod token;
mod top;
mod watch;
mod web;
mod why;
mod why_service;

use error::{CliError, EXIT_CODES};
use gossipmonger::unstable::{clock, repeats};
use remote::Target;

fn main() -> ExitCode {
    completion::answer(program);
    let matches = program().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match cli.command.refuse_what_it_ignores(&matches).and_then(|()| run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}

/// The whole command line.
fn program() -> clap::Command {
    help::explained(Cli::command())
}

/// Cluster membership and shared state over mutually authenticated QUIC.
#[derive(Debug, Parser)]
#[command(name = "gossipmonger", version, after_help = EXIT_CODES)]
struct Cli {
    /// The directory of the agent (default: the current one), or that certificates are written to.
    #[arg(long, global = true, help_heading = remote::HEADING, value_name = "DIR", env = DIR_VARIABLE, value_parser = remote::path())]
    dir: Option<PathBuf>,
    #[command(flatten)]
    remote: remote::Flags,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ca(certificates::Ca),
    Cert(certificates::Cert),
    Join(join::Args),
    Token(token::Token),
    Agent(Box<agent::Args>),
    Set(keys::Set),
    Delete(keys::Delete),
    Get(keys::Get),
    Keys(all_keys::Keys),
    Behind(spread::Behind),
    Event(notices::EventArgs),
    Query(notices::Query),
    Members(members::Members),
    Services(services::Services),
    Call(call::Call),
    Info(members::InfoArgs),
    Config(effective::ConfigArgs),
    Monitor(monitor::Monitor),
    Debug(archive::Debug),
    Top(top::Top),
    Watch(watch::Watch),
    Events(watch::Events),
    Tags(control::TagsArgs),
    Why(why::Why),
    Web(web::Web),
    Rtt(paths::Rtt),
    Reachability(paths::Reachability),
    Remove(members::Remove),
    Drain(control::Drain),
    Undrain(control::Undrain),
    Reload(control::Reload),
    Leave(control::Leave),
    /// Start a cluster on loopback, to look at.
    Demo(demo::Args),
    /// Measure how fast this is.
    Bench(bench::Args),
    /// Run a cluster of any size in virtual time.
    Simulate(simulate::Args),
    /// Print what a shell loads to complete commands, and names of nodes, keys and tags.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    #[command(hide = true)]
    Man(man::Man),
}

impl Command {
    /// Whether the command sends a request to an agent, on this machine or another.
    const fn asks_an_agent(&self) -> bool {
        match self {
            Self::Ca(_)
            | Self::Join(_)
            | Self::Agent(_)
            | Self::Demo(_)
            | Self::Simulate(_)
            | Self::Completions { .. }
            | Self::Man(_) => false,
            Self::Bench(args) => args.asks_an_agent(),
            Self::Cert(args) => args.asks_an_agent(),
            // `token` itself reports that it is for the agent's own machine.
            Self::Token(_)
            | Self::Set(_)
            | Self::Delete(_)
            | Self::Get(_)
            | Self::Keys(_)
            | Self::Behind(_)
            | Self::Event(_)
            | Self::Query(_)
            | Self::Members(_)
            | Self::Services(_)
            | Self::Call(_)
            | Self::Info(_)
            | Self::Config(_)
            | Self::Monitor(_)
            | Self::Debug(_)
            | Self::Top(_)
            | Self::Watch(_)
            | Self::Events(_)
            | Self::Tags(_)
            | Self::Why(_)
            | Self::Web(_)
            | Self::Rtt(_)
            | Self::Reachability(_)
            | Self::Remove(_)
            | Self::Drain(_)
            | Self::Undrain(_)
            | Self::Reload(_)
            | Self::Leave(_) => true,
        }
    }

    /// Whether the command uses `--dir`.
    fn has_directory(&self) -> bool {
        match self {
            Self::Bench(args) => args.is_member() || args.asks_an_agent(),
            Self::Demo(_) | Self::Simulate(_) | Self::Man(_) => false,
            _ => true,
        }
    }

    /// Refuses a flag that would have no effect, since its user expects one. Environment variables apply to all
    /// commands, so they are ignored where they have no effect.
    fn refuse_what_it_ignores(&self, matches: &ArgMatches) -> Result<(), CliError> {
        let given = |id: &&str| matches.value_source(id) == Some(ValueSource::CommandLine);
        if !self.asks_an_agent()
            && let Some(flag) = remote::FLAGS.iter().find(|id| given(id))
        {
            return Err(CliError::usage(format!(
                "--{flag} is for commands that ask an agent; this one works on this machine alone"
            )));
        }
        if !self.has_directory() && given(&"dir") {
            return Err(CliError::usage("this command has no directory: leave --dir out"));
        }
        Ok(())
    }
}

fn run(cli: Cli) -> Result<(), CliError> {
    // An empty variable counts as unset.
    let given = cli.dir.as_deref().filter(|dir| !dir.as_os_str().is_empty());
    let dir = given.unwrap_or_else(|| Path::new("."));
    let agent = &Target::new(dir, cli.remote);
    match cli.command {
        Command::Ca(args) => certificates::ca(given, args),
        Command::Cert(args) => certificates::cert(given, agent, args),
        Command::Join(args) => join::run(given, args),
        Command::Token(args) => token::token(agent.here()?, args),
        Command::Agent(args) => agent::run(dir, *args),
        Command::Set(args) => keys::set(agent, args),
        Command::Delete(args) => keys::delete(agent, args),
        Command::Get(args) => keys::get(agent, args),
        Command::Keys(args) => all_keys::keys(agent, args),
        Command::Behind(args) => spread::behind(agent, &args),
        Command::Event(args) => notices::event(agent, args),
        Command::Query(args) => notices::query(agent, args),
        Command::Members(args) => members::members(agent, &args),
        Command::Services(args) => services::services(agent, &args),
        Command::Call(args) => call::call(agent, args),
        Command::Monitor(args) => monitor::monitor(agent, args),
        Command::Debug(args) => archive::debug(agent, args),
        Command::Config(args) => effective::config(agent, &args),
        Command::Info(args) => members::info(agent, &args),
        Command::Top(args) => top::top(agent, &args),
        Command::Watch(args) => watch::watch(agent, args),
        Command::Events(args) => watch::events(agent, &args),
        Command::Tags(args) => control::tags(agent, args),
        Command::Why(args) => why::why(agent, args),
        Command::Web(args) => web::web(agent, &args),
        Command::Rtt(args) => paths::rtt(agent, args),
        Command::Reachability(args) => paths::reachability(agent, &args),
        Command::Drain(args) => control::drain(agent, &args),
        Command::Undrain(args) => control::undrain(agent, &args),
        Command::Remove(args) => members::remove(agent, args),
        Command::Reload(args) => control::reload(agent, &args),
        Command::Leave(args) => control::leave(agent, &args),
        Command::Demo(args) => demo::run(args),
        Command::Bench(args) => bench::run(agent, dir, args),
        Command::Simulate(args) => simulate::run(args),
        Command::Completions { shell } => completion::registration(shell),
        Command::Man(args) => man::man(program(), &args),
    }
}

/// The default of `--dir`.
const DIR_VARIABLE: &str = "GOSSIPMONGER_DIR";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        program().debug_assert();
    }

    #[test]
    fn refuses_flags_that_would_change_nothing() {
        let refused = |line: &str| {
            let matches = program().try_get_matches_from(line.split(' ')).unwrap();
            let cli = Cli::from_arg_matches(&matches).unwrap();
            cli.command.refuse_what_it_ignores(&matches).err().map(|error| error.to_string())
        };
        for line in [
            "gossipmonger --agent x:1 ca init --cluster c --dir d",
            "gossipmonger ca init --cluster c --dir d --agent x:1",
            "gossipmonger cert show --expect a",
            "gossipmonger agent --cert d",
            "gossipmonger demo --dir d",
            "gossipmonger bench calls --dir d",
            "gossipmonger bench drive --agent x:1",
            "gossipmonger bench spread --cert d",
        ] {
            assert!(refused(line).is_some(), "{line}");
        }
        for line in [
            "gossipmonger members --agent x:1 --cert d --expect a",
            "gossipmonger --agent x:1 --client-key k cert revoke b",
            "gossipmonger cert show --dir d",
            "gossipmonger bench provide --dir d",
            "gossipmonger bench live --dir d",
            "gossipmonger bench live --agent x:1 --cert d",
        ] {
            assert_eq!(refused(line), None, "{line}");
        }
    }

    #[test]
    fn takes_the_directory_before_and_after_the_command() {
        for line in ["gossipmonger --dir a members", "gossipmonger members --dir a"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.dir, Some(PathBuf::from("a")));
        }
    }
}
