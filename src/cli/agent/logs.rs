//! The agent's log: to standard error, for people or as JSON; its level can be changed.

use std::io::{self, IsTerminal};

use tracing_subscriber::{
    EnvFilter, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

use super::settings::Settings;
use crate::{cli::error::CliError, config::LogFormat};

/// The running log.
#[derive(Debug)]
pub(super) struct Logs {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl Logs {
    pub(super) fn start(settings: &Settings) -> Result<Self, CliError> {
        let (filter, handle) = reload::Layer::new(filter(settings.log())?);
        let registry = tracing_subscriber::registry().with(filter);
        let lines =
            tracing_subscriber::fmt::layer().with_writer(io::stderr).log_internal_errors(false);
        let started = match settings.file.log_format.unwrap_or_default() {
            LogFormat::Text => {
                let colors = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
                registry.with(lines.with_ansi(colors).with_target(false)).try_init()
            }
            LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
        };
        started.map_err(CliError::failed)?;
        Ok(Self { filter: handle })
    }

    /// Logs by another level from now on.
    pub(super) fn set(&self, filter: EnvFilter) {
        // It fails only if the log has gone.
        let _ = self.filter.reload(filter);
    }
}

/// A level is meant for this program; of its libraries only warnings are shown then.
pub(super) fn filter(log: &str) -> Result<EnvFilter, CliError> {
    let level = log.parse::<tracing::Level>().is_ok() || log == "off";
    let directives = if level { format!("warn,gossipmonger={log}") } else { log.to_owned() };
    let directives = if log == "off" { log.to_owned() } else { directives };
    EnvFilter::try_new(directives).map_err(|error| {
        CliError::usage(format!(
            "log = {log:?} is refused: error, warn, info, debug, trace or directives of the tracing \
             crate are allowed: {error}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_no_level() {
        let error = filter("gossipmonger=loud").unwrap_err().to_string();
        assert!(error.starts_with("log = \"gossipmonger=loud\" is refused"), "{error}");
    }

    #[test]
    fn a_level_is_meant_for_this_program() {
        assert_eq!(filter("debug").unwrap().to_string(), "gossipmonger=debug,warn");
        assert_eq!(filter("off").unwrap().to_string(), "off");
        assert_eq!(filter("quinn=trace").unwrap().to_string(), "quinn=trace");
    }
}
