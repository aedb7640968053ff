//! What is in flight to one peer, and what to do about silence: which sends wait for their
//! acknowledgement, when a route is suspect of having swallowed them, and where they go again.
//! Pure: the packet path keeps the bytes and makes the system calls, the simulator keeps numbers.
//!
//! Frames are sealed once and independent of the route, so what a dying route swallowed goes out
//! again byte for byte on another one, and the receiver's replay window delivers each exactly once.
//!
//! * Each route's silence is judged by that route's own sends ([`lane`]): a send is *silent* while
//!   something of it and every later send of that size on the same route is not acknowledged.
//!   Silent for a probe timeout (RFC 9002 section 6.2), its route is suspect, and everything in
//!   flight there goes out again elsewhere.
//! * Before that the peer is asked over another route what arrived ([`ask`]). If it answers that
//!   something is missing, nobody waits for the timeout.
//! * A send with a later neighbour of its size on its route acknowledged was lost alone. That is
//!   TCP's business: hiding it would defeat congestion control.
//! * Unless it left after its route was found silent, and before anything passed there again: the
//!   engine has yet to hear of the silence then. Such a send was swallowed like those before it.
//! * A route the engine gave up before its data was missed loses its sends to the best one at once.
//! * The timeout doubles with each silence in a row, until something sent once is acknowledged
//!   (Karn; RFC 6298 section 5.7): what was sent twice does not tell which copy arrived. So a peer
//!   that is merely slow is not flooded with copies.
//! * A peer that says it was not scheduled gets that time on top.
//!
//! Bounds: [`Limits`]; the oldest is forgotten first, and counted.

mod ack_schedule;
mod delivered;
mod immediate_ack;
mod path;
pub mod rtt_estimator;
mod sent_frame;

use std::{collections::VecDeque, time::Duration};

pub use crate::loss_detection::{
    ack_schedule::Debt,
    immediate_ack::Question,
    sent_frame::{Frames, MAX_FRAMES, Sent},
};
use crate::{
    ids::RouteId,
    loss_detection::path::{Lane, Lanes},
    time::Time,
    wire::ack::Ack,
};

/// The default bytes one peer's unacknowledged frames may hold.
pub const DEFAULT_BYTES: usize = 64 << 20;
/// The default time an unacknowledged frame is kept.
pub const DEFAULT_AGE: Duration = Duration::from_secs(1);
/// The most a peer's own stall adds to the timeout: a route may die as well meanwhile.
const MAX_PATIENCE: Duration = Duration::from_millis(50);
/// How long a stall is told, and the peer's word about it counts.
pub const STALL_TOLD: Duration = Duration::from_millis(200);

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory; 0: nothing is kept, no acknowledgement is awaited.
    pub bytes: usize,
    /// How long after its first sending a frame is kept.
    pub age: Duration,
}

impl Limits {
    /// Whether nothing is kept.
    #[inline]
    pub const fn off(&self) -> bool {
        self.bytes == 0
    }
}

impl Default for Limits {
    /// 64 MiB and 1 s.
    fn default() -> Self {
        Self { bytes: DEFAULT_BYTES, age: DEFAULT_AGE }
    }
}

/// A route data may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The route.
    pub route: RouteId,
    /// Its round-trip time by its heartbeats; the timeout's beginning.
    pub rtt: Option<Duration>,
}

/// What left one route for another: to be sent at once, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The route it was sent on.
    pub from: RouteId,
    /// The route it goes out on again.
    pub to: RouteId,
    /// The route was silent: the engine has yet to judge it. Else the engine gave it up.
    pub suspect: bool,
    /// How long the oldest of it has waited since its first sending.
    pub waited: Duration,
    /// The sendings it became.
    orders: (u64, u64),
}

impl Move {
    fn is_empty(&self) -> bool {
        let (first, last) = self.orders;
        first > last
    }
}

/// What waits for one peer's acknowledgement. `P` is a send as its owner knows it.
#[derive(Debug)]
pub struct Flight<P> {
    limits: Limits,
    sent: VecDeque<Sent<P>>,
    bytes: usize,
    lanes: Lanes,
    /// Numbers every sending, first or again, over all routes.
    order: u64,
    /// Silences in a row.
    strikes: u32,
    /// How long the peer was not scheduled lately, and when it said so.
    patience: (Duration, Time),
    /// A silent route that is the only one.
    alone: Option<RouteId>,
}

