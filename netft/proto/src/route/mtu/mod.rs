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
const COMMON_PACKET_SIZES: [usize; 14] =
    [1280, 1320, 1360, 1400, 1420, 1440, 1450, 1460, 1476, 1480, 1492, 1500, 4000, 9000];

/// Where the search is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SearchPhase {
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
struct ProbeInFlight {
    size: usize,
    sent_at: Time,
    deadline: Time,
}

/// What the route's other parts know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MtuInputs {
    /// Time between heartbeats.
    pub(crate) delay: Duration,
    /// Smoothed round-trip time, while known.
    pub(crate) rtt: Option<Duration>,
    /// The route carries data.
    pub(crate) carries_data: bool,
    /// The raise timer.
    pub(crate) raise_timer: Duration,
}

/// A probe to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MtuProbe {
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
    transport_overhead: usize,
    /// What the interface takes; 0: not told.
    limit: usize,
    size: usize,
    phase: SearchPhase,
    /// The route is up.
    running: bool,
    carries_data: bool,
    in_flight: Option<ProbeInFlight>,
    lost_probes: u8,
    /// The next probe, while none flies.
    next_probe: Time,
    raise_at: Time,
    sequence: u32,
    /// The first probe of the size that is probed.
    first_sequence: u32,
    /// When the newest heartbeat that was answered was sent.
    newest_answered: Time,
    /// When a probe of the size in use was answered last.
    proven: Option<Time>,
    /// Someone asked: beyond the size in use only the interface's own is tried.
    limit_only: bool,
}

impl PathMtu {
    /// A route whose datagrams have `headers` bytes of IP and UDP header around them.
    pub(crate) fn new(headers: usize) -> Self {
        Self {
            headers,
            transport_overhead: 0,
            limit: 0,
            size: 0,
            phase: SearchPhase::Complete,
            running: false,
            carries_data: false,
            in_flight: None,
            lost_probes: 0,
            next_probe: Time::ZERO,
            raise_at: Time::ZERO,
            sequence: 0,
            first_sequence: 1,
            newest_answered: Time::ZERO,
            proven: None,
            limit_only: false,
        }
    }

    /// The largest datagram the route carries, bytes; `None` while its interface is unknown.
    pub(crate) fn datagram_size(&self) -> Option<usize> {
        (self.limit > 0).then_some(self.size)
    }

    /// The same as the size of an IP packet.
    pub(crate) fn packet_size(&self) -> Option<usize> {
        self.datagram_size().map(|size| size + self.headers)
    }

    /// How sure that is.
    pub(crate) fn status(&self) -> PathMtuStatus {
        PathMtuStatus {
            limit: (self.limit > 0).then_some(self.limit + self.headers),
            proven: self.proven,
            probing: self.is_probing(),
        }
    }

    /// Probes are under way, or about to be.
    pub(crate) fn is_probing(&self) -> bool {
        self.phase != SearchPhase::Complete
    }

    /// Someone wants to know now: the size in use is confirmed, and the interface's own tried; the
    /// sizes between wait for the raise timer. Probes under way go on, so that whoever asks often
    /// ends no search.
    pub(crate) fn recheck_if_complete(&mut self, now: Time) {
        if self.phase == SearchPhase::Complete {
            self.restart_probing(now);
            self.limit_only = true;
        }
    }

    /// The interface takes frames of `limit` bytes, to each of which the carrier adds `added`.
    pub(crate) fn set_limit(&mut self, now: Time, limit: usize, added: usize) {
        let before = std::mem::replace(&mut self.limit, limit);
        if limit == before && added == self.transport_overhead {
            return;
        }
        // Another carrier fills the same packets with other frames.
        let size = (self.size + self.transport_overhead).saturating_sub(added);
        self.headers = self.headers - self.transport_overhead + added;
        (self.size, self.transport_overhead) = (size, added);
        if before == 0 || limit < self.size {
            self.size = limit;
            self.proven = None;
            self.enter_phase(now, SearchPhase::Confirm);
        } else {
            self.restart_probing(now);
        }
    }

