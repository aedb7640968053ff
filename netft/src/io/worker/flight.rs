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
}

/// What waits for one peer's acknowledgement.
pub(super) struct Flight {
    pub(super) peer: PeerId,
    pub(super) session: Arc<Session>,
    seen: u64,
    pub(super) sent: VecDeque<Sent>,
    bytes: usize,
    recovery: Recovery,
    /// When the peer last acknowledged anything, or data began to wait.
    progress: Time,
    highest: u64,
    /// How often in a row silence made a route suspect: the timeout doubles each time, so that a
    /// peer that is merely slow is not flooded with copies.
    strikes: u32,
    /// The route of the newest send.
    pub(super) route: RouteId,
}

impl Flight {
    pub(super) fn new(session: Arc<Session>, route: RouteId, now: Time) -> Self {
        Self {
            peer: session.peer(),
            session,
            seen: 0,
            sent: VecDeque::new(),
            bytes: 0,
            recovery: Recovery::default(),
            progress: now,
            highest: 0,
            strikes: 0,
            route,
        }
    }

    /// Remembers a send. `first` and `last` are the headers of its first and last frame.
    pub(super) fn note(
        &mut self,
        place: Place,
        (first, last): (u64, u64),
        route: RouteId,
        now: Time,
    ) {
        if self.sent.is_empty() {
            self.progress = now;
        }
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
        });
    }

    /// Takes in what the peer acknowledged; `forget` gets the chunk of every finished send,
    /// `read` the bytes of a place.
    pub(super) fn hear<'a>(
        &mut self,
        now: Time,
        read: impl Fn(Place) -> &'a [u8],
        mut forget: impl FnMut(usize),
    ) {
        let Some(ack) = self.session.news(&mut self.seen) else { return };
        if ack.highest > self.highest {
            self.highest = ack.highest;
            self.progress = now;
            self.strikes = 0;
        }
        let mut newest = None;
        for sent in &mut self.sent {
            if sent.first > ack.highest {
                break;
            }
            let before = sent.acked;
            mark(sent, &ack, read(sent.place));
            if sent.acked != before && !sent.again {
                newest = Some(sent.at);
            }
        }
        if let Some(at) = newest {
            self.recovery.sample(now.since(at));
        }
        let highest = self.highest;
        self.sent.retain(|sent| {
            let lost_alone = sent.last + STRAGGLER < highest;
            if sent.acked != whole(sent.frames) && !lost_alone {
                return true;
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
            self.sent.pop_front();
        }
        frames
    }

    /// How long the silence about the data may still last.
    pub(super) fn wait(&self, now: Time) -> Option<Duration> {
        self.oldest_silent()?;
        Some(self.timeout().saturating_sub(now.since(self.since()?)))
    }

    /// The route that is suspect: data on it waits for longer than a probe timeout.
    pub(super) fn suspect(&self, now: Time) -> Option<RouteId> {
        let oldest = self.oldest_silent()?;
        (now.since(self.since()?) >= self.timeout()).then_some(oldest.route)
    }

    fn timeout(&self) -> Duration {
        self.recovery.timeout() * (1 << self.strikes.min(6))
    }

    /// The oldest send nothing after which was acknowledged.
    fn oldest_silent(&self) -> Option<&Sent> {
        self.sent.iter().find(|sent| sent.last > self.highest && sent.acked == 0)
    }

    fn since(&self) -> Option<Time> {
        Some(self.oldest_silent()?.at.max(self.progress))
    }

    /// Silence made its route suspect.
    pub(super) fn strike(&mut self, now: Time) {
        self.strikes += 1;
        self.progress = now;
    }

    /// How long the oldest send on a route has waited.
    pub(super) fn waited(&self, route: RouteId, now: Time) -> Duration {
        let waiting = self.sent.iter().filter(|sent| sent.route == route);
        waiting.map(|sent| now.since(sent.at)).max().unwrap_or_default()
    }

    /// Notes that everything in flight on `from` was sent again on `to`.
    pub(super) fn moved(&mut self, from: RouteId, to: RouteId, now: Time) {
        for sent in self.sent.iter_mut().filter(|sent| sent.route == from) {
            sent.route = to;
            sent.again = true;
            sent.at = now;
        }
        self.progress = now;
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
            Self { flight, bytes: Vec::new(), forgotten: 0 }
        }

        fn send(&mut self, at: u64, counters: std::ops::Range<u64>) {
            let start = self.bytes.len();
            for counter in counters.clone() {
                let kind = crate::wire::header::Kind::Data;
                let head = Header { kind, flags: 0, session: 2, counter }.encode();
                self.bytes.extend_from_slice(&head);
                self.bytes.resize(self.bytes.len() + STRIDE - head.len(), 0);
            }
            let place = Place { chunk: 0, start, len: self.bytes.len() - start, stride: STRIDE };
            let ends = (counters.start, counters.end - 1);
            self.flight.note(place, ends, ROUTE, Time::from_millis(at));
        }

        fn ack(&mut self, at: u64, ranges: &[(u64, u64)]) {
            let ranges: Vec<_> =
                ranges.iter().map(|(first, last)| Range { first: *first, last: *last }).collect();
            let highest = ranges[0].last;
            let ack = Ack { highest, stalled_ms: 0, ranges, routes: Vec::new() };
            self.flight.session.acknowledged(ack);
            let bytes = &self.bytes;
            let read = |place: Place| &bytes[place.start..place.start + place.len];
            self.flight.hear(Time::from_millis(at), read, |_| self.forgotten += 1);
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
        rig.flight.strike(Time::from_millis(1010));
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
