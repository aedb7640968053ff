//! The networks of this machine, for `netft init`.

use std::net::IpAddr;

use ipnet::IpNet;
use netft::api::{host, host::NetlinkError};

/// A network that an interface of this machine belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LocalNetwork {
    /// The interface.
    pub(super) interface: String,
    /// Address of this machine.
    pub(super) address: IpAddr,
    /// The network.
    pub(super) prefix: IpNet,
    /// A default route leaves through the interface.
    pub(super) gateway: bool,
}

/// Every network of every interface that is up, in the order of the interfaces.
///
/// # Errors
/// Of netlink.
pub(super) fn find_networks() -> Result<Vec<LocalNetwork>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(read_networks()).map_err(|error| error.to_string())
}

async fn read_networks() -> Result<Vec<LocalNetwork>, NetlinkError> {
    let gateways = host::default_route_interfaces().await?;
    let links = host::list_links().await?;
    let mut found: Vec<LocalNetwork> = Vec::new();
    for link in links.iter().filter(|link| link.ethernet && link.interface.up) {
        for local in &link.interface.addrs {
            let prefix = local.prefix;
            let seen = found.iter().any(|other| other.prefix == prefix);
            if !seen
                && is_routable_address(local.addr)
                && prefix.prefix_len() < prefix.max_prefix_len()
            {
                found.push(LocalNetwork {
                    interface: link.interface.name.clone(),
                    address: local.addr,
                    prefix,
                    gateway: gateways.contains(&link.interface.index),
                });
            }
        }
    }
    Ok(found)
}

fn is_routable_address(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(link_local || address.is_loopback() || address.is_multicast() || address.is_unspecified())
}
