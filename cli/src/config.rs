//! The configuration of an agent: a TOML file, overridden by the environment.

mod file;
mod known;
mod links;
mod tables;

pub(crate) use self::{
    file::{ENV_PREFIX, FileError, socket_address},
    links::is_service_link,
    tables::{ConfigFile, LogFormat, Preset},
};
