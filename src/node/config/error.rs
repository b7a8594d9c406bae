//! A value that is refused.

/// A value out of its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {value} is refused: {allowed}")]
#[non_exhaustive]
pub struct ConfigError {
    /// The name of the setting.
    pub key: &'static str,
    /// Its value.
    pub value: String,
    /// The allowed values.
    pub allowed: String,
}
