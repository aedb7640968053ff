//! Heartbeats received and sent.

use std::{ops::RangeInclusive, time::Duration};

use crate::{
    engine::{
        context::EngineContext, forwarding::is_in_balance_set, peer::Peer, types::EngineOutput,
    },
    ids::RouteId,
    route::{event::EventKind, peer_route::Route, report::RemoteReport},
    time::Time,
    wire::{
        DropReason,
        heartbeat::{Heartbeat, HeartbeatMessage, MAX_REPORTS, RouteReport},
    },
};

impl Peer {
    /// Applies an authentic heartbeat that arrived at `at`. `answered`: a reply template has
    /// answered it already.
    pub(crate) fn on_heartbeat(
        &mut self,
        context: &mut EngineContext,
        (now, at): (Time, Time),
        id: RouteId,
        heartbeat: &Heartbeat,
        answered: bool,
    ) -> Result<(), DropReason> {
        let Some(route) = self.routes.get_mut(&id) else { return Err(DropReason::Misrouted) };
        // An authentic packet cannot speak for another route (W-12).
        if heartbeat.your_route != 0 && heartbeat.your_route != id.0 {
            return Err(DropReason::Misrouted);
        }
        if !self.session.is_up() {
            return Err(DropReason::NoSession);
        }
        // A heartbeat that arrived later may have been applied before.
        let at = route.liveness.last_heard.map_or(at, |heard| at.max(heard)).min(now);
        route.remote.route = heartbeat.route;
        route.history.record(at, false, heartbeat.message, heartbeat.sequence);
        if heartbeat.stalled_ms > 0 {
            route.excuse_peer_stall(at, Duration::from_millis(u64::from(heartbeat.stalled_ms)));
        }
        let begins = route.on_heartbeat((now, at), heartbeat.serial);
        match heartbeat.message {
            HeartbeatMessage::Request => {
                route.requests.alternation.on_peer_request(at);
                route.stats.inbound_loss.on_request(heartbeat.sequence);
                if answered {
                    route.history.record(at, true, HeartbeatMessage::Reply, heartbeat.sequence);
                }
            }
            HeartbeatMessage::Reply => apply_reply(context, route, (now, at), heartbeat),
        }
        if begins {
            context.push_event(now, EventKind::RemoteReachable { peer: self.id, route: id });
        }
        self.apply_remote_reports(now, heartbeat);
        if begins {
            self.report_change_soon(now, None);
        }
        let wants_reply = heartbeat.message == HeartbeatMessage::Request && !answered;
        if begins || wants_reply {
            self.reevaluate(context, now);
        } else {
            // Several replies arrive together; the next timer evaluates them in one pass.
            self.reevaluation_due.get_or_insert(now);
        }
        if wants_reply {
            self.send_reply(context, now, id, heartbeat);
        }
        Ok(())
    }

    /// Applies the peer's reports on all routes. Heartbeats on a fast route overtake those on a
    /// slow one, so only the newest serial counts (serial arithmetic, RFC 1982).
    fn apply_remote_reports(&mut self, now: Time, heartbeat: &Heartbeat) {
        let age = self.newest_serial.map(|newest| heartbeat.serial.wrapping_sub(newest));
        if age.is_some_and(|age| age == 0 || age > u32::MAX / 2) {
            return;
        }
        self.newest_serial = Some(heartbeat.serial);
        // A route that a complete list leaves out does not exist at the peer.
        let complete = heartbeat.reports.len() < MAX_REPORTS;
        let sent = Time::from_nanos(heartbeat.sent_at);
        let answered_request =
            (heartbeat.message == HeartbeatMessage::Reply && sent <= now).then_some(sent);
        for route in self.routes.values_mut().filter(|_| complete) {
            route.remote.report = None;
            answered_request.into_iter().for_each(|sent| route.drain.on_reply(sent));
        }
        for report in &heartbeat.reports {
            if let Some(route) = self.routes.get_mut(&RouteId(report.your_route)) {
                route.remote.report = Some(RemoteReport {
                    heard: report.heard,
                    local_down: report.local_down,
                    admin_down: report.admin_down,
                    draining: report.draining,
                    carries: report.carries_data,
                });
                answered_request.into_iter().for_each(|sent| route.drain.on_reply(sent));
                route.path_quality.on_loss_report(now, report.loss_permille);
            }
        }
    }

