//! `netft keygen` and `netft pubkey`.

use std::path::Path;

use netft::{
    NodeKey,
    api::host::{identity, identity::KeyError},
};
use serde::{Deserialize, Serialize};

use super::output::StandardOutput;
use crate::{control::schema::VersionedBody, exit::ExitError};

/// Answer of `netft keygen --json` and `netft pubkey --json`.
#[derive(Debug, Serialize, Deserialize)]
struct KeyAnswer {
    /// The key file.
    file: String,
    /// Its public key, base64.
    key: String,
}

/// Creates a key file and prints its public key.
pub(super) fn run_keygen(
    file: &Path,
    json: bool,
    out: &mut StandardOutput,
) -> Result<(), ExitError> {
    let key = identity::generate_key().map_err(key_exit_error)?;
    let public = identity::public_key(&key).map_err(key_exit_error)?;
    identity::write_key_file(file, &key).map_err(key_exit_error)?;
    print_public_key(file, &public, json, out)
}

/// Prints the public key of a key file.
pub(super) fn run_pubkey(
    file: &Path,
    json: bool,
    out: &mut StandardOutput,
) -> Result<(), ExitError> {
    let key = identity::read_key_file(file).map_err(key_exit_error)?;
    let public = identity::public_key(&key).map_err(key_exit_error)?;
    print_public_key(file, &public, json, out)
}

fn print_public_key(
    file: &Path,
    public: &NodeKey,
    json: bool,
    out: &mut StandardOutput,
) -> Result<(), ExitError> {
    let answer =
        VersionedBody::new(KeyAnswer { file: file.display().to_string(), key: public.to_string() });
    let text = serde_json::to_string(&answer).map_err(ExitError::other_error)?;
    out.print_response(json, &text, || format!("{public}\n"))
}

/// Converts a key error.
pub(super) fn key_exit_error(error: KeyError) -> ExitError {
    match &error {
        KeyError::Random => ExitError::bad_environment(error),
        error if error.is_permission_denied() => ExitError::bad_environment(error),
        _ => ExitError::invalid_input(error),
    }
}
