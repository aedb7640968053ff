//! The adapter: link settings, addresses and the host routes to peers.

use std::{fs, net::IpAddr, pin::pin};

use futures_util::TryStreamExt;
use netft_proto::ids::virtual_addrs::VirtualAddrs;
use rtnetlink::{
    LinkUnspec,
    packet_route::{
        AddressFamily,
        address::{
            AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
            CacheInfo,
        },
        link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkMessage},
        route::{
            RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
            RouteType,
        },
    },
};

use crate::io::netlink::{
    Netlink, await_reply, convert, none_if_missing,
    types::{
        AdapterAddr, AdapterState, ConfiguredAdapter, HostRoute, Ipv6State, NetlinkError,
        ROUTE_PROTOCOL, TX_QUEUE_LEN,
    },
};

/// Largest super-packet of the kernel, bytes (`gso_max_size`): that of tunnel devices above the
/// adapter. The kernel segments a larger one before the adapter, packet by packet.
const GSO_MAX_SIZE: u32 = 65_536;

impl Netlink {
    /// Sets the adapter's MTU, queue length and two addresses, and sets it up. The kernel's own
    /// link-local address is prevented, so that it has exactly the two.
    ///
    /// # Errors
    /// Of the kernel. A host without IPv6 is not an error: it is logged, and
    /// [`ConfiguredAdapter::has_ipv6`] is false.
    pub async fn configure_adapter(
        &self,
        name: &str,
        addrs: VirtualAddrs,
        mtu: u16,
    ) -> Result<ConfiguredAdapter, NetlinkError> {
        let mut links = pin!(self.handle()?.link().get().match_name(name).execute());
        let link = await_reply(|| format!("find {name}"), links.try_next()).await?;
        let Some(ifindex) = link.map(|link| link.header.index) else {
            return Err(no_such_link(name));
        };
        self.disable_kernel_ipv6_config(ifindex, name).await;
        let set = LinkUnspec::new_with_index(ifindex).mtu(mtu.into()).txqueuelen(TX_QUEUE_LEN);
        self.set_link(format!("set the MTU of {name} to {mtu}"), set.build()).await?;
        // Best effort: a kernel with another limit segments earlier, nothing else.
        let size = LinkUnspec::new_with_index(ifindex)
            .append_extra_attribute(LinkAttribute::GsoMaxSize(GSO_MAX_SIZE));
        if let Err(error) = self.set_link(format!("set gso_max_size of {name}"), size.build()).await
        {
            tracing::debug!(adapter = name, %error, "gso_max_size unchanged");
        }
        self.add_address(ifindex, addrs.v4.into()).await?;
        self.set_up(ifindex).await?;
        let ipv6 = match self.add_address(ifindex, addrs.v6.into()).await {
            Ok(()) => true,
            Err(error) if error.errno().is_some_and(is_ipv6_disabled_errno) => {
                tracing::warn!(adapter = name, "IPv6 is disabled on this host: IPv4 only");
                false
            }
            Err(error) => return Err(error),
        };
        Ok(ConfiguredAdapter { ifindex, has_ipv6: ipv6 })
    }

    /// Removes the adapter; false when there is none.
    ///
    /// # Errors
    /// Of the kernel.
    pub async fn remove_adapter(&self, name: &str) -> Result<bool, NetlinkError> {
        let message = LinkUnspec::new_with_name(name).build();
        let request = self.handle()?.link().del_with_message(message).execute();
        Ok(none_if_missing(await_reply(|| format!("remove {name}"), request).await)?.is_some())
    }