impl<P> Flight<P> {
    /// Nothing in flight.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            sent: VecDeque::new(),
            bytes: 0,
            lanes: Lanes::default(),
            order: 0,
            strikes: 0,
            patience: (Duration::ZERO, Time::ZERO),
            alone: None,
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// Remembers a send. `doubled`: a copy went out on another route too, so its acknowledgement
    /// proves neither. Not to be called when the [`Limits`] are off.
    #[inline]
    pub fn note(&mut self, payload: P, frames: Frames, way: Way, doubled: bool, now: Time) {
        let lane = self.lanes.place(way, now);
        self.lanes.at(lane).waiting += 1;
        self.order += 1;
        self.bytes += frames.bytes;
        self.sent.push_back(Sent {
            payload,
            frames,
            acked: 0,
            lane,
            born: now,
            at: now,
            order: self.order,
            again: false,
            doubled,
            doubtful: self.lanes.get(lane).doubted,
        });
    }

    /// Takes in what the peer acknowledged. `counter` names the counter of the nth frame of a
    /// send; `forget` gets every send that is done with.
    pub fn hear(
        &mut self,
        now: Time,
        ack: &Ack,
        counter: impl Fn(&P, u32) -> u64,
        mut forget: impl FnMut(P),
    ) {
        let stalled = Duration::from_millis(ack.stalled_ms.into()).min(MAX_PATIENCE);
        if !stalled.is_zero() {
            self.patience = (stalled, now);
        }
        // A question or an answer took another way: it does not show that this one is alive.
        let came = (ack.asks == 0 && ack.answers == 0).then_some(now);
        for sent in &mut self.sent {
            if sent.frames.first > ack.highest {
                break;
            }
            if !sent.mark(ack, &counter) || sent.again {
                continue;
            }
            self.strikes = 0;
            if !sent.doubled {
                self.lanes.at(sent.lane).credit(sent, came);
            }
        }
        // A peer that was not scheduled shows its own time, not the route's.
        self.lanes.measure(now, stalled.is_zero());
        let Self { sent, lanes, bytes, .. } = self;
        let mut place = 0;
        while let Some(one) = sent.get(place).filter(|one| one.frames.first <= ack.highest) {
            let lane = lanes.at(one.lane);
            let lost = !one.done() && lane.lost(one);
            lane.lost_in_doubt |= lost && one.doubtful;
            if !one.done() && (!lost || one.doubtful) {
                place += 1;
                continue;
            }
            if let Some(gone) = sent.remove(place) {
                lanes.at(gone.lane).waiting -= 1;
                *bytes -= gone.frames.bytes;
                forget(gone.payload);
            }
        }
    }

    /// Forgets what is too old or too much. Returns how many frames that were.
    pub fn trim(&mut self, now: Time, mut forget: impl FnMut(P)) -> u64 {
        let mut frames = 0;
        while let Some(oldest) = self.sent.front() {
            let young = now.since(oldest.born) <= self.limits.age;
            if young && self.bytes <= self.limits.bytes {
                break;
            }
            let Some(gone) = self.sent.pop_front() else { break };
            frames += u64::from(gone.missing());
            self.bytes -= gone.frames.bytes;
            self.lanes.at(gone.lane).waiting -= 1;
            forget(gone.payload);
        }
        frames
    }

    /// What to send again, if anything: everything in flight on one route. Call again until it
    /// says nothing. `usable`: the routes data may take, best first. `quiet`: everything that
    /// arrived was taken in, so silence proves something (who was not scheduled drains its sockets
    /// before it blames anyone).
    pub fn decide(
        &mut self,
        now: Time,
        usable: impl Iterator<Item = Way> + Clone,
        quiet: bool,
    ) -> Option<Move> {
        let given_up = |lane: &Lane| usable.clone().all(|way| way.route != lane.route);
        if let Some(from) = self.lanes.find(|lane| lane.waiting > 0 && given_up(lane))
            && let Some(to) = usable.clone().next()
        {
            return Some(self.move_off(from, to, false, now, |_, _| true));
        }
        while let Some(from) = self.lanes.find(|lane| lane.lost_in_doubt) {
            let lane = self.lanes.at(from);
            lane.lost_in_doubt = false;
            let Some(to) = usable.clone().find(|way| way.route != lane.route) else {
                // TCP's business after all.
                self.sent.iter_mut().for_each(|sent| sent.doubtful &= sent.lane != from);
                continue;
            };
            let moved =
                self.move_off(from, to, false, now, |lane, sent| sent.doubtful && lane.lost(sent));
            if !moved.is_empty() {
                return Some(moved);
            }
        }
        if !quiet {
            return None;
        }
        for from in self.lanes.places() {
            let swallowed = self.swallowed(from);
            if !swallowed && !self.overdue(from, now).is_some_and(|left| left.is_zero()) {
                continue;
            }
            self.strikes += 1;
            self.lanes.at(from).strike(now);
            let lane = self.lanes.at(from).route;
            // Of those that were silent themselves, the least often.
            let others = usable.clone().filter(|way| way.route != lane);
            let Some(to) = others.min_by_key(|way| self.lanes.strikes(way.route)) else {
                // Nowhere else to go, and still worth a look: it may have become too narrow.
                self.alone = Some(lane);
                continue;
            };
            self.lanes.at(from).doubted = true;
            return Some(self.move_off(from, to, true, now, |_, _| true));
        }
        None
    }

