//! The resend ring: sealed frames stay where they were sealed until they are acknowledged.
//!
//! Frames are independent of the route, so what a dying route swallowed is sent again byte for
//! byte on another one, and the receiver's replay window delivers each exactly once. Nothing is
//! copied: [`Out`](super::out::Out) seals into a chunk, and the ring remembers which part of it
//! was one send. A chunk whose sends are all acknowledged is the next to be used, so in good
//! times a few chunks circulate in the cache.
//!
//! Bounds: [`MAX_BYTES`] and [`MAX_AGE`] per peer; the oldest is forgotten first, and counted.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::chunks::PAGE;
use crate::{
    id::{PeerId, RouteId},
    route::recovery::Recovery,
    time::Time,
    wire::{
        ack::{Ack, Range},
        header::Header,
        session::Session,
    },
};

/// Bytes of memory one peer's unacknowledged frames may hold.
pub(super) const MAX_BYTES: usize = 64 << 20;
/// How long an unacknowledged frame is kept.
pub(super) const MAX_AGE: Duration = Duration::from_secs(1);
/// Frames older than this were lost alone, not with their route: their neighbours arrived.
const STRAGGLER: u64 = 1024;

/// The place of one send in the chunks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) chunk: usize,
    pub(super) start: usize,
    pub(super) len: usize,
    pub(super) stride: usize,
}

impl Place {
    /// Memory it holds, bytes: sends start a whole number of pages apart.
    fn span(self) -> usize {
        self.len.next_multiple_of(PAGE)
    }
}

/// One send that is not wholly acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) place: Place,
    pub(super) frames: u32,
    /// Bit n: frame n is acknowledged.
    pub(super) acked: u64,
    first: u64,
    last: u64,
    pub(super) route: RouteId,
    at: Time,
    again: bool,
    /// A copy went over another route: that it arrived says nothing about this one.
    copied: bool,
}

/// Routes remembered beyond those something waits on.
const MAX_LANES: usize = 8;

/// What the acknowledgements say about one route. Each speaks for itself: what another route
/// delivers says nothing about this one.
#[derive(Clone, Copy, Debug)]
struct Lane {
    route: RouteId,
    recovery: Recovery,
    /// The highest counter known to have arrived of what was sent here.
    highest: u64,
    /// When the peer last acknowledged anything sent here.
    progress: Time,
    /// When the newest send of an acknowledgement left.
    sampled: Option<Time>,
    /// Sends that wait.
    waiting: usize,
}

impl Lane {
    fn heard(&mut self, now: Time, highest: u64) {
        if highest > self.highest {
            self.highest = highest;
            self.progress = now;
        }
    }
}

/// What waits for one peer's acknowledgement.
pub(super) struct Flight {
    pub(super) peer: PeerId,
    pub(super) session: Arc<Session>,
    seen: u64,
    pub(super) sent: VecDeque<Sent>,
    bytes: usize,
    lanes: Vec<Lane>,
    highest: u64,
    /// How often in a row silence made a route suspect: the timeout doubles each time, so that a
    /// peer that is merely slow is not flooded with copies.
    strikes: u32,
    /// The route of the newest send.
    pub(super) route: RouteId,
}

impl Flight {
    pub(super) fn new(session: Arc<Session>, route: RouteId, now: Time) -> Self {
        let mut flight = Self {
            peer: session.peer(),
            session,
            seen: 0,
            sent: VecDeque::new(),
            bytes: 0,
            lanes: Vec::new(),
            highest: 0,
            strikes: 0,
            route,
        };
        flight.lane(route, now);
        flight
    }

    /// The lane of a route. A new one starts from what the newest send's showed.
    fn lane(&mut self, route: RouteId, now: Time) -> &mut Lane {
        let place = match self.lanes.iter().position(|lane| lane.route == route) {
            Some(place) => place,
            None => {
                if self.lanes.len() >= MAX_LANES {
                    self.lanes.retain(|lane| lane.waiting > 0);
                }
                let newest = self.lanes.iter().find(|lane| lane.route == self.route);
                let recovery = newest.map_or_else(Recovery::default, |lane| lane.recovery);
                self.lanes.push(Lane {
                    route,
                    recovery,
                    highest: 0,
                    progress: now,
                    sampled: None,
                    waiting: 0,
                });
                self.lanes.len() - 1
            }
        };
        &mut self.lanes[place]
    }

