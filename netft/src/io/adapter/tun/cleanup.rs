//! Removes the device that a crashed daemon left.

use std::path::Path;

use crate::io::{
    adapter::lock::{AdapterLock, LockError},
    netlink::{DeviceKind, Netlink, NetlinkError},
};

/// What [`remove_leftover`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CleanupOutcome {
    /// The device is removed, with its addresses and routes.
    Removed,
    /// There was none.
    Nothing,
}

/// The device was left alone.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// A daemon owns it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Not ours to remove.
    #[error("{name} is no TUN device but {kind}: left alone")]
    NotTun {
        /// The device.
        name: String,
        /// What it is, in the kernel's word.
        kind: String,
    },
    /// A process without our lock has it open.
    #[error("{name} is in use by another process: left alone")]
    InUse {
        /// The device.
        name: String,
    },
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// Removes the TUN device `adapter`, unless a daemon or any other process has it.
///
/// # Errors
/// See [`CleanupError`]; then nothing was changed.
pub async fn remove_leftover(
    netlink: &Netlink,
    adapter: &str,
    runtime_dir: &Path,
) -> Result<CleanupOutcome, CleanupError> {
    let _lock = AdapterLock::acquire(runtime_dir, adapter)?;
    let Some(device) = netlink.find_device(adapter).await? else {
        return Ok(CleanupOutcome::Nothing);
    };
    let name = device.name;
    match device.kind {
        DeviceKind::Other(kind) => Err(CleanupError::NotTun { name, kind }),
        DeviceKind::Tun { in_use: true, .. } => Err(CleanupError::InUse { name }),
        DeviceKind::Tun { .. } => {
            netlink.remove_adapter(&name).await?;
            Ok(CleanupOutcome::Removed)
        }
    }
}