    /// The state of the interface `ifindex`; `None` when it is gone.
    ///
    /// # Errors
    /// Of the kernel.
    pub async fn read_adapter(&self, ifindex: u32) -> Result<Option<AdapterState>, NetlinkError> {
        let handle = self.handle()?;
        let mut links = pin!(handle.link().get().match_index(ifindex).execute());
        let link =
            none_if_missing(await_reply(|| "read the adapter".into(), links.try_next()).await)?;
        let Some(link) = link.flatten() else { return Ok(None) };
        let queue_len = convert::queue_len(&link);
        let link = convert::to_interface(&link);
        let mut addrs = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = handle.address().get();
            request.message_mut().header.family = family;
            request.message_mut().header.index = ifindex;
            let list = request.execute().try_collect::<Vec<_>>();
            let what = || "read the adapter's addresses".into();
            // Without any address of a family the kernel may say that there is no such device.
            let list = none_if_missing(await_reply(what, list).await)?.unwrap_or_default();
            let own = list.iter().filter(|message| message.header.index == ifindex);
            addrs.extend(own.filter_map(convert::adapter_addr));
        }
        let ipv6 = read_ipv6_state(&link.name);
        let (name, up, mtu) = (link.name, link.up, link.mtu);
        Ok(Some(AdapterState { ifindex, name, up, mtu, queue_len, ipv6, addrs }))
    }

    /// Sets the interface up.
    ///
    /// # Errors
    /// Of the kernel.
    pub async fn set_up(&self, ifindex: u32) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(ifindex).up().build();
        self.set_link("set the adapter up".into(), message).await
    }

    /// Sets the MTU of the interface, bytes.
    ///
    /// # Errors
    /// Of the kernel.
    pub async fn set_mtu(&self, ifindex: u32, mtu: u16) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(ifindex).mtu(mtu.into()).build();
        self.set_link(format!("set the adapter's MTU to {mtu}"), message).await
    }

    /// Sets the transmit queue length of the interface, packets.
    ///
    /// # Errors
    /// Of the kernel.
    pub async fn set_queue_len(&self, ifindex: u32, packets: u32) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(ifindex).txqueuelen(packets).build();
        self.set_link(format!("set the adapter's queue length to {packets}"), message).await
    }

    /// Enables IPv6 on the interface `name`.
    ///
    /// # Errors
    /// Of the kernel.
    pub fn enable_ipv6(&self, name: &str) -> Result<(), NetlinkError> {
        let path = ipv6_switch_path(name);
        fs::write(&path, "0").map_err(|source| NetlinkError::Refused {
            what: format!("enable IPv6 on {name} ({path})"),
            source,
        })
    }

    /// Renames the interface. Kernels before 6.2 rename only an interface that is down, so it is
    /// set down if needed; the caller must check its whole state afterwards.
    ///
    /// # Errors
    /// Of the kernel: `EEXIST` when another interface has the name.
    pub async fn rename_link(&self, ifindex: u32, name: &str) -> Result<(), NetlinkError> {
        let what = || format!("rename the adapter back to {name}");
        let message = LinkUnspec::new_with_index(ifindex).name(name).build();
        match self.set_link(what(), message.clone()).await {
            Err(error) if error.errno() == Some(libc::EBUSY) => {
                let down = LinkUnspec::new_with_index(ifindex).down().build();
                self.set_link(what(), down).await?;
                self.set_link(what(), message).await
            }
            result => result,
        }
    }

    /// Adds one of the adapter's addresses as [`AdapterAddr::own_addr`] describes it, or makes the
    /// present one so, but for its scope.
    ///
    /// Deprecated (`preferred_lft 0`), because programs would otherwise take it for an address of
    /// this host: nss-myhostname lists it first. Global scope, because masquerading selects no
    /// source of link scope.
    ///
    /// # Errors
    /// Of the kernel: `EACCES` for IPv6 where it is disabled.
    pub async fn add_address(&self, ifindex: u32, addr: IpAddr) -> Result<(), NetlinkError> {
        let own = AdapterAddr::own_addr(addr);
        let mut request = self.handle()?.address().add(ifindex, addr, own.prefix_len).replace();
        let message = request.message_mut();
        message.header.scope = AddressScope::Universe;
        // The address is derived from the key and unique: duplicate address detection would delay
        // every start by a second.
        set_lifetimes_without_dad(message, addr, 0);
        await_reply(|| format!("add {addr} to the adapter"), request.execute()).await
    }

    /// Adds a floating address, or makes the present one so. Deprecated, and for IPv4 of link
    /// scope, unless `is_source`: then neither the kernel nor masquerading chooses it as a source.
    ///
    /// # Errors
    /// Of the kernel: `EACCES` for IPv6 where it is disabled.
    pub async fn add_floating_address(
        &self,
        ifindex: u32,
        addr: IpAddr,
        is_source: bool,
    ) -> Result<(), NetlinkError> {
        let prefix_len = if addr.is_ipv4() { 32 } else { 128 };
        let mut request = self.handle()?.address().add(ifindex, addr, prefix_len).replace();
        let message = request.message_mut();
        let is_link_scope = addr.is_ipv4() && !is_source;
        message.header.scope =
            if is_link_scope { AddressScope::Link } else { AddressScope::Universe };
        // netftd probes for it by itself; the kernel would not use it for a second.
        set_lifetimes_without_dad(message, addr, if is_source { u32::MAX } else { 0 });
        await_reply(|| format!("add the floating address {addr}"), request.execute()).await
    }

    /// Removes an address; a missing one is not an error.
    ///
    /// # Errors
    /// Of the kernel.
    pub async fn remove_address(
        &self,
        ifindex: u32,
        addr: AdapterAddr,
    ) -> Result<(), NetlinkError> {
        let handle = self.handle()?;
        let mut request = handle.address().add(ifindex, addr.addr, addr.prefix_len);
        let message = std::mem::take(request.message_mut());
        let request = handle.address().del(message).execute();
        let what = || format!("remove {}/{} from the adapter", addr.addr, addr.prefix_len);
        none_if_missing(await_reply(what, request).await).map(drop)
    }

    /// Disables the kernel's own IPv6 configuration of the interface: the link-local address,
    /// random at every start on a TUN device, router advertisements and redirects. Best effort; a
    /// host without IPv6 needs none.
    pub async fn disable_kernel_ipv6_config(&self, ifindex: u32, name: &str) {
        let none = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        let message = LinkUnspec::new_with_index(ifindex)
            .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![none]))
            .build();
        let write_sysctl = |key: &str, value: &str| {
            let file = format!("/proc/sys/net/ipv6/conf/{name}/{key}");
            if let Err(error) = fs::write(&file, value) {
                tracing::debug!(file, %error, "sysctl unchanged");
            }
        };
        if self.set_link(String::new(), message).await.is_err() {
            write_sysctl("addr_gen_mode", "1");
        }
        // A peer is no router: its advertisements would become this node's default route.
        write_sysctl("accept_ra", "0");
        write_sysctl("accept_redirects", "0");
    }

    /// Adds or replaces the route in `table` to a peer's virtual address `addr`, with the MTU
    /// (bytes) of the routes that lead there and the source address `src`.
    ///
    /// # Errors
    /// Of the kernel: `EINVAL` when `src` is not on this host, `ENETDOWN` while the adapter is
    /// down.
    pub async fn replace_peer_route(
        &self,
        ifindex: u32,
        table: u32,
        (addr, src): (IpAddr, IpAddr),
        mtu: u32,
    ) -> Result<(), NetlinkError> {
        let mut message = host_message(ifindex, table, addr);
        message.attributes.push(RouteAttribute::PrefSource(src.into()));
        message.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
        let request = self.handle()?.route().add(message).replace().execute();
        await_reply(|| format!("add the route to {addr}"), request).await
    }

    /// Removes the route in `table` to a peer's virtual address; a missing one is not an error.
    ///
    /// # Errors
    /// Of the kernel.
    pub async fn remove_peer_route(
        &self,
        ifindex: u32,
        table: u32,
        addr: IpAddr,
    ) -> Result<(), NetlinkError> {
        let request = self.handle()?.route().del(host_message(ifindex, table, addr)).execute();
        none_if_missing(await_reply(|| format!("remove the route to {addr}"), request).await)
            .map(drop)
    }

    /// The host routes of netft in `table` on the interface.
    ///
    /// # Errors
    /// Of the kernel.
    pub async fn peer_routes(
        &self,
        ifindex: u32,
        table: u32,
    ) -> Result<Vec<HostRoute>, NetlinkError> {
        let handle = self.handle()?;
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut filter = RouteMessage::default();
            filter.header.address_family = family;
            filter.header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
            filter.attributes.push(RouteAttribute::Table(table));
            filter.attributes.push(RouteAttribute::Oif(ifindex));
            let list = handle.route().get(filter).execute().try_collect::<Vec<_>>();
            // A table without any route so far does not exist.
            let list = match await_reply(|| "list the adapter's routes".into(), list).await {
                Err(error) if error.errno() == Some(libc::ENOENT) => Vec::new(),
                result => none_if_missing(result)?.unwrap_or_default(),
            };
            let own = list.iter().filter(|route| {
                route.header.protocol == RouteProtocol::Other(ROUTE_PROTOCOL)
                    && convert::route_table(route) == table
            });
            let on_adapter = own.filter_map(convert::host_route).filter(|(oif, _)| *oif == ifindex);
            routes.extend(on_adapter.map(|(_, route)| route));
        }
        Ok(routes)
    }

    async fn set_link(&self, what: String, message: LinkMessage) -> Result<(), NetlinkError> {
        let request = self.handle()?.link().set(message).execute();
        await_reply(|| what, request).await
    }
}

