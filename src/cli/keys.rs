//! `netft keygen` and `netft pubkey`.

use std::{io, path::Path};

use netft::api::host::{identity, identity::KeyError};

use super::output::StandardOutput;
use crate::exit::ExitError;

/// Creates a key file and prints its public key.
pub(super) fn run_keygen(file: &Path, out: &mut StandardOutput) -> Result<(), ExitError> {
    let key = identity::generate_key().map_err(key_exit_error)?;
    let public = identity::public_key(&key).map_err(key_exit_error)?;
    identity::write_key_file(file, &key).map_err(key_exit_error)?;
    out.write_text(&format!("{public}\n"))
}

/// Prints the public key of a key file.
pub(super) fn run_pubkey(file: &Path, out: &mut StandardOutput) -> Result<(), ExitError> {
    let key = identity::read_key_file(file).map_err(key_exit_error)?;
    let public = identity::public_key(&key).map_err(key_exit_error)?;
    out.write_text(&format!("{public}\n"))
}

/// Converts a key error.
pub(super) fn key_exit_error(error: KeyError) -> ExitError {
    match &error {
        KeyError::Random => ExitError::bad_environment(error),
        KeyError::Read { source, .. } | KeyError::Write { source, .. }
            if source.kind() == io::ErrorKind::PermissionDenied =>
        {
            ExitError::bad_environment(error)
        }
        _ => ExitError::invalid_input(error),
    }
}
