//! Queries of interfaces, their addresses, devices by name and kernel routes.

use std::{collections::BTreeMap, net::IpAddr, pin::pin};

use futures_util::{StreamExt, TryStreamExt};
use netft_proto::topology::Interface;
use rtnetlink::packet_route::{
    AddressFamily,
    route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage},
};

use crate::io::netlink::{
    Netlink, await_reply, convert, none_if_missing,
    types::{DeviceInfo, NetlinkError, StackedLink},
};

impl Netlink {
    /// All interfaces with their usable addresses, by index.
    ///
    /// # Errors
    /// Of the kernel; all are transient.
    pub async fn list_interfaces(&self) -> Result<Vec<Interface>, NetlinkError> {
        let links = self.list_links().await?;
        Ok(links.into_iter().map(|link| link.interface).collect())
    }

    /// Every interface with its usable addresses and its place in the stack, by number.
    ///
    /// # Errors
    /// As [`list_interfaces`](Self::list_interfaces).
    pub async fn list_links(&self) -> Result<Vec<StackedLink>, NetlinkError> {
        let handle = self.handle()?;
        let links = handle.link().get().execute();
        let links: Vec<_> = await_reply(|| "list interfaces".into(), links.try_collect()).await?;
        let addresses = handle.address().get().execute();
        let addresses: Vec<_> =
            await_reply(|| "list addresses".into(), addresses.try_collect()).await?;
        let mut found: BTreeMap<u32, StackedLink> = links
            .iter()
            .map(convert::to_stacked_link)
            .map(|link| (link.interface.index, link))
            .collect();
        for message in &addresses {
            if let Some(link) = found.get_mut(&message.header.index) {
                link.interface.addrs.extend(convert::local_addr(message));
            }
        }
        Ok(found.into_values().collect())
    }

    /// The device named `name`, if there is one.
    ///
    /// # Errors
    /// Of the kernel.
    pub async fn find_device(&self, name: &str) -> Result<Option<DeviceInfo>, NetlinkError> {
        let mut links = pin!(self.handle()?.link().get().match_name(name).execute());
        let link = none_if_missing(await_reply(|| format!("find {name}"), links.try_next()).await)?;
        Ok(link.flatten().as_ref().map(convert::to_device))
    }

    /// Source address and interface that the kernel selects for `remote`; `None` without a route.
    ///
    /// # Errors
    /// Of the kernel, other than that the address is unreachable.
    pub async fn source_for(&self, remote: IpAddr) -> Result<Option<(IpAddr, u32)>, NetlinkError> {
        let route = self.look_up_route(remote, &[]).await?;
        Ok(route.as_ref().and_then(convert::route_source))
    }

    /// The metric of the kernel's route from `local` to `remote` out of the interface `ifindex`, as
    /// a socket bound to both takes it; `None` without such a route.
    ///
    /// # Errors
    /// Of the kernel, other than that the address is unreachable.
    pub async fn way_metric(
        &self,
        local: IpAddr,
        remote: IpAddr,
        ifindex: u32,
    ) -> Result<Option<u32>, NetlinkError> {
        let (source, out) = (RouteAttribute::Source(local.into()), RouteAttribute::Oif(ifindex));
        let mut route = self.look_up_route(remote, &[source, out.clone()]).await?;
        let leads_out = |route: &RouteMessage| convert::leads_out_of(route, ifindex);
        // With a source an IPv6 lookup takes the interface as a wish, a bound socket does not.
        if remote.is_ipv6() && !route.as_ref().is_some_and(leads_out) {
            route = self.look_up_route(remote, &[out]).await?;
        }
        Ok(route.filter(leads_out).as_ref().map(convert::route_metric))
    }

    /// The kernel's entry for `remote`; with the attributes of `from` for a packet from there.
    async fn look_up_route(
        &self,
        remote: IpAddr,
        from: &[RouteAttribute],
    ) -> Result<Option<RouteMessage>, NetlinkError> {
        let mut message = RouteMessage::default();
        let (family, prefix_len, destination) = match remote {
            IpAddr::V4(v4) => (AddressFamily::Inet, 32, RouteAddress::Inet(v4)),
            IpAddr::V6(v6) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(v6)),
        };
        message.header.address_family = family;
        message.header.destination_prefix_length = prefix_len;
        message.attributes.push(RouteAttribute::Destination(destination));
        if from.iter().any(|attribute| matches!(attribute, RouteAttribute::Source(_))) {
            message.header.source_prefix_length = prefix_len;
        }
        // The entry itself: without one, the kernel takes any address for a neighbour on the
        // interface that it was asked for.
        if !from.is_empty() {
            message.header.flags |= RouteFlags::FibMatch;
            message.attributes.extend_from_slice(from);
        }
        let mut routes = pin!(self.handle()?.route().get(message).execute());
        let what = || format!("look up the route to {remote}");
        let route = await_reply(what, async { routes.next().await.transpose() }).await;
        match route {
            Ok(route) => Ok(route),
            Err(error) if error.errno().is_some_and(is_unreachable) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The error numbers of `unreachable`, `prohibit`, `blackhole` and missing routes, and of a family
/// the kernel does not have.
fn is_unreachable(errno: i32) -> bool {
    const UNREACHABLE_ERRNOS: [i32; 7] = [
        libc::ENETUNREACH,
        libc::EHOSTUNREACH,
        libc::EACCES,
        libc::EINVAL,
        libc::ESRCH,
        libc::EAFNOSUPPORT,
        libc::EOPNOTSUPP,
    ];
    UNREACHABLE_ERRNOS.contains(&errno)
}
