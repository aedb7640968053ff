//! The answers others may give for the engine: when they hold, and when not.

use std::sync::Arc;

use crate::{
    cadence::reply_template::Form,
    engine::{Context, Engine, Output, peer::Peer},
    ids::PeerId,
    route::{route_fsm::Route, status::RouteState},
    time::Time,
    wire::heartbeat::Verdict,
};

impl Engine {
    /// What may be answered to a peer's requests without asking; `None` while not all is well.
    /// Worth looking again at every [`Output::Answers`].
    pub fn form(&self, peer: PeerId) -> Option<&Arc<Form>> {
        self.peers.get(&peer)?.form.as_ref()
    }

    /// A form for a peer that has none and is well.
    pub(crate) fn fill_in(&mut self, id: PeerId) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.form.is_none() && peer.fill_in(&self.context, now) {
            self.context.outputs.push_back(Output::Answers(id));
        }
    }
}

impl Peer {
    /// Whoever answers for the engine stops it: before a heartbeat says something else.
    pub(crate) fn withdraw(&mut self) {
        if self.form.take().is_some() {
            self.voice.withdraw();
        }
    }

    /// The number of a heartbeat with these verdicts.
    pub(crate) fn number(&mut self, verdicts: &[Verdict], stalled_ms: u16) -> u32 {
        let same = |form: &Arc<Form>| stalled_ms == 0 && form.says(verdicts);
        if !self.form.as_ref().is_some_and(same) {
            self.withdraw();
        }
        self.voice.next()
    }

    /// Returns whether there is one.
    fn fill_in(&mut self, context: &Context, now: Time) -> bool {
        let Some(boot_id) = self.session else { return false };
        let well = !self.routes.is_empty() && self.routes.values().all(is_well);
        if !well || context.stalled_ms(now) > 0 {
            return false;
        }
        let routes = self.routes.values().map(|route| (route.id, route.remote)).collect();
        self.form = Some(Arc::new(self.voice.form(boot_id, routes, self.verdicts())));
        true
    }
}

/// Nothing about the route is about to change the verdict on it.
fn is_well(route: &Route) -> bool {
    route.state == RouteState::Up
        && route.remote != 0
        && route.suspect.is_none()
        && !route.drain.ordered()
        && route.inbound.loss_permille() == 0
}
