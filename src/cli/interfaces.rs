//! The networks of this machine, for `netft init`.

use std::{collections::BTreeMap, net::IpAddr};

use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::{
    RouteMessageBuilder,
    packet_route::{
        address::AddressAttribute,
        link::{LinkAttribute, LinkFlags, LinkLayerType},
        route::RouteAttribute,
    },
};

/// A network an interface of this machine is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LocalNetwork {
    /// The interface.
    pub(super) interface: String,
    /// The address here.
    pub(super) address: IpAddr,
    /// The network.
    pub(super) prefix: IpNet,
    /// Whether a default route goes out here.
    pub(super) gateway: bool,
}

/// Every network of every interface that is up, in the order of the interfaces.
///
/// # Errors
/// The kernel does not answer on netlink.
pub(super) fn find_networks() -> Result<Vec<LocalNetwork>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        read_networks(&handle).await.map_err(|error| error.to_string())
    })
}

async fn read_networks(handle: &rtnetlink::Handle) -> Result<Vec<LocalNetwork>, rtnetlink::Error> {
    let mut names = BTreeMap::new();
    let mut links = handle.link().get().execute();
    while let Some(link) = links.try_next().await? {
        let header = link.header;
        let ethernet = header.link_layer_type == LinkLayerType::Ether;
        let up = header.flags.contains(LinkFlags::Up);
        let name = link.attributes.into_iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        });
        if let (true, true, Some(name)) = (ethernet, up, name) {
            names.insert(header.index, name);
        }
    }
    let gateways = default_route_interfaces(handle).await?;
    let mut found = Vec::new();
    let mut addresses = handle.address().get().execute();
    while let Some(message) = addresses.try_next().await? {
        let index = message.header.index;
        let Some(interface) = names.get(&index) else { continue };
        let address = message.attributes.into_iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(address),
            _ => None,
        });
        let Some(address) = address else { continue };
        let Ok(net) = IpNet::new(address, message.header.prefix_len) else { continue };
        let prefix = net.trunc();
        let seen = found.iter().any(|other: &LocalNetwork| other.prefix == prefix);
        if !seen && is_routable_address(address) && prefix.prefix_len() < net.max_prefix_len() {
            let gateway = gateways.contains(&index);
            found.push(LocalNetwork { interface: interface.clone(), address, prefix, gateway });
        }
    }
    Ok(found)
}

/// The indexes of the interfaces default routes go out of.
async fn default_route_interfaces(
    handle: &rtnetlink::Handle,
) -> Result<Vec<u32>, rtnetlink::Error> {
    let mut gateways = Vec::new();
    for message in [
        RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
        RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
    ] {
        let mut routes = handle.route().get(message).execute();
        while let Some(route) = routes.try_next().await? {
            if route.header.destination_prefix_length != 0 {
                continue;
            }
            gateways.extend(route.attributes.iter().filter_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            }));
        }
    }
    Ok(gateways)
}

fn is_routable_address(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(link_local || address.is_loopback() || address.is_multicast() || address.is_unspecified())
}