    /// A heartbeat sent at `sent` was answered.
    pub(crate) fn on_heartbeat_answered(&mut self, sent: Time) {
        self.newest_answered = self.newest_answered.max(sent);
    }

    /// Something hints that large datagrams vanish: data stays unacknowledged, or the kernel
    /// refuses it. Only a probe decides.
    pub(crate) fn suspect_black_hole(&mut self, now: Time) {
        if self.phase == SearchPhase::Complete {
            self.enter_phase(now, SearchPhase::Confirm);
        }
    }

    /// The route is not up: what is on its way proves nothing.
    pub(crate) fn pause_probing(&mut self) {
        self.running = false;
        self.in_flight = None;
        self.lost_probes = 0;
    }

    /// Whether [`poll_probe`](Self::poll_probe), or [`pause_probing`](Self::pause_probing) if the
    /// route is not up, would do anything.
    pub(crate) fn has_work(&self, now: Time, up: bool, carries: bool) -> bool {
        if self.limit == 0 || !up {
            return self.running && !up;
        }
        let due = match self.in_flight {
            Some(flying) => flying.deadline <= now,
            None => self.next_probe <= now || (self.size < self.limit && self.raise_at <= now),
        };
        due || !self.running || carries != self.carries_data
    }

    /// What is to be sent on a route that is up. To be asked with every heartbeat.
    pub(crate) fn poll_probe(&mut self, now: Time, inputs: &MtuInputs) -> Option<MtuProbe> {
        if self.limit == 0 {
            return None;
        }
        if !std::mem::replace(&mut self.running, true) {
            // The path may be another one.
            self.restart_probing(now);
        }
        if !std::mem::replace(&mut self.carries_data, inputs.carries_data) && inputs.carries_data {
            self.suspect_black_hole(now);
        }
        if let Some(flying) = self.in_flight {
            if now < flying.deadline {
                return None;
            }
            self.in_flight = None;
            if self.newest_answered > flying.sent_at {
                self.on_probes_lost(now, inputs, 1);
            }
        }
        if self.phase == SearchPhase::Complete {
            if self.size < self.limit && now >= self.raise_at {
                self.enter_phase(now, SearchPhase::Search { high: self.limit + 1 });
            } else if now >= self.next_probe {
                self.enter_phase(now, SearchPhase::Confirm);
            }
        }
        if self.phase == SearchPhase::Complete || now < self.next_probe {
            return None;
        }
        let size = self.probe_size();
        self.sequence = self.sequence.wrapping_add(1);
        self.in_flight =
            Some(ProbeInFlight { size, sent_at: now, deadline: now + probe_timer(inputs) });
        Some(MtuProbe { size, sequence: self.sequence })
    }

    /// The peer got the probe. An answer that comes late proves as much as another.
    pub(crate) fn on_probe_answered(&mut self, now: Time, inputs: &MtuInputs, due: MtuProbe) {
        let ours = self.sequence.wrapping_sub(due.sequence)
            <= self.sequence.wrapping_sub(self.first_sequence);
        if !self.running
            || !ours
            || self.phase == SearchPhase::Complete
            || due.size != self.probe_size()
        {
            return;
        }
        self.proven = Some(now);
        match self.phase {
            SearchPhase::Complete => {}
            SearchPhase::Confirm => self.enter_complete(now, inputs),
            // The interface's size first, once more: it may have been mere loss.
            SearchPhase::Base => self.search_below(now, inputs, self.limit + 1),
            SearchPhase::Search { high } => {
                self.size = due.size;
                self.search_below(now, inputs, high);
            }
        }
    }

    /// The kernel refused the probe: it is larger than the interface takes, no need to ask again.
    pub(crate) fn on_probe_refused(&mut self, now: Time, inputs: &MtuInputs, due: MtuProbe) {
        let flies = self.in_flight.is_some_and(|flying| flying.size == due.size);
        if flies && due.sequence == self.sequence {
            self.in_flight = None;
            self.on_probes_lost(now, inputs, MAX_PROBES);
        }
    }

