//! The answers others may give for the engine: when they hold, and when not.

use std::sync::Arc;

use crate::{
    cadence::reply_template::ReplyTemplate,
    engine::{Engine, EngineContext, EngineOutput, peer::Peer},
    ids::PeerId,
    route::{route_fsm::Route, status::RouteState},
    time::Time,
    wire::heartbeat::RouteReport,
};

impl Engine {
    /// What may be answered to a peer's requests without asking; `None` while not all is well.
    /// Worth looking again at every [`EngineOutput::ReplyTemplateReady`].
    pub fn reply_template(&self, peer: PeerId) -> Option<&Arc<ReplyTemplate>> {
        self.peers.get(&peer)?.reply_template.as_ref()
    }

    /// A form for a peer that has none and is well.
    pub(crate) fn refresh_reply_template(&mut self, id: PeerId) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.reply_template.is_none() && peer.make_reply_template(&self.context, now) {
            self.context.outputs.push_back(EngineOutput::ReplyTemplateReady(id));
        }
    }
}

impl Peer {
    /// Whoever answers for the engine stops it: before a heartbeat says something else.
    pub(crate) fn revoke_reply_template(&mut self) {
        if self.reply_template.take().is_some() {
            self.serial.revoke_templates();
        }
    }

    /// The number of a heartbeat with these verdicts.
    pub(crate) fn serial_for(&mut self, verdicts: &[RouteReport], stalled_ms: u16) -> u32 {
        let same = |form: &Arc<ReplyTemplate>| stalled_ms == 0 && form.has_same_reports(verdicts);
        if !self.reply_template.as_ref().is_some_and(same) {
            self.revoke_reply_template();
        }
        self.serial.next_serial()
    }

    /// Returns whether there is one.
    fn make_reply_template(&mut self, context: &EngineContext, now: Time) -> bool {
        let Some(boot_id) = self.session else { return false };
        let well = !self.routes.is_empty() && self.routes.values().all(has_stable_report);
        if !well || context.stalled_ms(now) > 0 {
            return false;
        }
        let routes = self.routes.values().map(|route| (route.id, route.remote_route)).collect();
        self.reply_template =
            Some(Arc::new(self.serial.new_template(boot_id, routes, self.route_reports())));
        true
    }
}

/// Nothing about the route is about to change the verdict on it.
fn has_stable_report(route: &Route) -> bool {
    route.state == RouteState::Up
        && route.remote_route != 0
        && route.suspect_since.is_none()
        && !route.drain.is_ordered()
        && route.inbound_loss.loss_permille() == 0
}
