//! Heartbeats in and out.

use std::time::Duration;

use crate::{
    engine::{
        EngineContext, EngineOutput,
        peer::{Peer, is_in_balance_set},
    },
    ids::RouteId,
    route::{
        event::EventKind,
        route_fsm::{RemoteReport, Route},
    },
    time::Time,
    wire::{
        DropReason,
        heartbeat::{Heartbeat, HeartbeatMessage, MAX_REPORTS, RouteReport},
    },
};

impl Peer {
    /// Takes in an authentic heartbeat that arrived `at`, and whether it has been answered.
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
        if self.session.is_none() {
            return Err(DropReason::NoSession);
        }
        // One heard later may have been taken in before.
        let at = route.last_heard.map_or(at, |heard| at.max(heard)).min(now);
        route.remote_route = heartbeat.route;
        route.history.record(at, false, heartbeat.message, heartbeat.sequence);
        if heartbeat.stalled_ms > 0 {
            route.excuse_peer_stall(at, Duration::from_millis(u64::from(heartbeat.stalled_ms)));
        }
        let begins = route.on_heartbeat(at, heartbeat.serial);
        if heartbeat.message == HeartbeatMessage::Request {
            route.alternation.on_peer_request(at);
            route.inbound_loss.on_request(heartbeat.sequence);
            if answered {
                route.history.record(at, true, HeartbeatMessage::Reply, heartbeat.sequence);
            }
        } else {
            let sent = Time::from_nanos(heartbeat.sent_at);
            let held = Duration::from_micros(u64::from(heartbeat.held_us));
            // A reply to a request from the future was never asked for.
            if route.suspect_since.is_some_and(|since| sent >= since && sent <= now)
                && !context.never_clears_suspicion()
            {
                route.suspect_since = None;
            }
            if sent <= at {
                route.mtu.on_heartbeat_answered(sent);
                route.last_answered = Some(at);
                let rtt = route.request_stats.on_reply(at, heartbeat.sequence, sent, held);
                let delay = route.delay();
                rtt.into_iter().for_each(|rtt| route.path_quality.add_rtt_sample(now, rtt, delay));
            }
        }
        if begins {
            context.push_event(now, EventKind::RemoteReachable { peer: self.id, route: id });
        }
        self.apply_remote_reports(now, heartbeat);
        if begins {
            self.report_change_soon(now, None);
        }
        let wants_answer = heartbeat.message == HeartbeatMessage::Request && !answered;
        if begins || wants_answer {
            self.reevaluate(context, now);
        } else {
            // Several come together, and the next tick settles what they say once for all.
            self.reevaluation_due.get_or_insert(now);
        }
        if wants_answer {
            self.send_reply(context, now, id, heartbeat);
        }
        Ok(())
    }

    /// What the peer hears on each of our routes. Heartbeats on a slow route are overtaken by
    /// those on a fast one: only the newest word counts (serial arithmetic, RFC 1982).
    fn apply_remote_reports(&mut self, now: Time, heartbeat: &Heartbeat) {
        let age = self.newest_serial.map(|newest| heartbeat.serial.wrapping_sub(newest));
        if age.is_some_and(|age| age == 0 || age > u32::MAX / 2) {
            return;
        }
        self.newest_serial = Some(heartbeat.serial);
        // A route that a complete list leaves out is not there at the peer's end.
        let complete = heartbeat.reports.len() < MAX_REPORTS;
        let asked = Time::from_nanos(heartbeat.sent_at);
        let answers =
            (heartbeat.message == HeartbeatMessage::Reply && asked <= now).then_some(asked);
        for route in self.routes.values_mut().filter(|_| complete) {
            route.report = None;
            answers.into_iter().for_each(|asked| route.drain.on_reply(asked));
        }
        for verdict in &heartbeat.reports {
            if let Some(route) = self.routes.get_mut(&RouteId(verdict.your_route)) {
                route.report = Some(RemoteReport {
                    heard: verdict.heard,
                    local_down: verdict.local_down,
                    admin_down: verdict.admin_down,
                    draining: verdict.draining,
                    carries: verdict.carries_data,
                });
                answers.into_iter().for_each(|asked| route.drain.on_reply(asked));
                route.path_quality.on_loss_report(now, verdict.loss_permille);
            }
        }
    }

    /// Sends every request that is due.
    pub(crate) fn send_due_requests(&mut self, context: &mut EngineContext, now: Time) {
        let mut due: Vec<_> = Vec::new();
        let mut in_turn = false;
        for route in self.routes.values_mut() {
            if route.next_request.is_none_or(|at| at > now) {
                continue;
            }
            let waits = route.alternation.is_peers_turn();
            match route.alternation.defer_request(now, route.delay()) {
                Some(window) => {
                    route.next_request = Some(context.send_slots.pick_slot(now, &window))
                }
                None => {
                    in_turn |= waits;
                    due.push(route.id);
                }
            }
        }
        // It is this end's turn: on every route that may, so that what leaves leaves together.
        if in_turn {
            let joins = |route: &&Route| route.can_request_early(now) && !due.contains(&route.id);
            let joining: Vec<_> =
                self.routes.values().filter(joins).map(|route| route.id).collect();
            due.extend(joining);
        }
        for id in due {
            let Some(route) = self.routes.get_mut(&id) else { continue };
            let window =
                route.alternation.on_request_sent(now, route.delay(), route.can_alternate());
            route.next_request = Some(context.send_slots.pick_slot(now, &window));
            route.last_request = Some(now);
            route.requests_sent += 1;
            let sequence = route.request_stats.next_sequence();
            self.send_heartbeat(
                context,
                now,
                id,
                HeartbeatMessage::Request,
                sequence,
                now.as_nanos(),
            );
        }
    }

    /// Answers at once, on the route the request came on, unless that end is broken.
    fn send_reply(
        &mut self,
        context: &mut EngineContext,
        now: Time,
        id: RouteId,
        request: &Heartbeat,
    ) {
        if self.routes.get(&id).is_some_and(|route| !route.has_fault()) {
            self.send_heartbeat(
                context,
                now,
                id,
                HeartbeatMessage::Reply,
                request.sequence,
                request.sent_at,
            );
        }
    }

    fn send_heartbeat(
        &mut self,
        context: &mut EngineContext,
        now: Time,
        id: RouteId,
        message: HeartbeatMessage,
        sequence: u32,
        sent_at: u64,
    ) {
        let verdicts = self.route_reports();
        let stalled_ms = context.stalled_ms(now);
        let serial = self.serial_for(&verdicts, stalled_ms);
        let Some(route) = self.routes.get_mut(&id) else { return };
        route.history.record(now, true, message, sequence);
        let heartbeat = Heartbeat {
            message,
            route: id.0,
            your_route: route.remote_route,
            sequence,
            sent_at,
            held_us: 0,
            stalled_ms,
            serial,
            reports: verdicts,
        };
        context.outputs.push_back(EngineOutput::Send { peer: self.id, route: id, heartbeat });
    }

    /// This node's word on every route whose number at the peer is known.
    pub(crate) fn route_reports(&self) -> Vec<RouteReport> {
        self.routes
            .values()
            .filter(|route| route.remote_route != 0)
            .take(MAX_REPORTS)
            .map(|route| RouteReport {
                your_route: route.remote_route,
                heard: route.rx,
                local_down: route.has_fault(),
                admin_down: route.admin_down,
                draining: route.drain.is_ordered(),
                // Which policy data follows is the packet path's to know.
                carries_data: self.active == Some(route.id)
                    || is_in_balance_set(route, self.reevaluated_at),
                loss_permille: route.inbound_loss.loss_permille(),
            })
            .collect()
    }

    /// This node's word changed: the peer hears of it at once, over every route but `except`, and
    /// not more often than four times per delay.
    pub(crate) fn report_change_soon(&mut self, now: Time, except: Option<RouteId>) {
        for route in self.routes.values_mut().filter(|route| Some(route.id) != except) {
            route.request_soon(now);
        }
    }
}