    /// Sends every request that is due.
    pub(crate) fn send_due_requests(&mut self, context: &mut EngineContext, now: Time) {
        let mut due: Vec<_> = Vec::new();
        let mut is_own_turn = false;
        for route in self.routes.values_mut() {
            if route.requests.next.is_none_or(|at| at > now) {
                continue;
            }
            let (delay, alternation) = (route.delay(), &mut route.requests.alternation);
            let alternates = alternation.is_peers_turn();
            match alternation.defer_request(now, delay) {
                Some(window) => {
                    route.requests.next = Some(context.send_slots.pick_slot(now, &window))
                }
                None => {
                    is_own_turn |= alternates;
                    due.push(route.id);
                }
            }
        }
        // In this end's turn the requests of all alternating routes leave with one wake-up.
        if is_own_turn {
            let joins = |route: &&Route| {
                route.requests.can_request_early(now, route.delay()) && !due.contains(&route.id)
            };
            let joining: Vec<_> =
                self.routes.values().filter(joins).map(|route| route.id).collect();
            due.extend(joining);
        }
        for id in due {
            let Some(route) = self.routes.get_mut(&id) else { continue };
            let window = next_request_window(route, now);
            route.requests.on_request_sent(now, context.send_slots.pick_slot(now, &window));
            let sequence = route.stats.requests.next_sequence();
            let request = (HeartbeatMessage::Request, sequence, now.as_nanos());
            self.send_heartbeat(context, now, id, request);
        }
    }

    /// Answers a request at once on the route it arrived on, unless that has a local fault.
    fn send_reply(
        &mut self,
        context: &mut EngineContext,
        now: Time,
        id: RouteId,
        request: &Heartbeat,
    ) {
        if self.routes.get(&id).is_some_and(|route| !route.has_fault()) {
            let reply = (HeartbeatMessage::Reply, request.sequence, request.sent_at);
            self.send_heartbeat(context, now, id, reply);
        }
    }

    fn send_heartbeat(
        &mut self,
        context: &mut EngineContext,
        now: Time,
        id: RouteId,
        (message, sequence, sent_at): (HeartbeatMessage, u32, u64),
    ) {
        let reports = route_reports(self);
        let stalled_ms = context.stalled_ms(now);
        let serial = self.replies.serial_for(&reports, stalled_ms);
        let Some(route) = self.routes.get_mut(&id) else { return };
        route.history.record(now, true, message, sequence);
        let heartbeat = Heartbeat {
            message,
            route: id.0,
            your_route: route.remote.route,
            sequence,
            sent_at,
            held_us: 0,
            stalled_ms,
            serial,
            reports,
        };
        context.outputs.push_back(EngineOutput::Send { peer: self.id, route: id, heartbeat });
    }
}

/// Applies the reply to a request: it clears a suspicion, and measures both directions.
fn apply_reply(
    context: &EngineContext,
    route: &mut Route,
    (now, at): (Time, Time),
    reply: &Heartbeat,
) {
    let sent = Time::from_nanos(reply.sent_at);
    let held = Duration::from_micros(u64::from(reply.held_us));
    if !context.never_clears_suspicion() {
        route.suspicion.on_reply(now, sent);
    }
    if sent <= at {
        route.mtu.on_heartbeat_answered(sent);
        route.stats.last_answered = Some(at);
        let (rtt, delay) =
            (route.stats.requests.on_reply(at, reply.sequence, sent, held), route.delay());
        rtt.into_iter().for_each(|rtt| route.path_quality.add_rtt_sample(now, rtt, delay));
    }
}

/// The window for the request after one that leaves at `now`.
fn next_request_window(route: &mut Route, now: Time) -> RangeInclusive<Time> {
    let backoff = route.backoff(now);
    route.requests.set_backs_off(backoff.is_some());
    if let Some(pause) = backoff {
        return now + pause * 3 / 4..=now + pause;
    }
    let (delay, can_alternate) = (route.delay(), route.can_alternate());
    route.requests.alternation.on_request_sent(now, delay, can_alternate)
}

/// This node's report on every route whose number at the peer is known.
pub(crate) fn route_reports(peer: &Peer) -> Vec<RouteReport> {
    let known = peer.routes.values().filter(|route| route.remote.route != 0);
    known
        .take(MAX_REPORTS)
        .map(|route| RouteReport {
            your_route: route.remote.route,
            heard: route.liveness.rx,
            local_down: route.has_fault(),
            admin_down: route.admin_down,
            draining: route.drain.is_ordered(),
            // The policies of the packet path may use any route of the balance set.
            carries_data: peer.active == Some(route.id)
                || is_in_balance_set(route, peer.reevaluated_at),
            loss_permille: route.stats.inbound_loss.loss_permille(),
        })
        .collect()
}
