//! Removal of the device that a crashed daemon left.

use std::path::Path;

use crate::io::{
    adapter::{
        lock::AdapterLock,
        policy_rule,
        types::{CleanupError, CleanupOutcome},
    },
    arp_settings::{ArpSettings, FILTER_RECORD, SUBNET_RECORD},
    netlink::{DeviceInfo, DeviceKind, Netlink},
    packet_filter,
};

/// Removes the TUN device `adapter` and its packet filter, and restores the ARP settings, unless a
/// daemon or another process uses it.
///
/// # Errors
/// See [`CleanupError`]; nothing is changed then.
pub async fn remove_leftover(
    netlink: &Netlink,
    adapter: &str,
    runtime_dir: &Path,
) -> Result<CleanupOutcome, CleanupError> {
    let _lock = AdapterLock::acquire(runtime_dir, adapter)?;
    let outcome = match netlink.find_device(adapter).await? {
        None => CleanupOutcome::Nothing,
        Some(DeviceInfo { name, kind: DeviceKind::Other(kind), .. }) => {
            return Err(CleanupError::NotTun { name, kind });
        }
        Some(DeviceInfo { name, kind: DeviceKind::Tun { in_use: true, .. }, .. }) => {
            return Err(CleanupError::InUse { name });
        }
        Some(DeviceInfo { name, kind: DeviceKind::Tun { .. }, .. }) => {
            netlink.remove_adapter(&name).await?;
            tracing::info!(adapter, "leftover adapter removed");
            CleanupOutcome::Removed
        }
    };
    policy_rule::remove_rules(netlink, adapter).await?;
    for record in [SUBNET_RECORD, FILTER_RECORD] {
        if ArpSettings::load(runtime_dir, adapter, record).restore_all() {
            tracing::info!(adapter, record, "ARP settings restored");
        }
    }
    // After the addresses it closes. A kernel without nftables has nothing to remove.
    if let Err(error) = packet_filter::remove_tables(adapter).await {
        tracing::debug!(adapter, %error, "packet filter not removed");
    }
    Ok(outcome)
}
