//! Opening: everything is made in order, and a failure leaves nothing behind.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
};

use netft_proto::{
    config::{AdapterBackend, Config},
    overrides::OperatorOverrides,
    session::Session,
    topology::{Advertisements, ResolvedAddresses},
    wire::interfaces::Advertisement,
};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::{
    sync::{broadcast, mpsc, watch},
    task::JoinSet,
};

use crate::{
    adapter::Adapter,
    api::{
        error::OpenError,
        events::{EVENT_BACKLOG, EventStream},
        overrides::PublishedOverrides,
    },
    io::{
        adapter::{
            lock::AdapterLock, policy_rule, reconciler::AdapterReconciler, repairs::DesiredState,
            tun, tun::OpenedAdapter, types::MAX_QUEUES,
        },
        arp_settings::{ArpSettings, FILTER_RECORD, SUBNET_RECORD},
        carrier_monitor::CarrierMonitor,
        clock, control,
        control::{DriverParts, OverrideTable, RandomSeeds, ResumedState},
        datapath::{report::WorkerIo, workers::Workers},
        fib::SharedFib,
        handover::{FrozenAdapter, ResumedSend, SavedAdapter, SavedRanks, UnackedSend},
        host_state::HostState,
        messages::DriverMessage,
        netlink::{Netlink, NetlinkMonitor},
        netlink_watcher::{NetlinkWatcher, container_bridges},
        overlay_echo::{ECHO_QUEUE_LEN, run_echoes},
        packet_filter,
        packet_filter::{FilterGuard, FilterRules, PacketFilter},
        peer_warnings::{WARNING_TOPIC, serve_warnings},
        port_claim::PortClaim,
        quic,
        quic::{DATAGRAM_QUEUE_LEN, FromQuic, session::manager::SessionManager},
        resolver::NameResolver,
    },
};

/// Heartbeats and reports on their way from the workers; beyond it the newest is dropped and
/// counted.
const WORKER_QUEUE_LEN: usize = 1024;
/// Messages on their way to the driver; beyond it the sender waits. Two senders drop instead: the
/// carrier monitor, whose next poll repeats the result, and the session manager, which must not
/// wait for the driver and logs the loss.
const DRIVER_QUEUE_LEN: usize = 1024;

pub(super) async fn open_adapter(
    mut config: Config,
    overrides: OperatorOverrides,
    inherited: Option<FrozenAdapter>,
) -> Result<Adapter, OpenError> {
    config.check_settings()?;
    config.assign_ids();
    let config = Arc::new(config);
    if let Some(frozen) = inherited {
        return take_over(config, overrides, frozen).await;
    }
    let (runtime_dir, name) = (&config.access.runtime_dir, &config.adapter.name);
    let lock = AdapterLock::acquire(runtime_dir, name)?;
    let port = PortClaim::acquire(config.session.port)?;
    let netlink = Netlink::open()?;
    let count = worker_count(&config);
    let backend = config.adapter.backend;
    let opened = match backend.has_device() {
        true => tun::open_adapter(&netlink, name, backend, count).await?,
        false => OpenedAdapter::without_device(),
    };
    let begin = Begin { config: config.clone(), netlink, opened, lock, port, overrides };
    match start_components(begin, None).await {
        Ok(adapter) => Ok(adapter),
        Err(error) if !backend.has_device() => Err(error),
        Err(error) => {
            // The caller reports the failure; the device must not outlive it.
            if let Ok(netlink) = Netlink::open() {
                let _ = policy_rule::remove_rules(&netlink, &config.adapter.name).await;
                let _ = netlink.remove_adapter(&config.adapter.name).await;
            }
            let _ = packet_filter::remove_tables(&config.adapter.name).await;
            Err(error)
        }
    }
}

