//! `netftd --cleanup`: removes what a daemon that died may have left. Safe to run at any time: it
//! refuses while a daemon owns the adapter.

use std::{
    fs,
    os::unix::{fs::FileTypeExt, net::UnixStream},
    path::Path,
};

use netft::io::{
    adapter::{
        tun,
        types::{CleanupError, LockError},
    },
    netlink::Netlink,
};

use crate::{cli::failure::ExitError, control::socket_path};

/// Cleans up after the adapter called `adapter`.
///
/// # Errors
/// A daemon runs, or the kernel refuses.
pub(super) fn cleanup_adapter(runtime_dir: &Path, adapter: &str) -> Result<(), ExitError> {
    let socket = socket_path(runtime_dir, adapter);
    // Whoever answers is alive, whatever became of its lock.
    if UnixStream::connect(&socket).is_ok() {
        return Err(ExitError::other_error(format!("netftd runs {adapter}: stop it first")));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ExitError::bad_environment)?;
    let cleaned = runtime.block_on(async {
        let netlink = Netlink::open()?;
        tun::remove_leftover(&netlink, adapter, runtime_dir).await
    });
    match cleaned {
        Ok(_) => {}
        Err(error @ CleanupError::Lock(LockError::AlreadyLocked { .. })) => {
            return Err(ExitError::other_error(error));
        }
        Err(error) => return Err(ExitError::bad_environment(error)),
    }
    match fs::symlink_metadata(&socket) {
        Ok(meta) if meta.file_type().is_socket() || meta.is_symlink() => fs::remove_file(&socket)
            .map_err(|error| {
                ExitError::bad_environment(format!("cannot remove {}: {error}", socket.display()))
            }),
        _ => Ok(()),
    }
}
