//! Opening: everything is made in order, and a failure leaves nothing behind.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    sync::{Arc, Mutex},
};

use netft_proto::{
    config::{Backend, Config},
    topology::{Offers, Resolved},
};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::{broadcast, mpsc, watch};

use crate::{
    adapter::Adapter,
    api::{
        error::OpenError,
        events::{EVENT_BACKLOG, EventStream},
    },
    io::{
        adapter::{
            lock::AdapterLock,
            reconciler::{AdapterGuard, Wanted},
            tun,
            tun::Opened,
        },
        carrier_monitor::Lookout,
        clock, control,
        control::{DriverParts, Message},
        datapath::{WorkerIo, Workers},
        fib::SharedFib,
        netlink::{Monitor, Netlink},
        netlink_watcher::{Keeper, World},
        quic,
        quic::{FromQuic, Manager, QUEUE},
        resolver::Resolver,
    },
};

/// Heartbeats and complaints on their way from the workers; beyond it the newest is dropped and
/// counted.
const FROM_WORKERS: usize = 1024;
/// Messages on their way to the driver; beyond it the sender waits.
const MESSAGES: usize = 1024;

pub(super) async fn open(mut config: Config) -> Result<Adapter, OpenError> {
    config.number();
    let lock = AdapterLock::acquire(&config.runtime_dir, &config.adapter)?;
    let config = Arc::new(config);
    let netlink = Netlink::open()?;
    let count = workers(&config);
    let opened = tun::open(&netlink, &config.adapter, config.backend, count).await?;
    match start(config.clone(), netlink, opened, lock, count).await {
        Ok(adapter) => Ok(adapter),
        Err(error) => {
            // What failed is the caller's news; the device must not outlive it.
            if let Ok(netlink) = Netlink::open() {
                let _ = netlink.remove_adapter(&config.adapter).await;
            }
            Err(error)
        }
    }
}

async fn start(
    config: Arc<Config>,
    netlink: Netlink,
    opened: Opened,
    lock: AdapterLock,
    count: usize,
) -> Result<Adapter, OpenError> {
    netlink.configure_adapter(&config.adapter, config.addrs, config.mtu).await?;
    let fib = SharedFib::default();
    let (to_driver, from_workers) = mpsc::channel(FROM_WORKERS);
    let (later, left) = mpsc::channel(FROM_WORKERS);
    let (to_quic, arrivals) = mpsc::channel(QUEUE);
    let system = |what| move |source: io::Error| OpenError::System { what, source };
    let io = WorkerIo {
        fib: fib.clone(),
        to_driver,
        later,
        to_quic,
        resend: config.resend,
        busy_poll: config.busy_poll,
    };
    let workers = Workers::start(count, io).map_err(system("start the packet workers"))?;
    let (messages, inbox) = mpsc::channel(MESSAGES);
    let (events, first) = broadcast::channel(EVENT_BACKLOG);
    let random = random()?;
    let report = report(messages.clone());
    let manager =
        Arc::new(Manager::start(config.clone(), fib.clone(), arrivals, report, random.0)?);
    let mut guard = AdapterGuard::new(wanted(&config), opened.ifindex);
    // Gives the peers their routes: what it mends was never there.
    guard.check(&netlink, clock::now()).await;
    let (want, wanted) = watch::channel(guard.wanted().clone());
    let monitor = Monitor::open()?;
    // The first look is taken before the driver starts, so that routes exist at once.
    let (told, offers) = watch::channel(Offers::new());
    let world = World::look(&netlink, &config, (&Offers::new(), &Resolved::new()), &[]).await;
    let world = world.unwrap_or_default();
    let tell = messages.clone();
    // What a full queue loses is seen again by the next look.
    let lookout = Lookout::start(move |seen| drop(tell.try_send(Message::Carriers(seen))));
    let lookout = lookout.map_err(system("start the lookout for carriers"))?;
    let parts = DriverParts {
        config: (*config).clone(),
        fib: fib.clone(),
        workers,
        queues: opened.queues.into_iter().map(Arc::new).collect(),
        from_workers,
        left,
        messages: inbox,
        events: events.clone(),
        boot_id: random.0,
        seed: random.1,
        lookout,
        manager: manager.clone(),
        want,
        told,
        world,
    };
    let driver = control::spawn(parts).map_err(system("start the driver"))?;
    let next_peer = config.peers.len() as u32;
    let (config, changes) = watch::channel(config);
    let (resolved, names) = watch::channel(Resolved::new());
    let resolver = Resolver { config: changes.clone(), fib, driver: messages.clone(), resolved };
    let keeper = Keeper {
        config: changes,
        netlink,
        monitor,
        guard,
        driver: messages.clone(),
        queues: count,
        wanted,
        offers: offers.clone(),
        resolved: names.clone(),
    };
    Ok(Adapter {
        config,
        offers,
        resolved: names,
        next_peer: tokio::sync::Mutex::new(next_peer),
        messages,
        events,
        first: Mutex::new(Some(EventStream(first))),
        manager,
        keeper: tokio::spawn(keeper.run()),
        resolver: tokio::spawn(resolver.run()),
        driver: Some(driver),
        _lock: lock,
    })
}

/// One worker per core, at most four: a flow stays on one, so fewer leave cores idle while flows
/// wait for each other. The plain backend has one queue.
fn workers(config: &Config) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    match (config.backend, config.workers) {
        (Backend::Plain, _) => 1,
        (Backend::Offload, 0) => cores.clamp(1, 4),
        (Backend::Offload, count) => count.min(tun::MAX_QUEUES),
    }
}

fn wanted(config: &Config) -> Wanted {
    let mtu = u32::from(config.mtu);
    let addrs = config.peers.iter().flat_map(|peer| {
        let own: [IpAddr; 2] = [peer.addrs.v4.into(), peer.addrs.v6.into()];
        own.map(|addr| (addr, mtu))
    });
    Wanted {
        name: config.adapter.clone(),
        addrs: config.addrs,
        mtu: config.mtu,
        routes: addrs.collect::<BTreeMap<_, _>>(),
    }
}

/// Boot id and jitter seed.
fn random() -> Result<(u64, u64), OpenError> {
    let mut bytes = [[0; 8]; 2];
    for half in &mut bytes {
        SystemRandom::new().fill(half).map_err(|_| OpenError::System {
            what: "read random bytes",
            source: io::ErrorKind::Other.into(),
        })?;
    }
    Ok((u64::from_ne_bytes(bytes[0]), u64::from_ne_bytes(bytes[1])))
}

/// The control sessions must not wait for the driver. A handful of messages per handshake never
/// fills the queue of a driver that lives.
fn report(messages: mpsc::Sender<Message>) -> quic::Report {
    Arc::new(move |news: FromQuic| {
        if messages.try_send(Message::Quic(news)).is_err() {
            tracing::error!("the driver does not listen: news of a session are lost");
        }
    })
}
