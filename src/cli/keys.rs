//! `netft keygen` and `netft pubkey`.

use std::{io, path::Path};

use netft::io::{identity, identity::KeyError};

use super::{failure::Failure, output::Output};

/// Makes a key file and prints its public key.
pub(super) fn keygen(file: &Path, out: &mut Output) -> Result<(), Failure> {
    let key = identity::generate().map_err(failure)?;
    let public = identity::public_key(&key).map_err(failure)?;
    identity::write(file, &key).map_err(failure)?;
    out.text(&format!("{public}\n"))
}

/// Prints the public key of a key file.
pub(super) fn pubkey(file: &Path, out: &mut Output) -> Result<(), Failure> {
    let key = identity::read(file).map_err(failure)?;
    let public = identity::public_key(&key).map_err(failure)?;
    out.text(&format!("{public}\n"))
}

/// A key error as it ends a command.
pub(super) fn failure(error: KeyError) -> Failure {
    match &error {
        KeyError::Random => Failure::environment(error),
        KeyError::Read { source, .. } | KeyError::Write { source, .. }
            if source.kind() == io::ErrorKind::PermissionDenied =>
        {
            Failure::environment(error)
        }
        _ => Failure::input(error),
    }
}
