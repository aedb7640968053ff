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

/// Bytes one peer's unacknowledged frames may hold.
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
        self.bytes += place.len;
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
            self.bytes -= sent.place.len;
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
            self.bytes -= oldest.place.len;
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
