//! Completions: the shell asks the program at each TAB (`COMPLETE` in its environment), and the program asks the agent in
//! `--dir` for names of nodes, keys and tags. It asks no agent on another machine: a handshake takes too long for a key press.
//!
//! Keys and tags are chosen by other members, and a shell inserts a candidate as it is. So a candidate that a shell could
//! read as more than one word is not offered.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Arg, ArgMatches, Command};
use clap_complete::{
    Shell,
    engine::{ArgValueCompleter, CompletionCandidate},
    env::{CompleteEnv, EnvCompleter, Shells},
};
use gossipmonger::protocol::id::NodeId;

use super::{
    admin::{Entry, MemberView, Request, Tags},
    client,
    error::CliError,
    output,
    remote::Target,
};

/// Answers a shell that asks for completions, and ends the process; returns if none asks.
pub(crate) fn answer(program: fn() -> Command) {
    let completed = move || with_completers(program(), program);
    CompleteEnv::with_factory(completed).var(VARIABLE).complete();
}

/// Prints what a shell has to load to ask for completions.
pub(crate) fn registration(shell: Shell) -> Result<(), CliError> {
    let name = shell.to_string();
    let shells = Shells::builtins();
    let shell = shells.completer(&name);
    let shell: &dyn EnvCompleter =
        shell.ok_or_else(|| CliError::usage(format!("there are no completions for {name}")))?;
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut script)?;
    output::value(&script, true)
}

/// Adds the completers to the arguments that name what an agent knows.
fn with_completers(command: Command, program: fn() -> Command) -> Command {
    // These take new names.
    if NEW_NAMES.contains(&command.get_name()) {
        return command;
    }
    command
        .mut_args(|argument| completed(argument, program))
        .mut_subcommands(|command| with_completers(command, program))
}

fn completed(argument: Arg, program: fn() -> Command) -> Arg {
    let ask: fn(&Typed) -> Result<Vec<String>, CliError> = match argument.get_id().as_str() {
        "node" | "subject" | "expect" => nodes,
        "key" | "prefix" => keys,
        "names" => tags,
        _ => return argument,
    };
    argument.add(ArgValueCompleter::new(move |begun: &OsStr| {
        // What fails here fails again, with its reason, when the command is entered.
        let typed = Typed::read(program(), std::env::args_os());
        let known = typed.map_or_else(Vec::new, |typed| ask(&typed).unwrap_or_default());
        candidates(known, begun)
    }))
}

/// What of the command line counts for a completion.
#[derive(Debug, PartialEq, Eq)]
struct Typed {
    dir: PathBuf,
    /// Whose keys are asked for; `None`: the agent's own.
    node: Option<NodeId>,
}

impl Typed {
    /// Reads the words after `--`, as far as they are right. `None`: they ask an agent on another machine.
    fn read(program: Command, words: impl Iterator<Item = OsString>) -> Option<Self> {
        let words = words.skip_while(|word| word != "--").skip(1);
        let matches = program.ignore_errors(true).try_get_matches_from(words).ok()?;
        if matches.get_one::<String>("agent").is_some() {
            return None;
        }
        let dir = matches.get_one::<PathBuf>("dir").filter(|dir| !dir.as_os_str().is_empty());
        let dir = dir.cloned().unwrap_or_else(|| PathBuf::from("."));
        Some(Self { dir, node: node(&matches) })
    }
}

/// The node that the command names.
fn node(matches: &ArgMatches) -> Option<NodeId> {
    let (_, command) = matches.subcommand()?;
    command.try_get_one::<NodeId>("node").ok().flatten().cloned().or_else(|| node(command))
}

fn members(dir: &Path) -> Result<Vec<MemberView>, CliError> {
    client::list_within(&Target::from(dir), Request::Members, PATIENCE)
}

fn nodes(typed: &Typed) -> Result<Vec<String>, CliError> {
    Ok(members(&typed.dir)?.into_iter().map(|member| member.node.to_string()).collect())
}

fn keys(typed: &Typed) -> Result<Vec<String>, CliError> {
    let own = || members(&typed.dir).ok()?.into_iter().find(|member| member.local);
    let node = typed.node.clone().or_else(|| own().map(|member| member.node));
    let Some(node) = node else { return Ok(Vec::new()) };
    let request = Request::List { node, prefix: String::new() };
    let entries: Vec<Entry> = client::list_within(&Target::from(&*typed.dir), request, PATIENCE)?;
    Ok(entries.into_iter().map(|entry| entry.key).collect())
}

