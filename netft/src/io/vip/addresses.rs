//! Floating addresses on the interfaces of this host.

use std::{collections::BTreeSet, net::IpAddr};

use netft_proto::{
    topology::Interface,
    vip::{MacAddress, VipLink},
};

use crate::io::{
    netlink::{AdapterAddr, Netlink, NetlinkError, NetlinkMonitor},
    sys::arp,
};

/// Notices changes of interfaces and addresses.
pub struct InterfaceWatch(NetlinkMonitor);

impl InterfaceWatch {
    /// Opens the socket; changes are collected from this call on.
    ///
    /// # Errors
    /// Of the kernel.
    pub fn open() -> Result<Self, NetlinkError> {
        NetlinkMonitor::open().map(Self)
    }

    /// Waits for a change of an interface or an address. Cancel-safe.
    pub async fn changed(&mut self) {
        loop {
            let changes = self.0.next().await;
            if changes.links || changes.addresses || changes.resync {
                return;
            }
        }
    }
}

/// Interfaces of this host, as the floating addresses see and change them.
pub struct VipInterfaces(Netlink);

impl VipInterfaces {
    /// Opens the socket.
    ///
    /// # Errors
    /// Of the kernel.
    pub fn open() -> Result<Self, NetlinkError> {
        Netlink::open().map(Self)
    }

    /// Every interface with its addresses.
    ///
    /// # Errors
    /// Of the kernel.
    pub async fn list(&self) -> Result<Vec<Interface>, NetlinkError> {
        self.0.list_interfaces().await
    }

    /// An interface with its hardware address; `None` if it has none of six bytes.
    pub fn to_link(interface: &Interface) -> Option<VipLink> {
        let mac = arp::read_hardware_address(&interface.name).ok()?;
        let (index, name) = (interface.index, interface.name.clone());
        Some(VipLink { index, name, mac: MacAddress(mac) })
    }

    /// Those of `addrs` that the interface has as host addresses.
    ///
    /// # Errors
    /// Of the kernel.
    pub async fn present(
        &self,
        ifindex: u32,
        addrs: &[IpAddr],
    ) -> Result<BTreeSet<IpAddr>, NetlinkError> {
        let state = self.0.read_adapter(ifindex).await?;
        let found = state.map(|state| state.addrs).unwrap_or_default();
        let is_ours = |found: &&AdapterAddr| {
            let full = if found.addr.is_ipv4() { 32 } else { 128 };
            found.prefix_len == full && addrs.contains(&found.addr)
        };
        Ok(found.iter().filter(is_ours).map(|found| found.addr).collect())
    }

    /// Adds a floating address, without a route and without duplicate address detection of the
    /// kernel's. Unless `is_source`, the kernel does not choose it as the source of connections.
    ///
    /// # Errors
    /// Of the kernel.
    pub async fn add(
        &self,
        ifindex: u32,
        addr: IpAddr,
        is_source: bool,
    ) -> Result<(), NetlinkError> {
        self.0.add_floating_address(ifindex, addr, is_source).await
    }

    /// Removes a floating address; a missing one, or a missing interface, is no error.
    ///
    /// # Errors
    /// Of the kernel.
    pub async fn remove(&self, ifindex: u32, addr: IpAddr) -> Result<(), NetlinkError> {
        self.0.remove_address(ifindex, AdapterAddr::own_addr(addr)).await
    }
}
