//! Random inputs against invariants.

use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*};

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Pass(u64),
    Stall(u64),
    Add(u32),
    Remove(u32),
    RemovePeer(u16),
    AddPeer(u16),
    Session(u16, u64),
    NoSession(u16),
    Fault(u32, bool),
    Clear(u32, bool),
    Admin(u32, bool),
    Drain(u32, bool),
    Priority(u32, u32),
    Timing(u32, u64, u64),
    Hear { route: u32, reply: bool, heard: u8 },
}

/// Routes 1–4 belong to peer 0, 5–8 to peer 1.
fn owner(route: u32) -> PeerId {
    PeerId(u16::from(route > 4))
}

fn op() -> impl Strategy<Value = Op> {
    let route = 1u32..=8;
    prop_oneof![
        6 => (0u64..200).prop_map(Op::Pass),
        1 => (0u64..3000).prop_map(Op::Stall),
        3 => route.clone().prop_map(Op::Add),
        1 => route.clone().prop_map(Op::Remove),
        1 => (0u16..2).prop_map(Op::AddPeer),
        1 => (0u16..20).prop_map(Op::RemovePeer),
        3 => (0u16..2, 1u64..3).prop_map(|(peer, boot)| Op::Session(peer, boot)),
        1 => (0u16..4).prop_map(Op::NoSession),
        2 => (route.clone(), any::<bool>()).prop_map(|(route, which)| Op::Fault(route, which)),
        4 => (route.clone(), any::<bool>()).prop_map(|(route, which)| Op::Clear(route, which)),
        2 => (route.clone(), any::<bool>()).prop_map(|(route, down)| Op::Admin(route, down)),
        2 => (route.clone(), any::<bool>()).prop_map(|(route, on)| Op::Drain(route, on)),
        1 => (route.clone(), 0u32..5).prop_map(|(route, value)| Op::Priority(route, value)),
        1 => (route.clone(), prop_oneof![Just(5), Just(30), Just(60_000)], 2u64..=120)
            .prop_map(|(route, delay, threshold)| Op::Timing(route, delay, threshold)),
        20 => (route, any::<bool>(), any::<u8>())
            .prop_map(|(route, reply, heard)| Op::Hear { route, reply, heard }),
    ]
}

/// The state of the world outside the engine.
#[derive(Default)]
struct Model {
    peers: BTreeSet<PeerId>,
    sessions: BTreeSet<PeerId>,
    routes: BTreeSet<u32>,
    faults: BTreeSet<(u32, bool)>,
    admin: BTreeSet<u32>,
    serial: u32,
}

fn fault(which: bool) -> Reason {
    if which { Reason::CarrierLost } else { Reason::AddressGone }
}

impl Model {
    fn forget(&mut self, gone: impl Fn(u32) -> bool) {
        self.routes.retain(|route| !gone(*route));
        self.faults.retain(|(route, _)| !gone(*route));
        self.admin.retain(|route| !gone(*route));
    }

    fn faulty(&self, route: u32) -> bool {
        self.faults.iter().any(|(faulty, _)| *faulty == route)
    }

