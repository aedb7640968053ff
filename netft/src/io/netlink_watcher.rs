//! The keeper: watches the kernel, tells the driver how the interfaces are, and puts the adapter
//! back when somebody takes it away.
//!
//! One task in the caller's runtime. It looks at every netlink notice, every
//! [`ACTIVE_POLL_INTERVAL`] while things change, and every [`IDLE_POLL_INTERVAL`] else, so what a
//! notice missed is found all the same; the driver is told only what changed.

use std::{sync::Arc, time::Duration};

use netft_proto::{
    config::Config,
    route::EventKind,
    topology::{Advertisements, ResolvedAddresses},
};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use crate::io::{
    adapter::{
        reconciler::{AdapterReconciler, DesiredState},
        tun,
    },
    clock,
    host_state::HostState,
    messages::DriverMessage,
    netlink::{Netlink, NetlinkMonitor},
};

/// The time between two looks after a notice: restoring the adapter must end within 500 ms (F-22,
/// F-23), and the guard rests between two repairs.
const ACTIVE_POLL_INTERVAL: Duration = Duration::from_millis(250);
/// The longest time something unnoticed stays unnoticed. A look is about nine requests to the
/// kernel, a tenth of what an idle node does if it comes every second.
const IDLE_POLL_INTERVAL: Duration = Duration::from_secs(10);
/// Looks every [`ACTIVE_POLL_INTERVAL`] after the last notice.
const ACTIVE_POLLS: u32 = 4;
/// Notices come in bursts: one look per burst.
const NOTICE_COALESCE_DELAY: Duration = Duration::from_millis(2);

/// What the keeper is given.
pub(crate) struct NetlinkWatcher {
    /// The config, and that it changed.
    pub config: watch::Receiver<Arc<Config>>,
    pub netlink: Netlink,
    pub monitor: NetlinkMonitor,
    pub reconciler: AdapterReconciler,
    pub driver: mpsc::Sender<DriverMessage>,
    /// How many queues the adapter has.
    pub queues: usize,
    /// Says that the routes' sizes changed, with the MTU towards each peer.
    pub desired: watch::Receiver<DesiredState>,
    /// What the peers tell of their addresses.
    pub advertisements: watch::Receiver<Advertisements>,
    /// The addresses behind the peers' names.
    pub resolved: watch::Receiver<ResolvedAddresses>,
}

impl NetlinkWatcher {
    /// Runs until it is aborted or the driver is gone.
    pub(crate) async fn run(mut self) {
        let mut reported = HostState::default();
        let mut active_polls = ACTIVE_POLLS;
        loop {
            let config = self.config.borrow_and_update().clone();
            if !self.reconcile_adapter(&config).await {
                return;
            }
            let advertisements = self.advertisements.borrow_and_update().clone();
            let resolved = self.resolved.borrow_and_update().clone();
            let peer_inputs = (&advertisements, &resolved);
            if let Some(world) =
                HostState::read_kernel(&self.netlink, &config, peer_inputs, &reported.interfaces)
                    .await
                && world != reported
            {
                reported = world.clone();
                if self.driver.send(DriverMessage::HostState(world)).await.is_err() {
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
                    *self.reconciler.desired_state_mut() = self.desired.borrow_and_update().clone();
                    // What this changes was not changed from outside.
                    self.reconciler.reconcile(&self.netlink, clock::now()).await;
                }
            }
        }
    }

    /// Repairs the adapter. Returns whether the driver is still there.
    async fn reconcile_adapter(&mut self, config: &Config) -> bool {
        let report = self.reconciler.reconcile(&self.netlink, clock::now()).await;
        for error in &report.errors {
            tracing::debug!(adapter = %config.adapter.name, %error, "the adapter resists repair");
        }
        if report.is_backing_off {
            tracing::warn!(
                adapter = %config.adapter.name,
                "something keeps changing the adapter: repairs become rare",
            );
        }
        for repair in report.repairs {
            if !self.report_restored(repair.to_string()).await {
                return false;
            }
        }
        if report.is_adapter_missing { self.recreate_adapter(config).await } else { true }
    }

    async fn recreate_adapter(&mut self, config: &Config) -> bool {
        let opened = match tun::open_adapter(
            &self.netlink,
            &config.adapter.name,
            config.adapter.backend,
            self.queues,
        )
        .await
        {
            Ok(opened) => opened,
            Err(error) => {
                tracing::warn!(adapter = %config.adapter.name, %error, "cannot create it anew");
                return true;
            }
        };
        let configured = self
            .netlink
            .configure_adapter(&config.adapter.name, config.adapter.addrs, config.adapter.mtu)
            .await;
        if let Err(error) = configured {
            tracing::warn!(adapter = %config.adapter.name, %error, "cannot configure it anew");
        }
        self.reconciler.on_recreated(opened.ifindex);
        let queues = opened.queues.into_iter().map(Arc::new).collect();
        if self.driver.send(DriverMessage::Queues(queues)).await.is_err() {
            return false;
        }
        let routes = self.reconciler.reconcile(&self.netlink, clock::now()).await;
        for error in routes.errors {
            tracing::warn!(adapter = %config.adapter.name, %error, "cannot restore everything");
        }
        self.report_restored("adapter was deleted: created anew".to_owned()).await
    }

    async fn report_restored(&self, what: String) -> bool {
        let event = EventKind::AdapterRestored { what };
        self.driver.send(DriverMessage::Event(event)).await.is_ok()
    }
}
