//! The machine under the adapter, for the programs: interfaces, key files, the process's own heap,
//! and the device of a daemon that died.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use netft_proto::topology::{Interface, SourceAddresses};

use crate::io::{adapter::tun, host_state, netlink::Netlink, packet_filter, sys::udp};
pub use crate::io::{
    adapter::types::{CleanupError, CleanupOutcome, LockError},
    arp_settings::ARP_SETTINGS,
    identity,
    netlink::{NetlinkError, StackedLink},
    ownership::is_trusted_user,
    packet_filter::PacketFilterState,
    sys::{
        clock::is_synchronised,
        heap::{trim_heap, use_single_arena},
        scheduling::try_shorten_slice,
        signals::{hold_stop_signals, raise_stop_signal, release_stop_signals},
    },
};

/// Every interface with its usable addresses and its place in the stack, by number.
///
/// # Errors
/// Of the kernel.
pub async fn list_links() -> Result<Vec<StackedLink>, NetlinkError> {
    Netlink::open()?.list_links().await
}

/// Every interface as route planning takes it, with its speed and whether a default route leaves
/// through it.
///
/// # Errors
/// Of the kernel.
pub async fn list_interfaces() -> Result<Vec<Interface>, NetlinkError> {
    host_state::list_interfaces(&Netlink::open()?).await
}

/// The kernel's choice of source address and interface towards each of `remotes`; those without a
/// route are left out.
///
/// # Errors
/// No netlink socket.
pub async fn source_addresses(
    remotes: impl IntoIterator<Item = IpAddr>,
) -> Result<SourceAddresses, NetlinkError> {
    let netlink = Netlink::open()?;
    let mut sources = SourceAddresses::new();
    for remote in remotes {
        if let Ok(Some(source)) = netlink.source_for(remote).await {
            sources.insert(remote, source);
        }
    }
    Ok(sources)
}

/// Removes the TUN device `adapter` that a daemon left behind, unless a process has it open.
///
/// # Errors
/// See [`CleanupError`]; nothing was changed then.
pub async fn remove_leftover_adapter(
    adapter: &str,
    runtime_dir: &Path,
) -> Result<CleanupOutcome, CleanupError> {
    tun::remove_leftover(&Netlink::open()?, adapter, runtime_dir).await
}

/// State of the packet filter of `adapter` in the kernel; `None` if this process may not read it.
pub async fn packet_filter_state(adapter: &str) -> Option<PacketFilterState> {
    packet_filter::read_state(adapter).await
}

/// The receive buffer that the kernel grants a netft socket, and the one it asks for, bytes.
/// `None` when no socket can be opened.
pub fn receive_buffer_sizes() -> Option<(u64, u64)> {
    let socket = udp::open_socket((Ipv4Addr::LOCALHOST, 0).into(), 0, false).ok()?;
    let granted = socket2::SockRef::from(&socket).recv_buffer_size().ok()?;
    let requested = u64::try_from(udp::RECEIVE_BUFFER).ok()?;
    // The kernel doubles the value for its own bookkeeping (socket(7), SO_RCVBUF).
    Some((u64::try_from(granted / 2).ok()?, requested))
}
