//! Events on the progress of drains and sessions.

use crate::{
    engine::{context::EngineContext, peer::Peer},
    route::event::EventKind,
    time::Time,
};

/// Reports the progress of every drain, once per stage.
pub(crate) fn report_drain_stages(
    peer: &mut Peer,
    context: &mut EngineContext,
    now: Time,
    heard: bool,
) {
    let (id, active) = (peer.id, peer.active);
    for route in peer.routes.values_mut() {
        let status = route.drain_status(active == Some(route.id), heard);
        if let Some(stage) = route.drain.take_stage_change(status) {
            context.push_event(now, EventKind::Drain { route: route.id, peer: id, stage });
        }
    }
}

/// Reports the session as established, in the order of NetFT (C8): route up, ready, session
/// established.
pub(crate) fn report_established(peer: &mut Peer, context: &mut EngineContext, now: Time) {
    let Some((boot_id, waited)) = peer.session.take_established(now) else { return };
    let peer = peer.id;
    context.push_event(now, EventKind::Ready { peer, waited });
    context.push_event(now, EventKind::SessionEstablished { peer, boot_id });
}
