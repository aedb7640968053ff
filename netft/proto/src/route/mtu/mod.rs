//! How large a datagram one route carries: path MTU discovery in the packet layer. Pure.
//!
//! Modelled on RFC 8899 (DPLPMTUD). A padded probe, answered small, proves a size; probes lost
//! while heartbeats get through prove that the path is narrow, and the size is searched from the
//! base upwards. Nothing here takes a route down, and no ICMP message is believed.
//!
//! ```text
//!   route up ──▶ Confirm ──answered──▶ Complete ──raise timer, if below the limit──┐
//!                   │                     ▲  │                                     │
//!              black hole                 │  └──confirmation timer, or doubt──▶ Confirm
//!                   ▼                     │                                        │
//!                  Base ────answered───▶ Search ◀─────────────────────────────────┘
//! ```
//!
//! It differs from the RFC in two places. A route starts at its interface's size, which is right
//! for all but few paths, and is confirmed at once; the RFC's base would cost every start a search.
//! The probe timer is a few heartbeats long, not 15 s: a probe counts as lost only if a heartbeat
//! sent after it was answered, so a slow or dying path says nothing about sizes.

use std::time::Duration;

use crate::{route::status::PathMtuStatus, time::Time};

/// Probes of one size that must be lost before the size is (RFC 8899 section 5.1.2: MAX_PROBES).
const MAX_PROBES: u8 = 3;
/// UDP payload that every sane path carries, bytes (RFC 8899 section 5.1.2: BASE_PLPMTU).
const BASE_PLPMTU: usize = 1200;
/// How often the size of the route that carries data is confirmed (RFC 8899 section 5.1.1).
const CONFIRMATION_TIMER: Duration = Duration::from_secs(1);
/// The same for a route that carries none, so that a failover finds the size right.
const IDLE_CONFIRMATION_TIMER: Duration = Duration::from_secs(10);
/// How often a size below the interface's is probed upwards by default (RFC 8899 section 5.1.1,
/// where it is 600 s; RFC 4821 section 3 has the shorter one for paths that may heal).
pub const PMTU_RAISE_TIMER: Duration = Duration::from_secs(60);
/// Heartbeats a probe is waited for, so that several can tell that the route is not dying.
const PROBE_HEARTBEATS: u32 = 5;
/// The bounds of the probe timer.
const PROBE_TIMER: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Sizes of IP packets that paths are known to stop at: minimum IPv6, tunnels in tunnels,
/// WireGuard, PPPoE and VXLAN below Ethernet, GRE, Ethernet itself, and jumbo frames.
const PLAUSIBLE: [usize; 14] =
    [1280, 1320, 1360, 1400, 1420, 1440, 1450, 1460, 1476, 1480, 1492, 1500, 4000, 9000];

/// Where the search is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing to find out before a timer.
    Complete,
    /// Is the size in use still carried?
    Confirm,
    /// The size that was in use vanishes; is the base carried?
    Base,
    /// Sizes from `high` on are not carried, or not proven.
    Search { high: usize },
}

/// A probe on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flying {
    size: usize,
    sent: Time,
    deadline: Time,
}

/// What the route's other parts know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Around {
    /// Time between heartbeats.
    pub(crate) delay: Duration,
    /// Smoothed round-trip time, while known.
    pub(crate) rtt: Option<Duration>,
    /// The route carries data.
    pub(crate) carries: bool,
    /// The raise timer.
    pub(crate) raise: Duration,
}

/// A probe to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    /// Bytes of the frame.
    pub(crate) size: usize,
    pub(crate) sequence: u32,
}

/// The largest datagram of one route.
#[derive(Clone, Debug)]
pub(crate) struct PathMtu {
    /// Bytes around a frame in its IP packet: of IP, of UDP, and of the route's carrier.
    headers: usize,
    /// The carrier's share of them.
    added: usize,
    /// What the interface takes; 0: not told.
    limit: usize,
    size: usize,
    phase: Phase,
    /// The route is up.
    running: bool,
    carries: bool,
    flying: Option<Flying>,
    lost: u8,
    /// The next probe, while none flies.
    next: Time,
    raise_at: Time,
    sequence: u32,
    /// The first probe of the size that is probed.
    first: u32,
    /// When the newest heartbeat that was answered was sent.
    answered: Time,
    /// When a probe of the size in use was answered last.
    proven: Option<Time>,
    /// Someone asked: beyond the size in use only the interface's own is tried.
    brief: bool,
}

