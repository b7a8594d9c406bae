//! `gossipmonger.toml`, the configuration in the directory of a node: `gossipmonger join` writes it, the agent and
//! [`Builder`](crate::Builder) read it.
//!
//! The agent has keys of its own in it (`metrics`, `log`, ...); [`ConfigFile`] has them all, so that one definition
//! decides which keys are known.

mod known;
mod links;
mod reading;
mod tables;

pub use self::{
    links::is_service_link,
    reading::{ENV_PREFIX, FileError, socket_address},
    tables::{ConfigFile, LimitsTable, LogFormat, Preset, QuicTable, RestartsTable, ServicesTable},
};