    /// The input of an op, and its effect on the world.
    fn input(&mut self, op: &Op) -> Option<EngineInput> {
        let known = |route: u32| self.routes.contains(&route);
        Some(match *op {
            Op::Pass(_) | Op::Stall(_) => return None,
            Op::AddPeer(peer) => {
                self.peers.insert(PeerId(peer));
                EngineInput::AddPeer(PeerId(peer))
            }
            Op::RemovePeer(peer) => {
                self.peers.remove(&PeerId(peer));
                self.sessions.remove(&PeerId(peer));
                self.forget(|route| owner(route) == PeerId(peer));
                EngineInput::RemovePeer(PeerId(peer))
            }
            Op::Add(route) => {
                if self.peers.contains(&owner(route)) {
                    self.routes.insert(route);
                }
                EngineInput::AddRoute { id: RouteId(route), spec: spec(owner(route), route) }
            }
            Op::Remove(route) => {
                self.forget(|gone| gone == route);
                EngineInput::RemoveRoute(RouteId(route))
            }
            Op::Session(peer, boot_id) => {
                let peer = PeerId(peer);
                self.sessions.extend(self.peers.get(&peer));
                EngineInput::SessionUp { peer, boot_id }
            }
            Op::NoSession(peer) => {
                self.sessions.remove(&PeerId(peer));
                EngineInput::SessionDown(PeerId(peer), SessionEndCause::PeerStopped)
            }
            Op::Fault(route, which) => {
                self.faults.extend(known(route).then_some((route, which)));
                EngineInput::Fault { route: RouteId(route), reason: fault(which) }
            }
            Op::Clear(route, which) => {
                self.faults.remove(&(route, which));
                EngineInput::FaultCleared { route: RouteId(route), reason: fault(which) }
            }
            Op::Admin(route, down) => {
                self.admin.remove(&route);
                let down_now = (down && self.routes.contains(&route)).then_some(route);
                self.admin.extend(down_now);
                change(route, RouteChange { admin_down: Some(down), ..RouteChange::default() })
            }
            Op::Drain(route, on) => {
                change(route, RouteChange { drain: Some(on), ..RouteChange::default() })
            }
            Op::Priority(route, value) => {
                let priority = Some(Priority(value));
                change(route, RouteChange { priority, ..RouteChange::default() })
            }
            Op::Timing(route, delay, threshold) => {
                let timing = Some(timing(delay, threshold));
                change(route, RouteChange { timing, ..RouteChange::default() })
            }
            Op::Hear { route, reply, heard } => {
                self.serial += 1;
                let message =
                    if reply { HeartbeatMessage::Reply } else { HeartbeatMessage::Request };
                let reports = (1..=8)
                    .map(|n| RouteReport { heard: heard & (1 << (n - 1)) != 0, ..report(n) });
                let heartbeat = Heartbeat {
                    message,
                    route: remote(route),
                    your_route: 0,
                    sequence: self.serial,
                    sent_at: 0,
                    held_us: 0,
                    stalled_ms: 0,
                    serial: self.serial,
                    reports: reports.collect(),
                };
                EngineInput::Heartbeat { peer: owner(route), route: RouteId(route), heartbeat }
            }
        })
    }

    fn check(&self, engine: &Engine, now: Time) -> Result<(), TestCaseError> {
        let routes = engine.route_statuses();
        let numbers: Vec<u32> = routes.iter().map(|route| route.id.0).collect();
        prop_assert_eq!(numbers, self.routes.iter().copied().collect::<Vec<_>>());
        for route in &routes {
            let (faulty, admin) = (self.faulty(route.id.0), self.admin.contains(&route.id.0));
            let state = match (admin, faulty, route.rx, route.tx) {
                (true, ..) => RouteState::AdminDown,
                (_, true, ..) | (_, _, false, false) => RouteState::Down,
                (_, _, true, true) => RouteState::Up,
                _ => RouteState::Init,
            };
            prop_assert_eq!(route.state, state);
            prop_assert!(!faulty || !(route.rx || route.tx));
            let session = self.sessions.contains(&route.spec.peer);
            prop_assert!(session || !(route.rx || route.tx));
            prop_assert!(
                !route.tx || routes.iter().any(|r| r.spec.peer == route.spec.peer && r.rx)
            );
            if session && !faulty {
                // A peer that was never heard there may be asked once a minute.
                let most = match route.heartbeats.last_heard {
                    Some(_) => route.spec.timing.delay.as_duration(),
                    None => Duration::from_secs(60),
                };
                prop_assert!(engine.next_wake().is_some_and(|wake| wake <= now + most));
            }
        }
        let peers: Vec<_> = engine.peer_statuses().iter().map(|peer| peer.peer).collect();
        prop_assert_eq!(peers, self.peers.iter().copied().collect::<Vec<_>>());
        for peer in engine.peer_statuses() {
            prop_assert_eq!(peer.session, self.sessions.contains(&peer.peer));
            let usable = |r: &&RouteStatus| {
                let whole = !self.faulty(r.id.0) && !self.admin.contains(&r.id.0);
                r.spec.peer == peer.peer && r.tx && whole
            };
            let up = routes.iter().filter(usable).any(|r| r.state == RouteState::Up);
            match peer.active {
                None => {
                    prop_assert!(!routes.iter().any(|r| usable(&r)), "one works, none is active")
                }
                Some(id) => {
                    let active = routes.iter().find(|r| r.id == id).filter(usable);
                    prop_assert!(active.is_some_and(|r| !up || r.state == RouteState::Up));
                    let kept = |r: &RouteStatus| r.state == RouteState::Up && r.drain.is_none();
                    let other = routes.iter().any(|r| r.spec.peer == peer.peer && kept(r));
                    prop_assert!(!other || active.is_some_and(kept), "data on a drained route");
                }
            }
            let row = engine.forwarding(peer.peer);
            prop_assert_eq!(row.and_then(|row| row.active), peer.active);
        }
        Ok(())
    }

