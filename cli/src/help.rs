//! What `--help` and the manual pages add to the command line: examples, and no flags that a command refuses.

use clap::Command;

use super::remote;

/// The command line as it is shown and parsed.
pub(crate) fn explained(mut command: Command) -> Command {
    for (path, examples) in EXAMPLES {
        command = at(command, path, &|command| command.after_help(text(examples)));
    }
    command = with_connection(command, "bench", "live");
    for name in LOCAL {
        command = without_connection(command, name);
    }
    command
}

/// Changes the subcommand at a path.
fn at(command: Command, path: &str, change: &dyn Fn(Command) -> Command) -> Command {
    match path.split_once(' ') {
        None => command.mut_subcommand(path, change),
        Some((first, rest)) => command.mut_subcommand(first, |inner| at(inner, rest, change)),
    }
}

/// Keeps the flags that say which agent is asked for one subcommand of a command that has none.
fn with_connection(command: Command, name: &str, inner: &str) -> Command {
    let flags =
        command.get_arguments().filter(|flag| remote::FLAGS.contains(&flag.get_id().as_str()));
    let shown: Vec<_> = flags.cloned().collect();
    command.mut_subcommand(name, |outer| outer.mut_subcommand(inner, |inner| inner.args(shown)))
}

/// Hides the flags that say which agent is asked. They are still parsed, so that an error can say why they are refused.
fn without_connection(command: Command, name: &str) -> Command {
    let flags =
        command.get_arguments().filter(|flag| remote::FLAGS.contains(&flag.get_id().as_str()));
    let hidden: Vec<_> = flags.map(|flag| flag.clone().hide(true)).collect();
    // A global flag does not replace one that the subcommand has already, and is its value all the same.
    command.mut_subcommand(name, |inner| inner.args(hidden))
}

fn text(examples: &[&str]) -> String {
    let lines = examples.iter().map(|example| format!("\n  gossipmonger {example}"));
    format!("{HEADING}{}", lines.collect::<String>())
}

const HEADING: &str = "Examples:";

/// The commands that ask no agent.
const LOCAL: [&str; 8] = ["ca", "join", "agent", "demo", "bench", "simulate", "completions", "man"];

/// By command. Some commands have theirs in their own files.
const EXAMPLES: &[(&str, &[&str])] = &[
    ("ca init", &["ca init --cluster demo --dir pki"]),
    ("ca rotate", &["ca rotate --dir pki    # again for each next phase"]),
    ("ca status", &["ca status --dir pki"]),
    (
        "cert issue",
        &[
            "cert issue --ca pki --node a --datacenter eu --dir a",
            "cert issue --ca pki --client alice --role watch --dir alice",
        ],
    ),
    ("cert renew", &["cert renew --dir a", "cert renew --dir a --ca pki --break-glass"]),
    ("cert show", &["cert show --dir a", "cert show a/node.pem"]),
    ("cert revoke", &["--dir a cert revoke c --ca pki"]),
    ("cert revocations", &["--dir a cert revocations"]),
    ("token create", &["--dir a token create --node b --ttl 1h"]),
    ("token list", &["--dir a token list"]),
    ("token revoke", &["--dir a token revoke 5f1c"]),
    ("join", &["join TOKEN 10.0.0.1 --dir b"]),
    ("drain", &["--dir a drain"]),
    ("undrain", &["--dir a undrain"]),
    (
        "agent",
        &[
            "agent --dir a --check",
            "agent --dir a --listen 127.0.0.1:7101 --seed 127.0.0.1:7201",
            "agent --dir a --listen 0.0.0.0:7101 --advertise a.example:7101 --preset wan --issuer pki",
        ],
    ),
    ("delete", &["--dir a delete color"]),
    ("info", &["--dir a info", "--agent 10.0.0.1:7101 --cert alice info --json"]),
    ("watch", &["--dir a watch service/ --existing", "--dir a watch --json"]),
    ("events", &["--dir a events", "--dir a events --json"]),
    ("tags set", &["--dir a tags set role=db zone=1"]),
    ("tags delete", &["--dir a tags delete zone"]),
    ("tags", &["--dir a tags", "--dir a tags set role=db"]),
    ("remove", &["--dir a remove c"]),
    ("reload", &["--dir a reload"]),
    ("leave", &["--dir c leave"]),
    ("demo", &["demo", "demo --help"]),
    ("bench", &["bench spread --nodes 50", "bench calls", "--dir a bench live"]),
    ("simulate", &["simulate --scenario idle --nodes 1000"]),
    ("completions", &["completions bash"]),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program;

    /// All commands that are shown and run, with their paths.
    fn leaves(command: &Command, path: &str, found: &mut Vec<(String, Command)>) {
        for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
            let path = format!("{path} {}", inner.get_name());
            if inner.has_subcommands() {
                leaves(inner, &path, found);
            } else {
                found.push((path, inner.clone()));
            }
        }
    }

    fn examples(command: &Command) -> Vec<String> {
        let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let lines = after.lines().filter_map(|line| line.trim().split(['#', '>']).next());
        lines
            .filter(|line| line.starts_with("gossipmonger "))
            .map(|line| line.trim().to_owned())
            .collect()
    }

    #[test]
    fn each_command_shows_examples_that_are_right() {
        let mut found = Vec::new();
        leaves(&program(), "", &mut found);
        for (path, command) in found.iter().filter(|(path, _)| !path.starts_with(" bench")) {
            let examples = examples(command);
            assert!(!examples.is_empty(), "{path} has no example");
            for example in examples {
                let name = path.trim_start();
                assert!(example.contains(name.split(' ').next().unwrap()), "{path}: {example}");
                if let Err(error) = program().try_get_matches_from(example.split(' ')) {
                    assert!(!error.use_stderr(), "{example}: {error}");
                }
            }
        }
    }

    #[test]
    fn a_command_that_asks_no_agent_shows_no_flag_for_one() {
        for name in LOCAL {
            let help =
                program().try_get_matches_from(["gossipmonger", name, "--help"]).unwrap_err();
            assert!(!help.to_string().contains("--client-key"), "{name}: {help}");
        }
        for line in [&["members"][..], &["bench", "live"]] {
            let line = [&["gossipmonger"], line, &["--help"]].concat();
            let help = program().try_get_matches_from(line).unwrap_err().to_string();
            assert!(help.contains("--client-key"), "{help}");
        }
    }

    #[test]
    fn commands_are_described_in_the_imperative() {
        let mut found = Vec::new();
        leaves(&program(), "", &mut found);
        for (path, command) in found.iter().filter(|(path, _)| !path.starts_with(" bench")) {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            let verb = about.split(' ').next().unwrap_or_default();
            assert!(!verb.is_empty() && !verb.ends_with('s'), "{path}: {about}");
        }
    }
}
