//! Differences between the adapter and its desired state: those that are repaired, and those that
//! are another program's choice and told. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use netft_proto::ids::virtual_addrs::VirtualAddrs;

use crate::io::netlink::{AdapterAddr, AdapterState, HostRoute, Ipv6State, TX_QUEUE_LEN};

/// Desired state of the adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredState {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addrs: VirtualAddrs,
    /// Its MTU, bytes.
    pub mtu: u16,
    /// The virtual addresses of the peers, each with the MTU towards it, bytes.
    pub routes: BTreeMap<IpAddr, u32>,
    /// The speed it reports, Mbit/s: that of the fastest active route, if it is known.
    pub speed: Option<u32>,
}

/// A repair of the adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// The adapter had another name.
    RenamedBack {
        /// The other name.
        from: String,
    },
    /// The adapter had another MTU.
    MtuRestored {
        /// The other MTU, bytes.
        from: u32,
    },
    /// The adapter had another transmit queue length.
    QueueLenRestored {
        /// The other length, packets.
        from: u32,
    },
    /// The adapter was down.
    SetUp,
    /// IPv6 was disabled on the adapter alone.
    Ipv6Enabled,
    /// A foreign address in the adapter's prefixes.
    AddressRemoved(AdapterAddr),
    /// An own address was missing.
    AddressRestored(IpAddr),
    /// A route of netft led to no peer.
    RouteRemoved(IpAddr),
    /// The route to a peer was missing or different.
    RouteRestored(IpAddr),
}

impl Repair {
    /// True if the change from `former` to `desired` calls for it: no other program was at work.
    pub(super) fn follows_from(&self, former: &DesiredState, desired: &DesiredState) -> bool {
        match self {
            Self::MtuRestored { from } => {
                *from == u32::from(former.mtu) && former.mtu != desired.mtu
            }
            Self::RouteRemoved(addr) | Self::RouteRestored(addr) => {
                former.routes.get(addr) != desired.routes.get(addr)
            }
            Self::RenamedBack { .. }
            | Self::QueueLenRestored { .. }
            | Self::SetUp
            | Self::Ipv6Enabled
            | Self::AddressRemoved(_)
            | Self::AddressRestored(_) => false,
        }
    }
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RenamedBack { from } => write!(f, "adapter was renamed to {from}: renamed back"),
            Self::MtuRestored { from } => write!(f, "adapter's MTU was {from}: restored"),
            Self::QueueLenRestored { from } => {
                write!(f, "adapter's queue length was {from}: restored")
            }
            Self::SetUp => f.write_str("adapter was down: set up"),
            Self::Ipv6Enabled => f.write_str("IPv6 was disabled on the adapter: enabled"),
            Self::AddressRemoved(foreign) => {
                write!(f, "foreign address {}/{}: removed", foreign.addr, foreign.prefix_len)
            }
            Self::AddressRestored(addr) => {
                write!(f, "address {addr} was missing or different: restored")
            }
            Self::RouteRemoved(addr) => write!(f, "stale route to {addr}: removed"),
            Self::RouteRestored(addr) => write!(f, "route to {addr} was missing: restored"),
        }
    }
}

/// A state of the adapter that is another program's choice: left, and told once while it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdapterNotice {
    /// IPv6 is disabled on this host.
    Ipv6Disabled,
    /// An address that is not the adapter's.
    ForeignAddress {
        /// The address.
        addr: IpAddr,
        /// Its prefix length.
        prefix_len: u8,
    },
}

impl fmt::Display for AdapterNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv6Disabled => f.write_str(
                "IPv6 is disabled on this host (`sysctl net.ipv6.conf.all.disable_ipv6`): the \
                 adapter has its IPv4 address alone",
            ),
            Self::ForeignAddress { addr, prefix_len } => write!(
                f,
                "the adapter has the foreign address {addr}/{prefix_len}: no peer takes packets \
                 from it, and none is reached in its prefix; remove it unless it is meant (`ip \
                 addr del {addr}/{prefix_len}`)"
            ),
        }
    }
}

