//! The task that takes and lets go the floating addresses of this node.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use netft::{
    Time,
    api::{
        host::NetlinkError,
        vip::{FenceWatch, InterfaceWatch, VipInterfaces, now},
    },
    config::{VipConfig, VipFence},
    route::EventKind,
    vip::{VipGrant, VipInput, VipLink},
};
use tokio::sync::mpsc;

use super::{
    checks::HealthReport,
    cleanup::write_record,
    dhcp::{DhcpDesk, HeardReply, REPLY_QUEUE_LEN},
    entry::VipEntry,
    hand_over::LeaseNews,
    handle::{VipCommand, VipHandle},
    interface::choose_interface,
    kernel::{HEARD_QUEUE_LEN, HeardMessage, VipKernel},
    manual::WantedVips,
};
use crate::ownership::{OwnershipRequest, OwnershipUpdate};

/// Commands on their way to the service; beyond it the sender waits.
const COMMAND_QUEUE_LEN: usize = 64;
/// Results of checks on their way to the service; beyond it the check waits.
const HEALTH_QUEUE_LEN: usize = 256;
/// Interval between two looks at the kernel without a notification.
const POLL_INTERVAL: Duration = Duration::from_secs(10);
/// Least time between two announcements that something outside asked for.
pub(super) const MIN_ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);

/// Report of the service to the daemon.
#[derive(Debug)]
pub enum VipReport {
    /// An event.
    Event(EventKind),
    /// Packets that the fence dropped since the last report.
    Drops(u64),
}

/// Parts of the service.
pub struct VipServiceParts {
    /// Name of this node.
    pub node: String,
    /// Name of the adapter.
    pub adapter: String,
    /// Directory of the file that keeps the operator's wishes.
    pub runtime_dir: PathBuf,
    /// The addresses of the config file.
    pub vips: Vec<VipConfig>,
    /// Decisions of the engines.
    pub updates: mpsc::Receiver<OwnershipUpdate>,
    /// Tells this cluster from others: the same on every node.
    pub cluster: [u8; 32],
    /// News for every peer; those that find it full are lost.
    pub peers: mpsc::Sender<LeaseNews>,
    /// Physical addresses of the peers.
    pub peer_addrs: BTreeSet<IpAddr>,
    /// Answers to the engines.
    pub requests: mpsc::Sender<OwnershipRequest>,
    /// Events for the daemon; those that find it full are logged and lost.
    pub reports: mpsc::Sender<VipReport>,
}

/// The service.
pub struct VipService {
    pub(super) node: String,
    pub(super) adapter: String,
    pub(super) entries: BTreeMap<Arc<str>, VipEntry>,
    pub(super) wanted: WantedVips,
    pub(super) kernel: VipKernel,
    pub(super) dhcp: DhcpDesk,
    pub(super) health: mpsc::Sender<HealthReport>,
    pub(super) requests: mpsc::Sender<OwnershipRequest>,
    pub(super) reports: mpsc::Sender<VipReport>,
    /// Decisions of the operator so far.
    pub(super) decisions: u64,
    pub(super) announced_at: Option<Time>,
    runtime_dir: PathBuf,
    /// Addresses in the record for `netftd --cleanup`.
    recorded: Option<BTreeSet<IpAddr>>,
    inputs: ServiceInputs,
}

/// Everything that the service waits for.
struct ServiceInputs {
    commands: mpsc::Receiver<VipCommand>,
    updates: mpsc::Receiver<OwnershipUpdate>,
    has_engine: bool,
    heard: mpsc::Receiver<HeardMessage>,
    replies: mpsc::Receiver<HeardReply>,
    health: mpsc::Receiver<HealthReport>,
    interfaces: InterfaceWatch,
    fence: Option<FenceWatch>,
}

enum Wakeup {
    Command(VipCommand),
    Update(OwnershipUpdate),
    Heard(HeardMessage),
    Reply(HeardReply),
    Health(HealthReport),
    Interfaces,
    Fence,
    Timer,
    Closed,
}

