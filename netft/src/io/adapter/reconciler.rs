//! Reconciles the adapter with its desired state: restores it when it is deleted, set down, renamed
//! or re-addressed.
//!
//! The netlink watcher calls [`AdapterReconciler::reconcile`] at every notification of the kernel,
//! every 250 ms for a second after one, and every 10 s otherwise. Foreign addresses are kept and
//! told, except link-local ones where the adapter's own are link-local, which are removed. Routes
//! are kept unless they carry netft's protocol number.
//!
//! Bounds: at most one check per [`MIN_CHECK_INTERVAL`], three rounds of repairs per check, and
//! after [`FAILURE_LIMIT`] failed or [`CONFLICT_LIMIT`] repairing checks in a row one check per
//! [`BACKOFF_INTERVAL`]. A conflict with another program costs little CPU and one log line per
//! repair.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    time::Duration,
};

use netft_proto::{ids::virtual_addrs::VirtualAddrs, time::Time};

use crate::io::{
    netlink::{
        AdapterAddr, AdapterState, HostRoute, Ipv6State, MAIN_TABLE, Netlink, NetlinkError,
        TX_QUEUE_LEN, enable_ipv6,
    },
    sys::{glink, speed},
};

/// Minimum interval between two checks.
pub const MIN_CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// Interval of the checks during backoff.
pub const BACKOFF_INTERVAL: Duration = Duration::from_secs(5);
/// Failed checks in a row before the backoff.
pub const FAILURE_LIMIT: u32 = 5;
/// Repairing checks in a row before the backoff: another program undoes the repairs.
pub const CONFLICT_LIMIT: u32 = 20;

const MAX_REPAIR_ROUNDS: usize = 3;

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

/// Result of a check.
#[derive(Debug, Default)]
pub struct ReconcileReport {
    /// The adapter was deleted: to be opened again and configured, then
    /// [`AdapterReconciler::on_recreated`].
    pub is_adapter_missing: bool,
    /// Completed repairs, in order.
    pub repairs: Vec<Repair>,
    /// Failed repairs.
    pub errors: Vec<NetlinkError>,
    /// The backoff begins with this check.
    pub is_backing_off: bool,
}

/// Reconciler of one adapter.
#[derive(Debug)]
pub struct AdapterReconciler {
    desired: DesiredState,
    ifindex: u32,
    backoff: RepairBackoff,
    /// What the last check noticed, and what of it is to be told.
    noticed: BTreeSet<AdapterNotice>,
    untold: BTreeSet<AdapterNotice>,
    /// The adapter whose speed was set last, and the speed.
    reported_speed: Option<(u32, Option<u32>)>,
}

impl AdapterReconciler {
    /// Reconciler of the adapter with index `ifindex`.
    pub fn new(desired: DesiredState, ifindex: u32) -> Self {
        Self {
            desired,
            ifindex,
            backoff: RepairBackoff::default(),
            noticed: BTreeSet::new(),
            untold: BTreeSet::new(),
            reported_speed: None,
        }
    }

    /// What the checks noticed since the last call, and still holds.
    pub fn take_notices(&mut self) -> BTreeSet<AdapterNotice> {
        std::mem::take(&mut self.untold)
    }

    fn record_notices(&mut self, notices: BTreeSet<AdapterNotice>) {
        self.untold.retain(|notice| notices.contains(notice));
        self.untold.extend(notices.difference(&self.noticed).copied());
        self.noticed = notices;
    }

    /// The adapter was created again. Its peer routes are restored by the next check.
    pub fn on_recreated(&mut self, ifindex: u32) {
        self.ifindex = ifindex;
        self.backoff.failures = 0;
        self.backoff.allow_next_check();
    }

    /// Interface index of the adapter.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Desired state of the adapter.
    pub fn desired_state(&self) -> &DesiredState {
        &self.desired
    }

    /// Desired state, to be changed; the next check applies it.
    pub fn desired_state_mut(&mut self) -> &mut DesiredState {
        self.backoff.allow_next_check();
        &mut self.desired
    }

