//! `netftd --cleanup`: removes what a crashed daemon left behind. Safe at any time: it refuses
//! while a daemon owns the adapter.

use std::{
    fs,
    os::unix::{fs::FileTypeExt, net::UnixStream},
    path::Path,
};

use netft::api::{
    host,
    host::{CleanupError, LockError},
};

use crate::{control::socket_path, exit::ExitError, vip::remove_leftover_vips};

/// Removes the device, the floating addresses, their fence and the socket of `adapter`.
///
/// # Errors
/// A daemon runs, or the kernel refuses.
pub(super) fn cleanup_adapter(runtime_dir: &Path, adapter: &str) -> Result<(), ExitError> {
    let socket = socket_path(runtime_dir, adapter);
    // A daemon that answers is alive, whatever the state of its lock.
    if UnixStream::connect(&socket).is_ok() {
        return Err(ExitError::other_error(format!("netftd is running {adapter}: stop it first")));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ExitError::bad_environment)?;
    match runtime.block_on(host::remove_leftover_adapter(adapter, runtime_dir)) {
        Ok(_) => {}
        Err(error @ CleanupError::Lock(LockError::AlreadyLocked { .. })) => {
            return Err(ExitError::other_error(error));
        }
        Err(error) => return Err(ExitError::bad_environment(error)),
    }
    runtime
        .block_on(remove_leftover_vips(runtime_dir, adapter))
        .map_err(ExitError::bad_environment)?;
    match fs::symlink_metadata(&socket) {
        Ok(meta) if meta.file_type().is_socket() || meta.is_symlink() => fs::remove_file(&socket)
            .map_err(|error| {
                ExitError::bad_environment(format!("cannot remove {}: {error}", socket.display()))
            }),
        _ => Ok(()),
    }
}