    /// The only route there is, if it was silent since the last call.
    pub fn take_alone(&mut self) -> Option<RouteId> {
        self.alone.take()
    }

    /// The sends of a move, in the order of their counters.
    pub fn moved(&self, moved: &Move) -> impl Iterator<Item = &Sent<P>> {
        let (first, last) = moved.orders;
        self.sent.iter().filter(move |sent| first <= sent.order && sent.order <= last)
    }

    /// How long until [`decide`](Self::decide) or [`ask`](Self::ask) may have something to say by
    /// itself.
    pub fn wait(&self, now: Time) -> Option<Duration> {
        let waits = |lane| [self.overdue(lane, now), self.curious(lane, now)];
        self.lanes.places().flat_map(waits).flatten().min()
    }

    /// How long silence on a route may last at this moment.
    pub fn timeout(&self, route: RouteId, now: Time) -> Option<Duration> {
        let lane = self.lanes.find(|lane| lane.route == route)?;
        Some(self.timeout_of(lane, now))
    }

    fn timeout_of(&self, lane: usize, now: Time) -> Duration {
        let (stalled, said) = self.patience;
        let patience = if now.since(said) < STALL_TOLD { stalled } else { Duration::ZERO };
        self.lanes.get(lane).recovery.timeout() * (1 << self.strikes.min(6)) + patience
    }

    /// How long the silence about a route's oldest silent send may still last.
    fn overdue(&self, lane: usize, now: Time) -> Option<Duration> {
        let since = self.silent_since(lane)?;
        Some(self.timeout_of(lane, now).saturating_sub(now.since(since)))
    }

    /// Since when a route is silent about what it was given.
    fn silent_since(&self, lane: usize) -> Option<Time> {
        let state = self.lanes.get(lane);
        if state.waiting == 0 {
            return None;
        }
        let oldest = self.silent(lane).next()?;
        let progress = state.passed.progress(oldest.largest_missing());
        Some(oldest.at.max(state.since).max(progress))
    }

    /// The sends a route is silent about.
    fn silent(&self, lane: usize) -> impl Iterator<Item = &Sent<P>> {
        let passed = self.lanes.get(lane).passed;
        let silent = move |sent: &&Sent<P>| !passed.covers(sent.order, sent.largest_missing());
        self.sent.iter().filter(move |sent| sent.lane == lane).filter(silent)
    }

    /// Numbers what leaves a route anew, as sent on another one.
    fn move_off(
        &mut self,
        from: usize,
        way: Way,
        suspect: bool,
        now: Time,
        which: impl Fn(&Lane, &Sent<P>) -> bool,
    ) -> Move {
        let to = self.lanes.place(way, now);
        let doubtful = self.lanes.get(to).doubted;
        let first = self.order + 1;
        let mut waited = Duration::ZERO;
        for sent in self.sent.iter_mut().filter(|sent| sent.lane == from) {
            if !which(self.lanes.get(from), sent) {
                continue;
            }
            self.order += 1;
            (sent.order, sent.at, sent.lane) = (self.order, now, to);
            (sent.again, sent.doubtful) = (true, doubtful);
            waited = waited.max(now.since(sent.born));
            self.lanes.at(from).waiting -= 1;
            self.lanes.at(to).waiting += 1;
        }
        let from = self.lanes.get(from).route;
        Move { from, to: way.route, suspect, waited, orders: (first, self.order) }
    }
}

#[cfg(test)]
mod tests;