    /// Compares the adapter with the desired state and repairs it. Without a difference it costs
    /// five requests. Does nothing when the last check is too recent.
    pub async fn reconcile(&mut self, netlink: &Netlink, now: Time) -> ReconcileReport {
        let mut report = ReconcileReport::default();
        if !self.backoff.can_check(now) {
            return report;
        }
        let outcome = self.repair_adapter(netlink, &mut report).await;
        if !report.is_adapter_missing {
            self.report_speed();
        }
        report.is_backing_off = self.backoff.record_outcome(now, outcome);
        let adapter = &self.desired.name;
        for repair in &report.repairs {
            match repair {
                // The routes of new peers are installed this way too.
                Repair::RouteRemoved(_) | Repair::RouteRestored(_) => {
                    tracing::debug!(adapter, %repair, "route of the adapter repaired");
                }
                Repair::RenamedBack { .. }
                | Repair::MtuRestored { .. }
                | Repair::QueueLenRestored { .. }
                | Repair::SetUp
                | Repair::Ipv6Enabled
                | Repair::AddressRemoved(_)
                | Repair::AddressRestored(_) => {
                    tracing::info!(adapter, %repair, "adapter repaired");
                }
            }
        }
        if report.is_adapter_missing {
            tracing::debug!(adapter, "adapter missing");
        }
        report
    }

    /// Has the adapter report the speed of its routes; TUN reports 10 Gbit/s over anything. Tried
    /// once: it is for display.
    fn report_speed(&mut self) {
        let wanted = Some((self.ifindex, self.desired.speed));
        if self.reported_speed == wanted {
            return;
        }
        self.reported_speed = wanted;
        let (adapter, speed) = (&self.desired.name, self.desired.speed);
        let result =
            glink::open_socket().and_then(|socket| speed::set_link_speed(&socket, adapter, speed));
        tracing::debug!(adapter, ?speed, ?result, "speed of the adapter");
    }

    async fn repair_adapter(
        &mut self,
        netlink: &Netlink,
        report: &mut ReconcileReport,
    ) -> ReconcileOutcome {
        for _ in 0..MAX_REPAIR_ROUNDS {
            let (adapter, routes) = match self.read_state(netlink).await {
                Ok(Some(state)) => state,
                Ok(None) => {
                    report.is_adapter_missing = true;
                    return ReconcileOutcome::Failed;
                }
                Err(error) => {
                    report.errors.push(error);
                    return ReconcileOutcome::Failed;
                }
            };
            self.record_notices(find_notices(&self.desired, &adapter));
            let repairs = find_repairs(&self.desired, &adapter, &routes);
            if repairs.is_empty() {
                return if report.repairs.is_empty() {
                    ReconcileOutcome::Clean
                } else {
                    ReconcileOutcome::Repaired
                };
            }
            report.errors.clear();
            for repair in repairs {
                match self.apply_repair(netlink, &repair).await {
                    Ok(()) => report.repairs.push(repair),
                    // A later round may succeed.
                    Err(error) => report.errors.push(error),
                }
            }
        }
        if report.errors.is_empty() { ReconcileOutcome::Repaired } else { ReconcileOutcome::Failed }
    }

    async fn read_state(
        &self,
        netlink: &Netlink,
    ) -> Result<Option<(AdapterState, Vec<HostRoute>)>, NetlinkError> {
        let Some(adapter) = netlink.read_adapter(self.ifindex).await? else { return Ok(None) };
        Ok(Some((adapter, netlink.peer_routes(self.ifindex, MAIN_TABLE).await?)))
    }

    async fn apply_repair(&self, netlink: &Netlink, repair: &Repair) -> Result<(), NetlinkError> {
        let DesiredState { name, addrs, mtu, routes, .. } = &self.desired;
        let own = |addr: IpAddr| match addr {
            IpAddr::V4(_) => addrs.v4.into(),
            IpAddr::V6(_) => addrs.v6.into(),
        };
        match repair {
            Repair::RenamedBack { .. } => netlink.rename_link(self.ifindex, name).await,
            Repair::MtuRestored { .. } => netlink.set_mtu(self.ifindex, *mtu).await,
            Repair::QueueLenRestored { .. } => {
                netlink.set_queue_len(self.ifindex, TX_QUEUE_LEN).await
            }
            Repair::Ipv6Enabled => {
                netlink.disable_kernel_ipv6_config(self.ifindex, name).await;
                enable_ipv6(name)
            }
            Repair::SetUp => {
                netlink.disable_kernel_ipv6_config(self.ifindex, name).await;
                netlink.set_up(self.ifindex).await
            }
            Repair::AddressRemoved(foreign) => netlink.remove_address(self.ifindex, *foreign).await,
            Repair::AddressRestored(addr) => {
                // An MTU below 1280 makes the kernel discard the IPv6 configuration.
                netlink.disable_kernel_ipv6_config(self.ifindex, name).await;
                netlink.add_address(self.ifindex, *addr).await
            }
            Repair::RouteRemoved(addr) => {
                netlink.remove_peer_route(self.ifindex, MAIN_TABLE, *addr).await
            }
            Repair::RouteRestored(addr) => {
                let towards = routes.get(addr).copied().unwrap_or_else(|| (*mtu).into());
                let ends = (*addr, own(*addr));
                netlink.replace_peer_route(self.ifindex, MAIN_TABLE, ends, towards).await
            }
        }
    }
}