    /// Remembers a send: the counters of its first and last frame, its route, and whether a copy of
    /// it went over another one.
    pub(super) fn note(
        &mut self,
        place: Place,
        (first, last): (u64, u64),
        (route, copied): (RouteId, bool),
        now: Time,
    ) {
        self.lane(route, now).waiting += 1;
        let frames = place.len.div_ceil(place.stride) as u32;
        self.route = route;
        self.bytes += place.span();
        self.sent.push_back(Sent {
            place,
            frames,
            acked: 0,
            first,
            last,
            route,
            at: now,
            again: false,
            copied,
        });
    }

    /// Takes in what the peer acknowledged. `alone`: all data of the session uses one route at a
    /// time, so whatever arrived, sent by any worker, speaks for it. `forget` gets the chunk of
    /// every finished send, `read` the bytes of a place.
    pub(super) fn hear<'a>(
        &mut self,
        now: Time,
        alone: bool,
        read: impl Fn(Place) -> &'a [u8],
        mut forget: impl FnMut(usize),
    ) {
        let Some(ack) = self.session.news(&mut self.seen) else { return };
        if ack.highest > self.highest {
            self.highest = ack.highest;
            self.strikes = 0;
            if alone {
                self.lanes.iter_mut().for_each(|lane| lane.heard(now, ack.highest));
            }
        }
        let Self { sent, lanes, .. } = self;
        for sent in sent {
            if sent.first > ack.highest {
                break;
            }
            let before = sent.acked;
            mark(sent, &ack, read(sent.place));
            if sent.acked == before || sent.copied {
                continue;
            }
            let Some(lane) = lanes.iter_mut().find(|lane| lane.route == sent.route) else {
                continue;
            };
            if !sent.again {
                lane.sampled = Some(sent.at);
            }
            let all = sent.acked == whole(sent.frames);
            lane.heard(now, if all { sent.last } else { sent.first });
        }
        for lane in lanes.iter_mut() {
            if let Some(at) = lane.sampled.take() {
                lane.recovery.sample(now.since(at));
            }
        }
        self.sent.retain(|sent| {
            let lane = lanes.iter_mut().find(|lane| lane.route == sent.route);
            let highest = lane.as_ref().map_or(0, |lane| lane.highest);
            let lost_alone = sent.last + STRAGGLER < highest;
            if sent.acked != whole(sent.frames) && !lost_alone {
                return true;
            }
            if let Some(lane) = lane {
                lane.waiting -= 1;
            }
            self.bytes -= sent.place.span();
            forget(sent.place.chunk);
            false
        });
    }

    /// Forgets what is too old or too much. Returns how many frames that were.
    pub(super) fn trim(&mut self, now: Time, mut forget: impl FnMut(usize)) -> u64 {
        let mut frames = 0;
        while let Some(oldest) = self.sent.front() {
            if self.bytes <= MAX_BYTES && now.since(oldest.at) <= MAX_AGE {
                break;
            }
            frames += u64::from(oldest.frames - oldest.acked.count_ones());
            self.bytes -= oldest.place.span();
            forget(oldest.place.chunk);
            let route = oldest.route;
            self.sent.pop_front();
            self.lane(route, now).waiting -= 1;
        }
        frames
    }

    /// How long the silence about the data may still last.
    pub(super) fn wait(&self, now: Time) -> Option<Duration> {
        let left = |lane: &Lane| {
            let sent = self.oldest_silent(lane)?;
            Some(self.timeout(lane).saturating_sub(now.since(sent.at.max(lane.progress))))
        };
        self.lanes.iter().filter_map(left).min()
    }

    /// The route that is suspect: data on it waits for longer than a probe timeout.
    pub(super) fn suspect(&self, now: Time) -> Option<RouteId> {
        let silent = |lane: &&Lane| {
            let oldest = self.oldest_silent(lane);
            oldest.is_some_and(|sent| now.since(sent.at.max(lane.progress)) >= self.timeout(lane))
        };
        self.lanes.iter().find(silent).map(|lane| lane.route)
    }

    fn timeout(&self, lane: &Lane) -> Duration {
        lane.recovery.timeout() * (1 << self.strikes.min(6))
    }

    /// The oldest send on a route nothing after which was acknowledged there.
    fn oldest_silent(&self, lane: &Lane) -> Option<&Sent> {
        if lane.waiting == 0 {
            return None;
        }
        let here = |sent: &&Sent| sent.route == lane.route;
        self.sent.iter().filter(here).find(|sent| sent.last > lane.highest && sent.acked == 0)
    }

    /// Silence made a route suspect.
    pub(super) fn strike(&mut self, route: RouteId, now: Time) {
        self.strikes += 1;
        self.lane(route, now).progress = now;
    }

    /// Notes that everything in flight on `from` was sent again on `to`.
    pub(super) fn moved(&mut self, from: RouteId, to: RouteId, now: Time) {
        for sent in self.sent.iter_mut().filter(|sent| sent.route == from) {
            sent.route = to;
            sent.again = true;
            sent.at = now;
        }
        let moved = std::mem::take(&mut self.lane(from, now).waiting);
        let lane = self.lane(to, now);
        lane.waiting += moved;
        lane.progress = now;
    }
}