fn ipv6_switch_path(interface: &str) -> String {
    format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6")
}

/// IPv6 on an interface. A setting for all interfaces or for new ones is the host's choice.
fn read_ipv6_state(interface: &str) -> Ipv6State {
    let is_disabled = |name: &str| {
        let value = fs::read_to_string(ipv6_switch_path(name)).ok()?;
        Some(value.trim() != "0")
    };
    match is_disabled(interface) {
        None => Ipv6State::Absent,
        Some(false) => Ipv6State::Enabled,
        Some(true) if ["all", "default"].into_iter().any(|all| is_disabled(all) == Some(true)) => {
            Ipv6State::DisabledOnHost
        }
        Some(true) => Ipv6State::DisabledHere,
    }
}

/// Valid for ever, preferred for `preferred` seconds; IPv6 without duplicate address detection, and
/// without a route to its prefix.
fn set_lifetimes_without_dad(message: &mut AddressMessage, addr: IpAddr, preferred: u32) {
    let mut lifetimes = CacheInfo::default();
    lifetimes.ifa_valid = u32::MAX;
    lifetimes.ifa_preferred = preferred;
    message.attributes.push(AddressAttribute::CacheInfo(lifetimes));
    if addr.is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
        let flags = AddressFlags::Nodad | AddressFlags::Noprefixroute;
        message.attributes.push(AddressAttribute::Flags(flags));
    }
}

/// The error numbers of adding an IPv6 address where IPv6 is disabled or not built in.
fn is_ipv6_disabled_errno(errno: i32) -> bool {
    [libc::EACCES, libc::EPERM, libc::EOPNOTSUPP, libc::EAFNOSUPPORT].contains(&errno)
}

fn no_such_link(name: &str) -> NetlinkError {
    NetlinkError::Refused {
        what: format!("find {name}"),
        source: std::io::Error::from_raw_os_error(libc::ENODEV),
    }
}

fn host_message(ifindex: u32, table: u32, addr: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    // The attribute has room for every number.
    header.table = RouteHeader::RT_TABLE_UNSPEC;
    header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
    header.kind = RouteType::Unicast;
    (header.address_family, header.destination_prefix_length, header.scope) = match addr {
        IpAddr::V4(_) => (AddressFamily::Inet, 32, RouteScope::Link),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128, RouteScope::Universe),
    };
    message.attributes = vec![
        RouteAttribute::Table(table),
        RouteAttribute::Destination(addr.into()),
        RouteAttribute::Oif(ifindex),
    ];
    message
}
