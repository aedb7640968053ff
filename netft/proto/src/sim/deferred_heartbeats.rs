//! Heartbeats that reach the engine late. Those without news are answered on the packet path from
//! the engine's reply template, and deferred until the engine wakes for another reason. A worker
//! that is interrupted between the sockets and the engine hands over what it received in two turns,
//! while the engine's own thread runs.

use std::time::Duration;

use crate::{
    engine::{Engine, EngineInput},
    sim::{
        cluster::SimStep,
        node::{Arrival, BootIdPair},
        scenario::peer_id,
        simulation::Simulation,
    },
    wire::heartbeat::{Heartbeat, HeartbeatMessage},
};

/// Time between the two turns of an interrupted worker.
const TURN_INTERVAL: Duration = Duration::from_millis(1);

impl Simulation<'_> {
    /// Returns true when the heartbeat was answered and deferred, so the engine need not wake.
    pub(crate) fn try_defer_heartbeat(
        &mut self,
        (from, to): (usize, usize),
        network: usize,
        session: BootIdPair,
        heartbeat: &Heartbeat,
    ) -> bool {
        let scenario = self.cluster.scenario;
        if !scenario.defer_heartbeats {
            return false;
        }
        let peer = peer_id(from);
        let route = scenario.route_id(to, from, network);
        let engine = self.cluster.nodes[to].engine.as_ref();
        let Some(template) = engine.and_then(|engine| engine.reply_template(peer)).cloned() else {
            return false;
        };
        let reply = template.build_reply(session.peer, route, heartbeat);
        let answered = reply.is_some();
        if !answered && heartbeat.message == HeartbeatMessage::Request {
            return false;
        }
        reply.into_iter().for_each(|reply| self.send_heartbeat(to, (peer, route), reply));
        let (heartbeat, arrived_at) = (heartbeat.clone(), self.cluster.now);
        self.cluster.nodes[to].deferred_inputs.push(EngineInput::DeferredHeartbeat {
            peer,
            route,
            heartbeat,
            arrived_at,
            answered,
        });
        true
    }

    /// Feeds an engine that is awake with its deferred heartbeats.
    pub(crate) fn handle_deferred_inputs(&mut self, node: usize) {
        let inputs = std::mem::take(&mut self.cluster.nodes[node].deferred_inputs);
        if inputs.is_empty() {
            return;
        }
        for input in inputs {
            self.feed_engine(node, input);
        }
        self.after_step(node, false);
    }

    pub(crate) fn interrupt_worker(&mut self, node: usize, length: Duration) {
        if self.cluster.nodes[node].engine.is_some() {
            self.cluster.nodes[node].interrupted.get_or_insert_default();
            self.cluster.refresh_truth();
            let resumes = self.cluster.now + length;
            self.cluster.schedule_step(resumes, SimStep::HandOver { node, is_last: false });
        }
    }

    /// Holds a heartbeat for an interrupted worker. Returns whether it did.
    pub(crate) fn try_hold_heartbeat(&mut self, to: usize, arrival: &Arrival) -> bool {
        let Arrival::Heartbeat { from, network, sender_session, heartbeat } = arrival else {
            return false;
        };
        let ends = ((*from, to), *network);
        let held = self.held_input(ends, *sender_session, heartbeat);
        let Some(worker) = &mut self.cluster.nodes[to].interrupted else { return false };
        if let Some(held) = held {
            worker.held.push((sender_session.reversed(), held));
            let ((from, _), network) = ends;
            let now = self.cluster.now;
            self.cluster.observe(|checker| checker.note_arrival(to, from, network, now));
        }
        true
    }

    fn held_input(
        &self,
        ((from, to), network): ((usize, usize), usize),
        sender_session: BootIdPair,
        heartbeat: &Heartbeat,
    ) -> Option<EngineInput> {
        let is_authentic = self.cluster.nodes[to].sessions[from] == Some(sender_session.reversed());
        is_authentic.then(|| EngineInput::DeferredHeartbeat {
            peer: peer_id(from),
            route: self.cluster.scenario.route_id(to, from, network),
            heartbeat: heartbeat.clone(),
            arrived_at: self.cluster.now,
            answered: false,
        })
    }

    /// Hands over the older half of what the worker holds, or the rest.
    pub(crate) fn hand_over(&mut self, node: usize, is_last: bool) {
        if let Some(pause) = self.cluster.nodes[node].pause {
            return self.cluster.schedule_step(pause.ends, SimStep::HandOver { node, is_last });
        }
        let Some(worker) = &mut self.cluster.nodes[node].interrupted else { return };
        let count = if is_last { worker.held.len() } else { worker.held.len().div_ceil(2) };
        let inputs: Vec<_> = worker.held.drain(..count).collect();
        if is_last {
            self.cluster.nodes[node].interrupted = None;
            self.cluster.refresh_truth();
        } else {
            let next = self.cluster.now + TURN_INTERVAL;
            self.cluster.schedule_step(next, SimStep::HandOver { node, is_last: true });
        }
        for (session, input) in inputs {
            self.feed_held_heartbeat(node, session, input);
        }
        self.tick_engine(node);
    }

    /// The driver drops heartbeats of a boot that is over.
    fn feed_held_heartbeat(&mut self, node: usize, session: BootIdPair, input: EngineInput) {
        let EngineInput::DeferredHeartbeat { peer, route, arrived_at, .. } = input else { return };
        if self.cluster.nodes[node].sessions[usize::from(peer.0)] != Some(session) {
            return;
        }
        let place = self.cluster.scenario.peer_and_network(node, route);
        if self.feed_engine(node, input)
            && let Some((from, network)) = place
        {
            self.cluster.observe(|checker| checker.note_heartbeat(node, from, network, arrived_at));
        }
    }

    /// Tells the engine of heartbeats that an interrupted worker may hold, as the driver does
    /// before the engine's timers.
    pub(crate) fn feed_unread(&mut self, node: usize) {
        let state = &self.cluster.nodes[node];
        if state.interrupted.is_none() {
            return;
        }
        let now = self.cluster.now;
        let overdue = state.engine.as_ref().map(|engine: &Engine| engine.overdue_routes(now));
        for route in overdue.unwrap_or_default() {
            self.feed_engine(node, EngineInput::UnreadData(route));
        }
    }
}
