//! The activity of the routes that run, as far as planning needs it. Pure.

use std::time::Duration;

use crate::{
    route::{state::RouteState, status::RouteStatus},
    time::Time,
};

/// How long a route that may send has to come up before its cards try other pairs.
pub(crate) const FRESH_TIME: Duration = Duration::from_millis(400);
/// How long a route that fell silent still counts as heard: most outages are shorter.
pub(crate) const SILENCE_GRACE: Duration = Duration::from_secs(2);
/// After this long a pair that was never heard gives its place to one that was not tried.
pub(crate) const LONG_TRIAL: Duration = Duration::from_secs(60);

/// Activity of one route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteActivity {
    /// It is up, or was a moment ago.
    Up,
    /// The peer is heard there, and does not hear this node.
    Heard,
    /// It may still come up: it began to send a moment ago, or the peer has no session.
    Fresh,
    /// The peer was heard there once.
    Silent,
    /// The peer was never heard there.
    NeverHeard {
        /// For so long that another pair may take its place.
        long: bool,
    },
}

impl RouteActivity {
    /// The activity of a route; `has_session`: its peer has a session.
    pub fn of_route(status: &RouteStatus, has_session: bool, now: Time) -> Self {
        let beats = &status.heartbeats;
        let within = |since: Option<Time>, time| since.is_some_and(|at| now.since(at) < time);
        let in_use = matches!(status.state, RouteState::Up | RouteState::AdminDown);
        let is_new_half = status.rx && within(Some(status.last_change), FRESH_TIME);
        let fell_silent = !status.rx && within(beats.last_heard, SILENCE_GRACE);
        if in_use || is_new_half || fell_silent {
            Self::Up
        } else if status.rx {
            Self::Heard
        } else if !has_session || within(beats.tried_since, FRESH_TIME) {
            Self::Fresh
        } else if beats.last_heard.is_some() {
            Self::Silent
        } else {
            Self::NeverHeard { long: !within(beats.tried_since, LONG_TRIAL) }
        }
    }

    /// When the activity of a route changes by itself, if it does.
    pub fn next_change(status: &RouteStatus, now: Time) -> Option<Time> {
        let beats = &status.heartbeats;
        let ends = [
            status.rx.then_some(status.last_change + FRESH_TIME),
            beats.last_heard.filter(|_| !status.rx).map(|at| at + SILENCE_GRACE),
            beats.tried_since.map(|at| at + FRESH_TIME),
            beats.tried_since.filter(|_| beats.last_heard.is_none()).map(|at| at + LONG_TRIAL),
        ];
        ends.into_iter().flatten().filter(|at| *at > now).min()
    }

    /// Returns whether the peer was heard there at some time.
    pub(crate) fn was_heard(self) -> bool {
        self.is_heard() || self == Self::Silent
    }

    /// Returns whether the route stays, whatever is planned.
    pub(crate) fn is_heard(self) -> bool {
        matches!(self, Self::Up | Self::Heard)
    }
}
