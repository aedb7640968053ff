//! What follows from what is known: states, selection, events.

use crate::{
    engine::{Context, peer::Peer},
    route::{
        event::{EventKind, Reason},
        route_fsm::Route,
        select,
        status::RouteState,
    },
    time::Time,
};

impl Peer {
    /// Brings everything about the peer up to date.
    pub(crate) fn settle(&mut self, context: &mut Context, now: Time) {
        self.settled = now;
        self.unsettled = None;
        let heard = self.routes.values().any(|route| route.rx);
        let mut came_up = false;
        for route in self.routes.values_mut() {
            came_up |= settle_route(context, now, route, heard);
        }
        self.judge_health(context, now);
        self.choose(context, now);
        self.tell_drains(context, now, heard);
        self.routes.values_mut().for_each(|route| route.keep_pace(now));
        if came_up {
            self.tell_ready(context, now);
        }
        if std::mem::replace(&mut self.heard, heard) && !heard {
            context.event(now, EventKind::RemoteUnreachable { peer: self.id });
        }
    }

    fn choose(&mut self, context: &mut Context, now: Time) {
        let choice = select::choose(&self.routes, self.active, now);
        let from = self.active;
        if choice.route == from || (from.is_some() && context.never_fails_over()) {
            return;
        }
        self.active = choice.route;
        if from.is_some() && choice.route.is_some() {
            self.failovers += 1;
        }
        let (peer, to, reason) = (self.id, choice.route, choice.reason);
        let cause = Box::new(self.account(context, now, (from, to), reason));
        context.event(now, EventKind::Moved { peer, from, to, reason, cause });
    }

    /// Tells how far every drain got, where that is news.
    fn tell_drains(&mut self, context: &mut Context, now: Time, heard: bool) {
        let (peer, active) = (self.id, self.active);
        for route in self.routes.values_mut() {
            let status = route.drain_status(active == Some(route.id), heard);
            if let Some(stage) = route.drain.news(status) {
                context.event(now, EventKind::Drain { route: route.id, peer, stage });
            }
        }
    }

    /// NetFT's order (S3, C8): route up, ready, session established.
    fn tell_ready(&mut self, context: &mut Context, now: Time) {
        let peer = self.id;
        let Some(boot_id) = self.session.filter(|_| !self.told) else { return };
        self.told = true;
        let waited = now.since(self.session_at);
        context.event(now, EventKind::Ready { peer, waited });
        context.event(now, EventKind::SessionEstablished { peer, boot_id });
    }
}

/// Derives one route's state. Returns whether it came up.
fn settle_route(context: &mut Context, now: Time, route: &mut Route, heard: bool) -> bool {
    let tx = weigh(context, route, heard);
    let Some(from) = route.settle(now, tx) else { return false };
    let lost = from == RouteState::Up;
    // Nor is it that the peer did not hear a node that was not scheduled.
    let stalled = context.stalled_ms(now) > 0 && route.reason == Reason::PeerDoesNotHear;
    // A session that ends and an operator are no fault of the route.
    let planned = matches!(
        route.reason,
        Reason::NewSession | Reason::SessionLost | Reason::Admin | Reason::PeerAdmin
    );
    if lost && !planned && !stalled {
        route.hold.lost(now);
    }
    let up = route.state == RouteState::Up;
    if up {
        route.hold.up(now, context.config.hold);
    }
    let kind = EventKind::StateChanged {
        route: route.id,
        peer: route.spec.peer,
        from,
        to: route.state,
        reason: route.reason,
        last_heard: route.last_heard,
        history: if lost || route.state == RouteState::Down {
            route.history.dump(now)
        } else {
            Vec::new()
        },
    };
    context.event(now, kind);
    up
}

/// The peer's word counts only while the peer is heard somewhere.
fn weigh(context: &Context, route: &Route, heard: bool) -> bool {
    if context.ignores_the_peer() {
        return route.rx || (heard && route.word.is_some());
    }
    let word = route.word.unwrap_or_default();
    heard && word.heard && !word.local_down && !word.admin_down
}