    /// Checks the outputs of one call: bounded, and only about existing routes.
    fn outputs(&self, engine: &mut Engine) -> Result<(), TestCaseError> {
        let (mut sends, mut others) = (0, 0);
        while let Some(output) = engine.poll_output() {
            match output {
                EngineOutput::Send { peer, route, .. } => {
                    sends += 1;
                    prop_assert!(self.routes.contains(&route.0) && owner(route.0) == peer);
                    prop_assert!(self.sessions.contains(&peer) && !self.faulty(route.0));
                }
                EngineOutput::ForwardingChanged(peer) => {
                    others += 1;
                    if let Some(row) = engine.forwarding(peer) {
                        prop_assert!(row.candidates.iter().all(|id| owner(id.0) == row.peer));
                        let active = row.active.is_none_or(|id| row.candidates.contains(&id));
                        prop_assert!(active, "the active route is no candidate: {:?}", row);
                    }
                }
                EngineOutput::Event(_) => others += 1,
                EngineOutput::Probe { .. }
                | EngineOutput::PathMtu { .. }
                | EngineOutput::ReplyTemplateReady(_) => {}
            }
        }
        prop_assert!(sends <= 8 && others <= 8 * 4 + 6, "{} sends, {} others", sends, others);
        Ok(())
    }
}

fn change(route: u32, change: RouteChange) -> EngineInput {
    EngineInput::ChangeRoute { id: RouteId(route), change }
}

proptest! {
    #[test]
    fn whatever_happens_the_active_route_works_and_the_engine_wakes(ops in vec(op(), 1..120)) {
        let mut engine = engine(2, 5);
        let mut model = Model::default();
        let mut now = Time::from_millis(1);
        for op in [Op::AddPeer(0), Op::AddPeer(1)].iter().chain(&ops) {
            if let Some(input) = model.input(op) {
                // A refused input is a valid outcome.
                let _ = engine.on_input(now, input);
                model.outputs(&mut engine)?;
            }
            let (length, in_time) = match op {
                Op::Pass(ms) => (*ms, true),
                Op::Stall(ms) => (*ms, false),
                _ => (0, true),
            };
            let end = now + Duration::from_millis(length);
            while let Some(wake) = engine.next_wake().filter(|wake| in_time && *wake <= end) {
                now = now.max(wake);
                engine.on_timer(now);
                prop_assert!(engine.next_wake().is_none_or(|wake| wake > now), "nothing left due");
                model.outputs(&mut engine)?;
                model.check(&engine, now)?;
            }
            now = end;
            engine.on_timer(now);
            model.outputs(&mut engine)?;
            model.check(&engine, now)?;
        }
    }

    #[test]
    fn both_ends_choose_the_same_route(
        priorities in vec(0u32..3, 1..6),
        swapped in vec(any::<bool>(), 6),
        order in Just((0..6usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        // The two ends number their routes differently and see the addresses mirrored.
        let count = priorities.len();
        let mut ends = Vec::new();
        for end in 0..2usize {
            let mut engine = engine(0, end as u64);
            let now = Time::from_millis(1);
            engine.on_input(now, EngineInput::AddPeer(PEER)).unwrap();
            engine.on_input(now, EngineInput::SessionUp { peer: PEER, boot_id: 1 }).unwrap();
            let place = |route: usize| if end == 0 { route } else { order[route] };
            for route in 0..count {
                let mut spec = spec(PEER, route as u32);
                spec.priority = Priority(priorities[route]);
                if swapped[route] != (end == 1) {
                    std::mem::swap(&mut spec.real_local, &mut spec.real_remote);
                }
                let id = RouteId(1 + place(route) as u32);
                engine.on_input(now, EngineInput::AddRoute { id, spec }).unwrap();
            }
            for route in 0..count {
                let id = RouteId(1 + place(route) as u32);
                let heartbeat = Heartbeat {
                    message: HeartbeatMessage::Reply,
                    route: 1,
                    your_route: id.0,
                    sequence: 1,
                    sent_at: 0,
                    held_us: 0, stalled_ms: 0, serial: route as u32,
                    reports: (1..=6).map(report).collect(),
                };
                let input = EngineInput::Heartbeat { peer: PEER, route: id, heartbeat };
                engine.on_input(now, input).unwrap();
            }
            let active = engine.peer_statuses()[0].active.unwrap();
            ends.push((0..count).find(|route| 1 + place(*route) as u32 == active.0).unwrap());
        }
        prop_assert_eq!(ends[0], ends[1]);
        let best = *priorities.iter().min().unwrap();
        prop_assert_eq!(priorities[ends[0]], best);
    }
}
