//! The host routes to peers.

use std::net::IpAddr;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::{
    AddressFamily,
    route::{
        RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
        RouteType,
    },
};

use crate::io::netlink::{Netlink, NetlinkError, await_reply, convert, none_if_missing};

/// Marks the routes that are ours, so that leftovers of a crash can be told from an operator's
/// own; shown as `proto 194` by ip(8). No routing daemon uses it.
pub const ROUTE_PROTOCOL: u8 = 194;

/// A host route on the adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostRoute {
    /// The peer's virtual address.
    pub addr: IpAddr,
    /// The preferred source address.
    pub src: Option<IpAddr>,
    /// The MTU towards the peer, bytes; `None`: the interface's.
    pub mtu: Option<u32>,
}

impl Netlink {
    /// Adds or replaces the route to a peer's virtual address `addr`, with the MTU (bytes) of the
    /// routes that lead there and the source address `src`.
    ///
    /// # Errors
    /// Of the kernel: `EINVAL` when `src` is not on this host, `ENETDOWN` while the adapter is
    /// down.
    pub async fn replace_peer_route(
        &self,
        ifindex: u32,
        addr: IpAddr,
        src: IpAddr,
        mtu: u32,
    ) -> Result<(), NetlinkError> {
        let mut message = host_message(ifindex, addr);
        message.attributes.push(RouteAttribute::PrefSource(src.into()));
        message.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
        let request = self.handle()?.route().add(message).replace().execute();
        await_reply(|| format!("add the route to {addr}"), request).await
    }

    /// Removes the route to a peer's virtual address; it is no error when there is none.
    ///
    /// # Errors
    /// Of the kernel.
    pub async fn remove_peer_route(&self, ifindex: u32, addr: IpAddr) -> Result<(), NetlinkError> {
        let request = self.handle()?.route().del(host_message(ifindex, addr)).execute();
        none_if_missing(await_reply(|| format!("remove the route to {addr}"), request).await)
            .map(drop)
    }

    /// Our host routes on the interface.
    ///
    /// # Errors
    /// Of the kernel.
    pub async fn peer_routes(&self, ifindex: u32) -> Result<Vec<HostRoute>, NetlinkError> {
        let handle = self.handle()?;
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut filter = RouteMessage::default();
            filter.header.address_family = family;
            filter.header.table = RouteHeader::RT_TABLE_MAIN;
            filter.header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
            filter.attributes.push(RouteAttribute::Oif(ifindex));
            let list = handle.route().get(filter).execute().try_collect::<Vec<_>>();
            // A table nobody has used yet does not exist.
            let list = match await_reply(|| "list the adapter's routes".into(), list).await {
                Err(error) if error.errno() == Some(libc::ENOENT) => Vec::new(),
                result => none_if_missing(result)?.unwrap_or_default(),
            };
            let ours = list.iter().filter(|route| {
                route.header.protocol == RouteProtocol::Other(ROUTE_PROTOCOL)
                    && route.header.table == RouteHeader::RT_TABLE_MAIN
            });
            let on_adapter =
                ours.filter_map(convert::host_route).filter(|(oif, _)| *oif == ifindex);
            routes.extend(on_adapter.map(|(_, route)| route));
        }
        Ok(routes)
    }
}

fn host_message(ifindex: u32, addr: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.table = RouteHeader::RT_TABLE_MAIN;
    header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
    header.kind = RouteType::Unicast;
    (header.address_family, header.destination_prefix_length, header.scope) = match addr {
        IpAddr::V4(_) => (AddressFamily::Inet, 32, RouteScope::Link),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128, RouteScope::Universe),
    };
    message.attributes =
        vec![RouteAttribute::Destination(addr.into()), RouteAttribute::Oif(ifindex)];
    message
}
