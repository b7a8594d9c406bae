//! The configuration of an agent: a TOML file, overridden by the environment. The library reads the same file.

pub(crate) use gossipmonger::unstable::config_file::{
    ConfigFile, ENV_PREFIX, FileError, LogFormat, Preset, is_service_link, socket_address,
};
