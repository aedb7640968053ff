//! The netlink watcher: reports the interfaces to the driver, and restores the adapter when another
//! program changes or deletes it.
//!
//! One task in the caller's runtime. It reads the kernel's state at every netlink notification,
//! every [`ACTIVE_POLL_INTERVAL`] while things change, and every [`IDLE_POLL_INTERVAL`] otherwise,
//! so a lost notification delays a change and loses none; the driver is told only of changes.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use netft_proto::{
    config::Config,
    route::EventKind,
    topology,
    topology::{Advertisements, Interface, ResolvedAddresses, SharedSubnets, is_container_bridge},
};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use crate::io::{
    adapter::{policy_rule, reconciler::AdapterReconciler, repairs::DesiredState, tun},
    arp_settings::ArpSettings,
    clock,
    host_state::HostState,
    messages::DriverMessage,
    netlink::{Netlink, NetlinkMonitor},
};

/// The time between two reads after a notification: restoring the adapter must end within 500 ms
/// (F-22, F-23), and the reconciler pauses between two repairs.
const ACTIVE_POLL_INTERVAL: Duration = Duration::from_millis(250);
/// The time between two reads without a notification: the longest that a change without one stays
/// undetected. A read is about 22 requests to the kernel with three interfaces and one peer; one a
/// second would be a tenth of the work of an idle node.
const IDLE_POLL_INTERVAL: Duration = Duration::from_secs(10);
/// Reads at [`ACTIVE_POLL_INTERVAL`] after the last notification.
const ACTIVE_POLLS: u32 = 4;
/// Notifications come in bursts: one read per burst.
const NOTICE_COALESCE_DELAY: Duration = Duration::from_millis(2);

/// The netlink watcher's inputs and outputs.
pub(crate) struct NetlinkWatcher {
    /// The config; a change starts a read.
    pub config: watch::Receiver<Arc<Config>>,
    pub netlink: Netlink,
    pub monitor: NetlinkMonitor,
    /// `None` for a witness, which has no adapter and changes nothing of the host.
    pub reconciler: Option<AdapterReconciler>,
    /// Restores the ARP settings when the watcher ends.
    pub arp: ArpSettings,
    pub driver: mpsc::Sender<DriverMessage>,
    /// The number of the adapter's queues.
    pub queues: usize,
    /// The adapter's desired state, with the MTU towards each peer.
    pub desired: watch::Receiver<DesiredState>,
    /// The peers' advertised addresses.
    pub advertisements: watch::Receiver<Advertisements>,
    /// The addresses behind the peers' names.
    pub resolved: watch::Receiver<ResolvedAddresses>,
    /// Names of the container bridges, for the packet filter.
    pub bridges: watch::Sender<BTreeSet<String>>,
    /// Peers' addresses that the kernel leads to the adapter.
    pub routed: watch::Sender<BTreeSet<IpAddr>>,
    /// Peers' addresses whose packets would leave by another interface, as last reported.
    pub drawn_away: Vec<IpAddr>,
}

