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

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use netft_proto::time::Time;

use crate::io::{
    adapter::repairs::{
        AdapterNotice, DesiredState, NoticeSet, Repair, find_notices, find_repairs,
    },
    netlink::{AdapterState, HostRoute, MAIN_TABLE, Netlink, NetlinkError, TX_QUEUE_LEN},
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

/// Result of a check.
#[derive(Debug, Default)]
pub struct ReconcileReport {
    /// The adapter was deleted: to be opened again and configured, then
    /// [`AdapterReconciler::on_recreated`].
    pub is_adapter_missing: bool,
    /// Completed repairs of what other programs changed, in order.
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
    /// Desired state of the last check, if it was another one.
    former: Option<DesiredState>,
    ifindex: u32,
    backoff: RepairBackoff,
    notices: NoticeSet,
    /// The adapter whose speed was set last, and the speed.
    reported_speed: Option<(u32, Option<u32>)>,
    /// Peers' addresses that the kernel has a route to, as last read.
    routed: BTreeSet<IpAddr>,
}

impl AdapterReconciler {
    /// Reconciler of the adapter with index `ifindex`.
    pub fn new(desired: DesiredState, ifindex: u32) -> Self {
        Self {
            desired,
            former: None,
            ifindex,
            backoff: RepairBackoff::default(),
            notices: NoticeSet::default(),
            reported_speed: None,
            routed: BTreeSet::new(),
        }
    }

    /// Peers' addresses that the kernel leads to the adapter, as of the last check.
    pub fn routed_addrs(&self) -> &BTreeSet<IpAddr> {
        &self.routed
    }

    /// Notices since the last call that still hold.
    pub fn take_notices(&mut self) -> BTreeSet<AdapterNotice> {
        self.notices.take_untold()
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

    /// Replaces the desired state; the next check applies it.
    pub fn set_desired_state(&mut self, desired: DesiredState) {
        self.backoff.allow_next_check();
        let former = std::mem::replace(&mut self.desired, desired);
        self.former.get_or_insert(former);
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
        if let Some(former) = self.former.take() {
            report.repairs.retain(|repair| !repair.follows_from(&former, &self.desired));
        }
        let adapter = &self.desired.name;
        for repair in &report.repairs {
            match repair {
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
            self.notices.record(find_notices(&self.desired, &adapter));
            self.routed = routes.iter().map(|route| route.addr).collect();
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
                netlink.enable_ipv6(name)
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
    use super::*;

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
