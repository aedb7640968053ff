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

use crate::{
    cadence::alternation::Turns,
    ids::RouteId,
    route::{
        brownout::Health,
        drain::Drain,
        event::Reason,
        history::History,
        hold_down::Hold,
        mtu::PathMtu,
        params::Timing,
        route_stats::{Inbound, Quality},
        spec::RouteSpec,
        status::RouteState,
    },
    time::Time,
};

/// Heartbeats a route that was lost must be heard with before it counts again (knet's
/// pong_count): one stray packet of a dying path proves nothing.
const HEARD_AGAIN: u8 = 2;

/// What the peer last said of its end of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) heard: bool,
    pub(crate) local_down: bool,
    pub(crate) admin_down: bool,
    pub(crate) draining: bool,
    pub(crate) carries: bool,
}

/// One route.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) id: RouteId,
    pub(crate) spec: RouteSpec,
    /// The peer's number of it; 0 until heard.
    pub(crate) remote: u32,
    pub(crate) admin_down: bool,
    pub(crate) drain: Drain,
    /// The local faults that hold.
    faults: Vec<Reason>,
    pub(crate) rx: bool,
    pub(crate) last_heard: Option<Time>,
    /// When a heartbeat of ours was last answered here: both directions worked.
    pub(crate) last_answered: Option<Time>,
    /// When rx ends unless something is heard.
    pub(crate) deadline: Option<Time>,
    /// When to warn that 40 % of the threshold are missed; `None` once warned.
    pub(crate) warning: Option<Time>,
    streak: u8,
    /// Serial of the heartbeat heard last: a copy of it proves nothing more.
    heard_serial: Option<u32>,
    was_lost: bool,
    pub(crate) word: Option<Word>,
    pub(crate) tx: bool,
    /// rx and tx as they were settled last.
    proven: (bool, bool),
    /// Since when data stays unacknowledged here, while the route is up.
    pub(crate) suspect: Option<Time>,
    pub(crate) suspect_end: Option<Time>,
    pub(crate) next_request: Option<Time>,
    pub(crate) last_request: Option<Time>,
    pub(crate) turns: Turns,
    pub(crate) state: RouteState,
    pub(crate) last_change: Time,
    pub(crate) reason: Reason,
    /// Why rx ended, or never began.
    silent: Reason,
    /// Why the route lost a direction, or was taken out of use, last.
    pub(crate) left: Reason,
    pub(crate) hold: Hold,
    pub(crate) quality: Quality,
    pub(crate) inbound: Inbound,
    pub(crate) health: Health,
    pub(crate) history: History,
    pub(crate) sent: u64,
    pub(crate) missed: u64,
    pub(crate) mtu: PathMtu,
}

impl Route {
    pub(crate) fn new(id: RouteId, spec: RouteSpec, now: Time, history: usize) -> Self {
        let mtu = PathMtu::new(if spec.real_remote.is_ipv4() { 28 } else { 48 });
        Self {
            id,
            spec,
            remote: 0,
            admin_down: false,
            drain: Drain::default(),
            faults: Vec::new(),
            rx: false,
            last_heard: None,
            last_answered: None,
            deadline: None,
            warning: None,
            streak: 0,
            heard_serial: None,
            was_lost: false,
            word: None,
            tx: false,
            suspect: None,
            suspect_end: None,
            proven: (false, false),
            next_request: None,
            last_request: None,
            turns: Turns::default(),
            state: RouteState::Down,
            last_change: now,
            reason: Reason::Added,
            silent: Reason::Added,
            left: Reason::Added,
            hold: Hold::default(),
            quality: Quality::default(),
            inbound: Inbound::default(),
            health: Health::default(),
            history: History::new(history),
            sent: 0,
            missed: 0,
            mtu,
        }
    }

    pub(crate) fn detection_time(&self) -> Duration {
        self.spec.timing.detection_time()
    }

    pub(crate) fn delay(&self) -> Duration {
        self.spec.timing.delay.duration()
    }

    pub(crate) fn faulty(&self) -> bool {
        !self.faults.is_empty()
    }

    /// Asks at `at` at the latest, whoever's turn it is.
    pub(crate) fn ask_by(&mut self, at: Time) {
        self.next_request = self.next_request.map(|planned| planned.min(at));
        self.turns.hurry();
    }

    /// Asks as soon as may be without what it asks becoming a flood: four times per delay.
    pub(crate) fn ask_soon(&mut self, now: Time) {
        let soonest = self.last_request.map_or(now, |last| last + self.delay() / 4);
        self.ask_by(soonest.max(now));
    }