impl NetlinkWatcher {
    /// Runs until it is aborted or the driver is gone.
    pub(crate) async fn run(mut self) {
        let mut reported = HostState::default();
        let mut active_polls = ACTIVE_POLLS;
        loop {
            let config = self.config.borrow_and_update().clone();
            // Before anything slow: a new peer may have data at once.
            if self.desired.has_changed().unwrap_or_default() {
                let desired = self.desired.borrow_and_update().clone();
                if let Some(reconciler) = &mut self.reconciler {
                    reconciler.set_desired_state(desired);
                }
            }
            if !self.reconcile_adapter(&config).await {
                return;
            }
            self.publish_routed();
            let advertisements = self.advertisements.borrow_and_update().clone();
            let resolved = self.resolved.borrow_and_update().clone();
            let peer_inputs = (&advertisements, &resolved);
            let host_state =
                HostState::read_kernel(&self.netlink, &config, peer_inputs, &reported.interfaces)
                    .await;
            if let Some(host_state) = &host_state
                && !self.update_arp_settings(&config, host_state).await
            {
                return;
            }
            if let Some(host_state) = host_state
                && host_state != reported
            {
                let (interfaces, ways) = (host_state.interfaces.len(), host_state.ways.len());
                tracing::debug!(interfaces, ways, "host state changed");
                let bridges = container_bridges(&host_state.interfaces);
                self.bridges.send_if_modified(|known| {
                    let is_changed = *known != bridges;
                    *known = bridges;
                    is_changed
                });
                reported = host_state.clone();
                if self.driver.send(DriverMessage::HostState(host_state)).await.is_err() {
                    return;
                }
            }
            let pause = if active_polls > 0 { ACTIVE_POLL_INTERVAL } else { IDLE_POLL_INTERVAL };
            active_polls = active_polls.saturating_sub(1);
            tokio::select! {
                () = sleep(pause) => {}
                _ = self.monitor.next() => {
                    active_polls = ACTIVE_POLLS;
                    sleep(NOTICE_COALESCE_DELAY).await;
                }
                changed = self.config.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                changed = self.advertisements.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                changed = self.resolved.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                changed = self.desired.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    active_polls = ACTIVE_POLLS;
                    self.desired.mark_changed();
                }
            }
        }
    }

    fn publish_routed(&self) {
        let Some(reconciler) = &self.reconciler else { return };
        self.routed.send_if_modified(|known| {
            let is_changed = known != reconciler.routed_addrs();
            if is_changed {
                known.clone_from(reconciler.routed_addrs());
            }
            is_changed
        });
    }

    /// Keeps the way to the peers through the adapter, whatever policy rules other programs set.
    /// Returns false once the driver is gone.
    async fn reconcile_ways(&mut self) -> bool {
        let Some(reconciler) = &self.reconciler else { return true };
        let (desired, ifindex) = (reconciler.desired_state(), reconciler.ifindex());
        let report = match policy_rule::reconcile_rules(&self.netlink, desired, ifindex).await {
            Ok(report) => report,
            Err(error) => {
                tracing::debug!(%error, "cannot check the ways to the peers");
                return true;
            }
        };
        for repair in report.repairs {
            if !self.report_restored(repair).await {
                return false;
            }
        }
        let is_news = report.drawn_away != self.drawn_away && !report.drawn_away.is_empty();
        self.drawn_away = report.drawn_away;
        if !is_news {
            return true;
        }
        let addrs: Vec<_> = self.drawn_away.iter().map(ToString::to_string).collect();
        let rule = report.foreign.map_or_else(
            || "look for its route in `ip route get`".to_owned(),
            |rule| {
                let (priority, table) = (rule.priority, rule.table);
                format!("policy rule {priority} (table {table}) may lead there: see `ip rule`")
            },
        );
        let what = format!(
            "packets to {} would leave by another interface than the adapter, and are dropped: \
             {rule}",
            addrs.join(", ")
        );
        self.driver.send(DriverMessage::Event(EventKind::OverlayFault { what })).await.is_ok()
    }

    /// Repairs the adapter. Returns false once the driver is gone.
    async fn reconcile_adapter(&mut self, config: &Config) -> bool {
        let Some(reconciler) = &mut self.reconciler else { return true };
        let report = reconciler.reconcile(&self.netlink, clock::now()).await;
        let notices = reconciler.take_notices();
        for error in &report.errors {
            tracing::debug!(adapter = %config.adapter.name, %error, "cannot repair the adapter");
        }
        if report.is_backing_off {
            tracing::warn!(
                adapter = %config.adapter.name,
                "another program keeps changing the adapter: repairs are retried rarely",
            );
        }
        for repair in report.repairs {
            if !self.report_restored(repair.to_string()).await {
                return false;
            }
        }
        for notice in notices {
            let what = notice.to_string();
            tracing::debug!(adapter = %config.adapter.name, what, "left as it is");
            let event = EventKind::OverlayFault { what };
            if self.driver.send(DriverMessage::Event(event)).await.is_err() {
                return false;
            }
        }
        let is_open = !report.is_adapter_missing || self.recreate_adapter(config).await;
        is_open && self.reconcile_ways().await
    }

    /// Separates the interfaces that share a subnet. Returns false once the driver is gone.
    async fn update_arp_settings(&mut self, config: &Config, host_state: &HostState) -> bool {
        let shared = if config.topology.keep_arp_settings || self.reconciler.is_none() {
            SharedSubnets::new()
        } else {
            topology::shared_subnets(config, &host_state.interfaces)
        };
        let Some(what) = self.arp.apply(&shared) else { return true };
        let event = EventKind::HostSettingChanged { what };
        self.driver.send(DriverMessage::Event(event)).await.is_ok()
    }

    async fn recreate_adapter(&mut self, config: &Config) -> bool {
        let Some(reconciler) = &mut self.reconciler else { return true };
        let adapter = &config.adapter;
        let opened = match tun::open_adapter(
            &self.netlink,
            &adapter.name,
            adapter.backend,
            self.queues,
        )
        .await
        {
            Ok(opened) => opened,
            Err(error) => {
                tracing::warn!(adapter = %adapter.name, %error, "cannot create the adapter anew");
                return true;
            }
        };
        let configured =
            self.netlink.configure_adapter(&adapter.name, adapter.addrs, adapter.mtu).await;
        if let Err(error) = configured {
            tracing::warn!(adapter = %adapter.name, %error, "cannot configure the new adapter");
        }
        tracing::debug!(adapter = %adapter.name, opened.ifindex, "adapter created anew");
        reconciler.on_recreated(opened.ifindex);
        let queues = opened.queues.into_iter().map(Arc::new).collect();
        if self.driver.send(DriverMessage::Queues(queues)).await.is_err() {
            return false;
        }
        let routes = reconciler.reconcile(&self.netlink, clock::now()).await;
        for error in routes.errors {
            tracing::warn!(adapter = %adapter.name, %error, "cannot restore an address or a route");
        }
        self.report_restored("adapter was deleted: created anew".to_owned()).await
    }

    async fn report_restored(&self, what: String) -> bool {
        let event = EventKind::AdapterRestored { what };
        self.driver.send(DriverMessage::Event(event)).await.is_ok()
    }
}

/// Names of the interfaces that connect containers of this host.
pub(crate) fn container_bridges(interfaces: &[Interface]) -> BTreeSet<String> {
    let bridges = interfaces.iter().filter(|interface| is_container_bridge(&interface.name));
    bridges.map(|interface| interface.name.clone()).collect()
}
