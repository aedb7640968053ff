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
    loss_detection::{Flight, Way, rtt_estimator::ACK_DELAY},
    time::Time,
};

/// What scheduling may add to an acknowledgement before the peer is asked.
const SLACK: Duration = Duration::from_millis(2);

/// A question for the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Its number, for [`Ack::asks`](crate::wire::ack::Ack::asks). Never 0.
    pub number: u16,
    /// The route it takes: not the one it is about.
    pub to: RouteId,
}

/// What a route was asked about last.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked {
    /// The question that waits for its answer.
    open: Option<(u16, Time)>,
    /// When the question was asked that was answered, until that is weighed.
    answered: Option<Time>,
}

impl Asked {
    /// Takes in which question the peer answered last.
    fn hear(&mut self, answered: u16) {
        if let Some((number, at)) = self.open
            && number == answered
        {
            *self = Self { open: None, answered: Some(at) };
        }
    }

    /// When the question was asked that was answered since the last call.
    pub(crate) fn take(&mut self) -> Option<Time> {
        self.answered.take()
    }
}

impl<P> Flight<P> {
    /// Takes in which question the peer answered last (0: none), whose acknowledgement is heard
    /// before [`decide`](Self::decide) is called.
    pub fn answered(&mut self, number: u16) {
        if number != 0 {
            self.lanes.each().for_each(|lane| lane.asked.hear(number));
        }
    }

    /// Whom to ask, if silence on a route lasts longer than an acknowledgement takes. Call again
    /// until it says nothing. The arguments are those of [`decide`](Self::decide).
    pub fn ask(
        &mut self,
        now: Time,
        usable: impl Iterator<Item = Way> + Clone,
        quiet: bool,
    ) -> Option<Question> {
        if !quiet {
            return None;
        }
        for lane in self.lanes.places() {
            if !self.curious(lane, now).is_some_and(|left| left.is_zero()) {
                continue;
            }
            // Two questions of one millisecond have the same answer.
            let number = (now.as_millis() % u64::from(u16::MAX)) as u16 + 1;
            self.lanes.at(lane).asked.open = Some((number, now));
            let from = self.lanes.get(lane).route;
            let others = usable.clone().filter(|way| way.route != from);
            if let Some(to) = others.min_by_key(|way| self.lanes.strikes(way.route)) {
                return Some(Question { number, to: to.route });
            }
        }
        None
    }

    /// How long until the peer is to be asked about a route.
    pub(crate) fn curious(&self, lane: usize, now: Time) -> Option<Duration> {
        let silence = now.since(self.silent_since(lane)?);
        let state = self.lanes.get(lane);
        let after = (ACK_DELAY + SLACK + state.transit()) * (1 << self.strikes.min(6));
        let asked = state.asked.open.map_or(Duration::MAX, |(_, at)| now.since(at));
        Some(after.saturating_sub(silence.min(asked)))
    }

    /// Whether the peer's answer says that a route swallows what it is given.
    pub(crate) fn swallowed(&mut self, lane: usize) -> bool {
        let Some(asked) = self.lanes.at(lane).asked.take() else { return false };
        let transit = self.lanes.get(lane).transit();
        self.silent(lane).any(|sent| sent.at + transit <= asked)
    }
}