    /// The size the next probe has.
    fn probe_size(&self) -> usize {
        match self.phase {
            SearchPhase::Complete | SearchPhase::Confirm => self.size,
            SearchPhase::Base => self.base_size(),
            SearchPhase::Search { high } => self.candidate_below(high).unwrap_or(self.size),
        }
    }

    fn base_size(&self) -> usize {
        BASE_PLPMTU.min(self.limit)
    }

    /// The size to try between the one in use and `high`: the interface's own while nothing speaks
    /// against it, else the middle one of those that are plausible.
    fn candidate_below(&self, high: usize) -> Option<usize> {
        if high > self.limit {
            return (self.limit > self.size).then_some(self.limit);
        }
        let sizes = COMMON_PACKET_SIZES.iter().map(|packet| packet - self.headers);
        let between = sizes.filter(|size| *size > self.size && *size < high);
        let count = between.clone().count();
        between.clone().nth(count / 2)
    }

    fn on_probes_lost(&mut self, now: Time, inputs: &MtuInputs, probes: u8) {
        self.lost_probes = self.lost_probes.saturating_add(probes);
        if self.lost_probes < MAX_PROBES {
            return;
        }
        let size = self.probe_size();
        match self.phase {
            SearchPhase::Complete => {}
            // A black hole (RFC 8899 section 4.3): what is known to pass, at once.
            SearchPhase::Confirm => {
                self.limit_only = false;
                self.size = self.base_size().min(self.size);
                self.proven = None;
                self.enter_phase(now, SearchPhase::Base);
            }
            // Nothing is answered at all, and there is nothing smaller to try.
            SearchPhase::Base => {
                self.lost_probes = 0;
                self.next_probe = now + confirmation_timer(inputs);
            }
            SearchPhase::Search { .. } if self.limit_only => self.finish_search(now, inputs),
            SearchPhase::Search { .. } => self.search_below(now, inputs, size),
        }
    }

    /// Goes on below `high`.
    fn search_below(&mut self, now: Time, inputs: &MtuInputs, high: usize) {
        match self.candidate_below(high) {
            Some(_) => self.enter_phase(now, SearchPhase::Search { high }),
            None => self.finish_search(now, inputs),
        }
    }

    fn finish_search(&mut self, now: Time, inputs: &MtuInputs) {
        self.limit_only = false;
        self.raise_at = now + inputs.raise_timer;
        self.enter_complete(now, inputs);
    }

    fn enter_complete(&mut self, now: Time, inputs: &MtuInputs) {
        self.enter_phase(now, SearchPhase::Complete);
        self.next_probe = now + confirmation_timer(inputs);
    }

    /// Confirms the size at once, and then tries a larger one.
    fn restart_probing(&mut self, now: Time) {
        self.raise_at = now;
        match self.phase {
            SearchPhase::Base => self.enter_phase(now, SearchPhase::Base),
            _ => self.enter_phase(now, SearchPhase::Confirm),
        }
    }

    /// A probe of another size, or of the same one for another reason, is due.
    fn enter_phase(&mut self, now: Time, phase: SearchPhase) {
        self.phase = phase;
        self.in_flight = None;
        self.lost_probes = 0;
        self.first_sequence = self.sequence.wrapping_add(1);
        self.next_probe = now;
    }
}

fn probe_timer(inputs: &MtuInputs) -> Duration {
    let (least, most) = PROBE_TIMER;
    // A heartbeat sent after the probe must have had time to be answered.
    let evidence = inputs.delay * 2 + inputs.rtt.unwrap_or_default() * 4;
    (inputs.delay * PROBE_HEARTBEATS).clamp(least, most).max(evidence)
}

fn confirmation_timer(inputs: &MtuInputs) -> Duration {
    if inputs.carries_data { CONFIRMATION_TIMER } else { IDLE_CONFIRMATION_TIMER }
}

#[cfg(test)]
mod tests;