/// Opens the adapter that another process handed over. On a failure it is that process's again.
async fn take_over(
    config: Arc<Config>,
    overrides: OperatorOverrides,
    frozen: FrozenAdapter,
) -> Result<Adapter, OpenError> {
    let began = clock::now();
    let FrozenAdapter { adapter, state, port, sockets } = frozen;
    let unusable = |source| OpenError::System { what: "take the sessions over", source };
    let state = SavedAdapter::read_sealed(state).map_err(unusable)?;
    let (runtime_dir, name) = (&config.access.runtime_dir, &config.adapter.name);
    let lock = AdapterLock::inherit(adapter.lock, runtime_dir, name)?;
    let port = PortClaim::inherit(config.session.port, port)?;
    let netlink = Netlink::open()?;
    let backend = config.adapter.backend;
    let opened = tun::inherit_adapter(name, backend, adapter.queues);
    let foreign = || io::Error::other("its queues are those of another adapter or backend");
    let opened = opened.ok_or_else(|| unusable(foreign()))?;
    let resumed = Resumed::new(&config, state, sockets);
    let begin = Begin { config, netlink, opened, lock, port, overrides };
    let opened = start_components(begin, Some(resumed)).await?;
    tracing::debug!(took = ?clock::now().since(began), "sessions, routes and sockets taken over");
    Ok(opened)
}

/// The parts that exist before anything runs.
struct Begin {
    config: Arc<Config>,
    netlink: Netlink,
    opened: OpenedAdapter,
    lock: AdapterLock,
    port: PortClaim,
    overrides: OperatorOverrides,
}

/// State of a predecessor process, as the parts that go on with it take it.
struct Resumed {
    driver: ResumedState,
    ranks: SavedRanks,
    /// By worker.
    sends: Vec<Vec<ResumedSend>>,
    advertisements: Advertisements,
    resolved: ResolvedAddresses,
}

impl Resumed {
    /// Peers that `config` does not have are left out, and sessions that are unusable.
    fn new(config: &Config, mut state: SavedAdapter, sockets: Vec<OwnedFd>) -> Self {
        let mut sessions = BTreeMap::new();
        let mut by_id = BTreeMap::new();
        let mut ranks = SavedRanks { generation: state.generation, ..SavedRanks::default() };
        let (mut advertisements, mut resolved) = (Advertisements::new(), ResolvedAddresses::new());
        for saved in &state.peers {
            let key = saved.key();
            let Some(peer) = config.peers.iter().find(|peer| peer.key == key) else { continue };
            let restore = |one| Session::from_saved(one, peer.id, peer.addrs).ok().map(Arc::new);
            let live: Vec<_> = saved.sessions.iter().filter_map(restore).collect();
            let is_live = |id: u32| live.iter().any(|session| session.local_id() == id);
            let known = saved.ranks.iter().filter(|rank| is_live(rank.local_id));
            ranks.by_peer.insert(peer.id, known.copied().collect());
            by_id.extend(live.iter().map(|session| (session.local_id(), session.clone())));
            sessions.insert(key, live);
            let list = saved.advertisement.as_deref();
            if let Some(list) = list.and_then(|bytes| Advertisement::decode(bytes).ok()) {
                advertisements.insert(peer.id, list);
            }
            resolved.insert(peer.id, saved.resolved.clone());
        }
        let with_session = |send: UnackedSend| Some((by_id.get(&send.session)?.clone(), send));
        let sends = state.take_sends().into_iter();
        let sends = sends.map(|all| all.into_iter().filter_map(with_session).collect()).collect();
        let driver = ResumedState { state, sockets, sessions };
        Self { driver, ranks, sends, advertisements, resolved }
    }
}

