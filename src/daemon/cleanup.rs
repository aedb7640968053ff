//! `netftd --cleanup`: removes what a daemon that died may have left. Safe to run at any time: it
//! refuses while a daemon owns the adapter.

use std::{
    fs,
    os::unix::{fs::FileTypeExt, net::UnixStream},
    path::Path,
};

use netft::io::{
    adapter::{lock::LockError, tun, tun::CleanupError},
    netlink::Netlink,
};

use crate::{cli::failure::Failure, control::socket_path};

/// Cleans up after the adapter called `adapter`.
///
/// # Errors
/// A daemon runs, or the kernel refuses.
pub(super) fn cleanup(runtime_dir: &Path, adapter: &str) -> Result<(), Failure> {
    let socket = socket_path(runtime_dir, adapter);
    // Whoever answers is alive, whatever became of its lock.
    if UnixStream::connect(&socket).is_ok() {
        return Err(Failure::other(format!("netftd runs {adapter}: stop it first")));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::environment)?;
    let cleaned = runtime.block_on(async {
        let netlink = Netlink::open()?;
        tun::cleanup(&netlink, adapter, runtime_dir).await
    });
    match cleaned {
        Ok(_) => {}
        Err(error @ CleanupError::Lock(LockError::Held { .. })) => {
            return Err(Failure::other(error));
        }
        Err(error) => return Err(Failure::environment(error)),
    }
    match fs::symlink_metadata(&socket) {
        Ok(meta) if meta.file_type().is_socket() || meta.is_symlink() => fs::remove_file(&socket)
            .map_err(|error| {
                Failure::environment(format!("cannot remove {}: {error}", socket.display()))
            }),
        _ => Ok(()),
    }
}
