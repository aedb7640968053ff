//! What is in flight to one peer, and what to do about silence: which sends wait for their
//! acknowledgement, when a route is suspect of having swallowed them, and where they go again.
//! Pure: the packet path keeps the bytes and makes the system calls, the simulator keeps numbers.
//!
//! Frames are sealed once and independent of the route, so what a dying route swallowed goes out
//! again byte for byte on another one, and the receiver's replay window delivers each exactly once.
//!
//! * Each route's silence is judged by that route's own sends (`path`): a send is *silent* while
//!   something of it and every later send of that size on the same route is not acknowledged.
//!   Silent for a probe timeout (RFC 9002 section 6.2), its route is suspect, and everything in
//!   flight there goes out again elsewhere.
//! * Before that the peer is asked over another route what arrived
//!   ([`request_immediate_ack`](SentFrames::request_immediate_ack)). If it answers that something
//!   is missing, nobody waits for the timeout.
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
//! Bounds: [`RetransmitLimits`]; the oldest is forgotten first, and counted.

mod ack_schedule;
mod delivered;
mod immediate_ack;
mod path;
pub mod rtt_estimator;
mod sent_frame;

use std::{collections::VecDeque, time::Duration};

pub use crate::loss_detection::{
    ack_schedule::AckSchedule,
    immediate_ack::ImmediateAckRequest,
    sent_frame::{BatchLayout, MAX_FRAMES, SentBatch},
};
use crate::{
    ids::RouteId,
    loss_detection::path::{PathState, PathStates},
    time::Time,
    wire::ack::Ack,
};

/// The default bytes one peer's unacknowledged frames may hold.
pub const DEFAULT_BYTES: usize = 64 << 20;
/// The default time an unacknowledged frame is kept.
pub const DEFAULT_AGE: Duration = Duration::from_secs(1);
/// The most a peer's own stall adds to the timeout: a route may die as well meanwhile.
const MAX_PEER_STALL: Duration = Duration::from_millis(50);
/// How long a stall is told, and the peer's word about it counts.
pub const STALL_REPORT_PERIOD: Duration = Duration::from_millis(200);

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetransmitLimits {
    /// Bytes of memory; 0: nothing is kept, no acknowledgement is awaited.
    pub bytes: usize,
    /// How long after its first sending a frame is kept.
    pub age: Duration,
}

impl RetransmitLimits {
    /// Whether nothing is kept.
    #[inline]
    pub const fn is_disabled(&self) -> bool {
        self.bytes == 0
    }
}

impl Default for RetransmitLimits {
    /// 64 MiB and 1 s.
    fn default() -> Self {
        Self { bytes: DEFAULT_BYTES, age: DEFAULT_AGE }
    }
}

/// A route data may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsablePath {
    /// The route.
    pub route: RouteId,
    /// Its round-trip time by its heartbeats; the timeout's beginning.
    pub rtt: Option<Duration>,
}

/// What left one route for another: to be sent at once, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reroute {
    /// The route it was sent on.
    pub from: RouteId,
    /// The route it goes out on again.
    pub to: RouteId,
    /// The route was silent: the engine has yet to judge it. Else the engine gave it up.
    pub suspect: bool,
    /// How long the oldest of it has waited since its first sending.
    pub waited: Duration,
    /// The sendings it became.
    send_numbers: (u64, u64),
}

impl Reroute {
    fn is_empty(&self) -> bool {
        let (first, last) = self.send_numbers;
        first > last
    }
}

/// What waits for one peer's acknowledgement. `P` is a send as its owner knows it.
#[derive(Debug)]
pub struct SentFrames<P> {
    limits: RetransmitLimits,
    batches: VecDeque<SentBatch<P>>,
    bytes: usize,
    paths: PathStates,
    /// Numbers every sending, first or again, over all routes.
    last_send_number: u64,
    /// Silences in a row.
    pto_count: u32,
    /// How long the peer was not scheduled lately, and when it said so.
    peer_stall: (Duration, Time),
    /// A silent route that is the only one.
    sole_path_silent: Option<RouteId>,
}

