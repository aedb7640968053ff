//! Opening: everything is made in order, and a failure leaves nothing behind.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use netft_proto::{
    config::{AdapterBackend, Config},
    overrides::OperatorOverrides,
    topology::{Advertisements, ResolvedAddresses},
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
            lock::AdapterLock,
            policy_rule,
            reconciler::AdapterReconciler,
            repairs::DesiredState,
            tun,
            tun::OpenedAdapter,
            types::{DeviceOrigin, MAX_QUEUES},
        },
        arp_settings::{ArpSettings, FILTER_RECORD, SUBNET_RECORD},
        carrier_monitor::CarrierMonitor,
        clock, control,
        control::{DriverParts, OverrideTable, RandomSeeds},
        datapath::{report::WorkerIo, workers::Workers},
        fib::SharedFib,
        handover::AdapterDescriptors,
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
    inherited: Option<AdapterDescriptors>,
) -> Result<Adapter, OpenError> {
    config.check_settings()?;
    config.assign_ids();
    let (inherited_lock, queues) = inherited.map(|it| (it.lock, it.queues)).unzip();
    let (runtime_dir, name) = (&config.access.runtime_dir, &config.adapter.name);
    let lock = match inherited_lock {
        Some(lock) => AdapterLock::inherit(lock, runtime_dir, name)?,
        None => AdapterLock::acquire(runtime_dir, name)?,
    };
    let port = PortClaim::acquire(config.session.port)?;
    let config = Arc::new(config);
    let netlink = Netlink::open()?;
    let count = worker_count(&config);
    let (name, backend) = (&config.adapter.name, config.adapter.backend);
    let inherited = match queues {
        Some(queues) => tun::inherit_adapter(&netlink, name, backend, queues).await?,
        None => None,
    };
    let opened = match inherited {
        Some(opened) => opened,
        None => tun::open_adapter(&netlink, name, backend, count).await?,
    };
    let is_handed_over = opened.origin == DeviceOrigin::HandedOver;
    match start_components(config.clone(), netlink, opened, (lock, port), overrides).await {
        Ok(adapter) => Ok(adapter),
        // It is the predecessor's again.
        Err(error) if is_handed_over => Err(error),
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

async fn start_components(
    config: Arc<Config>,
    netlink: Netlink,
    opened: OpenedAdapter,
    (lock, port): (AdapterLock, PortClaim),
    overrides: OperatorOverrides,
) -> Result<Adapter, OpenError> {
    let count = opened.queues.len();
    let interfaces = netlink.list_interfaces().await.unwrap_or_default();
    let (bridges_tx, bridges_rx) = watch::channel(container_bridges(&interfaces));
    // Before the adapter has its addresses, so that they are never open.
    let rules = FilterRules::new(&config, bridges_rx.borrow().clone());
    let filter = PacketFilter::install(rules).await;
    netlink
        .configure_adapter(&config.adapter.name, config.adapter.addrs, config.adapter.mtu)
        .await?;
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
    let workers = Workers::start(count, io).map_err(system("start the packet workers"))?;
    let (messages, inbox) = mpsc::channel(DRIVER_QUEUE_LEN);
    let (events, first) = broadcast::channel(EVENT_BACKLOG);
    let random = random_seeds()?;
    let report = quic_reporter(messages.clone());
    let manager = Arc::new(SessionManager::start(
        config.clone(),
        fib.clone(),
        arrivals,
        report,
        random.boot_id,
    )?);
    let mut reconciler = AdapterReconciler::new(desired_state(&config), opened.ifindex);
    // Adds the routes to the peers: none of its repairs is one yet.
    reconciler.reconcile(&netlink, clock::now()).await;
    let (desired_tx, desired_rx) = watch::channel(reconciler.desired_state().clone());
    let monitor = NetlinkMonitor::open()?;
    // The interfaces are read before the driver starts, so that routes exist at once.
    let (advertisements_tx, advertisements_rx) = watch::channel(Advertisements::new());
    let host_state = HostState::read_kernel(
        &netlink,
        &config,
        (&Advertisements::new(), &ResolvedAddresses::new()),
        &[],
    )
    .await;
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
        host_state: host_state.unwrap_or_default(),
        overrides: OverrideTable::new(overrides, published, clock::now()),
    };
    let driver = control::spawn_driver(parts).map_err(system("start the driver"))?;
    let next_peer = config.peers.len() as u32;
    let (runtime_dir, adapter) = (config.access.runtime_dir.clone(), config.adapter.name.clone());
    let load_arp = |record| ArpSettings::load(&runtime_dir, &adapter, record);
    let (config, changes) = watch::channel(config);
    let (resolved, names) = watch::channel(ResolvedAddresses::new());
    let resolver =
        NameResolver { config: changes.clone(), fib, driver: messages.clone(), resolved };
    let filter_guard = FilterGuard {
        filter,
        config: changes.clone(),
        bridges: bridges_rx,
        driver: messages.clone(),
        counters: manager.counters().clone(),
        arp: load_arp(FILTER_RECORD),
    };
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
        drawn_away: Vec::new(),
    };
    let mut tasks = JoinSet::new();
    if let Some(warnings) = manager.take_requests(WARNING_TOPIC) {
        tasks.spawn(serve_warnings(warnings, messages.clone()));
    }
    tasks.spawn(run_echoes(echo_orders, messages.clone()));
    tasks.spawn(netlink_watcher.run());
    tasks.spawn(resolver.run());
    tasks.spawn(filter_guard.run());
    Ok(Adapter {
        config,
        advertisements: advertisements_rx,
        resolved: names,
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

/// One worker per core, at most four: a flow stays on one worker, so that fewer workers than flows
/// leave cores idle. The plain backend has one queue.
fn worker_count(config: &Config) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    match (config.adapter.backend, config.adapter.workers) {
        (AdapterBackend::Plain, _) => 1,
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
