//! Floating addresses that a crashed netftd left on the interfaces.

use std::{
    collections::BTreeSet,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use netft::api::vip::{VipInterfaces, remove_fence};

/// Longest record that is read.
const MAX_RECORD_LEN: u64 = 64 << 10;

/// The file that lists the floating addresses of an adapter.
fn record_path(runtime_dir: &Path, adapter: &str) -> PathBuf {
    runtime_dir.join(format!("{adapter}.vip-addresses"))
}

/// Writes the record; without addresses it is removed.
pub(super) fn write_record(
    runtime_dir: &Path,
    adapter: &str,
    addrs: &BTreeSet<IpAddr>,
) -> io::Result<()> {
    let path = record_path(runtime_dir, adapter);
    if addrs.is_empty() {
        return match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    }
    let text: String = addrs.iter().map(|addr| format!("{addr}\n")).collect();
    let fresh = path.with_extension("new");
    fs::write(&fresh, text)?;
    fs::rename(fresh, path)
}

/// Removes the floating addresses of an adapter whose netftd is gone, then the fence: while an
/// address is configured, the fence keeps it silent.
///
/// # Errors
/// Of the kernel or the file system.
pub async fn remove_leftover_vips(runtime_dir: &Path, adapter: &str) -> Result<(), String> {
    let path = record_path(runtime_dir, adapter);
    let is_small = fs::metadata(&path).is_ok_and(|meta| meta.len() <= MAX_RECORD_LEN);
    let text = if is_small { fs::read_to_string(&path) } else { Ok(String::new()) };
    let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
    let addrs: Vec<IpAddr> = text.lines().filter_map(|line| line.parse().ok()).collect();
    if !addrs.is_empty() {
        let interfaces = VipInterfaces::open().map_err(|error| error.to_string())?;
        for interface in interfaces.list().await.map_err(|error| error.to_string())? {
            let present = interfaces.present(interface.index, &addrs).await.unwrap_or_default();
            for addr in present {
                interfaces
                    .remove(interface.index, addr)
                    .await
                    .map_err(|error| error.to_string())?;
                tracing::info!(interface = interface.name, %addr, "leftover address removed");
            }
        }
    }
    // A kernel without nftables has nothing to remove.
    if let Err(error) = remove_fence(adapter).await {
        tracing::debug!(adapter, %error, "fence not removed");
    }
    write_record(runtime_dir, adapter, &BTreeSet::new()).map_err(|error| error.to_string())
}
