//! Heartbeats without news on the packet path: answered from the engine's reply template, and
//! deferred until the engine wakes for another reason.

use crate::{
    engine::EngineInput,
    sim::{node::BootIdPair, scenario::peer_id, simulation::Simulation},
    wire::heartbeat::{Heartbeat, HeartbeatMessage},
};

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
}
