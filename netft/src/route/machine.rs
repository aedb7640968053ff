//! The state machine of one route. Pure; the engine feeds it and reads it.
//!
//! ```text
//!                 rx = this node hears the peer here
//!                 tx = the peer says it hears this node here, and its end works
//!
//!          ┌── admin ──▶ admin-down          (a local fault, or no session: down)
//!    rx, tx │
//!    no no ─┴─▶ down      yes no / no yes ──▶ init      yes yes ──▶ up
//! ```

use std::time::Duration;

use super::{
    event::Reason, history::History, hold::Hold, quality::Quality, spec::RouteSpec,
    status::RouteState,
};
use crate::{id::RouteId, time::Time};

/// Heartbeats a route that was lost must be heard with before it counts again (knet's
/// pong_count): one stray packet of a dying path proves nothing.
const HEARD_AGAIN: u8 = 2;

/// What the peer last said of its end of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) heard: bool,
    pub(super) local_down: bool,
    pub(super) admin_down: bool,
}

/// One route.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) id: RouteId,
    pub(super) spec: RouteSpec,
    /// The peer's number of it; 0 until heard.
    pub(super) remote: u32,
    pub(super) admin_down: bool,
    /// The local faults that hold.
    faults: Vec<Reason>,
    pub(super) rx: bool,
    pub(super) last_heard: Option<Time>,
    /// When rx ends unless something is heard.
    pub(super) deadline: Option<Time>,
    /// When to warn that 40 % of the threshold are missed; `None` once warned.
    pub(super) warning: Option<Time>,
    streak: u8,
    was_lost: bool,
    pub(super) word: Option<Word>,
    pub(super) tx: bool,
    /// Since when data stays unacknowledged here.
    pub(super) suspect: Option<Time>,
    pub(super) next_request: Option<Time>,
    pub(super) last_request: Option<Time>,
    pub(super) state: RouteState,
    pub(super) last_change: Time,
    pub(super) reason: Reason,
    /// Why the next change of state happens.
    pub(super) cause: Reason,
    pub(super) hold: Hold,
    pub(super) quality: Quality,
    pub(super) history: History,
    pub(super) sent: u64,
    pub(super) missed: u64,
}

impl Route {
    pub(super) fn new(id: RouteId, spec: RouteSpec, now: Time, history: usize) -> Self {
        Self {
            id,
            spec,
            remote: 0,
            admin_down: false,
            faults: Vec::new(),
            rx: false,
            last_heard: None,
            deadline: None,
            warning: None,
            streak: 0,
            was_lost: false,
            word: None,
            tx: false,
            suspect: None,
            next_request: None,
            last_request: None,
            state: RouteState::Down,
            last_change: now,
            reason: Reason::Added,
            cause: Reason::Added,
            hold: Hold::default(),
            quality: Quality::default(),
            history: History::new(history),
            sent: 0,
            missed: 0,
        }
    }

    pub(super) fn detection_time(&self) -> Duration {
        self.spec.timing.detection_time()
    }

    pub(super) fn delay(&self) -> Duration {
        self.spec.timing.delay.duration()
    }

    pub(super) fn faulty(&self) -> bool {
        !self.faults.is_empty()
    }

    /// May carry data: both ways proven, or at least ours.
    pub(super) fn usable(&self) -> bool {
        self.tx && !self.faulty() && !self.admin_down
    }

    /// Counts a heartbeat as heard. Returns whether rx began with it.
    pub(super) fn hear(&mut self, now: Time) -> bool {
        let gap = self.last_heard.map(|last| now.since(last));
        let delay = self.delay();
        if let Some(gap) = gap.filter(|gap| self.rx && *gap >= delay * 2) {
            // The heartbeat that ended the gap was not missed.
            self.missed += (gap.as_nanos() / delay.as_nanos()) as u64 - 1;
        }
        let recent = gap.is_some_and(|gap| gap < self.detection_time());
        self.streak = if recent { self.streak.saturating_add(1) } else { 1 };
        self.last_heard = Some(now);
        let needed = if self.was_lost { HEARD_AGAIN } else { 1 };
        let begins = !self.rx && self.streak >= needed && !self.faulty();
        if begins {
            self.rx = true;
            self.cause = Reason::Heard;
        }
        if self.rx {
            self.arm(now);
        }
        begins
    }

    /// Sets the deadline and the warning from `since`, when something was heard last.
    pub(super) fn arm(&mut self, since: Time) {
        self.deadline = Some(since + self.detection_time());
        // NetFT warns at two fifths of the threshold (NetftTwoFifthMissedHeartbeats).
        let early = (u32::from(self.spec.timing.threshold.get()) * 2).div_ceil(5);
        self.warning = Some(since + self.delay() * early);
    }

    /// The detection time went by in silence.
    pub(super) fn miss(&mut self) {
        self.missed += u64::from(self.spec.timing.threshold.get());
        self.silence(Reason::HeartbeatsMissed);
    }

    /// Nothing is heard here any more, for `cause`.
    pub(super) fn silence(&mut self, cause: Reason) {
        if self.rx {
            self.was_lost = true;
        }
        self.rx = false;
        self.streak = 0;
        self.deadline = None;
        self.warning = None;
        self.cause = cause;
    }

    /// A local fault begins. Returns whether the route was whole.
    pub(super) fn fault(&mut self, reason: Reason) -> bool {
        let whole = !self.faulty();
        if !self.faults.contains(&reason) {
            self.faults.push(reason);
        }
        self.silence(reason);
        whole
    }

    /// A local fault is over. Returns whether the route is whole by that.
    pub(super) fn clear(&mut self, reason: Reason) -> bool {
        let before = self.faults.len();
        self.faults.retain(|fault| *fault != reason);
        before > 0 && self.faults.is_empty()
    }

    /// Forgets everything a session proved; the route starts afresh.
    pub(super) fn reset(&mut self, cause: Reason) {
        self.silence(cause);
        self.was_lost = false;
        self.remote = 0;
        self.word = None;
    }

    /// The state that follows from what is proven.
    pub(super) fn derive(&self) -> RouteState {
        if self.admin_down {
            RouteState::AdminDown
        } else if self.faulty() {
            RouteState::Down
        } else {
            match (self.rx, self.tx) {
                (true, true) => RouteState::Up,
                (false, false) => RouteState::Down,
                (true, false) | (false, true) => RouteState::Init,
            }
        }
    }
}
