//! Path MTU probes as inputs and outputs of the engine.

use super::*;
use crate::wire::probe::ProbeMessage;

const ETHERNET: usize = 1472;
const BASE: usize = 1200;

/// Routes that are up, whose interfaces are Ethernets.
fn rig(routes: u32) -> Rig {
    let mut rig = Rig::up(routes);
    for route in 1..=routes {
        rig.input(EngineInput::DatagramLimit {
            route: RouteId(route),
            datagram: ETHERNET,
            transport_overhead: 0,
        });
    }
    rig
}

impl Rig {
    /// The peer answers heartbeats for a while, and probes up to `most` bytes.
    fn live(&mut self, routes: u32, time: Duration, most: usize) {
        let end = self.now + time;
        while self.now < end {
            self.pass(DELAY);
            let all: Vec<_> = (1..=routes).collect();
            for (route, request) in std::mem::take(&mut self.sent) {
                if request.message == HeartbeatMessage::Request {
                    let mut reply = self.heartbeat(route.0, &all);
                    reply.message = HeartbeatMessage::Reply;
                    (reply.sequence, reply.sent_at) = (request.sequence, request.sent_at);
                    self.input(EngineInput::Heartbeat { peer: PEER, route, heartbeat: reply });
                }
            }
            let mut probes = std::mem::take(&mut self.probes);
            while let Some(probe) = probes.pop() {
                if usize::from(probe.size) <= most {
                    self.input(answer(&probe));
                    probes.append(&mut self.probes);
                }
            }
        }
    }

    fn path_mtu(&self, route: u32) -> Option<usize> {
        self.status(route).path_mtu.size
    }
}

/// The peer received it.
fn answer(probe: &Probe) -> EngineInput {
    let message = ProbeMessage::Answer;
    let answer = Probe { message, route: remote(probe.route), your_route: probe.route, ..*probe };
    EngineInput::Probe { peer: PEER, route: RouteId(probe.route), probe: answer }
}

#[test]
fn a_black_hole_lowers_one_route_and_never_takes_it_down() {
    let mut rig = rig(2);
    rig.live(2, Duration::from_secs(2), ETHERNET);
    assert_eq!([1, 2].map(|route| rig.path_mtu(route)), [Some(1500); 2]);
    rig.forget();
    // Only the route that carries data is probed soon.
    rig.live(2, Duration::from_secs(4), 1390);
    assert_eq!([1, 2].map(|route| rig.path_mtu(route)), [Some(1400), Some(1500)]);
    let of = |kind: &EventKind| match kind {
        EventKind::PathMtuChanged { route, from, to, .. } => Some((route.0, *from, *to)),
        _ => None,
    };
    let changes: Vec<_> = rig.events.iter().filter_map(of).collect();
    assert_eq!(changes.first(), Some(&(1, 1500, BASE + 28)));
    assert_eq!(changes.last().map(|(_, _, to)| *to), Some(1400));
    let others = rig.events.iter().filter(|kind| of(kind).is_none()).count();
    assert_eq!(others, 0, "{:?}", rig.events);
    assert_eq!(rig.sizes.last(), Some(&(RouteId(1), 1372)), "the limit of the packet path");
    rig.live(2, HOLD * 2, ETHERNET);
    assert_eq!(rig.path_mtu(1), Some(1500), "healed");
}

#[test]
fn a_suspicion_probes_with_the_heartbeat_it_sends_at_once() {
    let mut rig = rig(2);
    rig.live(2, Duration::from_millis(500), ETHERNET);
    assert!(rig.probes.is_empty());
    rig.input(EngineInput::Suspect(RouteId(1)));
    rig.pass(DELAY / 4);
    assert_eq!(rig.probes.iter().map(|p| usize::from(p.size)).collect::<Vec<_>>(), [ETHERNET]);
}

#[test]
fn refused_data_starts_a_probe_and_a_refused_probe_lowers_at_once() {
    let mut rig = rig(1);
    rig.live(1, Duration::from_millis(500), ETHERNET);
    rig.input(EngineInput::DataTooBig(RouteId(1)));
    assert_eq!(rig.path_mtu(1), Some(1500), "a refusal may be forged; a probe decides");
    rig.pass(DELAY);
    let probe = rig.probes.pop().unwrap();
    rig.input(EngineInput::ProbeRefused { route: RouteId(1), probe });
    assert_eq!(rig.path_mtu(1), Some(BASE + 28));
    assert_eq!(usize::from(rig.probes[0].size), BASE);
}

#[test]
fn requests_are_answered_small_and_on_their_route_only() {
    let mut rig = rig(2);
    let request = |your_route| Probe {
        message: ProbeMessage::Request,
        size: 9000,
        route: remote(2),
        your_route,
        sequence: 7,
    };
    let probe = |route, your_route| EngineInput::Probe {
        peer: PEER,
        route: RouteId(route),
        probe: request(your_route),
    };
    assert_eq!(rig.try_input(probe(1, 2)), Err(DropReason::Misrouted));
    assert_eq!(rig.try_input(probe(3, 0)), Err(DropReason::Misrouted));
    assert!(rig.probes.is_empty());
    rig.input(probe(2, 2));
    let answer =
        Probe { message: ProbeMessage::Answer, route: 2, your_route: remote(2), ..request(0) };
    assert_eq!(rig.probes, [answer]);
    rig.fault(2);
    rig.probes.clear();
    rig.input(probe(2, 2));
    assert!(rig.probes.is_empty(), "a route with a fault answers nothing");
    rig.input(EngineInput::SessionDown(PEER, SessionEndCause::PeerStopped));
    assert_eq!(rig.try_input(probe(1, 1)), Err(DropReason::NoSession));
}