impl PathMtu {
    /// A route whose datagrams have `headers` bytes of IP and UDP header around them.
    pub(crate) fn new(headers: usize) -> Self {
        Self {
            headers,
            added: 0,
            limit: 0,
            size: 0,
            phase: Phase::Complete,
            running: false,
            carries: false,
            flying: None,
            lost: 0,
            next: Time::ZERO,
            raise_at: Time::ZERO,
            sequence: 0,
            first: 1,
            answered: Time::ZERO,
            proven: None,
            brief: false,
        }
    }

    /// The largest datagram the route carries, bytes; `None` while its interface is unknown.
    pub(crate) fn size(&self) -> Option<usize> {
        (self.limit > 0).then_some(self.size)
    }

    /// The same as the size of an IP packet.
    pub(crate) fn packet(&self) -> Option<usize> {
        self.size().map(|size| size + self.headers)
    }

    /// How sure that is.
    pub(crate) fn status(&self) -> PathMtuStatus {
        PathMtuStatus {
            limit: (self.limit > 0).then_some(self.limit + self.headers),
            proven: self.proven,
            probing: self.searches(),
        }
    }

    /// Probes are under way, or about to be.
    pub(crate) fn searches(&self) -> bool {
        self.phase != Phase::Complete
    }

    /// Someone wants to know now: the size in use is confirmed, and the interface's own tried; the
    /// sizes between wait for the raise timer. Probes under way go on, so that whoever asks often
    /// ends no search.
    pub(crate) fn recheck(&mut self, now: Time) {
        if self.phase == Phase::Complete {
            self.afresh(now);
            self.brief = true;
        }
    }

    /// The interface takes frames of `limit` bytes, to each of which the carrier adds `added`.
    pub(crate) fn set_limit(&mut self, now: Time, limit: usize, added: usize) {
        let before = std::mem::replace(&mut self.limit, limit);
        if limit == before && added == self.added {
            return;
        }
        // Another carrier fills the same packets with other frames.
        let size = (self.size + self.added).saturating_sub(added);
        self.headers = self.headers - self.added + added;
        (self.size, self.added) = (size, added);
        if before == 0 || limit < self.size {
            self.size = limit;
            self.proven = None;
            self.turn(now, Phase::Confirm);
        } else {
            self.afresh(now);
        }
    }

    /// A heartbeat sent at `sent` was answered.
    pub(crate) fn heard(&mut self, sent: Time) {
        self.answered = self.answered.max(sent);
    }

    /// Something hints that large datagrams vanish: data stays unacknowledged, or the kernel
    /// refuses it. Only a probe decides.
    pub(crate) fn doubt(&mut self, now: Time) {
        if self.phase == Phase::Complete {
            self.turn(now, Phase::Confirm);
        }
    }

    /// The route is not up: what is on its way proves nothing.
    pub(crate) fn rest(&mut self) {
        self.running = false;
        self.flying = None;
        self.lost = 0;
    }

    /// Whether [`tick`](Self::tick), or [`rest`](Self::rest) if the route is not up, would do
    /// anything.
    pub(crate) fn stirs(&self, now: Time, up: bool, carries: bool) -> bool {
        if self.limit == 0 || !up {
            return self.running && !up;
        }
        let due = match self.flying {
            Some(flying) => flying.deadline <= now,
            None => self.next <= now || (self.size < self.limit && self.raise_at <= now),
        };
        due || !self.running || carries != self.carries
    }

    /// What is to be sent on a route that is up. To be asked with every heartbeat.
    pub(crate) fn tick(&mut self, now: Time, around: &Around) -> Option<Due> {
        if self.limit == 0 {
            return None;
        }
        if !std::mem::replace(&mut self.running, true) {
            // The path may be another one.
            self.afresh(now);
        }
        if !std::mem::replace(&mut self.carries, around.carries) && around.carries {
            self.doubt(now);
        }
        if let Some(flying) = self.flying {
            if now < flying.deadline {
                return None;
            }
            self.flying = None;
            if self.answered > flying.sent {
                self.lose(now, around, 1);
            }
        }
        if self.phase == Phase::Complete {
            if self.size < self.limit && now >= self.raise_at {
                self.turn(now, Phase::Search { high: self.limit + 1 });
            } else if now >= self.next {
                self.turn(now, Phase::Confirm);
            }
        }
        if self.phase == Phase::Complete || now < self.next {
            return None;
        }
        let size = self.target();
        self.sequence = self.sequence.wrapping_add(1);
        self.flying = Some(Flying { size, sent: now, deadline: now + timer(around) });
        Some(Due { size, sequence: self.sequence })
    }

