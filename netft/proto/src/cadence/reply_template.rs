//! Replies to heartbeat requests by the worker that reads the socket, without the engine. Pure.
//!
//! Waking the engine costs more than its reply, and while nothing changes the reply is known in
//! advance. So the engine publishes a [`ReplyTemplate`] per peer, and a request without a changed
//! report is answered from it at once; the engine learns of the request at its next wake-up
//! ([`EngineInput::DeferredHeartbeat`](crate::engine::EngineInput::DeferredHeartbeat)). Every other
//! request is left to the engine.
//!
//! A stale reply must never carry a higher serial than the heartbeat that superseded it. Both take
//! their serials from one counter ([`HeartbeatSerial`]). The engine revokes the template before it
//! takes the serial of the first heartbeat with other reports; a reply takes its serial before it
//! checks that its template is current. So a reply that passed the check has a lower serial than
//! every heartbeat with other reports, and the peer ignores its reports.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::SeqCst},
};

use crate::{
    ids::RouteId,
    wire::heartbeat::{Heartbeat, HeartbeatMessage, RouteReport},
};

/// Source of the serials of heartbeats to one peer, shared by the engine and the reply templates.
#[derive(Debug, Default)]
pub(crate) struct HeartbeatSerial {
    serial: AtomicU32,
    /// The current template.
    template_id: AtomicU32,
}

impl HeartbeatSerial {
    /// The serial of the next heartbeat.
    pub(crate) fn next_serial(&self) -> u32 {
        self.serial.fetch_add(1, SeqCst).wrapping_add(1)
    }

    /// Revokes every template created before.
    pub(crate) fn revoke_templates(&self) {
        self.template_id.fetch_add(1, SeqCst);
    }

    /// Creates a template that is current until the next
    /// [`revoke_templates`](Self::revoke_templates). `routes`: this node's and the peer's number of
    /// each.
    pub(crate) fn new_template(
        self: &Arc<Self>,
        boot_id: u64,
        routes: Vec<(RouteId, u32)>,
        reports: Vec<RouteReport>,
    ) -> ReplyTemplate {
        let template_id = self.template_id.load(SeqCst);
        ReplyTemplate { boot_id, routes, reports, template_id, serial: Arc::clone(self) }
    }
}

/// The engine's side: the serials of one peer, and the template in use.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReplyTemplates {
    serial: Arc<HeartbeatSerial>,
    current: Option<Arc<ReplyTemplate>>,
}

impl ReplyTemplates {
    /// The template in use.
    pub(crate) fn current(&self) -> Option<&Arc<ReplyTemplate>> {
        self.current.as_ref()
    }

    /// The serial used last.
    pub(crate) fn last_serial(&self) -> u32 {
        self.serial.serial.load(SeqCst)
    }

    /// Continues after `serial`, which a predecessor process used at most.
    pub(crate) fn resume_serial(&self, serial: u32) {
        self.serial.serial.store(serial, SeqCst);
    }

    /// Publishes a template with these reports.
    pub(crate) fn publish(
        &mut self,
        boot_id: u64,
        routes: Vec<(RouteId, u32)>,
        reports: Vec<RouteReport>,
    ) {
        self.current = Some(Arc::new(self.serial.new_template(boot_id, routes, reports)));
    }

    /// Revokes the template in use, before a heartbeat with other reports is sent.
    pub(crate) fn revoke(&mut self) {
        if self.current.take().is_some() {
            self.serial.revoke_templates();
        }
    }

    /// The serial of a heartbeat with these reports. Revokes a template with others.
    pub(crate) fn serial_for(&mut self, reports: &[RouteReport], stalled_ms: u16) -> u32 {
        let same = |it: &Arc<ReplyTemplate>| stalled_ms == 0 && it.has_same_reports(reports);
        if !self.current.as_ref().is_some_and(same) {
            self.revoke();
        }
        self.serial.next_serial()
    }
}

/// The reply to one peer while nothing changes.
#[derive(Debug)]
pub struct ReplyTemplate {
    boot_id: u64,
    routes: Vec<(RouteId, u32)>,
    reports: Vec<RouteReport>,
    template_id: u32,
    serial: Arc<HeartbeatSerial>,
}

impl ReplyTemplate {
    /// Returns whether the template carries these reports.
    pub(crate) fn has_same_reports(&self, reports: &[RouteReport]) -> bool {
        self.reports == reports
    }

    /// Builds the reply to a request that arrived on `route` in the session with the peer's run
    /// `boot_id`; `None` when the engine has to see the request first.
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
            reports: self.reports.clone(),
        })
    }

    /// Returns whether the peer reports every route as heard, without a fault, an order or a drain.
    fn changes_nothing(&self, reports: &[RouteReport]) -> bool {
        reports.len() == self.routes.len()
            && reports.iter().all(|report| {
                report.heard
                    && !report.local_down
                    && !report.admin_down
                    && !report.draining
                    && self.routes.iter().any(|(route, _)| route.0 == report.your_route)
            })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const BOOT: u64 = 7;

    fn report(your_route: u32) -> RouteReport {
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

    fn new_template() -> (Arc<HeartbeatSerial>, ReplyTemplate) {
        let serial = Arc::<HeartbeatSerial>::default();
        let routes = vec![(RouteId(1), 11), (RouteId(2), 12)];
        let template = serial.new_template(BOOT, routes, vec![report(11), report(12)]);
        (serial, template)
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
            reports: vec![report(1), report(2)],
        }
    }

    #[test]
    fn a_request_without_a_change_is_answered_under_the_next_serial() {
        let (serial, template) = new_template();
        assert_eq!(serial.next_serial(), 1);
        let answer = template.build_reply(BOOT, RouteId(2), &request()).unwrap();
        assert_eq!((answer.message, answer.serial), (HeartbeatMessage::Reply, 2));
        assert_eq!((answer.route, answer.your_route), (2, 12));
        assert_eq!((answer.sequence, answer.sent_at), (5, 99));
        assert!(template.has_same_reports(&answer.reports));
        assert_eq!(serial.next_serial(), 3);
    }

    #[test]
    fn a_revoked_template_answers_nothing_and_the_next_one_does() {
        let (serial, template) = new_template();
        serial.revoke_templates();
        assert!(template.build_reply(BOOT, RouteId(2), &request()).is_none());
        let next = serial.new_template(BOOT, template.routes.clone(), template.reports.clone());
        assert!(next.build_reply(BOOT, RouteId(2), &request()).is_some());
        assert!(template.build_reply(BOOT, RouteId(2), &request()).is_none());
    }

    #[test]
    fn every_change_is_left_to_the_engine() {
        let (_, template) = new_template();
        let refused = |change: fn(&mut Heartbeat)| {
            let mut request = request();
            change(&mut request);
            template.build_reply(BOOT, RouteId(2), &request).is_none()
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
        assert!(template.build_reply(BOOT + 1, RouteId(2), &request()).is_none(), "another run");
        assert!(template.build_reply(BOOT, RouteId(1), &request()).is_none(), "another route");
    }
}
