//! Asking the peer, over another route, what arrived.
//!
//! A peer that is not scheduled is as silent as a dead route, and only waiting tells them apart;
//! unless it can be asked. It answers when its sockets are empty, so what it has not got by then
//! and was sent long enough before the question is lost: the route is suspect at once. A peer
//! that does not answer leaves the timeout as it is. (RFC 9002 section 6.2.4 probes on the same
//! path, having no other.)

use std::time::Duration;

use crate::{
    ids::RouteId,
    loss_detection::{SentFrames, UsablePath, rtt_estimator::MAX_ACK_DELAY},
    time::Time,
};

/// What scheduling may add to an acknowledgement before the peer is asked.
const SCHEDULING_SLACK: Duration = Duration::from_millis(2);

/// A question for the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImmediateAckRequest {
    /// Its number, for
    /// [`Ack::immediate_ack_request`](crate::wire::ack::Ack::immediate_ack_request). Never 0.
    pub number: u16,
    /// The route it takes: not the one it is about.
    pub to: RouteId,
}

/// What a route was asked about last.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AckRequestState {
    /// The question that waits for its answer.
    pending: Option<(u16, Time)>,
    /// When the question was asked that was answered, until that is weighed.
    answered_sent_at: Option<Time>,
}

impl AckRequestState {
    /// Takes in which question the peer answered last.
    fn on_answer(&mut self, answered: u16) {
        if let Some((number, at)) = self.pending
            && number == answered
        {
            *self = Self { pending: None, answered_sent_at: Some(at) };
        }
    }

    /// When the question was asked that was answered since the last call.
    pub(crate) fn take_answered(&mut self) -> Option<Time> {
        self.answered_sent_at.take()
    }
}

impl<P> SentFrames<P> {
    /// Takes in which question the peer answered last (0: none), whose acknowledgement is heard
    /// before [`poll_reroute`](Self::poll_reroute) is called.
    pub fn on_ack_request_answered(&mut self, number: u16) {
        if number != 0 {
            self.paths.iter_mut().for_each(|path| path.ack_request.on_answer(number));
        }
    }

    /// Whom to ask, if silence on a route lasts longer than an acknowledgement takes. Call again
    /// until it says nothing. The arguments are those of [`poll_reroute`](Self::poll_reroute).
    pub fn request_immediate_ack(
        &mut self,
        now: Time,
        usable: impl Iterator<Item = UsablePath> + Clone,
        quiet: bool,
    ) -> Option<ImmediateAckRequest> {
        if !quiet {
            return None;
        }
        for path_index in self.paths.indices() {
            if !self.until_ack_request(path_index, now).is_some_and(|left| left.is_zero()) {
                continue;
            }
            // Two questions of one millisecond have the same answer.
            let number = (now.as_millis() % u64::from(u16::MAX)) as u16 + 1;
            self.paths.get_mut(path_index).ack_request.pending = Some((number, now));
            let from = self.paths.get(path_index).route;
            let others = usable.clone().filter(|way| way.route != from);
            if let Some(to) = others.min_by_key(|way| self.paths.pto_count(way.route)) {
                return Some(ImmediateAckRequest { number, to: to.route });
            }
        }
        None
    }

    /// How long until the peer is to be asked about a route.
    pub(crate) fn until_ack_request(&self, path_index: usize, now: Time) -> Option<Duration> {
        let silence = now.since(self.silent_since(path_index)?);
        let state = self.paths.get(path_index);
        let after = (MAX_ACK_DELAY + SCHEDULING_SLACK + state.max_transit_time())
            * (1 << self.pto_count.min(6));
        let asked = state.ack_request.pending.map_or(Duration::MAX, |(_, at)| now.since(at));
        Some(after.saturating_sub(silence.min(asked)))
    }

    /// Whether the peer's answer says that a route swallows what it is given.
    pub(crate) fn take_confirmed_loss(&mut self, path_index: usize) -> bool {
        let Some(asked) = self.paths.get_mut(path_index).ack_request.take_answered() else {
            return false;
        };
        let transit = self.paths.get(path_index).max_transit_time();
        self.silent_batches(path_index).any(|sent| sent.last_sent_at + transit <= asked)
    }
}