impl ServiceInputs {
    /// Waits for the next thing to do. What neighbors said comes before what was decided: a
    /// message of before a decision must not look like one of after it.
    async fn next(&mut self, wait: Duration) -> Wakeup {
        let fence = async {
            match self.fence.as_mut() {
                Some(fence) => fence.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(heard) = self.heard.recv() => Wakeup::Heard(heard),
            Some(reply) = self.replies.recv() => Wakeup::Reply(reply),
            command = self.commands.recv() => command.map_or(Wakeup::Closed, Wakeup::Command),
            update = self.updates.recv(), if self.has_engine => match update {
                Some(update) => Wakeup::Update(update),
                None => {
                    self.has_engine = false;
                    Wakeup::Timer
                }
            },
            Some(report) = self.health.recv() => Wakeup::Health(report),
            () = fence => Wakeup::Fence,
            () = self.interfaces.changed() => Wakeup::Interfaces,
            () = tokio::time::sleep(wait) => Wakeup::Timer,
        }
    }
}

impl VipService {
    /// Opens the sockets and sets the fence. Nothing answers for an address before it is given to
    /// this node.
    ///
    /// # Errors
    /// Of the kernel.
    pub async fn open(parts: VipServiceParts) -> Result<(Self, VipHandle), NetlinkError> {
        let (commands, command_rx) = mpsc::channel(COMMAND_QUEUE_LEN);
        let (heard, heard_rx) = mpsc::channel(HEARD_QUEUE_LEN);
        let (health, health_rx) = mpsc::channel(HEALTH_QUEUE_LEN);
        let (replies, reply_rx) = mpsc::channel(REPLY_QUEUE_LEN);
        let VipServiceParts {
            node,
            adapter,
            runtime_dir,
            vips,
            updates,
            cluster,
            peers,
            peer_addrs,
            requests,
            reports,
        } = parts;
        let inputs = ServiceInputs {
            commands: command_rx,
            updates,
            has_engine: true,
            heard: heard_rx,
            replies: reply_rx,
            health: health_rx,
            interfaces: InterfaceWatch::open()?,
            fence: None,
        };
        let mut service = Self {
            node,
            entries: BTreeMap::new(),
            wanted: WantedVips::load(&runtime_dir, &adapter),
            kernel: VipKernel::open(&adapter, heard)?,
            dhcp: DhcpDesk::new(cluster, &runtime_dir, &adapter, replies, peers),
            adapter,
            health,
            requests,
            reports,
            decisions: 0,
            announced_at: None,
            runtime_dir,
            recorded: None,
            inputs,
        };
        service.dhcp.set_peer_addrs(peer_addrs);
        service.configure(vips).await;
        Ok((service, VipHandle(commands)))
    }

    /// Runs until it is stopped.
    pub async fn run(mut self) {
        let mut poll_at = now();
        loop {
            let time = now();
            if time >= poll_at {
                poll_at = time + POLL_INTERVAL;
                self.look_at_kernel().await;
            }
            let wakes = self.entries.values().filter_map(VipEntry::next_wake);
            let wake = wakes.chain([poll_at]).min().unwrap_or(poll_at);
            match self.inputs.next(wake.since(now())).await {
                Wakeup::Command(VipCommand::Stop(reply)) => {
                    self.stop().await;
                    let _ = reply.send(());
                    return;
                }
                Wakeup::Command(command) => self.on_command(command).await,
                Wakeup::Update(update) => self.on_update(update),
                Wakeup::Heard((index, message)) => {
                    for entry in self.entries.values_mut() {
                        if entry.machine.link().is_some_and(|link| link.index == index) {
                            entry.input(now(), VipInput::Heard(message));
                        }
                    }
                }
                Wakeup::Reply(reply) => self.dhcp.on_reply(now(), reply, &mut self.entries),
                Wakeup::Health((name, health)) => {
                    if let Some(entry) = self.entries.get_mut(&name) {
                        entry.on_health(now(), health);
                    }
                }
                Wakeup::Interfaces => self.refresh_interfaces().await,
                Wakeup::Fence => self.restore_fence().await,
                Wakeup::Timer => {}
                Wakeup::Closed => {
                    self.stop().await;
                    return;
                }
            }
            // A renewal that waits comes before the end of the lease that it renews.
            while let Ok(update) = self.inputs.updates.try_recv() {
                self.on_update(update);
            }
            let time = now();
            for entry in self.entries.values_mut() {
                entry.renew_if_due(time);
                entry.external.lease.note_running(time);
                if entry.machine.next_wake().is_some_and(|wake| wake <= time) {
                    entry.input(time, VipInput::Timer);
                }
            }
            self.carry_out().await;
        }
    }

