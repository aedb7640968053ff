//! Heartbeats without news, as the packet path treats them while all is well: answered by the
//! engine's form, and left for the engine until it is awake.

use crate::{
    engine::Input,
    sim::{node::Session, scenario::peer_id, world::World},
    wire::heartbeat::{Heartbeat, Message},
};

impl World<'_> {
    /// Whether a heartbeat that reached a running node was left for later.
    pub(crate) fn leave(
        &mut self,
        (from, to): (usize, usize),
        network: usize,
        here: Session,
        heartbeat: &Heartbeat,
    ) -> bool {
        if !self.scenario.leaves {
            return false;
        }
        let peer = peer_id(from);
        let route = self.scenario.route(to, from, network);
        let engine = self.nodes[to].engine.as_ref();
        let Some(form) = engine.and_then(|engine| engine.form(peer)).cloned() else {
            return false;
        };
        let reply = form.answer(here.peer, route, heartbeat);
        let answered = reply.is_some();
        if !answered && heartbeat.message == Message::Request {
            return false;
        }
        reply.into_iter().for_each(|reply| self.send_heartbeat(to, (peer, route), reply));
        let (heartbeat, at) = (heartbeat.clone(), self.now);
        self.nodes[to].left.push(Input::Late { peer, route, heartbeat, at, answered });
        true
    }

    /// A node's engine is awake: it hears what was left.
    pub(crate) fn catch_up(&mut self, node: usize) {
        let left = std::mem::take(&mut self.nodes[node].left);
        if left.is_empty() {
            return;
        }
        for input in left {
            self.handle(node, input);
        }
        self.settled(node, false);
    }
}