async fn start_components(begin: Begin, resumed: Option<Resumed>) -> Result<Adapter, OpenError> {
    let Begin { config, netlink, opened, lock, port, overrides } = begin;
    let count = opened.queues.len();
    let monitor = NetlinkMonitor::open()?;
    // A device that is handed over has its rules and addresses, and its packets wait.
    let device = match &resumed {
        None => Some(DeviceSetup::apply(&config, &netlink, opened.ifindex).await?),
        Some(_) => None,
    };
    let fib = SharedFib::default();
    let adapter_fib = fib.clone();
    let (to_driver, from_workers) = mpsc::channel(WORKER_QUEUE_LEN);
    let (later, left) = mpsc::channel(WORKER_QUEUE_LEN);
    let (to_quic, arrivals) = mpsc::channel(DATAGRAM_QUEUE_LEN);
    let system = |what| move |source: io::Error| OpenError::System { what, source };
    let io = WorkerIo {
        fib: fib.clone(),
        to_driver,
        to_driver_deferred: later,
        to_quic,
        retransmit_limits: config.retransmit_limits,
        busy_poll: config.adapter.busy_poll,
    };
    let mut random = random_seeds()?;
    let mut parts = None;
    let (mut ranks, mut sends) = (SavedRanks::default(), Vec::new());
    let (mut advertisements, mut resolved) = (Advertisements::new(), ResolvedAddresses::new());
    if let Some(resumed) = resumed {
        random.boot_id = resumed.driver.state.boot_id;
        (ranks, sends) = (resumed.ranks, resumed.sends);
        (advertisements, resolved) = (resumed.advertisements, resumed.resolved);
        parts = Some(resumed.driver);
    }
    // The interfaces are known before the driver starts, so that routes exist at once.
    let host_state = match &mut parts {
        Some(resumed) => {
            let host = std::mem::take(&mut resumed.state.host);
            Some(HostState::from_saved(host, resolved.clone()))
        }
        None => HostState::read_kernel(&netlink, &config, (&advertisements, &resolved), &[]).await,
    };
    let workers = Workers::start(count, io, &sends);
    drop(sends);
    let workers = workers.map_err(system("start the packet workers"))?;
    let (messages, inbox) = mpsc::channel(DRIVER_QUEUE_LEN);
    let (events, first) = broadcast::channel(EVENT_BACKLOG);
    let report = quic_reporter(messages.clone());
    let quic = (fib.clone(), arrivals);
    let manager = SessionManager::start(config.clone(), quic, report, random.boot_id, ranks)?;
    let manager = Arc::new(manager);
    let (desired_tx, desired_rx) = watch::channel(desired_state(&config));
    let (advertisements_tx, advertisements_rx) = watch::channel(Advertisements::new());
    let driver_messages = messages.clone();
    // A change that a full queue drops is seen again by the next poll.
    let carrier_monitor = CarrierMonitor::start(move |seen| {
        drop(driver_messages.try_send(DriverMessage::Carriers(seen)))
    });
    let carrier_monitor = carrier_monitor.map_err(system("start the carrier monitor"))?;
    let (echoes, echo_orders) = mpsc::channel(ECHO_QUEUE_LEN);
    let (published, overrides_rx) = watch::channel(PublishedOverrides::default());
    let parts = DriverParts {
        config: (*config).clone(),
        fib: fib.clone(),
        workers,
        queues: opened.queues.into_iter().map(Arc::new).collect(),
        from_workers: (from_workers, left),
        messages: inbox,
        events: events.clone(),
        random,
        carrier_monitor,
        echoes,
        manager: manager.clone(),
        desired_state: desired_tx,
        advertisements: advertisements_tx,
        start: (host_state.unwrap_or_default(), parts),
        overrides: OverrideTable::new(overrides, published, clock::now()),
    };
    let driver = control::spawn_driver(parts).map_err(system("start the driver"))?;
    let DeviceSetup { reconciler, filter, bridges: (bridges_tx, bridges_rx) } = match device {
        Some(device) => device,
        // Data moves by then: the rest may take its time.
        None => {
            let inputs = (&advertisements, &resolved);
            if let Some(host) = HostState::read_kernel(&netlink, &config, inputs, &[]).await {
                // A driver that is gone ends the adapter.
                let _ = messages.send(DriverMessage::HostState(host)).await;
            }
            DeviceSetup::apply(&config, &netlink, opened.ifindex).await?
        }
    };
    let next_peer = config.peers.len() as u32;
    let (runtime_dir, adapter) = (config.access.runtime_dir.clone(), config.adapter.name.clone());
    let load_arp = |record| ArpSettings::load(&runtime_dir, &adapter, record);
    let (config, changes) = watch::channel(config);
    let (resolved, names) = watch::channel(resolved);
    let (routed_tx, routed) = watch::channel(BTreeSet::new());
    let resolver =
        NameResolver { config: changes.clone(), fib, driver: messages.clone(), resolved };
    let filter_guard = filter.map(|filter| FilterGuard {
        filter,
        config: changes.clone(),
        bridges: bridges_rx,
        driver: messages.clone(),
        counters: manager.counters().clone(),
        arp: load_arp(FILTER_RECORD),
    });
    let netlink_watcher = NetlinkWatcher {
        config: changes,
        netlink,
        monitor,
        reconciler,
        arp: load_arp(SUBNET_RECORD),
        driver: messages.clone(),
        queues: count,
        desired: desired_rx,
        advertisements: advertisements_rx.clone(),
        resolved: names.clone(),
        bridges: bridges_tx,
        routed: routed_tx,
        drawn_away: Vec::new(),
    };
    let mut tasks = JoinSet::new();
    if let Some(warnings) = manager.take_requests(WARNING_TOPIC) {
        tasks.spawn(serve_warnings(warnings, messages.clone()));
    }
    tasks.spawn(run_echoes(echo_orders, messages.clone()));
    tasks.spawn(netlink_watcher.run());
    tasks.spawn(resolver.run());
    if let Some(filter_guard) = filter_guard {
        tasks.spawn(filter_guard.run());
    }
    Ok(Adapter {
        config,
        advertisements: advertisements_rx,
        resolved: names,
        routed,
        next_peer: tokio::sync::Mutex::new(next_peer),
        messages,
        events,
        first_stream: Mutex::new(Some(EventStream::new(first))),
        overrides: overrides_rx,
        manager,
        tasks,
        driver: Some(driver),
        fib: adapter_fib,
        lock,
        port,
    })
}

