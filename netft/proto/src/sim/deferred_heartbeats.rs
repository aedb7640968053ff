//! Heartbeats without news, as the packet path treats them while all is well: answered by the
//! engine's form, and left for the engine until it is awake.

use crate::{
    engine::EngineInput,
    sim::{node::BootIdPair, scenario::peer_id, simulation::Simulation},
    wire::heartbeat::{Heartbeat, HeartbeatMessage},
};

impl Simulation<'_> {
    /// Whether a heartbeat that reached a running node was left for later.
    pub(crate) fn try_defer_heartbeat(
        &mut self,
        (from, to): (usize, usize),
        network: usize,
        here: BootIdPair,
        heartbeat: &Heartbeat,
    ) -> bool {
        if !self.scenario.defer_heartbeats {
            return false;
        }
        let peer = peer_id(from);
        let route = self.scenario.route_id(to, from, network);
        let engine = self.nodes[to].engine.as_ref();
        let Some(form) = engine.and_then(|engine| engine.reply_template(peer)).cloned() else {
            return false;
        };
        let reply = form.build_reply(here.peer, route, heartbeat);
        let answered = reply.is_some();
        if !answered && heartbeat.message == HeartbeatMessage::Request {
            return false;
        }
        reply.into_iter().for_each(|reply| self.send_heartbeat(to, (peer, route), reply));
        let (heartbeat, at) = (heartbeat.clone(), self.now);
        self.nodes[to].deferred_inputs.push(EngineInput::DeferredHeartbeat {
            peer,
            route,
            heartbeat,
            arrived_at: at,
            answered,
        });
        true
    }

    /// A node's engine is awake: it hears what was left.
    pub(crate) fn handle_deferred_inputs(&mut self, node: usize) {
        let left = std::mem::take(&mut self.nodes[node].deferred_inputs);
        if left.is_empty() {
            return;
        }
        for input in left {
            self.feed_engine(node, input);
        }
        self.after_step(node, false);
    }
}
