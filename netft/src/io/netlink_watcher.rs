//! The keeper: watches the kernel, tells the driver how the interfaces are, and puts the adapter
//! back when somebody takes it away.
//!
//! One task in the caller's runtime. It looks at every netlink notice, every [`PERIOD`] while
//! things change, and every [`QUIET`] else, so what a notice missed is found all the same; the
//! driver is told only what changed.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use netft_proto::{
    config::Config,
    route::EventKind,
    topology,
    topology::{Interface, Offers, Resolved, Sources, Surroundings, Ways},
};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use crate::io::{
    adapter::{
        reconciler::{AdapterGuard, Wanted},
        tun,
    },
    clock,
    control::Message,
    netlink::{Monitor, Netlink},
    sys::{glink, speed},
};

/// The time between two looks after a notice: restoring the adapter must end within 500 ms (F-22,
/// F-23), and the guard rests between two repairs.
const PERIOD: Duration = Duration::from_millis(250);
/// The longest time something unnoticed stays unnoticed. A look is about nine requests to the
/// kernel, a tenth of what an idle node does if it comes every second.
const QUIET: Duration = Duration::from_secs(10);
/// Looks every [`PERIOD`] after the last notice.
const LIVELY: u32 = 4;
/// An address of RFC 3849.
const DOCUMENTATION: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// Notices come in bursts: one look per burst.
const BURST: Duration = Duration::from_millis(2);

/// How the node's interfaces are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct World {
    /// Every interface of the node.
    pub interfaces: Vec<Interface>,
    /// The kernel's choice of source for remote addresses on no subnet of ours.
    pub sources: Sources,
    /// The pairs of addresses the kernel routes between.
    pub ways: Ways,
    /// The addresses behind the peers' names.
    pub resolved: Resolved,
}

impl World {
    /// The same with what the peers told: what routes follow from.
    pub(crate) fn around<'a>(&'a self, offers: &'a Offers) -> Surroundings<'a> {
        let Self { interfaces, sources, ways, resolved } = self;
        Surroundings { interfaces, sources, ways, offers, resolved }
    }

    /// The interface of number `index`.
    pub(crate) fn interface(&self, index: u32) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.index == index)
    }

    /// Asks the kernel.
    pub(crate) async fn look(
        netlink: &Netlink,
        config: &Config,
        (offers, resolved): (&Offers, &Resolved),
        before: &[Interface],
    ) -> Option<Self> {
        let mut interfaces = match netlink.interfaces().await {
            Ok(interfaces) => interfaces,
            Err(error) => {
                tracing::warn!(%error, "cannot list the interfaces");
                return None;
            }
        };
        rate(netlink, &mut interfaces, before).await;
        let mut sources = Sources::new();
        for remote in topology::unpaired(config, &interfaces, resolved) {
            if let Ok(Some(source)) = netlink.source_for(remote).await {
                sources.insert(remote, source);
            }
        }
        let mut ways = Ways::new();
        for (local, ifindex, remote) in topology::crossings(config, &interfaces, offers) {
            let found = netlink.source_from(local, remote).await;
            if matches!(found, Ok(Some(out)) if out == ifindex) {
                ways.insert((local, remote));
            }
        }
        Some(Self { interfaces, sources, ways, resolved: resolved.clone() })
    }
}

/// Fills in what metrics follow from: the default routes and the speeds. Some drivers take long
/// to tell the speed, so it is asked only where something may have changed.
async fn rate(netlink: &Netlink, interfaces: &mut [Interface], before: &[Interface]) {
    // TEST-NET-1 (RFC 5737) and the documentation prefix (RFC 3849): nothing but a default route
    // leads there.
    for anywhere in [Ipv4Addr::new(192, 0, 2, 1).into(), DOCUMENTATION.into()] {
        if let Ok(Some((_, out))) = netlink.source_for(anywhere).await {
            let way_out = interfaces.iter_mut().filter(|interface| interface.index == out);
            way_out.for_each(|interface| interface.gateway = true);
        }
    }
    let socket = glink::socket();
    for interface in interfaces {
        let same = |old: &&Interface| {
            (old.index, &old.name, old.carrier)
                == (interface.index, &interface.name, interface.carrier)
        };
        interface.speed = match (before.iter().find(same), &socket) {
            (Some(old), _) => old.speed,
            (None, Ok(socket)) => speed::of(socket, &interface.name),
            (None, Err(_)) => None,
        };
    }
}

