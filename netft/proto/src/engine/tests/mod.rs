#![allow(clippy::unwrap_used)]

mod alternation;
mod cost;
mod detect;
mod drain;
mod handover;
mod hostile;
mod model;
mod probes;
mod readdress;
mod reasons;
mod reply_templates;
mod stall;
mod undecided;

use std::{sync::Arc, time::Duration};

use super::*;
use crate::{
    ids::{PeerId, RouteId},
    route::{
        Attributes, Delay, EventKind, Priority, Reason, RouteChange, RouteClass, RouteSpec,
        RouteState, RouteStatus, Threshold, Timing, Transport, session_end::SessionEndCause,
    },
    time::Time,
    wire::{
        DropReason,
        heartbeat::{Heartbeat, HeartbeatMessage, RouteReport},
        probe::Probe,
    },
};

const PEER: PeerId = PeerId(0);
const DELAY: Duration = Duration::from_millis(30);
const DETECTION: Duration = Duration::from_millis(150);
const HOLD: Duration = Duration::from_secs(1);

/// The peer's number of a route.
fn remote(route: u32) -> u32 {
    route + 1000
}

fn timing(delay: u64, threshold: u64) -> Timing {
    Timing {
        delay: Delay::from_millis(delay).unwrap(),
        threshold: Threshold::new(threshold).unwrap(),
    }
}

fn spec(peer: PeerId, route: u32) -> RouteSpec {
    let address = |host: u8| ([10, (route >> 8) as u8, route as u8, host], 3343).into();
    RouteSpec {
        peer,
        real_local: address(1),
        real_remote: address(2),
        virtual_local: [169, 254, 1, 1].into(),
        virtual_remote: [169, 254, 1, 2].into(),
        timing: RouteClass::SameSubnet.default_timing(),
        priority: Priority(10 * route),
        attributes: Attributes(Attributes::SAME_SUBNET),
        transport: Transport::Udp,
    }
}

fn engine(history: usize, seed: u64) -> Engine {
    Engine::new(EngineConfig { hold: HOLD, history, seed, mtu_raise: HOLD })
}

/// An engine, its clock, and the peer's serial.
struct Rig {
    engine: Engine,
    now: Time,
    serial: u32,
    sent: Vec<(RouteId, Heartbeat)>,
    events: Vec<EventKind>,
    probes: Vec<Probe>,
    sizes: Vec<(RouteId, usize)>,
}

impl Rig {
    /// Routes 1 to `routes` to one peer with a session; no heartbeat received.
    fn new(routes: u32) -> Self {
        let engine = engine(4, 1);
        let now = Time::from_millis(1000);
        let mut rig = Self {
            engine,
            now,
            serial: 0,
            sent: Vec::new(),
            events: Vec::new(),
            probes: Vec::new(),
            sizes: Vec::new(),
        };
        rig.input(EngineInput::AddPeer(PEER));
        for route in 1..=routes {
            rig.input(EngineInput::AddRoute { id: RouteId(route), spec: spec(PEER, route) });
        }
        rig.input(EngineInput::SessionUp { peer: PEER, boot_id: 1 });
        rig
    }

    /// As new, with every route up.
    fn up(routes: u32) -> Self {
        let mut rig = Self::new(routes);
        rig.hear_all(routes);
        rig.hear_all(routes);
        assert!((1..=routes).all(|route| rig.state(route) == RouteState::Up));
        rig.forget();
        rig
    }

    fn try_input(&mut self, input: EngineInput) -> Result<(), DropReason> {
        let outcome = self.engine.on_input(self.now, input);
        self.drain();
        outcome
    }

    fn input(&mut self, input: EngineInput) {
        self.try_input(input).unwrap();
    }

    fn change(&mut self, route: u32, change: RouteChange) {
        self.input(EngineInput::ChangeRoute { id: RouteId(route), change });
    }

    fn fault(&mut self, route: u32) {
        self.input(EngineInput::Fault { route: RouteId(route), reason: Reason::CarrierLost });
    }

    fn heartbeat(&mut self, route: u32, heard: &[u32]) -> Heartbeat {
        self.serial += 1;
        Heartbeat {
            message: HeartbeatMessage::Request,
            route: remote(route),
            your_route: route,
            sequence: self.serial,
            sent_at: 0,
            held_us: 0,
            stalled_ms: 0,
            serial: self.serial,
            reports: heard.iter().map(|route| report(*route)).collect(),
        }
    }

    /// The peer's request arrives on `route`; it reports the routes `heard` as received.
    fn hear(&mut self, route: u32, heard: &[u32]) {
        let heartbeat = self.heartbeat(route, heard);
        self.input(EngineInput::Heartbeat { peer: PEER, route: RouteId(route), heartbeat });
    }

    fn hear_all(&mut self, routes: u32) {
        let all: Vec<_> = (1..=routes).collect();
        all.iter().for_each(|route| self.hear(*route, &all));
    }

    fn tick(&mut self) {
        self.engine.on_timer(self.now);
        self.drain();
    }

    /// Advances the time, with every timer on time.
    fn pass(&mut self, length: Duration) {
        let end = self.now + length;
        while let Some(wake) = self.engine.next_wake().filter(|wake| *wake <= end) {
            self.now = self.now.max(wake);
            self.tick();
        }
        self.now = end;
    }

    fn drain(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                EngineOutput::Send { route, heartbeat, .. } => self.sent.push((route, heartbeat)),
                EngineOutput::Event(event) => {
                    assert_eq!(event.at, self.now);
                    self.events.push(event.kind);
                }
                EngineOutput::ForwardingChanged(_) => {}
                EngineOutput::Probe { probe, .. } => self.probes.push(probe),
                EngineOutput::ReplyTemplateReady(_) => {}
                EngineOutput::PathMtu { route, datagram } => self.sizes.push((route, datagram)),
            }
        }
    }

    fn forget(&mut self) {
        self.sent.clear();
        self.events.clear();
    }

    fn status(&self, route: u32) -> RouteStatus {
        self.engine.route_statuses().into_iter().find(|status| status.id == RouteId(route)).unwrap()
    }

    fn state(&self, route: u32) -> RouteState {
        self.status(route).state
    }

    fn active(&self) -> Option<u32> {
        self.engine.peer_statuses()[0].active.map(|route| route.0)
    }

    /// The moves of data: from, to, reason.
    fn moves(&self) -> Vec<(Option<u32>, Option<u32>, Reason)> {
        let number = |route: &Option<RouteId>| route.map(|route| route.0);
        self.events
            .iter()
            .filter_map(|event| match event {
                EventKind::Moved { from, to, reason, .. } => {
                    Some((number(from), number(to), *reason))
                }
                _ => None,
            })
            .collect()
    }

    fn warnings(&self) -> usize {
        self.events.iter().filter(|e| matches!(e, EventKind::EarlyWarning { .. })).count()
    }

    fn requests(&self, route: u32) -> usize {
        let of = |(id, heartbeat): &&(RouteId, Heartbeat)| {
            id.0 == route && heartbeat.message == HeartbeatMessage::Request
        };
        self.sent.iter().filter(of).count()
    }
}

fn report(your_route: u32) -> RouteReport {
    RouteReport {
        your_route,
        heard: true,
        local_down: false,
        admin_down: false,
        draining: false,
        carries_data: false,
        loss_permille: 0,
    }
}
