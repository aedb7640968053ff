//! Removal of the device that a crashed daemon left.

use std::path::Path;

use crate::io::{
    adapter::{
        lock::AdapterLock,
        types::{CleanupError, CleanupOutcome},
    },
    netlink::{DeviceKind, Netlink},
};

/// Removes the TUN device `adapter`, unless a daemon or another process uses it.
///
/// # Errors
/// See [`CleanupError`]; nothing is changed then.
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
            tracing::info!(adapter, "leftover adapter removed");
            Ok(CleanupOutcome::Removed)
        }
    }
}