/// The notices that hold, and those of them that are to be told.
#[derive(Debug, Default)]
pub(super) struct NoticeSet {
    present: BTreeSet<AdapterNotice>,
    untold: BTreeSet<AdapterNotice>,
}

impl NoticeSet {
    /// Takes in the notices of a check.
    pub(super) fn record(&mut self, notices: BTreeSet<AdapterNotice>) {
        self.untold.retain(|notice| notices.contains(notice));
        self.untold.extend(notices.difference(&self.present).copied());
        self.present = notices;
    }

    /// The notices since the last call that still hold.
    pub(super) fn take_untold(&mut self) -> BTreeSet<AdapterNotice> {
        std::mem::take(&mut self.untold)
    }
}

/// Repairs needed, in the order in which they can be applied.
pub(super) fn find_repairs(
    desired: &DesiredState,
    adapter: &AdapterState,
    routes: &[HostRoute],
) -> Vec<Repair> {
    let mut repairs = Vec::new();
    if adapter.name != desired.name {
        repairs.push(Repair::RenamedBack { from: adapter.name.clone() });
    }
    if adapter.mtu != u32::from(desired.mtu) {
        repairs.push(Repair::MtuRestored { from: adapter.mtu });
    }
    if adapter.queue_len != TX_QUEUE_LEN {
        repairs.push(Repair::QueueLenRestored { from: adapter.queue_len });
    }
    if !adapter.up {
        repairs.push(Repair::SetUp);
    }
    if adapter.ipv6 == Ipv6State::DisabledHere {
        repairs.push(Repair::Ipv6Enabled);
    }
    let own: [IpAddr; 2] = [desired.addrs.v4.into(), desired.addrs.v6.into()];
    let usable = |addr: &IpAddr| addr.is_ipv4() || adapter.ipv6 == Ipv6State::Enabled;
    repairs.extend(
        adapter
            .addrs
            .iter()
            .filter(|present| is_foreign(&desired.addrs, **present))
            .map(|present| Repair::AddressRemoved(*present)),
    );
    repairs.extend(
        own.into_iter()
            .filter(usable)
            .filter(|addr| !adapter.addrs.contains(&AdapterAddr::own_addr(*addr)))
            .map(Repair::AddressRestored),
    );
    repairs.extend(
        routes
            .iter()
            .filter(|route| !desired.routes.contains_key(&route.addr))
            .map(|route| Repair::RouteRemoved(route.addr)),
    );
    let missing = desired.routes.iter().filter(|(addr, mtu)| {
        let src = if addr.is_ipv4() { own[0] } else { own[1] };
        let route = HostRoute { addr: **addr, src: Some(src), mtu: Some(**mtu) };
        usable(addr) && !routes.contains(&route)
    });
    repairs.extend(missing.map(|(addr, _)| Repair::RouteRestored(*addr)));
    repairs
}

/// Returns whether an address must be removed from the adapter: an own one with another prefix
/// length or scope, which the kernel does not change, or another link-local one while the own is
/// link-local. Others belong to the operator.
fn is_foreign(own: &VirtualAddrs, present: AdapterAddr) -> bool {
    if own.contains(present.addr) {
        let wanted = AdapterAddr::own_addr(present.addr);
        return present.prefix_len != wanted.prefix_len || present.has_link_scope;
    }
    match present.addr {
        IpAddr::V4(v4) => v4.is_link_local() && own.v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() && own.v6.is_unicast_link_local(),
    }
}

