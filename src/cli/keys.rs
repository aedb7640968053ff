//! `netft keygen` and `netft pubkey`.

use std::{io, path::Path};

use super::{failure::Failure, output::Output};
use crate::config::identity::{self, KeyError, encode_public};

/// Makes a key file and prints its public key.
pub(super) fn keygen(file: &Path, out: &mut Output) -> Result<(), Failure> {
    let key = identity::generate().map_err(failure)?;
    let public = identity::public_key(&key).ok_or_else(|| Failure::other("no key was made"))?;
    identity::write_key_file(file, &key).map_err(failure)?;
    out.text(&format!("{}\n", encode_public(&public)))
}

/// Prints the public key of a key file.
pub(super) fn pubkey(file: &Path, out: &mut Output) -> Result<(), Failure> {
    let key = identity::read_key_file(file).map_err(failure)?;
    let public = identity::public_key(&key).ok_or_else(|| Failure::input("no key in this file"))?;
    out.text(&format!("{}\n", encode_public(&public)))
}

/// A key error as it ends a command.
pub(super) fn failure(error: KeyError) -> Failure {
    let text = format!("{error}\n  = help: {}", error.help());
    match error {
        KeyError::Random => Failure::environment(text),
        KeyError::Io { error, .. } if error.kind() == io::ErrorKind::PermissionDenied => {
            Failure::environment(text)
        }
        _ => Failure::input(text),
    }
}