/// What the keeper is given.
pub(crate) struct Keeper {
    /// The config, and that it changed.
    pub config: watch::Receiver<Arc<Config>>,
    pub netlink: Netlink,
    pub monitor: Monitor,
    pub guard: AdapterGuard,
    pub driver: mpsc::Sender<Message>,
    /// How many queues the adapter has.
    pub queues: usize,
    /// Says that the routes' sizes changed, with the MTU towards each peer.
    pub wanted: watch::Receiver<Wanted>,
    /// What the peers tell of their addresses.
    pub offers: watch::Receiver<Offers>,
    /// The addresses behind the peers' names.
    pub resolved: watch::Receiver<Resolved>,
}

impl Keeper {
    /// Runs until it is aborted or the driver is gone.
    pub(crate) async fn run(mut self) {
        let mut told = World::default();
        let mut lively = LIVELY;
        loop {
            let config = self.config.borrow_and_update().clone();
            if !self.keep(&config).await {
                return;
            }
            let offers = self.offers.borrow_and_update().clone();
            let resolved = self.resolved.borrow_and_update().clone();
            let learnt = (&offers, &resolved);
            if let Some(world) = World::look(&self.netlink, &config, learnt, &told.interfaces).await
                && world != told
            {
                told = world.clone();
                if self.driver.send(Message::World(world)).await.is_err() {
                    return;
                }
            }
            let pause = if lively > 0 { PERIOD } else { QUIET };
            lively = lively.saturating_sub(1);
            tokio::select! {
                () = sleep(pause) => {}
                _ = self.monitor.next() => {
                    lively = LIVELY;
                    sleep(BURST).await;
                }
                changed = self.config.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                changed = self.offers.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                changed = self.resolved.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                changed = self.wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    lively = LIVELY;
                    *self.guard.wanted_mut() = self.wanted.borrow_and_update().clone();
                    // What this changes was not changed from outside.
                    self.guard.check(&self.netlink, clock::now()).await;
                }
            }
        }
    }

    /// Repairs the adapter. Returns whether the driver is still there.
    async fn keep(&mut self, config: &Config) -> bool {
        let report = self.guard.check(&self.netlink, clock::now()).await;
        for error in &report.errors {
            tracing::debug!(adapter = %config.adapter, %error, "the adapter resists repair");
        }
        if report.resting {
            tracing::warn!(
                adapter = %config.adapter,
                "something keeps changing the adapter: repairs become rare",
            );
        }
        for repair in report.repairs {
            if !self.tell(repair.to_string()).await {
                return false;
            }
        }
        if report.gone { self.recreate(config).await } else { true }
    }

    async fn recreate(&mut self, config: &Config) -> bool {
        let opened =
            match tun::open(&self.netlink, &config.adapter, config.backend, self.queues).await {
                Ok(opened) => opened,
                Err(error) => {
                    tracing::warn!(adapter = %config.adapter, %error, "cannot create it anew");
                    return true;
                }
            };
        let configured =
            self.netlink.configure_adapter(&config.adapter, config.addrs, config.mtu).await;
        if let Err(error) = configured {
            tracing::warn!(adapter = %config.adapter, %error, "cannot configure it anew");
        }
        self.guard.recreated(opened.ifindex);
        let queues = opened.queues.into_iter().map(Arc::new).collect();
        if self.driver.send(Message::Queues(queues)).await.is_err() {
            return false;
        }
        let routes = self.guard.check(&self.netlink, clock::now()).await;
        for error in routes.errors {
            tracing::warn!(adapter = %config.adapter, %error, "cannot restore everything");
        }
        self.tell("adapter was deleted: created anew".to_owned()).await
    }

    async fn tell(&self, what: String) -> bool {
        let event = EventKind::AdapterRestored { what };
        self.driver.send(Message::Event(event)).await.is_ok()
    }
}