    /// Whether it may be asked now because it is this end's turn on another route.
    pub(crate) fn joins(&self, now: Time) -> bool {
        let soonest = self.last_request.map(|last| Turns::soonest(last, self.delay()));
        self.turns.waits() && soonest.is_some_and(|soonest| soonest <= now)
    }

    /// Whether the ends may ask in turn: a silence of two delays is far from the detection time,
    /// and a reply comes long before the peer's next request.
    pub(crate) fn takes_turns(&self) -> bool {
        let near = self.quality.rtt().is_some_and(|rtt| rtt * 4 <= self.delay());
        near && self.spec.timing.threshold.get() >= 4 && self.is_calm()
    }

    /// Asks within the delay after all where something is amiss.
    pub(crate) fn keep_pace(&mut self, now: Time) {
        if !self.is_calm() {
            self.turns.upset();
        }
        if self.turns.regrets() {
            let latest = self.last_request.map_or(now, |last| last + self.delay()).max(now);
            self.next_request = self.next_request.map(|planned| planned.min(latest));
        }
    }

    /// Nothing is amiss that both ends had better look at every delay.
    pub(crate) fn is_calm(&self) -> bool {
        self.state == RouteState::Up
            && self.suspect.is_none()
            && !self.drain.ordered()
            && !self.mtu.searches()
            && self.inbound.loss_permille() == 0
    }

    /// Whether the control session may use it: that is QUIC whatever the carrier, and needs no
    /// connection of the route's own.
    pub(crate) fn reaches(&self) -> bool {
        self.faults.iter().all(|fault| *fault == Reason::NoConnection)
    }

    /// When to wake up for the warning. Where this end asks soon anyway it can wait until then.
    pub(crate) fn early_warning(&self) -> Option<Time> {
        self.warning.filter(|_| !self.turns.waits())
    }

    /// Whether a timer of the heartbeats, or of a suspicion, is due.
    pub(crate) fn due(&self, now: Time) -> bool {
        let timers = [self.deadline, self.warning, self.suspect_until()];
        timers.into_iter().flatten().any(|at| at <= now)
    }

    /// When a suspicion ends at the latest.
    pub(crate) fn suspect_until(&self) -> Option<Time> {
        self.suspect.and(self.suspect_end)
    }

    /// May carry data: both ways proven, or at least ours.
    pub(crate) fn usable(&self) -> bool {
        self.tx && !self.faulty() && !self.admin_down
    }

    /// Counts a heartbeat as heard. Returns whether rx began with it.
    pub(crate) fn hear(&mut self, now: Time, serial: u32) -> bool {
        let gap = self.last_heard.map(|last| now.since(last));
        let delay = self.delay();
        self.turns.heard(gap, delay);
        if let Some(gap) = gap.filter(|gap| self.rx && *gap >= delay * 2) {
            // The heartbeat that ended the gap was not missed.
            self.missed += (gap.as_nanos() / delay.as_nanos()) as u64 - 1;
        }
        let recent = gap.is_some_and(|gap| gap < self.detection_time());
        let copy = self.heard_serial.replace(serial) == Some(serial);
        self.streak = match (recent, copy) {
            (true, true) => self.streak.max(1),
            (true, false) => self.streak.saturating_add(1),
            (false, _) => 1,
        };
        self.last_heard = Some(now);
        let needed = if self.was_lost { HEARD_AGAIN } else { 1 };
        let begins = !self.rx && self.streak >= needed && !self.faulty();
        if begins {
            self.rx = true;
            self.inbound = Inbound::default();
            self.health.afresh();
        }
        if self.rx {
            // What was granted beyond the last heartbeat stays granted.
            let granted = [self.deadline, self.warning].map(|at| at.filter(|_| !begins));
            self.arm(now);
            self.deadline = self.deadline.max(granted[0]);
            self.warning = self.warning.max(granted[1]);
        }
        begins
    }

    /// The peer says that it was not scheduled for `stalled` just before what is about to be
    /// heard: what it did not send meanwhile was not lost here (reliability F-20).
    pub(crate) fn excuse(&mut self, now: Time, stalled: Duration) {
        let Some(last) = self.last_heard else { return };
        // It says so for a second: only a silence that spans the stall is excused by it.
        let silence = now.since(last);
        if silence + self.delay() * 2 < stalled {
            return;
        }
        self.last_heard = Some((last + stalled).min(now));
        self.suspect = None;
        if !self.rx && silence <= stalled + self.detection_time() {
            self.hold.excuse();
        }
    }

    /// Sets the deadline and the warning from `since`, when something was heard last.
    pub(crate) fn arm(&mut self, since: Time) {
        self.deadline = Some(since + self.detection_time());
        self.warning = Some(since + self.delay() * u32::from(self.early()));
    }