/// All frames of a send.
fn whole(frames: u32) -> u64 {
    if frames >= 64 { u64::MAX } else { (1 << frames) - 1 }
}

fn mark(sent: &mut Sent, ack: &Ack, bytes: &[u8]) {
    let holds = |range: &Range, counter| range.first <= counter && counter <= range.last;
    if ack.ranges.iter().any(|range| range.first <= sent.first && sent.last <= range.last) {
        sent.acked = whole(sent.frames);
        return;
    }
    if !ack.ranges.iter().any(|range| range.first <= sent.last && sent.first <= range.last) {
        return;
    }
    for (place, frame) in bytes.chunks(sent.place.stride).enumerate() {
        let Ok(header) = Header::decode(frame) else { continue };
        if ack.ranges.iter().any(|range| holds(range, header.counter)) {
            sent.acked |= 1 << place;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{
        addr::VirtualAddrs,
        id::NodeKey,
        wire::session::{Cipher, SessionParams},
    };

    const ROUTE: RouteId = RouteId(1);
    const STRIDE: usize = 64;

    /// A flight, and the bytes of everything sent in it.
    struct Rig {
        flight: Flight,
        bytes: Vec<u8>,
        forgotten: usize,
        /// As for [`Flight::hear`].
        alone: bool,
        /// As for [`Flight::note`].
        copied: bool,
    }

    impl Rig {
        fn new() -> Self {
            let session = Session::new(SessionParams {
                peer: PeerId(0),
                peer_addrs: VirtualAddrs::derive(&NodeKey([1; 32])),
                local: 1,
                remote: 2,
                boot_id: 3,
                cipher: Cipher::Aes256Gcm,
                tx_secret: [1; 32],
                rx_secret: [2; 32],
            });
            let flight = Flight::new(Arc::new(session), ROUTE, Time::ZERO);
            Self { flight, bytes: Vec::new(), forgotten: 0, alone: true, copied: false }
        }

        fn send(&mut self, at: u64, counters: std::ops::Range<u64>) {
            self.send_on(ROUTE, at, counters);
        }

        fn send_on(&mut self, route: RouteId, at: u64, counters: std::ops::Range<u64>) {
            let start = self.bytes.len();
            for counter in counters.clone() {
                let kind = crate::wire::header::Kind::Data;
                let head = Header { kind, flags: 0, session: 2, counter }.encode();
                self.bytes.extend_from_slice(&head);
                self.bytes.resize(self.bytes.len() + STRIDE - head.len(), 0);
            }
            let place = Place { chunk: 0, start, len: self.bytes.len() - start, stride: STRIDE };
            let ends = (counters.start, counters.end - 1);
            self.flight.note(place, ends, (route, self.copied), Time::from_millis(at));
        }

        fn ack(&mut self, at: u64, ranges: &[(u64, u64)]) {
            let ranges: Vec<_> =
                ranges.iter().map(|(first, last)| Range { first: *first, last: *last }).collect();
            let highest = ranges[0].last;
            let ack = Ack { highest, stalled_ms: 0, ranges, routes: Vec::new() };
            self.flight.session.acknowledged(ack);
            let bytes = &self.bytes;
            let read = |place: Place| &bytes[place.start..place.start + place.len];
            self.flight.hear(Time::from_millis(at), self.alone, read, |_| self.forgotten += 1);
        }

        fn suspect(&self, at: u64) -> bool {
            self.flight.suspect(Time::from_millis(at)).is_some()
        }
    }

    #[test]
    fn what_is_acknowledged_is_forgotten_and_what_is_not_is_kept() {
        let mut rig = Rig::new();
        rig.send(0, 0..10);
        rig.send(0, 10..20);
        rig.ack(1, &[(12, 19), (0, 10)]);
        assert_eq!(rig.forgotten, 1);
        let kept = rig.flight.sent.front().unwrap();
        assert_eq!(kept.acked, 0b11_1111_1101, "counter 11 is missing");
        rig.ack(2, &[(0, 19)]);
        assert_eq!((rig.forgotten, rig.flight.sent.len(), rig.flight.bytes), (2, 0, 0));
    }

    #[test]
    fn silence_after_the_timeout_is_suspicious_and_the_timeout_doubles() {
        let mut rig = Rig::new();
        for at in 0..50 {
            rig.send(at * 10, at..at + 1);
            rig.ack(at * 10 + 1, &[(0, at)]);
        }
        assert!(!rig.suspect(10_000), "nothing waits");
        rig.send(1000, 50..51);
        assert!(!rig.suspect(1009));
        assert!(rig.suspect(1010));
        rig.flight.strike(ROUTE, Time::from_millis(1010));
        assert!(!rig.suspect(1029));
        assert!(rig.suspect(1030));
        rig.ack(1031, &[(0, 50)]);
        assert!(!rig.suspect(2000));
    }

    #[test]
    fn a_frame_lost_alone_makes_no_route_suspect_and_goes_in_time() {
        let mut rig = Rig::new();
        rig.send(0, 0..1);
        rig.send(0, 1..2);
        rig.ack(1, &[(1, 1)]);
        assert!(!rig.suspect(500), "its neighbour arrived: the route works");
        rig.send(2, 2000..2001);
        rig.ack(3, &[(1, 2000)]);
        assert!(rig.flight.sent.is_empty());
    }

    #[test]
    fn a_silent_route_is_suspect_although_another_one_delivers() {
        let other = RouteId(2);
        let mut rig = Rig { alone: false, ..Rig::new() };
        rig.send_on(other, 0, 1..2);
        let mut counter = 2;
        // Everything on the first route arrives, nothing on the other.
        for at in 0..49 {
            rig.send(at, counter..counter + 64);
            rig.ack(at + 1, &[(2, counter + 63)]);
            counter += 64;
            assert_eq!(rig.flight.suspect(Time::from_millis(at + 1)), None, "{at}");
        }
        assert_eq!(rig.flight.suspect(Time::from_millis(50)), Some(other));
        assert_eq!(rig.flight.sent.len(), 1, "3,000 counters later it is still kept");
        rig.flight.strike(other, Time::from_millis(50));
        rig.flight.moved(other, ROUTE, Time::from_millis(50));
        assert_eq!(rig.flight.suspect(Time::from_millis(1000)), None, "that one delivers");
        rig.ack(51, &[(0, counter)]);
        assert!(rig.flight.sent.is_empty());
    }

    #[test]
    fn what_arrived_as_a_copy_does_not_speak_for_the_route() {
        let mut rig = Rig { alone: false, ..Rig::new() };
        rig.send(0, 1..2);
        rig.copied = true;
        for counter in 2..20 {
            rig.send(counter, counter..counter + 1);
            rig.ack(counter + 1, &[(2, counter)]);
        }
        assert!(!rig.suspect(49));
        assert!(rig.suspect(50));
    }

    #[test]
    fn age_and_size_are_bounded_and_counted() {
        let mut rig = Rig::new();
        rig.send(0, 0..10);
        rig.send(500, 10..20);
        let mut gone = 0;
        assert_eq!(rig.flight.trim(Time::from_millis(1000), |_| gone += 1), 0);
        assert_eq!(rig.flight.trim(Time::from_millis(1001), |_| gone += 1), 10);
        assert_eq!(gone, 1);
        rig.flight.bytes = MAX_BYTES + 1;
        assert_eq!(rig.flight.trim(Time::from_millis(1001), |_| gone += 1), 10);
    }
}
