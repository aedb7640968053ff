//! Answers to heartbeats while all is well, given by whoever reads the socket. Pure.
//!
//! Waking the engine costs more than its answer, and as long as nothing changes that answer is
//! known beforehand. So the engine fills in a [`ReplyTemplate`] per peer, and a request that says
//! nothing new is answered by it at once; the engine hears of the request when it is awake anyway
//! ([`EngineInput::DeferredHeartbeat`](crate::engine::EngineInput::DeferredHeartbeat)). Anything
//! else is the engine's own business.
//!
//! A word that is over must not look newer than the one that replaced it. Both are numbered from
//! one serial ([`HeartbeatSerial`]): the engine withdraws a form before it takes the number of the
//! first heartbeat that says otherwise, and an answer takes its number before it looks whether its
//! form still holds. So an answer that got past that look has a lower number than every heartbeat
//! that says otherwise, and the peer ignores what it says of routes.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::SeqCst},
};

use crate::{
    ids::RouteId,
    wire::heartbeat::{Heartbeat, HeartbeatMessage, RouteReport},
};

/// What the engine and whoever answers for it number heartbeats to one peer from.
#[derive(Debug, Default)]
pub(crate) struct HeartbeatSerial {
    serial: AtomicU32,
    /// Which form holds.
    template_id: AtomicU32,
}

impl HeartbeatSerial {
    /// The number of the next heartbeat.
    pub(crate) fn next_serial(&self) -> u32 {
        self.serial.fetch_add(1, SeqCst).wrapping_add(1)
    }

    /// No form holds from here on.
    pub(crate) fn revoke_templates(&self) {
        self.template_id.fetch_add(1, SeqCst);
    }

    /// A form that holds until the next [`revoke_templates`](Self::revoke_templates). `routes`:
    /// this node's and the peer's number of each.
    pub(crate) fn new_template(
        self: &Arc<Self>,
        boot_id: u64,
        routes: Vec<(RouteId, u32)>,
        verdicts: Vec<RouteReport>,
    ) -> ReplyTemplate {
        let number = self.template_id.load(SeqCst);
        ReplyTemplate { boot_id, routes, verdicts, template_id: number, serial: Arc::clone(self) }
    }
}

/// What this node answers one peer while all is well.
#[derive(Debug)]
pub struct ReplyTemplate {
    boot_id: u64,
    routes: Vec<(RouteId, u32)>,
    verdicts: Vec<RouteReport>,
    template_id: u32,
    serial: Arc<HeartbeatSerial>,
}

impl ReplyTemplate {
    /// Whether this is what the engine would say.
    pub(crate) fn has_same_reports(&self, verdicts: &[RouteReport]) -> bool {
        self.verdicts == verdicts
    }

    /// The answer to a request that came on `route` under a session with the peer's run `boot_id`;
    /// `None` when the engine has to see the request first.
    pub fn build_reply(
        &self,
        boot_id: u64,
        route: RouteId,
        request: &Heartbeat,
    ) -> Option<Heartbeat> {
        let known = boot_id == self.boot_id
            && request.message == HeartbeatMessage::Request
            && request.your_route == route.0
            && self.routes.contains(&(route, request.route));
        if !known || request.stalled_ms > 0 || !self.changes_nothing(&request.reports) {
            return None;
        }
        let serial = self.serial.next_serial();
        if self.serial.template_id.load(SeqCst) != self.template_id {
            return None;
        }
        Some(Heartbeat {
            message: HeartbeatMessage::Reply,
            route: route.0,
            your_route: request.route,
            sequence: request.sequence,
            sent_at: request.sent_at,
            held_us: 0,
            stalled_ms: 0,
            serial,
            reports: self.verdicts.clone(),
        })
    }

    /// The peer hears this node on every route, and wants data on any.
    fn changes_nothing(&self, verdicts: &[RouteReport]) -> bool {
        verdicts.len() == self.routes.len()
            && verdicts.iter().all(|verdict| {
                verdict.heard
                    && !verdict.local_down
                    && !verdict.admin_down
                    && !verdict.draining
                    && self.routes.iter().any(|(route, _)| route.0 == verdict.your_route)
            })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const BOOT: u64 = 7;

    fn verdict(your_route: u32) -> RouteReport {
        RouteReport {
            your_route,
            heard: true,
            local_down: false,
            admin_down: false,
            draining: false,
            carries_data: false,
            loss_permille: 0,
        }
    }

    fn voice() -> (Arc<HeartbeatSerial>, ReplyTemplate) {
        let voice = Arc::<HeartbeatSerial>::default();
        let routes = vec![(RouteId(1), 11), (RouteId(2), 12)];
        let form = voice.new_template(BOOT, routes, vec![verdict(11), verdict(12)]);
        (voice, form)
    }

    fn request() -> Heartbeat {
        Heartbeat {
            message: HeartbeatMessage::Request,
            route: 12,
            your_route: 2,
            sequence: 5,
            sent_at: 99,
            held_us: 0,
            stalled_ms: 0,
            serial: 40,
            reports: vec![verdict(1), verdict(2)],
        }
    }

    #[test]
    fn a_request_without_news_is_answered_under_the_next_number() {
        let (voice, form) = voice();
        assert_eq!(voice.next_serial(), 1);
        let answer = form.build_reply(BOOT, RouteId(2), &request()).unwrap();
        assert_eq!((answer.message, answer.serial), (HeartbeatMessage::Reply, 2));
        assert_eq!((answer.route, answer.your_route), (2, 12));
        assert_eq!((answer.sequence, answer.sent_at), (5, 99));
        assert!(form.has_same_reports(&answer.reports));
        assert_eq!(voice.next_serial(), 3);
    }

    #[test]
    fn a_form_that_was_withdrawn_answers_nothing_and_the_next_one_does() {
        let (voice, form) = voice();
        voice.revoke_templates();
        assert!(form.build_reply(BOOT, RouteId(2), &request()).is_none());
        let next = voice.new_template(BOOT, form.routes.clone(), form.verdicts.clone());
        assert!(next.build_reply(BOOT, RouteId(2), &request()).is_some());
        assert!(form.build_reply(BOOT, RouteId(2), &request()).is_none());
    }

    #[test]
    fn whatever_is_news_is_left_to_the_engine() {
        let (_, form) = voice();
        let refused = |change: fn(&mut Heartbeat)| {
            let mut request = request();
            change(&mut request);
            form.build_reply(BOOT, RouteId(2), &request).is_none()
        };
        assert!(!refused(|_| {}));
        assert!(!refused(|it| it.reports[1].carries_data = true));
        assert!(!refused(|it| it.reports[1].loss_permille = 20));
        assert!(refused(|it| it.message = HeartbeatMessage::Reply));
        assert!(refused(|it| it.route = 11));
        assert!(refused(|it| it.your_route = 1));
        assert!(refused(|it| it.your_route = 0));
        assert!(refused(|it| it.stalled_ms = 1));
        assert!(refused(|it| it.reports[0].heard = false));
        assert!(refused(|it| it.reports[0].local_down = true));
        assert!(refused(|it| it.reports[0].admin_down = true));
        assert!(refused(|it| it.reports[0].draining = true));
        assert!(refused(|it| it.reports[0].your_route = 3));
        assert!(refused(|it| it.reports.truncate(1)));
        assert!(form.build_reply(BOOT + 1, RouteId(2), &request()).is_none(), "another run");
        assert!(form.build_reply(BOOT, RouteId(1), &request()).is_none(), "another route");
    }
}