fn tags(typed: &Typed) -> Result<Vec<String>, CliError> {
    let tags: Tags = client::call_within(&Target::from(&*typed.dir), Request::Tags, PATIENCE)?;
    Ok(tags.tags.into_keys().collect())
}

/// Those that begin like what is typed already, and that every shell reads as one plain word.
fn candidates(known: Vec<String>, begun: &OsStr) -> Vec<CompletionCandidate> {
    let begun = begun.to_string_lossy();
    let fit = known.into_iter().filter(|name| name.starts_with(&*begun) && is_plain(name));
    fit.take(CANDIDATES_MAX).map(CompletionCandidate::new).collect()
}

fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('-')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || PLAIN.contains(c))
}

/// The variable in which a shell says who asks. It does not begin like the agent's own ones.
const VARIABLE: &str = "_GOSSIPMONGER_COMPLETE";
/// What the shell calls.
const PROGRAM: &str = "gossipmonger";
/// Commands whose arguments are names that are not there yet.
const NEW_NAMES: [&str; 4] = ["ca", "issue", "join", "token"];
/// What no shell treats specially inside a word, beside letters and digits.
const PLAIN: &str = "._/@%+,-";
/// How long an agent may take for a list; a shell waits for it.
const PATIENCE: Duration = Duration::from_secs(1);
/// The most candidates that are offered.
const CANDIDATES_MAX: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program;

    fn read(line: &str) -> Option<Typed> {
        Typed::read(
            program(),
            ["gossipmonger", "--"].into_iter().chain(line.split(' ')).map(OsString::from),
        )
    }

    #[test]
    fn offers_no_word_that_a_shell_runs() {
        let known =
            ["a b", "$(reboot)", "`x`", "a;b", "-rf", "", "a\u{1b}[2J", "a'b", "é", "~", "*"];
        let known =
            known.into_iter().chain(["service/web", "a.b-c_1"]).map(str::to_owned).collect();
        let offered = candidates(known, OsStr::new(""));
        let offered: Vec<_> = offered.iter().map(|candidate| candidate.get_value()).collect();
        assert_eq!(offered, ["service/web", "a.b-c_1"].map(OsStr::new));
    }

    #[test]
    fn offers_a_bounded_number_that_begins_as_typed() {
        let known: Vec<_> = (0..2000).map(|number| format!("key-{number}")).collect();
        assert_eq!(candidates(known.clone(), OsStr::new("")).len(), CANDIDATES_MAX);
        assert_eq!(candidates(known, OsStr::new("key-1999")).len(), 1);
    }

    #[test]
    fn asks_the_agent_of_the_directory_that_was_typed() {
        let of = |dir: &str, node: Option<&str>| {
            Some(Typed { dir: dir.into(), node: node.map(|node| NodeId::new(node).unwrap()) })
        };
        assert_eq!(read("gossipmonger why b"), of(".", None));
        assert_eq!(read("gossipmonger --dir x get a co"), of("x", Some("a")));
        assert_eq!(read("gossipmonger get a --dir x "), of("x", Some("a")));
        assert_eq!(read("gossipmonger set co"), of(".", None));
        assert_eq!(read("gossipmonger --agent h:1 get a co"), None);
    }

    #[test]
    fn completes_what_is_there_and_no_new_name() {
        let command = with_completers(program(), program);
        let has = |path: &[&str], id: &str| {
            let command = path.iter().fold(&command, |at, name| at.find_subcommand(name).unwrap());
            let argument = command.get_arguments().find(|arg| arg.get_id() == id).unwrap();
            argument.get::<ArgValueCompleter>().is_some()
        };
        for (path, id) in [
            (&["why"][..], "subject"),
            (&["get"], "node"),
            (&["get"], "key"),
            (&["set"], "key"),
            (&["delete"], "key"),
            (&["watch"], "prefix"),
            (&["remove"], "node"),
            (&["call"], "node"),
            (&["members"], "node"),
            (&["cert", "revoke"], "node"),
            (&["tags", "delete"], "names"),
        ] {
            assert!(has(path, id), "{path:?} {id}");
        }
        assert!(!has(&["cert", "issue"], "node") && !has(&["token", "create"], "node"));
    }
}
