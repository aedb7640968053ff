//! Heartbeats in and out.

use std::time::Duration;

use crate::{
    engine::{
        Context, Output,
        peer::{Peer, spreads},
    },
    ids::RouteId,
    route::{
        event::EventKind,
        route_fsm::{Route, Word},
    },
    time::Time,
    wire::{
        DropReason,
        heartbeat::{Heartbeat, MAX_VERDICTS, Message, Verdict},
    },
};

impl Peer {
    /// Takes in an authentic heartbeat that arrived `at`, and whether it has been answered.
    pub(crate) fn hear(
        &mut self,
        context: &mut Context,
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
        route.remote = heartbeat.route;
        route.history.note(at, false, heartbeat.message, heartbeat.sequence);
        if heartbeat.stalled_ms > 0 {
            route.excuse(at, Duration::from_millis(u64::from(heartbeat.stalled_ms)));
        }
        let begins = route.hear(at, heartbeat.serial);
        if heartbeat.message == Message::Request {
            route.turns.asked(at);
            route.inbound.request(heartbeat.sequence);
            if answered {
                route.history.note(at, true, Message::Reply, heartbeat.sequence);
            }
        } else {
            let sent = Time::from_nanos(heartbeat.sent_at);
            let held = Duration::from_micros(u64::from(heartbeat.held_us));
            // A reply to a request from the future was never asked for.
            if route.suspect.is_some_and(|since| sent >= since && sent <= now)
                && !context.suspects_for_ever()
            {
                route.suspect = None;
            }
            if sent <= at {
                route.mtu.heard(sent);
                route.last_answered = Some(at);
                let rtt = route.quality.reply(at, heartbeat.sequence, sent, held);
                let delay = route.delay();
                rtt.into_iter().for_each(|rtt| route.health.sample(now, rtt, delay));
            }
        }
        if begins {
            context.event(now, EventKind::RemoteReachable { peer: self.id, route: id });
        }
        self.take_verdicts(now, heartbeat);
        if begins {
            self.tell_others(now, None);
        }
        let wants_answer = heartbeat.message == Message::Request && !answered;
        if begins || wants_answer {
            self.settle(context, now);
        } else {
            // Several come together, and the next tick settles what they say once for all.
            self.unsettled.get_or_insert(now);
        }
        if wants_answer {
            self.reply(context, now, id, heartbeat);
        }
        Ok(())
    }

    /// What the peer hears on each of our routes. Heartbeats on a slow route are overtaken by
    /// those on a fast one: only the newest word counts (serial arithmetic, RFC 1982).
    fn take_verdicts(&mut self, now: Time, heartbeat: &Heartbeat) {
        let age = self.heard_serial.map(|newest| heartbeat.serial.wrapping_sub(newest));
        if age.is_some_and(|age| age == 0 || age > u32::MAX / 2) {
            return;
        }
        self.heard_serial = Some(heartbeat.serial);
        // A route that a complete list leaves out is not there at the peer's end.
        let complete = heartbeat.verdicts.len() < MAX_VERDICTS;
        let asked = Time::from_nanos(heartbeat.sent_at);
        let answers = (heartbeat.message == Message::Reply && asked <= now).then_some(asked);
        for route in self.routes.values_mut().filter(|_| complete) {
            route.word = None;
            answers.into_iter().for_each(|asked| route.drain.answer(asked));
        }
        for verdict in &heartbeat.verdicts {
            if let Some(route) = self.routes.get_mut(&RouteId(verdict.your_route)) {
                route.word = Some(Word {
                    heard: verdict.heard,
                    local_down: verdict.local_down,
                    admin_down: verdict.admin_down,
                    draining: verdict.draining,
                    carries: verdict.carries,
                });
                answers.into_iter().for_each(|asked| route.drain.answer(asked));
                route.health.word(now, verdict.loss_permille);
            }
        }
    }

    /// Sends every request that is due.
    pub(crate) fn send_due(&mut self, context: &mut Context, now: Time) {
        let mut due: Vec<_> = Vec::new();
        let mut in_turn = false;
        for route in self.routes.values_mut() {
            if route.next_request.is_none_or(|at| at > now) {
                continue;
            }
            let waits = route.turns.waits();
            match route.turns.put_off(now, route.delay()) {
                Some(window) => route.next_request = Some(context.slots.within(now, &window)),
                None => {
                    in_turn |= waits;
                    due.push(route.id);
                }
            }
        }
        // It is this end's turn: on every route that may, so that what leaves leaves together.
        if in_turn {
            let joins = |route: &&Route| route.joins(now) && !due.contains(&route.id);
            let joining: Vec<_> =
                self.routes.values().filter(joins).map(|route| route.id).collect();
            due.extend(joining);
        }
        for id in due {
            let Some(route) = self.routes.get_mut(&id) else { continue };
            let window = route.turns.ask(now, route.delay(), route.takes_turns());
            route.next_request = Some(context.slots.within(now, &window));
            route.last_request = Some(now);
            route.sent += 1;
            let sequence = route.quality.request();
            self.send(context, now, id, Message::Request, sequence, now.as_nanos());
        }
    }

    /// Answers at once, on the route the request came on, unless that end is broken.
    fn reply(&mut self, context: &mut Context, now: Time, id: RouteId, request: &Heartbeat) {
        if self.routes.get(&id).is_some_and(|route| !route.faulty()) {
            self.send(context, now, id, Message::Reply, request.sequence, request.sent_at);
        }
    }

    fn send(
        &mut self,
        context: &mut Context,
        now: Time,
        id: RouteId,
        message: Message,
        sequence: u32,
        sent_at: u64,
    ) {
        let verdicts = self.verdicts();
        let stalled_ms = context.stalled_ms(now);
        let serial = self.number(&verdicts, stalled_ms);
        let Some(route) = self.routes.get_mut(&id) else { return };
        route.history.note(now, true, message, sequence);
        let heartbeat = Heartbeat {
            message,
            route: id.0,
            your_route: route.remote,
            sequence,
            sent_at,
            held_us: 0,
            stalled_ms,
            serial,
            verdicts,
        };
        context.outputs.push_back(Output::Send { peer: self.id, route: id, heartbeat });
    }

    /// This node's word on every route whose number at the peer is known.
    pub(crate) fn verdicts(&self) -> Vec<Verdict> {
        self.routes
            .values()
            .filter(|route| route.remote != 0)
            .take(MAX_VERDICTS)
            .map(|route| Verdict {
                your_route: route.remote,
                heard: route.rx,
                local_down: route.faulty(),
                admin_down: route.admin_down,
                draining: route.drain.ordered(),
                // Which policy data follows is the packet path's to know.
                carries: self.active == Some(route.id) || spreads(route, self.settled),
                loss_permille: route.inbound.loss_permille(),
            })
            .collect()
    }

    /// This node's word changed: the peer hears of it at once, over every route but `except`, and
    /// not more often than four times per delay.
    pub(crate) fn tell_others(&mut self, now: Time, except: Option<RouteId>) {
        for route in self.routes.values_mut().filter(|route| Some(route.id) != except) {
            route.ask_soon(now);
        }
    }
}