    /// Missed heartbeats to warn at: two fifths of the threshold, rounded up (NetFT's
    /// NetftTwoFifthMissedHeartbeats).
    pub(crate) fn early(&self) -> u16 {
        (self.spec.timing.threshold.get() * 2).div_ceil(5)
    }

    /// Takes over a new timing. A shorter detection time begins when it is agreed on: what the
    /// peer sent at the old pace was in time (RFC 5880 section 6.8.3 has the same rule).
    pub(crate) fn retime(&mut self, now: Time, timing: Timing) {
        self.spec.timing = timing;
        let (Some(heard), Some(deadline)) = (self.last_heard, self.deadline) else { return };
        let warned = self.warning.is_none();
        let longer = heard + timing.detection_time() >= deadline;
        self.arm(if longer { heard } else { now });
        if !longer {
            self.deadline = self.deadline.min(Some(deadline));
        }
        if warned {
            self.warning = None;
        }
    }

    /// Something unread waits where heartbeats arrive: whoever reads there was not scheduled. The
    /// route gets a delay more, again and again, for one more detection time at most (F-20).
    pub(crate) fn unread(&mut self, now: Time) {
        let (Some(heard), Some(deadline)) = (self.last_heard, self.deadline) else { return };
        let most = heard + self.detection_time() * 2;
        self.deadline = Some(deadline.max((now + self.delay()).min(most)));
    }

    /// The detection time went by in silence.
    pub(crate) fn miss(&mut self) {
        self.missed += u64::from(self.spec.timing.threshold.get());
        self.silence(Reason::HeartbeatsMissed);
    }

    /// Nothing is heard here any more, for `cause`.
    pub(crate) fn silence(&mut self, cause: Reason) {
        if self.rx {
            self.was_lost = true;
        }
        self.rx = false;
        self.streak = 0;
        self.deadline = None;
        self.warning = None;
        self.silent = cause;
    }

    /// A local fault begins. Returns whether the route was whole.
    pub(crate) fn fault(&mut self, reason: Reason) -> bool {
        let whole = !self.faulty();
        if !self.faults.contains(&reason) {
            self.faults.push(reason);
        }
        self.silence(reason);
        whole
    }

    /// A local fault is over. Returns whether the route is whole by that.
    pub(crate) fn clear(&mut self, reason: Reason) -> bool {
        let before = self.faults.len();
        self.faults.retain(|fault| *fault != reason);
        before > 0 && self.faults.is_empty()
    }

    /// Forgets everything a session proved; the route starts afresh.
    pub(crate) fn reset(&mut self, cause: Reason) {
        self.silence(cause);
        self.was_lost = false;
        self.remote = 0;
        self.word = None;
    }

    /// Takes over whether this node may send here, and derives the state from all that is
    /// proven. Returns the state before, if it was another.
    pub(crate) fn settle(&mut self, now: Time, tx: bool) -> Option<RouteState> {
        self.tx = tx && !self.faulty();
        let to = self.derive();
        let from = std::mem::replace(&mut self.state, to);
        let (rx, tx) = std::mem::replace(&mut self.proven, (self.rx, self.tx));
        // Heartbeats go on out of use, so nothing is lost or gained by coming back.
        let (rx, tx) = if from == RouteState::AdminDown { (false, false) } else { (rx, tx) };
        let lost = (rx && !self.rx, tx && !self.tx);
        let reason = self.why(lost);
        if lost != (false, false) || to == RouteState::AdminDown {
            self.left = reason;
        }
        if from == to {
            return None;
        }
        self.last_change = now;
        self.reason = reason;
        // The heartbeats have decided.
        self.suspect = None;
        Some(from)
    }

    fn derive(&self) -> RouteState {
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

    /// Why the route is in its state, having lost these directions.
    fn why(&self, (lost_rx, lost_tx): (bool, bool)) -> Reason {
        if let Some(fault) = self.faults.last().filter(|_| !self.admin_down) {
            return *fault;
        }
        match (self.state, self.rx) {
            (RouteState::AdminDown, _) => Reason::Admin,
            (RouteState::Up, _) => Reason::BothWays,
            _ if lost_rx => self.silent,
            _ if lost_tx => self.mute(),
            (RouteState::Init, true) => Reason::Heard,
            (RouteState::Init, false) => Reason::PeerHears,
            (RouteState::Down, _) => self.silent,
        }
    }

    /// Why this node may not send here.
    fn mute(&self) -> Reason {
        match self.word {
            None if self.remote == 0 => self.silent,
            Some(word) if word.admin_down => Reason::PeerAdmin,
            Some(word) if word.local_down => Reason::PeerLocalDown,
            Some(word) if word.heard => Reason::HeardNowhere,
            None | Some(_) => Reason::PeerDoesNotHear,
        }
    }
}

#[cfg(test)]
mod tests;
