//! How a command fails: one line for people, one exit code for scripts.

use std::{fmt, io, process::ExitCode};

use gossipmonger::Error;

use super::output;

/// The meaning of the program's exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// It was done.
    Done = 0,
    /// It failed.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// There is no such key, tag or node.
    NotFound = 3,
    /// No agent runs in the directory.
    NoAgent = 4,
    /// The node must not join: it has left on purpose, another process uses its name, its certificate was revoked, or
    /// an issuer refused it.
    Unwelcome = 5,
    /// The certificate, the key or the roots are missing, or cannot be used as they are now.
    Credentials = 6,
    /// The user ended it before there was a verdict.
    Interrupted = 130,
}

/// What is shown after `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  the command line or the configuration is wrong
  3  no such key, tag or node
  4  no agent runs in the directory
  5  the node must not join: it has left on purpose, another process uses its name, its certificate
     was revoked, or an issuer refused it
  6  the certificate, the key or the roots of the agent are missing or cannot be used: it may be started
     again when they are there";

/// A command failed.
#[derive(Debug)]
pub(crate) struct CliError {
    exit: Exit,
    message: String,
}

impl CliError {
    /// It failed for a reason without a code of its own.
    pub(crate) fn failed(message: impl fmt::Display) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// The command line or the configuration is wrong.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// There is no such key, tag or node.
    pub(crate) fn not_found(message: impl fmt::Display) -> Self {
        Self::new(Exit::NotFound, message)
    }

    /// Certificate, key or roots cannot be used.
    pub(crate) fn credentials(message: impl fmt::Display) -> Self {
        Self::new(Exit::Credentials, message)
    }

    pub(crate) const fn exit(&self) -> Exit {
        self.exit
    }

    pub(crate) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: message.to_string() }
    }

    /// Prints the error, and returns the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        if self.exit != Exit::Done {
            output::note(&self.message);
        }
        ExitCode::from(self.exit as u8)
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.message)
    }
}

impl From<Error> for CliError {
    fn from(error: Error) -> Self {
        match &error {
            Error::UnknownPeer(_) => Self::not_found(error),
            Error::Refused(_) => Self::usage(error),
            _ => Self::failed(error),
        }
    }
}

impl From<io::Error> for CliError {
    /// The reader of the output may have seen enough (`members | head -1`): that is not a failure.
    fn from(error: io::Error) -> Self {
        let exit =
            if error.kind() == io::ErrorKind::BrokenPipe { Exit::Done } else { Exit::Failed };
        Self::new(exit, error)
    }
}
