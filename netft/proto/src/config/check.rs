//! Errors of settings, and the checks of numbers, texts and counts.

use crate::config::key::ConfigKey;

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A number outside its range.
    #[error("`{}` is {}, not {value}", .key.path, .key.syntax)]
    OutOfRange {
        /// The key of the setting in `netft.toml`.
        key: &'static ConfigKey,
        /// The value given.
        value: u64,
    },
    /// A name, prefix or address with a mistake.
    #[error("`{}` is {}, not {value:?}: {reason}", .key.path, .key.syntax)]
    NotAllowed {
        /// The key of the setting in `netft.toml`.
        key: &'static ConfigKey,
        /// The value given.
        value: String,
        /// The mistake.
        reason: String,
    },
    /// A value that two nodes share.
    #[error("`{}` {value} is used twice", .key.path)]
    UsedTwice {
        /// The key of the setting in `netft.toml`.
        key: &'static ConfigKey,
        /// The value.
        value: String,
    },
    /// A list that is too long.
    #[error("{count} {what}, more than the {most} allowed")]
    TooMany {
        /// The entries of the list.
        what: &'static str,
        /// Their number.
        count: usize,
        /// The most allowed.
        most: usize,
    },
    /// A private key that is no Ed25519 key pair.
    #[error("the private key is not usable: {0}")]
    UnusableKey(&'static str),
}

pub(super) fn check_number(key: &'static ConfigKey, value: u64) -> Result<(), ConfigError> {
    match key.limits() {
        Some(limits) if !limits.contains(value) => Err(ConfigError::OutOfRange { key, value }),
        _ => Ok(()),
    }
}

pub(super) fn check_text(
    key: &'static ConfigKey,
    value: &str,
    check: fn(&str) -> Result<String, String>,
) -> Result<(), ConfigError> {
    let refused = |reason| ConfigError::NotAllowed { key, value: value.to_owned(), reason };
    check(value).map(drop).map_err(refused)
}

pub(super) fn check_count(
    what: &'static str,
    count: usize,
    most: usize,
) -> Result<(), ConfigError> {
    if count > most { Err(ConfigError::TooMany { what, count, most }) } else { Ok(()) }
}
