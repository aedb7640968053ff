//! A node without sockets and threads, for the unit tests of components.

use std::net::SocketAddr;

use netft_proto::{
    config::{Config, PeerConfig, PrivateKey},
    engine::{Engine, EngineConfig, EngineInput},
    ids::{NodeKey, PeerId, RouteId},
    route::{Attributes, Priority, RouteClass, RouteSpec, Transport},
    time::Time,
    topology::{Interface, LocalAddr, PlannedRoute},
    wire::heartbeat::{Heartbeat, HeartbeatMessage, RouteReport},
};
use tokio::sync::watch;

use crate::io::{
    control::{
        component::{Action, Actions, Component, Input, View},
        peer_table::PeerTable,
        route_planner::RouteReplanner,
        route_table::RouteTable,
        sockets::Sockets,
    },
    host_state::HostState,
    identity,
};

/// The ends of [`planned_route`].
pub(super) const LOCAL: &str = "198.51.100.1:3343";
pub(super) const REMOTE: &str = "198.51.100.2:3343";

/// A node with as many peers as its engine is told of.
pub(super) struct TestNode {
    pub(super) config: Config,
    pub(super) engine: Engine,
    pub(super) planner: RouteReplanner,
    pub(super) routes: RouteTable,
    pub(super) peers: PeerTable,
    sockets: Sockets,
}

impl TestNode {
    /// A node with interfaces `eth0` and `lo`, and `peers` peers that have sessions.
    pub(super) fn new(peers: u16) -> Self {
        let key = identity::generate_key().unwrap();
        let public = identity::public_key(&key).unwrap();
        let mut config = Config::new("n1", PrivateKey(key.0.to_vec().into()), public);
        let settings = EngineConfig {
            hold: config.failover.hold_down,
            history: 0,
            seed: 1,
            mtu_raise: config.failover.pmtu_raise_timer,
        };
        let mut engine = Engine::new(settings);
        let mut table = PeerTable::default();
        for number in 0..peers {
            let (peer, key) = (PeerId(number), NodeKey([number as u8 + 2; 32]));
            config.peers.push(PeerConfig::new(format!("n{}", number + 2), key));
            config.assign_ids();
            table.add(peer);
            engine.on_input(Time::ZERO, EngineInput::AddPeer(peer)).unwrap();
            engine.on_input(Time::ZERO, EngineInput::SessionUp { peer, boot_id: 1 }).unwrap();
        }
        let mut planner = RouteReplanner::new(watch::channel(Default::default()).0);
        let interfaces =
            vec![interface(1, "lo", "127.0.0.1/8"), interface(2, "eth0", "198.51.100.1/24")];
        planner.set_host_state(HostState { interfaces, ..HostState::default() });
        Self {
            config,
            engine,
            planner,
            routes: RouteTable::default(),
            peers: table,
            sockets: Sockets::default(),
        }
    }

    pub(super) fn view(&self) -> View<'_> {
        let Self { config, engine, planner, routes, peers, sockets } = self;
        View { config, engine, planner, routes, peers, sockets, table_dirty: false }
    }

    /// Adds [`planned_route`] to a peer.
    pub(super) fn add_route(&mut self, peer: PeerId) -> RouteId {
        let plan = planned_route(peer);
        let spec = plan.spec.clone();
        let id = self.routes.add(plan, None);
        self.engine.on_input(Time::ZERO, EngineInput::AddRoute { id, spec }).unwrap();
        id
    }

    /// Has the engine take in heartbeats of the peer that make a route up.
    pub(super) fn bring_up(&mut self, now: Time, peer: PeerId, route: RouteId) {
        for sequence in 1..4 {
            let heartbeat = request(route, sequence);
            self.engine.on_input(now, EngineInput::Heartbeat { peer, route, heartbeat }).unwrap();
        }
    }
}

/// A heartbeat request of the peer, which hears this node on `route`.
pub(super) fn request(route: RouteId, sequence: u32) -> Heartbeat {
    let report = RouteReport {
        your_route: route.0,
        heard: true,
        local_down: false,
        admin_down: false,
        draining: false,
        carries_data: false,
        loss_permille: 0,
    };
    Heartbeat {
        message: HeartbeatMessage::Request,
        route: 9,
        your_route: route.0,
        sequence,
        sent_at: 5,
        held_us: 0,
        stalled_ms: 0,
        serial: sequence,
        reports: vec![report],
    }
}

/// A route over `eth0` from [`LOCAL`] to [`REMOTE`].
pub(super) fn planned_route(peer: PeerId) -> PlannedRoute {
    let (real_local, real_remote): (SocketAddr, SocketAddr) =
        (LOCAL.parse().unwrap(), REMOTE.parse().unwrap());
    let spec = RouteSpec {
        peer,
        real_local,
        real_remote,
        virtual_local: real_local.ip(),
        virtual_remote: real_remote.ip(),
        timing: RouteClass::SameSubnet.default_timing(),
        priority: Priority(1),
        attributes: Attributes(Attributes::SAME_SUBNET),
        transport: Transport::Udp,
    };
    PlannedRoute { spec, ifindex: 2, ifname: "eth0".into() }
}

fn interface(index: u32, name: &str, addr: &str) -> Interface {
    let (ip, len) = addr.split_once('/').unwrap();
    let addr = ip.parse().unwrap();
    let prefix = ipnet::IpNet::new(addr, len.parse().unwrap()).unwrap().trunc();
    Interface {
        loopback: addr.is_loopback(),
        addrs: vec![LocalAddr { addr, prefix, is_secondary: false }],
        ..Interface::healthy(index, name)
    }
}

/// The actions that follow from an input.
pub(super) fn actions_of(
    component: &mut dyn Component,
    now: Time,
    input: &Input<'_>,
    node: &TestNode,
) -> Vec<Action> {
    let mut actions = Actions::default();
    component.on_input(now, input, &node.view(), &mut actions);
    actions.into_actions()
}

/// The actions that are due.
pub(super) fn due_actions(
    component: &mut dyn Component,
    now: Time,
    node: &TestNode,
) -> Vec<Action> {
    let mut actions = Actions::default();
    component.poll(now, &node.view(), &mut actions);
    actions.into_actions()
}