    async fn stop(&mut self) {
        let time = now();
        for entry in self.entries.values_mut() {
            let token = entry.machine.grant().map(|grant| grant.token).unwrap_or_default();
            entry.input(time, VipInput::Revoke(token, "netftd stops".to_owned()));
        }
        self.carry_out().await;
        self.kernel.remove_fence().await;
        if let Err(error) = write_record(&self.runtime_dir, &self.adapter, &BTreeSet::new()) {
            tracing::debug!(%error, "the record of the floating addresses stays");
        }
    }

    fn on_update(&mut self, update: OwnershipUpdate) {
        let time = now();
        match update {
            OwnershipUpdate::Granted { leases, until, lease } => {
                for (vip, token) in leases {
                    if let Some(entry) = self.entries.get_mut(&vip) {
                        let grant = VipGrant { token, until, is_proven: true };
                        entry.granted_lease = Some(lease);
                        entry.input(time, VipInput::Grant(grant));
                    }
                }
            }
            OwnershipUpdate::Revoked { vip, token } => match self.entries.get_mut(&vip) {
                Some(entry) => {
                    let reason = format!("decision {token} took it away");
                    entry.input(time, VipInput::Revoke(token, reason));
                }
                // Unknown here: nothing answers for it.
                None => self.tell_engine(OwnershipRequest::Released { vip, token }),
            },
            OwnershipUpdate::Problem { engine, problem } => {
                for entry in self.entries.values_mut() {
                    if entry.config.ownership == engine {
                        let problem = problem.as_deref().map(str::to_owned);
                        entry.input(time, VipInput::Engine(problem));
                    }
                }
            }
            OwnershipUpdate::Owner { vip, owner, token, reason } => {
                if let Some(entry) = self.entries.get_mut(&vip)
                    && (entry.owner != owner || entry.cause.as_ref() != Some(&reason))
                {
                    let name = owner.as_deref().unwrap_or("nobody");
                    let what = format!("decision {token}: its owner is {name}: {reason}");
                    entry.add_history(time, what);
                    (entry.owner, entry.cause) = (owner, Some(reason));
                }
            }
            OwnershipUpdate::Notice { engine, what } => {
                let is_meant = |entry: &&mut VipEntry| entry.config.ownership == engine;
                let mut names = Vec::new();
                for entry in self.entries.values_mut().filter(is_meant) {
                    entry.add_history(time, what.to_string());
                    names.push(entry.config.name.clone());
                }
                self.report(EventKind::VipNotice { vip: names.join(", "), what: what.to_string() });
            }
        }
    }

    pub(super) fn tell_engine(&self, request: OwnershipRequest) {
        if let Err(mpsc::error::TrySendError::Full(request)) = self.requests.try_send(request) {
            tracing::error!(?request, "the ownership engine does not read: a message is lost");
        }
    }

