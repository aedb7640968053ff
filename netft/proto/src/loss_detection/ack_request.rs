//! The state of requests for an immediate acknowledgement about one path.

use crate::time::Time;

/// The last request for an immediate acknowledgement about a path.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AckRequestState {
    /// The request that is not answered: its number and when it was sent.
    pending: Option<(u16, Time)>,
    /// When the request was sent that was answered since the last evaluation.
    answered_sent_at: Option<Time>,
}

impl AckRequestState {
    pub(crate) fn on_requested(&mut self, number: u16, now: Time) {
        self.pending = Some((number, now));
    }

    /// The peer answered the request `answered`.
    pub(crate) fn on_answer(&mut self, answered: u16) {
        if let Some((number, at)) = self.pending
            && number == answered
        {
            *self = Self { pending: None, answered_sent_at: Some(at) };
        }
    }

    /// When the request was sent that is not answered.
    pub(crate) fn requested_at(&self) -> Option<Time> {
        self.pending.map(|(_, at)| at)
    }

    /// When the request was sent that was answered since the last call.
    pub(crate) fn take_answered(&mut self) -> Option<Time> {
        self.answered_sent_at.take()
    }
}