impl<P> SentFrames<P> {
    /// Nothing in flight.
    pub fn new(limits: RetransmitLimits) -> Self {
        Self {
            limits,
            batches: VecDeque::new(),
            bytes: 0,
            paths: PathStates::default(),
            last_send_number: 0,
            pto_count: 0,
            peer_stall: (Duration::ZERO, Time::ZERO),
            sole_path_silent: None,
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Remembers a send. `doubled`: a copy went out on another route too, so its acknowledgement
    /// proves neither. Not to be called when the [`RetransmitLimits`] are off.
    #[inline]
    pub fn on_sent(
        &mut self,
        payload: P,
        frames: BatchLayout,
        way: UsablePath,
        doubled: bool,
        now: Time,
    ) {
        let path_index = self.paths.index_for_send(way, now);
        self.paths.get_mut(path_index).in_flight += 1;
        self.last_send_number += 1;
        self.bytes += frames.bytes;
        self.batches.push_back(SentBatch {
            payload,
            layout: frames,
            acked: 0,
            path_index,
            first_sent_at: now,
            last_sent_at: now,
            send_number: self.last_send_number,
            resent: false,
            duplicated: doubled,
            sent_while_suspect: self.paths.get(path_index).suspect,
        });
    }

    /// Takes in what the peer acknowledged. `counter` names the counter of the nth frame of a
    /// send; `forget` gets every send that is done with.
    pub fn on_ack_received(
        &mut self,
        now: Time,
        ack: &Ack,
        counter: impl Fn(&P, u32) -> u64,
        mut forget: impl FnMut(P),
    ) {
        let stalled = Duration::from_millis(ack.stalled_ms.into()).min(MAX_PEER_STALL);
        if !stalled.is_zero() {
            self.peer_stall = (stalled, now);
        }
        // A question or an answer took another way: it does not show that this one is alive.
        let came = (ack.immediate_ack_request == 0 && ack.immediate_ack_reply == 0).then_some(now);
        for sent in &mut self.batches {
            if sent.layout.first > ack.highest {
                break;
            }
            if !sent.apply_ack(ack, &counter) || sent.resent {
                continue;
            }
            self.pto_count = 0;
            if !sent.duplicated {
                self.paths.get_mut(sent.path_index).on_delivered(sent, came);
            }
        }
        // A peer that was not scheduled shows its own time, not the route's.
        self.paths.take_rtt_samples(now, stalled.is_zero());
        let Self { batches: sent, paths: lanes, bytes, .. } = self;
        let mut place = 0;
        while let Some(one) = sent.get(place).filter(|one| one.layout.first <= ack.highest) {
            let path = lanes.get_mut(one.path_index);
            let lost = !one.is_acked() && path.is_lost(one);
            path.lost_while_suspect |= lost && one.sent_while_suspect;
            if !one.is_acked() && (!lost || one.sent_while_suspect) {
                place += 1;
                continue;
            }
            if let Some(gone) = sent.remove(place) {
                lanes.get_mut(gone.path_index).in_flight -= 1;
                *bytes -= gone.layout.bytes;
                forget(gone.payload);
            }
        }
    }

    /// Forgets what is too old or too much. Returns how many frames that were.
    pub fn discard_expired(&mut self, now: Time, mut forget: impl FnMut(P)) -> u64 {
        let mut frames = 0;
        while let Some(oldest) = self.batches.front() {
            let young = now.since(oldest.first_sent_at) <= self.limits.age;
            if young && self.bytes <= self.limits.bytes {
                break;
            }
            let Some(gone) = self.batches.pop_front() else { break };
            frames += u64::from(gone.missing_count());
            self.bytes -= gone.layout.bytes;
            self.paths.get_mut(gone.path_index).in_flight -= 1;
            forget(gone.payload);
        }
        frames
    }

    /// What to send again, if anything: everything in flight on one route. Call again until it
    /// says nothing. `usable`: the routes data may take, best first. `quiet`: everything that
    /// arrived was taken in, so silence proves something (who was not scheduled drains its sockets
    /// before it blames anyone).
    pub fn poll_reroute(
        &mut self,
        now: Time,
        usable: impl Iterator<Item = UsablePath> + Clone,
        quiet: bool,
    ) -> Option<Reroute> {
        let given_up = |path: &PathState| usable.clone().all(|way| way.route != path.route);
        if let Some(from) = self.paths.find_index(|path| path.in_flight > 0 && given_up(path))
            && let Some(to) = usable.clone().next()
        {
            return Some(self.reroute_batches(from, to, false, now, |_, _| true));
        }
        while let Some(from) = self.paths.find_index(|path| path.lost_while_suspect) {
            let path = self.paths.get_mut(from);
            path.lost_while_suspect = false;
            let Some(to) = usable.clone().find(|way| way.route != path.route) else {
                // TCP's business after all.
                self.batches
                    .iter_mut()
                    .for_each(|sent| sent.sent_while_suspect &= sent.path_index != from);
                continue;
            };
            let moved = self.reroute_batches(from, to, false, now, |path, sent| {
                sent.sent_while_suspect && path.is_lost(sent)
            });
            if !moved.is_empty() {
                return Some(moved);
            }
        }
        if !quiet {
            return None;
        }
        for from in self.paths.indices() {
            let swallowed = self.take_confirmed_loss(from);
            if !swallowed && !self.until_pto(from, now).is_some_and(|left| left.is_zero()) {
                continue;
            }
            self.pto_count += 1;
            self.paths.get_mut(from).on_pto(now);
            let silent_route = self.paths.get_mut(from).route;
            // Of those that were silent themselves, the least often.
            let others = usable.clone().filter(|way| way.route != silent_route);
            let Some(to) = others.min_by_key(|way| self.paths.pto_count(way.route)) else {
                // Nowhere else to go, and still worth a look: it may have become too narrow.
                self.sole_path_silent = Some(silent_route);
                continue;
            };
            self.paths.get_mut(from).suspect = true;
            return Some(self.reroute_batches(from, to, true, now, |_, _| true));
        }
        None
    }

    /// The only route there is, if it was silent since the last call.
    pub fn take_sole_path_silent(&mut self) -> Option<RouteId> {
        self.sole_path_silent.take()
    }

    /// The sends of a move, in the order of their counters.
    pub fn rerouted_batches(&self, moved: &Reroute) -> impl Iterator<Item = &SentBatch<P>> {
        let (first, last) = moved.send_numbers;
        self.batches
            .iter()
            .filter(move |sent| first <= sent.send_number && sent.send_number <= last)
    }

    /// How long until [`poll_reroute`](Self::poll_reroute) or
    /// [`request_immediate_ack`](SentFrames::request_immediate_ack)(Self::request_immediate_ack)
    /// may have something to say by itself.
    pub fn until_next_timeout(&self, now: Time) -> Option<Duration> {
        let waits =
            |path_index| [self.until_pto(path_index, now), self.until_ack_request(path_index, now)];
        self.paths.indices().flat_map(waits).flatten().min()
    }

    /// How long silence on a route may last at this moment.
    pub fn pto_for_route(&self, route: RouteId, now: Time) -> Option<Duration> {
        let path_index = self.paths.find_index(|lane| lane.route == route)?;
        Some(self.pto_for_path(path_index, now))
    }

    fn pto_for_path(&self, path_index: usize, now: Time) -> Duration {
        let (stalled, said) = self.peer_stall;
        let allowance =
            if now.since(said) < STALL_REPORT_PERIOD { stalled } else { Duration::ZERO };
        self.paths.get(path_index).rtt_estimator.pto() * (1 << self.pto_count.min(6)) + allowance
    }

    /// How long the silence about a route's oldest silent send may still last.
    fn until_pto(&self, path_index: usize, now: Time) -> Option<Duration> {
        let since = self.silent_since(path_index)?;
        Some(self.pto_for_path(path_index, now).saturating_sub(now.since(since)))
    }

    /// Since when a route is silent about what it was given.
    fn silent_since(&self, path_index: usize) -> Option<Time> {
        let state = self.paths.get(path_index);
        if state.in_flight == 0 {
            return None;
        }
        let oldest = self.silent_batches(path_index).next()?;
        let progress = state.delivered.last_progress(oldest.largest_missing());
        Some(oldest.last_sent_at.max(state.pto_base).max(progress))
    }

    /// The sends a route is silent about.
    fn silent_batches(&self, path_index: usize) -> impl Iterator<Item = &SentBatch<P>> {
        let passed = self.paths.get(path_index).delivered;
        let silent =
            move |sent: &&SentBatch<P>| !passed.covers(sent.send_number, sent.largest_missing());
        self.batches.iter().filter(move |sent| sent.path_index == path_index).filter(silent)
    }

    /// Numbers what leaves a route anew, as sent on another one.
    fn reroute_batches(
        &mut self,
        from: usize,
        way: UsablePath,
        suspect: bool,
        now: Time,
        which: impl Fn(&PathState, &SentBatch<P>) -> bool,
    ) -> Reroute {
        let to = self.paths.index_for_send(way, now);
        let doubtful = self.paths.get(to).suspect;
        let first = self.last_send_number + 1;
        let mut waited = Duration::ZERO;
        for sent in self.batches.iter_mut().filter(|sent| sent.path_index == from) {
            if !which(self.paths.get(from), sent) {
                continue;
            }
            self.last_send_number += 1;
            (sent.send_number, sent.last_sent_at, sent.path_index) =
                (self.last_send_number, now, to);
            (sent.resent, sent.sent_while_suspect) = (true, doubtful);
            waited = waited.max(now.since(sent.first_sent_at));
            self.paths.get_mut(from).in_flight -= 1;
            self.paths.get_mut(to).in_flight += 1;
        }
        let from = self.paths.get(from).route;
        Reroute {
            from,
            to: way.route,
            suspect,
            waited,
            send_numbers: (first, self.last_send_number),
        }
    }
}

#[cfg(test)]
mod tests;