    /// The peer got the probe. An answer that comes late proves as much as another.
    pub(crate) fn answer(&mut self, now: Time, around: &Around, due: Due) {
        let ours =
            self.sequence.wrapping_sub(due.sequence) <= self.sequence.wrapping_sub(self.first);
        if !self.running || !ours || self.phase == Phase::Complete || due.size != self.target() {
            return;
        }
        self.proven = Some(now);
        match self.phase {
            Phase::Complete => {}
            Phase::Confirm => self.complete(now, around),
            // The interface's size first, once more: it may have been mere loss.
            Phase::Base => self.search(now, around, self.limit + 1),
            Phase::Search { high } => {
                self.size = due.size;
                self.search(now, around, high);
            }
        }
    }

    /// The kernel refused the probe: it is larger than the interface takes, no need to ask again.
    pub(crate) fn refused(&mut self, now: Time, around: &Around, due: Due) {
        let flies = self.flying.is_some_and(|flying| flying.size == due.size);
        if flies && due.sequence == self.sequence {
            self.flying = None;
            self.lose(now, around, MAX_PROBES);
        }
    }

    /// The size the next probe has.
    fn target(&self) -> usize {
        match self.phase {
            Phase::Complete | Phase::Confirm => self.size,
            Phase::Base => self.base(),
            Phase::Search { high } => self.candidate(high).unwrap_or(self.size),
        }
    }

    fn base(&self) -> usize {
        BASE_PLPMTU.min(self.limit)
    }

    /// The size to try between the one in use and `high`: the interface's own while nothing speaks
    /// against it, else the middle one of those that are plausible.
    fn candidate(&self, high: usize) -> Option<usize> {
        if high > self.limit {
            return (self.limit > self.size).then_some(self.limit);
        }
        let sizes = PLAUSIBLE.iter().map(|packet| packet - self.headers);
        let between = sizes.filter(|size| *size > self.size && *size < high);
        let count = between.clone().count();
        between.clone().nth(count / 2)
    }

    fn lose(&mut self, now: Time, around: &Around, probes: u8) {
        self.lost = self.lost.saturating_add(probes);
        if self.lost < MAX_PROBES {
            return;
        }
        let size = self.target();
        match self.phase {
            Phase::Complete => {}
            // A black hole (RFC 8899 section 4.3): what is known to pass, at once.
            Phase::Confirm => {
                self.brief = false;
                self.size = self.base().min(self.size);
                self.proven = None;
                self.turn(now, Phase::Base);
            }
            // Nothing is answered at all, and there is nothing smaller to try.
            Phase::Base => {
                self.lost = 0;
                self.next = now + confirmation(around);
            }
            Phase::Search { .. } if self.brief => self.searched(now, around),
            Phase::Search { .. } => self.search(now, around, size),
        }
    }

    /// Goes on below `high`.
    fn search(&mut self, now: Time, around: &Around, high: usize) {
        match self.candidate(high) {
            Some(_) => self.turn(now, Phase::Search { high }),
            None => self.searched(now, around),
        }
    }

    fn searched(&mut self, now: Time, around: &Around) {
        self.brief = false;
        self.raise_at = now + around.raise;
        self.complete(now, around);
    }

    fn complete(&mut self, now: Time, around: &Around) {
        self.turn(now, Phase::Complete);
        self.next = now + confirmation(around);
    }

    /// Confirms the size at once, and then tries a larger one.
    fn afresh(&mut self, now: Time) {
        self.raise_at = now;
        match self.phase {
            Phase::Base => self.turn(now, Phase::Base),
            _ => self.turn(now, Phase::Confirm),
        }
    }

    /// A probe of another size, or of the same one for another reason, is due.
    fn turn(&mut self, now: Time, phase: Phase) {
        self.phase = phase;
        self.flying = None;
        self.lost = 0;
        self.first = self.sequence.wrapping_add(1);
        self.next = now;
    }
}

fn timer(around: &Around) -> Duration {
    let (least, most) = PROBE_TIMER;
    // A heartbeat sent after the probe must have had time to be answered.
    let evidence = around.delay * 2 + around.rtt.unwrap_or_default() * 4;
    (around.delay * PROBE_HEARTBEATS).clamp(least, most).max(evidence)
}

fn confirmation(around: &Around) -> Duration {
    if around.carries { CONFIRMATION_TIMER } else { IDLE_CONFIRMATION_TIMER }
}

#[cfg(test)]
mod tests;