    pub(super) async fn set_fenced(&mut self) {
        let fenced = self.entries.values().filter(|one| one.config.fence == VipFence::Nftables);
        let addrs: BTreeSet<_> = fenced.flat_map(VipEntry::addrs).collect();
        let all: BTreeSet<_> = self.entries.values().flat_map(VipEntry::addrs).collect();
        if self.recorded.as_ref() != Some(&all) {
            match write_record(&self.runtime_dir, &self.adapter, &all) {
                Ok(()) => self.recorded = Some(all),
                Err(error) => tracing::warn!(%error, "cannot record the floating addresses"),
            }
        }
        self.kernel.set_fenced(addrs).await;
        self.inputs.fence = self.kernel.watch_fence();
    }

    /// Reads everything that a lost notification may have hidden.
    pub(super) async fn look_at_kernel(&mut self) {
        self.set_fenced().await;
        let (is_damaged, drops) = self.kernel.read_fence().await;
        if drops > 0 {
            let _ = self.reports.try_send(VipReport::Drops(drops));
        }
        if is_damaged && self.kernel.fence_error.is_none() {
            self.restore_fence().await;
        }
        self.refresh_interfaces().await;
        self.carry_out().await;
    }

    async fn restore_fence(&mut self) {
        let result = self.kernel.restore_fence().await;
        let what = match result {
            Ok(()) => "another program changed the fence: it was put back".to_owned(),
            Err(error) => format!("another program changed the fence, and {error}"),
        };
        let time = now();
        for entry in self.entries.values_mut() {
            entry.add_history(time, what.clone());
        }
        let names: Vec<_> = self.entries.keys().map(|name| &**name).collect();
        self.report(EventKind::VipNotice { vip: names.join(", "), what });
        // It is another socket after a failure.
        self.inputs.fence = self.kernel.watch_fence();
    }

    async fn refresh_interfaces(&mut self) {
        let Some(interfaces) = self.kernel.list_interfaces().await else { return };
        let all: BTreeSet<IpAddr> = self.entries.values().flat_map(VipEntry::addrs).collect();
        let time = now();
        self.dhcp.set_local(&interfaces);
        let mut links = BTreeMap::new();
        for entry in self.entries.values_mut() {
            let chosen = choose_interface(&entry.config, &interfaces, &all, &self.adapter);
            let link = chosen.and_then(|interface| {
                let link = || VipInterfaces::to_link(interface);
                let known: &Option<VipLink> = links.entry(interface.index).or_insert_with(link);
                known.clone().ok_or_else(|| format!("{} is no Ethernet interface", interface.name))
            });
            entry.input(time, VipInput::Link(link));
        }
        self.sync_neighbor_sockets();
        // What the machines decided on their links comes before what is read next.
        self.carry_out().await;
        let mut present = BTreeMap::new();
        for (index, addrs) in self.addrs_by_interface() {
            if let Ok(found) = self.kernel.interfaces.present(index, &addrs).await {
                present.insert(index, found);
            }
        }
        let time = now();
        for entry in self.entries.values_mut() {
            let index = entry.machine.link().map(|link| link.index);
            if let Some(found) = index.and_then(|index| present.get(&index)) {
                let own = entry.addrs().into_iter().filter(|addr| found.contains(addr));
                entry.input(time, VipInput::Present(own.collect()));
            }
        }
    }

    /// Opens and closes the sockets to the neighbors as the addresses need them.
    pub(super) fn sync_neighbor_sockets(&mut self) {
        let mut sockets = BTreeMap::<u32, (VipLink, Vec<IpAddr>)>::new();
        for entry in self.entries.values() {
            let Some(link) = entry.machine.link() else { continue };
            let place = sockets.entry(link.index).or_insert_with(|| (link.clone(), Vec::new()));
            place.1.extend(entry.machine.addrs());
        }
        self.kernel.sync_sockets(sockets);
    }

    fn addrs_by_interface(&self) -> BTreeMap<u32, Vec<IpAddr>> {
        let mut addrs = BTreeMap::<u32, Vec<IpAddr>>::new();
        for entry in self.entries.values() {
            if let Some(link) = entry.machine.link() {
                addrs.entry(link.index).or_default().extend(entry.addrs());
            }
        }
        addrs
    }
}
