//! Heartbeats in and out.

use std::time::Duration;

use super::{Engine, Output};
use crate::{
    id::{PeerId, RouteId},
    route::{
        event::{EventKind, Reason},
        machine::{Route, Word},
    },
    time::Time,
    wire::{
        DropReason,
        heartbeat::{Heartbeat, MAX_VERDICTS, Message, Verdict},
    },
};

/// How long a node says that it was stalled.
const STALL_TOLD: Duration = Duration::from_secs(1);

impl Engine {
    /// Takes in an authentic heartbeat.
    pub(super) fn hear(
        &mut self,
        now: Time,
        peer: PeerId,
        id: RouteId,
        heartbeat: &Heartbeat,
    ) -> Result<(), DropReason> {
        let Some(route) = self.routes.get_mut(&id).filter(|route| route.spec.peer == peer) else {
            return Err(DropReason::Misrouted);
        };
        // An authentic packet cannot speak for another route (W-12).
        if heartbeat.your_route != 0 && heartbeat.your_route != id.0 {
            return Err(DropReason::Misrouted);
        }
        if self.peers.get(&peer).is_none_or(|peer| peer.session.is_none()) {
            return Err(DropReason::NoSession);
        }
        route.remote = heartbeat.route;
        route.history.note(now, false, heartbeat.message, heartbeat.sequence);
        let begins = route.hear(now);
        if heartbeat.message == Message::Reply {
            let sent = Time::from_nanos(heartbeat.sent_at);
            let held = Duration::from_micros(u64::from(heartbeat.held_us));
            // A reply to a request from the future was never asked for.
            if route.suspect.is_some_and(|since| sent >= since && sent <= now) {
                route.suspect = None;
            }
            if sent <= now {
                route.quality.reply(now, heartbeat.sequence, sent, held);
            }
        }
        if begins {
            self.event(now, EventKind::RemoteReachable { peer, route: id });
        }
        self.take_verdicts(peer, heartbeat);
        if begins {
            self.tell_others(now, peer, None);
        }
        self.settle(now, peer);
        if heartbeat.message == Message::Request {
            self.reply(now, peer, id, heartbeat);
        }
        Ok(())
    }

    /// What the peer hears on each of our routes. Heartbeats on a slow route are overtaken by
    /// those on a fast one: only the newest word counts (serial arithmetic, RFC 1982).
    fn take_verdicts(&mut self, peer: PeerId, heartbeat: &Heartbeat) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        let age = state.heard_serial.map(|newest| heartbeat.serial.wrapping_sub(newest));
        if age.is_some_and(|age| age == 0 || age > u32::MAX / 2) {
            return;
        }
        state.heard_serial = Some(heartbeat.serial);
        for verdict in &heartbeat.verdicts {
            let Some(route) = self.routes.get_mut(&RouteId(verdict.your_route)) else { continue };
            if route.spec.peer != peer {
                continue;
            }
            let word = Word {
                heard: verdict.heard,
                local_down: verdict.local_down,
                admin_down: verdict.admin_down,
            };
            if route.word != Some(word) {
                route.word = Some(word);
                route.cause = if word.admin_down {
                    Reason::PeerAdmin
                } else if word.local_down {
                    Reason::PeerLocalDown
                } else if word.heard {
                    Reason::BothWays
                } else {
                    Reason::PeerDoesNotHear
                };
            }
        }
    }

    /// Sends every request that is due.
    pub(super) fn send_due(&mut self, now: Time) {
        let due: Vec<_> = self
            .routes
            .values()
            .filter(|route| route.next_request.is_some_and(|at| at <= now))
            .map(|route| (route.spec.peer, route.id))
            .collect();
        for (peer, id) in due {
            let spread = {
                let Some(route) = self.routes.get(&id) else { continue };
                self.jitter.spread(route.delay())
            };
            let Some(route) = self.routes.get_mut(&id) else { continue };
            route.next_request = Some(now + spread);
            route.last_request = Some(now);
            let sequence = route.quality.request();
            self.send(now, peer, id, Message::Request, sequence, now.as_nanos());
        }
    }

    /// Answers at once, on the route the request came on, unless that end is broken.
    fn reply(&mut self, now: Time, peer: PeerId, id: RouteId, request: &Heartbeat) {
        if self.routes.get(&id).is_some_and(|route| !route.faulty()) {
            self.send(now, peer, id, Message::Reply, request.sequence, request.sent_at);
        }
    }

    fn send(
        &mut self,
        now: Time,
        peer: PeerId,
        id: RouteId,
        message: Message,
        sequence: u32,
        sent_at: u64,
    ) {
        let verdicts = self.verdicts(peer);
        let stalled_ms = self
            .stalled
            .filter(|(_, ended)| now.since(*ended) < STALL_TOLD)
            .map_or(0, |(length, _)| u16::try_from(length.as_millis()).unwrap_or(u16::MAX));
        let Some(state) = self.peers.get_mut(&peer) else { return };
        state.serial = state.serial.wrapping_add(1);
        let serial = state.serial;
        let Some(route) = self.routes.get_mut(&id) else { return };
        route.history.note(now, true, message, sequence);
        if message == Message::Request {
            route.sent += 1;
        }
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
        self.outputs.push_back(Output::Send { peer, route: id, heartbeat });
    }

    /// This node's word on every route whose number at the peer is known.
    fn verdicts(&self, peer: PeerId) -> Vec<Verdict> {
        self.routes
            .values()
            .filter(|route| route.spec.peer == peer && route.remote != 0)
            .take(MAX_VERDICTS)
            .map(|route| Verdict {
                your_route: route.remote,
                heard: route.rx,
                local_down: route.faulty(),
                admin_down: route.admin_down,
                loss_permille: route.quality.loss_permille(),
            })
            .collect()
    }

    /// This node's word changed: the peer hears of it at once, over every route but `except`, and
    /// not more often than four times per delay.
    pub(super) fn tell_others(&mut self, now: Time, peer: PeerId, except: Option<RouteId>) {
        for route in self.routes.values_mut() {
            if route.spec.peer != peer || Some(route.id) == except {
                continue;
            }
            let Some(planned) = route.next_request else { continue };
            let soonest = route.last_request.map_or(now, |last| last + route.delay() / 4);
            route.next_request = Some(planned.min(soonest.max(now)));
        }
    }

    /// The peer's word counts only while the peer is heard somewhere.
    pub(super) fn weigh(&self, route: &Route, heard: bool) -> bool {
        #[cfg(feature = "sim")]
        if self.planted(super::Bug::IgnorePeerVerdict) {
            return route.rx || (heard && route.word.is_some());
        }
        let word = route.word.unwrap_or_default();
        heard && word.heard && !word.local_down && !word.admin_down
    }
}