/// Repairs needed, in the order in which they can be applied.
fn find_repairs(
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

/// What belongs to the operator and harms: told, not repaired.
fn find_notices(desired: &DesiredState, adapter: &AdapterState) -> BTreeSet<AdapterNotice> {
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

/// Outcome of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReconcileOutcome {
    Clean,
    Repaired,
    Failed,
}

/// Backoff of the checks.
#[derive(Debug, Default)]
struct RepairBackoff {
    not_before: Option<Time>,
    failures: u32,
    repairs: u32,
}

impl RepairBackoff {
    fn can_check(&self, now: Time) -> bool {
        self.not_before.is_none_or(|time| now >= time)
    }

    /// Allows the next check at once, except during backoff.
    fn allow_next_check(&mut self) {
        if !self.is_backing_off() {
            self.not_before = None;
        }
    }

    fn is_backing_off(&self) -> bool {
        self.failures >= FAILURE_LIMIT || self.repairs >= CONFLICT_LIMIT
    }

    /// Returns whether the backoff begins with this check.
    fn record_outcome(&mut self, now: Time, outcome: ReconcileOutcome) -> bool {
        let before = self.is_backing_off();
        match outcome {
            ReconcileOutcome::Clean => (self.failures, self.repairs) = (0, 0),
            ReconcileOutcome::Repaired => {
                (self.failures, self.repairs) = (0, self.repairs.saturating_add(1))
            }
            ReconcileOutcome::Failed => self.failures = self.failures.saturating_add(1),
        }
        self.not_before =
            Some(now + if self.is_backing_off() { BACKOFF_INTERVAL } else { MIN_CHECK_INTERVAL });
        self.is_backing_off() && !before
    }
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
        let mut reconciler = AdapterReconciler::new(desired(), 4);
        let (mut adapter, _) = healthy();
        let mut check = |adapter: &AdapterState| -> Vec<String> {
            reconciler.record_notices(find_notices(&desired(), adapter));
            reconciler.take_notices().iter().map(ToString::to_string).collect()
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

    #[test]
    fn repairs_that_fail_five_times_in_a_row_begin_the_backoff() {
        let mut backoff = RepairBackoff::default();
        let mut now = Time::ZERO;
        for count in 1..=FAILURE_LIMIT {
            assert!(backoff.can_check(now));
            assert_eq!(
                backoff.record_outcome(now, ReconcileOutcome::Failed),
                count == FAILURE_LIMIT
            );
            assert!(!backoff.can_check(now));
            now = now + MIN_CHECK_INTERVAL;
            assert_eq!(backoff.can_check(now), count < FAILURE_LIMIT);
        }
        backoff.allow_next_check();
        assert!(!backoff.can_check(now), "a change of the desired state does not end the backoff");
        now = now + BACKOFF_INTERVAL;
        assert!(backoff.can_check(now));
        assert!(
            !backoff.record_outcome(now, ReconcileOutcome::Failed),
            "the backoff is reported once"
        );
        now = now + BACKOFF_INTERVAL;
        backoff.record_outcome(now, ReconcileOutcome::Clean);
        assert!(backoff.can_check(now + MIN_CHECK_INTERVAL));
    }

    #[test]
    fn a_conflict_with_another_program_begins_the_backoff() {
        let mut backoff = RepairBackoff::default();
        let mut now = Time::ZERO;
        for count in 1..=CONFLICT_LIMIT {
            assert_eq!(
                backoff.record_outcome(now, ReconcileOutcome::Repaired),
                count == CONFLICT_LIMIT
            );
            now = now + MIN_CHECK_INTERVAL;
        }
        assert!(!backoff.can_check(now));
    }
}
