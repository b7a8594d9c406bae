//! The agent's log: to standard error, for people or as JSON; its level can be changed. No thread waits for a line to
//! be written: see [`spool`](super::spool).

use std::{
    fmt,
    io::{self, IsTerminal},
};

use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::LevelFilter, layer::SubscriberExt, reload,
    util::SubscriberInitExt,
};

use super::{
    lines::{Form, OneLine},
    monitor::Monitors,
    settings::Settings,
    spool::{Lost, Spool},
    tail::{Tail, Tee},
};
use crate::{config::LogFormat, error::CliError};

/// The running log.
#[derive(Debug)]
pub(super) struct Logs {
    filter: reload::Handle<EnvFilter, Registry>,
    spool: Spool,
    tail: Tail,
    monitors: Monitors,
}

impl Logs {
    pub(super) fn start(settings: &Settings) -> Result<Self, CliError> {
        let (filter, handle) = reload::Layer::new(settings.log_filter()?);
        let (tail, monitors) = (Tail::default(), Monitors::default());
        let colors = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let format = settings.file.log_format.unwrap_or_default();
        let form = match format {
            LogFormat::Json => Form::Json,
            _ if colors => Form::Colored,
            _ => Form::Plain,
        };
        let spool = Spool::start(io::stderr(), |Lost { dropped, failed }| {
            if dropped > 0 {
                tracing::warn!(
                    dropped,
                    "log lines were dropped: standard error was not read for a while"
                );
            }
            if failed > 0 {
                tracing::warn!(
                    failed,
                    "log lines were lost: standard error could not be written; is its disk full?"
                );
            }
        })?;
        let both = (tail.clone(), spool.clone());
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(OneLine::new(form, move || Tee(both.0.clone(), both.1.clone())))
            .log_internal_errors(false);
        let lines = match format {
            LogFormat::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
            _ => lines.with_ansi(colors).with_target(false).with_filter(filter).boxed(),
        };
        let watched = tracing_subscriber::fmt::layer()
            .with_writer(OneLine::new(Form::Plain, monitors.clone()))
            .log_internal_errors(false)
            .with_ansi(false)
            .with_filter(monitors.clone());
        let started = tracing_subscriber::registry().with(lines).with(watched).try_init();
        started.map_err(CliError::failed)?;
        // Rust's own hook writes to standard error, and blocks on it.
        std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
        Ok(Self { filter: handle, spool, tail, monitors })
    }

    /// Lines that wait for standard error.
    pub(super) const fn spool(&self) -> &Spool {
        &self.spool
    }

    /// The last lines.
    pub(super) const fn tail(&self) -> &Tail {
        &self.tail
    }

    /// The readers of the log with a level of their own.
    pub(super) const fn monitors(&self) -> &Monitors {
        &self.monitors
    }

    /// Logs at another level from now on.
    pub(super) fn set(&self, filter: EnvFilter) {
        // It fails only if the log is gone.
        let _ = self.filter.reload(filter);
    }
}

/// A level applies to this program; of its libraries only warnings are shown then.
pub(super) fn filter(log: &str) -> Result<EnvFilter, CliError> {
    let level = log.parse::<tracing::Level>().is_ok() || log == "off";
    let directives = if level { format!("warn,gossipmonger={log}") } else { log.to_owned() };
    let directives = if log == "off" { log.to_owned() } else { directives };
    let refused = |why: &dyn fmt::Display| {
        CliError::usage(format!(
            "log = {log:?} is refused: error, warn, info, debug, trace, off or directives of the \
             tracing crate are allowed: {why}"
        ))
    };
    // The tracing crate would take a misspelt level for a target and show nothing else.
    let misspelt = |word: &&str| word.parse::<LevelFilter>().is_err() && !word.contains(['=', '[']);
    let words: Vec<&str> = directives.split(',').map(str::trim).collect();
    if let Some(word) = words.iter().copied().find(misspelt) {
        return Err(refused(&format!(
            "{word:?} is no level, and a target needs one ({word}=debug)"
        )));
    }
    EnvFilter::try_new(words.join(",")).map_err(|error| refused(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_no_level() {
        let error = filter("gossipmonger=loud").unwrap_err().to_string();
        assert!(error.starts_with("log = \"gossipmonger=loud\" is refused"), "{error}");
        let error = filter("verbose").unwrap_err().to_string();
        assert!(error.contains("\"verbose\" is no level"), "{error}");
        assert!(filter("info,quinn").is_err());
    }

    #[test]
    fn a_level_is_meant_for_this_program() {
        assert_eq!(filter("debug").unwrap().to_string(), "gossipmonger=debug,warn");
        assert_eq!(filter("off").unwrap().to_string(), "off");
        assert_eq!(filter("quinn=trace").unwrap().to_string(), "quinn=trace");
        assert_eq!(filter("warn, quinn=trace").unwrap().to_string(), "quinn=trace,warn");
    }
}