/// The device's addresses and routes, and its packet filter; `None` for a witness.
struct DeviceSetup {
    reconciler: Option<AdapterReconciler>,
    filter: Option<PacketFilter>,
    /// The container bridges that the filter knows.
    bridges: (watch::Sender<BTreeSet<String>>, watch::Receiver<BTreeSet<String>>),
}

impl DeviceSetup {
    /// Gives the device its packet filter, its addresses and its routes.
    async fn apply(config: &Config, netlink: &Netlink, ifindex: u32) -> Result<Self, OpenError> {
        let interfaces = netlink.list_interfaces().await.unwrap_or_default();
        let bridges = watch::channel(container_bridges(&interfaces));
        if !config.adapter.backend.has_device() {
            return Ok(Self { reconciler: None, filter: None, bridges });
        }
        // Before the adapter has its addresses, so that they are never open.
        let rules = FilterRules::new(config, bridges.1.borrow().clone());
        let filter = PacketFilter::install(rules).await;
        let (name, addrs, mtu) = (&config.adapter.name, config.adapter.addrs, config.adapter.mtu);
        netlink.configure_adapter(name, addrs, mtu).await?;
        let mut reconciler = AdapterReconciler::new(desired_state(config), ifindex);
        // Adds the routes to the peers: none of its repairs is one yet.
        reconciler.reconcile(netlink, clock::now()).await;
        Ok(Self { reconciler: Some(reconciler), filter: Some(filter), bridges })
    }
}

/// One worker per core, at most four: a flow stays on one worker, so that fewer workers than flows
/// leave cores idle. The plain backend has one queue.
fn worker_count(config: &Config) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    match (config.adapter.backend, config.adapter.workers) {
        (AdapterBackend::Plain | AdapterBackend::None, _) => 1,
        (AdapterBackend::Offload, 0) => cores.clamp(1, 4),
        (AdapterBackend::Offload, count) => count.min(MAX_QUEUES),
    }
}

fn desired_state(config: &Config) -> DesiredState {
    let mtu = u32::from(config.adapter.mtu);
    let addrs = config.peers.iter().flat_map(|peer| {
        let own: [IpAddr; 2] = [peer.addrs.v4.into(), peer.addrs.v6.into()];
        own.map(|addr| (addr, mtu))
    });
    DesiredState {
        name: config.adapter.name.clone(),
        addrs: config.adapter.addrs,
        mtu: config.adapter.mtu,
        routes: addrs.collect::<BTreeMap<_, _>>(),
        speed: None,
    }
}

fn random_seeds() -> Result<RandomSeeds, OpenError> {
    let mut bytes = [[0; 8]; 2];
    for half in &mut bytes {
        SystemRandom::new().fill(half).map_err(|_| OpenError::System {
            what: "read random bytes",
            source: io::ErrorKind::Other.into(),
        })?;
    }
    let [boot_id, jitter] = bytes.map(u64::from_ne_bytes);
    Ok(RandomSeeds { boot_id, jitter })
}

/// Reports to the driver without waiting for it: a few messages per handshake never fill the queue
/// of a driver that runs.
fn quic_reporter(messages: mpsc::Sender<DriverMessage>) -> quic::FromQuicHandler {
    Arc::new(move |event: FromQuic| {
        if messages.try_send(DriverMessage::Quic(event)).is_err() {
            tracing::error!("the driver's queue is full: an event of a session is lost");
        }
    })
}
