//! `man`: the manual pages, one for each command, from the same texts as `--help`. For packagers.

use std::{fs, path::PathBuf};

use clap::Command;

use super::error::CliError;

/// Write the manual pages into a directory.
#[derive(Debug, clap::Args)]
pub(crate) struct Man {
    /// Where to write them; it is made if it is not there.
    #[arg(id = "out", value_name = "DIR")]
    out: PathBuf,
}

pub(crate) fn man(program: Command, args: &Man) -> Result<(), CliError> {
    let named = |error| CliError::failed(format!("{}: {error}", args.out.display()));
    fs::create_dir_all(&args.out).map_err(named)?;
    clap_mangen::generate_to(program, &args.out).map_err(named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program;

    #[test]
    fn there_is_a_page_for_each_command_that_is_shown() {
        let out = tempfile::tempdir().unwrap();
        let args = Man { out: out.path().join("man1") };
        man(program(), &args).unwrap();
        for command in program().get_subcommands() {
            let page = args.out.join(format!("gossipmonger-{}.1", command.get_name()));
            assert_ne!(page.exists(), command.is_hide_set(), "{}", page.display());
        }
        let page = fs::read_to_string(args.out.join("gossipmonger-cert-issue.1")).unwrap();
        assert!(page.contains(".SH SYNOPSIS") && page.contains("datacenter"), "{page}");
    }
}
