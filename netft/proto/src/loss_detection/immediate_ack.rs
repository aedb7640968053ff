//! Requests for an immediate acknowledgement over another path.
//!
//! A peer that is not scheduled is as silent as a failed path. Asking it over another path tells
//! the two apart before the PTO expires: it answers when its sockets are empty, so a batch that the
//! answer leaves out, sent long enough before the request, is lost, and its path is suspect at
//! once. A peer that does not answer leaves the PTO as it is. (RFC 9002 section 6.2.4 probes on the
//! same path, having no other; the frame is the IMMEDIATE_ACK of the QUIC acknowledgement-frequency
//! extension.)

use std::time::Duration;

use crate::{
    ids::RouteId,
    loss_detection::{
        data_loss::DataLoss,
        rtt_estimator::MAX_ACK_DELAY,
        sent_frames::SentFrames,
        types::{ImmediateAckRequest, UsablePath},
    },
    time::Time,
};

/// Scheduling latency that an acknowledgement may have before one is requested.
const SCHEDULING_SLACK: Duration = Duration::from_millis(2);

impl<P> SentFrames<P> {
    /// Applies the number of the request that the peer answered last (0: none). Its acknowledgement
    /// is to be applied before [`poll_reroute`](Self::poll_reroute) is called.
    pub fn on_ack_request_answered(&mut self, number: u16) {
        if number != 0 {
            self.paths.iter_mut().for_each(|path| path.ack_request.on_answer(number));
        }
    }

    /// The next request that is due, when a path is silent for longer than an acknowledgement
    /// takes; to be called until it returns `None`. The arguments are those of
    /// [`poll_reroute`](Self::poll_reroute).
    pub fn request_immediate_ack(
        &mut self,
        now: Time,
        usable: impl Iterator<Item = UsablePath> + Clone,
        drained: bool,
    ) -> Option<ImmediateAckRequest> {
        if !drained {
            return None;
        }
        for path_index in self.paths.indices() {
            if !self.until_ack_request(path_index, now).is_some_and(|left| left.is_zero()) {
                continue;
            }
            // Two requests in one millisecond have the same answer.
            let number = (now.as_millis() % u64::from(u16::MAX)) as u16 + 1;
            self.paths.get_mut(path_index).ack_request.on_requested(number, now);
            let from = self.paths.get(path_index).route;
            let others = usable.clone().filter(|it| it.route != from);
            if let Some(to) = others.min_by_key(|it| self.paths.pto_count(it.route)) {
                return Some(ImmediateAckRequest { number, to: to.route });
            }
        }
        None
    }

    /// Time until [`poll_reroute`](Self::poll_reroute) or
    /// [`request_immediate_ack`](Self::request_immediate_ack) is due.
    pub fn until_next_timeout(&self, now: Time) -> Option<Duration> {
        let timeouts =
            |path_index| [self.until_pto(path_index, now), self.until_ack_request(path_index, now)];
        self.paths.indices().flat_map(timeouts).flatten().min()
    }

    /// The PTO of a route, with backoff and stall allowance.
    pub fn pto_for_route(&self, route: RouteId, now: Time) -> Option<Duration> {
        let path_index = self.paths.find_index(|path| path.route == route)?;
        Some(self.pto_for_path(path_index, now))
    }

    /// The only usable route, if its PTO expired since the last call.
    pub fn take_sole_path_silent(&mut self) -> Option<RouteId> {
        self.sole_path_silent.take()
    }

    /// The next report of data lost alone on a path; to be called until it returns `None`.
    pub fn take_data_loss(&mut self, now: Time) -> Option<DataLoss> {
        let mut paths = self.paths.iter_mut();
        paths.find_map(|path| {
            let share = path.data_loss.take_report(now)?;
            Some(DataLoss { route: path.route, share })
        })
    }

    /// Time until a request about a path is due.
    pub(crate) fn until_ack_request(&self, path_index: usize, now: Time) -> Option<Duration> {
        let silence = now.since(self.silent_since(path_index)?);
        let path = self.paths.get(path_index);
        let after =
            (MAX_ACK_DELAY + SCHEDULING_SLACK + path.max_transit_time()) * path.pto_backoff();
        let since_request =
            path.ack_request.requested_at().map_or(Duration::MAX, |at| now.since(at));
        Some(after.saturating_sub(silence.min(since_request)))
    }

    /// Returns whether an answer proves that a path loses batches.
    pub(crate) fn take_confirmed_loss(&mut self, path_index: usize) -> bool {
        let answered = self.paths.get_mut(path_index).ack_request.take_answered();
        let Some(requested_at) = answered else { return false };
        let transit = self.paths.get(path_index).max_transit_time();
        self.silent_batches(path_index).any(|batch| batch.last_sent_at + transit <= requested_at)
    }
}