/// Choices of the operator that harm: told, not repaired.
pub(super) fn find_notices(
    desired: &DesiredState,
    adapter: &AdapterState,
) -> BTreeSet<AdapterNotice> {
    let own = &desired.addrs;
    let foreign = adapter
        .addrs
        .iter()
        .filter(|present| !own.contains(present.addr) && !is_foreign(own, **present));
    let foreign = foreign.map(|AdapterAddr { addr, prefix_len, .. }| {
        AdapterNotice::ForeignAddress { addr: *addr, prefix_len: *prefix_len }
    });
    let is_disabled = adapter.ipv6 == Ipv6State::DisabledOnHost;
    foreign.chain(is_disabled.then_some(AdapterNotice::Ipv6Disabled)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const V4: Ipv4Addr = Ipv4Addr::new(169, 254, 3, 4);
    const V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 1, 2, 3, 4);

    fn desired() -> DesiredState {
        DesiredState {
            name: "netft0".into(),
            addrs: VirtualAddrs { v4: V4, v6: V6 },
            mtu: 1420,
            routes: [("169.254.9.9".parse().unwrap(), 1400), ("fe80::9".parse().unwrap(), 1380)]
                .into(),
            speed: None,
        }
    }

    fn healthy() -> (AdapterState, Vec<HostRoute>) {
        let adapter = AdapterState {
            ifindex: 4,
            name: "netft0".into(),
            up: true,
            mtu: 1420,
            queue_len: TX_QUEUE_LEN,
            ipv6: Ipv6State::Enabled,
            addrs: vec![AdapterAddr::own_addr(V4), AdapterAddr::own_addr(V6)],
        };
        let route = |addr: &str, src: IpAddr, mtu| HostRoute {
            addr: addr.parse().unwrap(),
            src: Some(src),
            mtu: Some(mtu),
        };
        let routes = vec![route("169.254.9.9", V4.into(), 1400), route("fe80::9", V6.into(), 1380)];
        (adapter, routes)
    }

    fn foreign(text: &str) -> AdapterAddr {
        let net: ipnet::IpNet = text.parse().unwrap();
        AdapterAddr { prefix_len: net.prefix_len(), ..AdapterAddr::own_addr(net.addr()) }
    }

    type Damage = fn(&mut AdapterState, &mut Vec<HostRoute>);

    #[test]
    fn a_repair_that_a_new_desired_state_calls_for_is_told_from_those_of_damage() {
        let former = desired();
        let (kept, removed) = ("169.254.9.9".parse().unwrap(), "fe80::9".parse().unwrap());
        let mut after = DesiredState { mtu: 1300, ..desired() };
        after.routes.remove(&removed);
        let cases = [
            (Repair::MtuRestored { from: 1420 }, true),
            (Repair::MtuRestored { from: 1000 }, false),
            (Repair::RouteRemoved(removed), true),
            (Repair::RouteRestored(kept), false),
            (Repair::Ipv6Enabled, false),
        ];
        for (repair, is_own) in cases {
            assert_eq!(repair.follows_from(&former, &after), is_own, "{repair}");
        }
        assert!(!Repair::MtuRestored { from: 1420 }.follows_from(&former, &former));
    }

    #[test]
    fn each_damage_has_its_repair() {
        let peer: IpAddr = "169.254.9.9".parse().unwrap();
        let cases: Vec<(Damage, Vec<Repair>)> = vec![
            (|_, _| {}, vec![]),
            (|a, _| a.up = false, vec![Repair::SetUp]),
            (|a, _| a.mtu = 1000, vec![Repair::MtuRestored { from: 1000 }]),
            (|a, _| a.queue_len = 500, vec![Repair::QueueLenRestored { from: 500 }]),
            (|a, _| a.name = "x".into(), vec![Repair::RenamedBack { from: "x".into() }]),
            (
                |a, _| a.addrs.retain(|addr| addr.addr != IpAddr::V4(V4)),
                vec![Repair::AddressRestored(V4.into())],
            ),
            (|a, _| a.addrs.truncate(1), vec![Repair::AddressRestored(V6.into())]),
            (
                |a, _| a.addrs[0].prefix_len = 16,
                vec![
                    Repair::AddressRemoved(foreign("169.254.3.4/16")),
                    Repair::AddressRestored(V4.into()),
                ],
            ),
            // Made deprecated again in place; another scope takes a new address.
            (|a, _| a.addrs[0].is_deprecated = false, vec![Repair::AddressRestored(V4.into())]),
            (
                |a, _| a.addrs[0].has_link_scope = true,
                vec![
                    Repair::AddressRemoved(AdapterAddr {
                        has_link_scope: true,
                        ..AdapterAddr::own_addr(V4)
                    }),
                    Repair::AddressRestored(V4.into()),
                ],
            ),
            (
                |a, _| a.addrs.push(foreign("fe80::77/64")),
                vec![Repair::AddressRemoved(foreign("fe80::77/64"))],
            ),
            (|a, _| a.addrs.push(foreign("10.0.0.1/24")), vec![]),
            (|a, _| a.addrs.push(foreign("fd00::1/64")), vec![]),
            (|_, r| r.retain(|route| route.addr.is_ipv6()), vec![Repair::RouteRestored(peer)]),
            (|_, r| r[0].mtu = Some(9000), vec![Repair::RouteRestored(peer)]),
            (|_, r| r[0].src = None, vec![Repair::RouteRestored(peer)]),
            (
                |_, r| r.push(HostRoute { addr: V4.into(), src: None, mtu: None }),
                vec![Repair::RouteRemoved(V4.into())],
            ),
            (
                |a, r| {
                    a.ipv6 = Ipv6State::DisabledOnHost;
                    a.addrs.pop();
                    r.pop();
                },
                vec![],
            ),
            (
                |a, r| {
                    a.ipv6 = Ipv6State::DisabledHere;
                    a.addrs.pop();
                    r.pop();
                },
                // Its address and routes follow in the next round.
                vec![Repair::Ipv6Enabled],
            ),
        ];
        for (damage, repairs) in cases {
            let (mut adapter, mut routes) = healthy();
            damage(&mut adapter, &mut routes);
            assert_eq!(find_repairs(&desired(), &adapter, &routes), repairs);
        }
    }

    #[test]
    fn what_is_not_repaired_is_told_once_while_it_lasts() {
        let mut notices = NoticeSet::default();
        let (mut adapter, _) = healthy();
        let mut check = |adapter: &AdapterState| -> Vec<String> {
            notices.record(find_notices(&desired(), adapter));
            notices.take_untold().iter().map(ToString::to_string).collect()
        };
        assert!(check(&adapter).is_empty());
        adapter.addrs.push(foreign("10.0.0.1/24"));
        adapter.ipv6 = Ipv6State::DisabledOnHost;
        let told = check(&adapter);
        assert!(told[0].contains("disable_ipv6") && told[1].contains("10.0.0.1/24"), "{told:?}");
        assert!(check(&adapter).is_empty(), "once");
        adapter.addrs.pop();
        adapter.ipv6 = Ipv6State::Absent;
        assert!(check(&adapter).is_empty());
        adapter.addrs.push(foreign("10.0.0.1/24"));
        assert_eq!(check(&adapter).len(), 1, "again");
        // Removed instead of told.
        adapter.addrs = vec![AdapterAddr::own_addr(V4), foreign("169.254.7.7/16")];
        assert!(check(&adapter).is_empty());
    }

    #[test]
    fn a_prefix_of_the_users_own_leaves_link_local_addresses_alone() {
        let own = VirtualAddrs { v4: Ipv4Addr::new(10, 9, 0, 1), v6: "fd00::1".parse().unwrap() };
        assert!(!is_foreign(&own, foreign("169.254.3.4/16")));
        assert!(!is_foreign(&own, foreign("fe80::1/64")));
        assert!(!is_foreign(&own, foreign("10.9.0.2/32")));
        assert!(is_foreign(&own, foreign("10.9.0.1/24")));
    }
}
