//! Datagram packetization-layer path MTU discovery of one route (RFC 8899). Pure.
//!
//! A padded probe, acknowledged by a small reply, proves a size. Probes lost while heartbeats are
//! answered prove a black hole, and the size is searched from the base upwards. Nothing here takes
//! a route down, and ICMP messages are not used.
//!
//! ```text
//!   route up ──▶ Confirm ──answered──▶ Complete ──raise timer, if below the limit──┐
//!                   │                     ▲  │                                     │
//!              black hole                 │  └──confirmation timer, or hint───▶ Confirm
//!                   ▼                     │                                        │
//!                  Base ────answered───▶ Search ◀─────────────────────────────────┘
//! ```
//!
//! It differs from the RFC in two places. A route starts at its interface's size, which is right
//! for most paths, and is confirmed at once; starting at BASE_PLPMTU would cost every start a
//! search. The probe timer is a few heartbeats long, not 15 s: a probe counts as lost only if a
//! heartbeat sent after it was answered, so a slow or failing path does not count against the size.

use std::time::Duration;

use crate::time::Time;

/// Probes of one size that must be lost before the size counts as too large (RFC 8899 section
/// 5.1.2, MAX_PROBES).
const MAX_PROBES: u8 = 3;
/// UDP payload that every usable path carries, bytes (RFC 8899 section 5.1.2: BASE_PLPMTU).
const BASE_PLPMTU: usize = 1200;
/// Interval at which the size of the route that carries data is confirmed (RFC 8899 section 5.1.1).
const CONFIRMATION_TIMER: Duration = Duration::from_secs(1);
/// The same for a route that carries none, so that its size is known at a failover.
const IDLE_CONFIRMATION_TIMER: Duration = Duration::from_secs(10);
/// Default interval at which a size below the interface's is probed upwards (RFC 8899 section
/// 5.1.1, where it is 600 s; RFC 4821 section 3 has the shorter one for paths that may heal).
pub const PMTU_RAISE_TIMER: Duration = Duration::from_secs(60);
/// Delays a probe may take, so that several heartbeats show that the route itself works.
const PROBE_HEARTBEATS: u32 = 5;
/// Bounds of the probe timer.
const PROBE_TIMER: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Sizes of IP packets that paths are known to stop at: minimum IPv6, tunnels in tunnels,
/// WireGuard, PPPoE and VXLAN below Ethernet, GRE, Ethernet itself, and jumbo frames.
const COMMON_PACKET_SIZES: [usize; 14] =
    [1280, 1320, 1360, 1400, 1420, 1440, 1450, 1460, 1476, 1480, 1492, 1500, 4000, 9000];

/// The path MTU of a route, and how it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct PathMtuStatus {
    /// The largest IP packet the route carries, bytes: its interface's MTU until probes find less;
    /// `None` while the interface is unknown.
    pub size: Option<usize>,
    /// The largest IP packet the interface would take, bytes; `None` while it is unknown.
    pub limit: Option<usize>,
    /// When a probe of the path MTU's size was answered last.
    pub proven: Option<Time>,
    /// A search is in progress; it may find a larger or a smaller size.
    pub probing: bool,
}

/// Phase of the search (RFC 8899 section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum SearchPhase {
    /// The size is known until a timer expires.
    Complete,
    /// The size in use is being confirmed.
    Confirm,
    /// The size in use is lost; BASE_PLPMTU is being confirmed.
    Base,
    /// Sizes from `high` on are not carried, or not proven.
    Search { high: usize },
}

/// A probe in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct ProbeInFlight {
    size: usize,
    sent_at: Time,
    deadline: Time,
}

/// Inputs from other parts of the route.
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

/// Bytes around a frame in its IP packet.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct HeaderOverhead {
    /// IP, UDP and the route's transport.
    total: usize,
    /// The transport's share.
    transport: usize,
}

/// The probes of the size under test.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct ProbeState {
    in_flight: Option<ProbeInFlight>,
    lost: u8,
    /// When the next one is due, while none is in flight.
    next_at: Time,
    sequence: u32,
    /// Sequence of the first probe of this size.
    first_sequence: u32,
}

/// Path MTU discovery of one route.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct PathMtu {
    overhead: HeaderOverhead,
    /// The largest frame the interface takes; 0 while unknown.
    limit: usize,
    size: usize,
    phase: SearchPhase,
    probes: ProbeState,
    /// The route is up.
    running: bool,
    carries_data: bool,
    raise_at: Time,
    /// When the newest heartbeat that was answered was sent.
    newest_answered: Time,
    /// When a probe of the size in use was last answered.
    proven: Option<Time>,
    /// An operator requested the search: beyond the size in use only the interface's own is tried.
    limit_only: bool,
}

impl PathMtu {
    /// Creates the state of a route whose datagrams have `headers` bytes of IP and UDP header.
    pub(crate) fn new(headers: usize) -> Self {
        Self {
            overhead: HeaderOverhead { total: headers, transport: 0 },
            limit: 0,
            size: 0,
            phase: SearchPhase::Complete,
            probes: ProbeState {
                in_flight: None,
                lost: 0,
                next_at: Time::ZERO,
                sequence: 0,
                first_sequence: 1,
            },
            running: false,
            carries_data: false,
            raise_at: Time::ZERO,
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
        self.datagram_size().map(|size| size + self.overhead.total)
    }

    /// The path MTU as an operator sees it.
    pub(crate) fn status(&self) -> PathMtuStatus {
        PathMtuStatus {
            size: self.packet_size(),
            limit: (self.limit > 0).then_some(self.limit + self.overhead.total),
            proven: self.proven,
            probing: self.is_probing(),
        }
    }

    /// A search is in progress, or about to start.
    pub(crate) fn is_probing(&self) -> bool {
        self.phase != SearchPhase::Complete
    }

    /// The size in use is being confirmed: what the route loses may be lost for its size.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.phase == SearchPhase::Confirm
    }

    /// An operator requests a check: the size in use is confirmed and the interface's own is tried;
    /// the sizes between wait for the raise timer. A search in progress goes on, so repeated
    /// requests do not restart it.
    pub(crate) fn recheck_if_complete(&mut self, now: Time) {
        if self.phase == SearchPhase::Complete {
            self.restart_probing(now);
            self.limit_only = true;
        }
    }

    /// The interface takes frames of `limit` bytes, to each of which the transport adds `added`.
    pub(crate) fn set_limit(&mut self, now: Time, limit: usize, added: usize) {
        let before = std::mem::replace(&mut self.limit, limit);
        if limit == before && added == self.overhead.transport {
            return;
        }
        // Another transport leaves other room for frames in the same packets.
        let size = (self.size + self.overhead.transport).saturating_sub(added);
        self.overhead.total = self.overhead.total - self.overhead.transport + added;
        (self.size, self.overhead.transport) = (size, added);
        if before == 0 || limit < self.size {
            self.size = limit;
            self.proven = None;
            self.enter_phase(now, SearchPhase::Confirm);
        } else {
            self.restart_probing(now);
        }
    }

    /// Counts the reply to a heartbeat sent at `sent`.
    pub(crate) fn on_heartbeat_answered(&mut self, sent: Time) {
        self.newest_answered = self.newest_answered.max(sent);
    }

    /// Confirms the size: large datagrams may be lost, as data stays unacknowledged or the kernel
    /// refuses it. Only a probe decides.
    pub(crate) fn suspect_black_hole(&mut self, now: Time) {
        if self.limit > 0 && self.phase == SearchPhase::Complete {
            self.enter_phase(now, SearchPhase::Confirm);
        }
    }

    /// Stops probing while the route is not up: probes in flight prove nothing.
    pub(crate) fn pause_probing(&mut self) {
        self.running = false;
        self.probes.in_flight = None;
        self.probes.lost = 0;
    }

    /// Returns whether [`poll_probe`](Self::poll_probe), or [`pause_probing`](Self::pause_probing)
    /// if the route is not up, would do anything.
    pub(crate) fn has_work(&self, now: Time, up: bool, carries: bool) -> bool {
        if self.limit == 0 || !up {
            return self.running && !up;
        }
        let due = match self.probes.in_flight {
            Some(probe) => probe.deadline <= now,
            None => self.probes.next_at <= now || (self.size < self.limit && self.raise_at <= now),
        };
        due || !self.running || carries != self.carries_data
    }

    /// The probe to send on a route that is up. Called with every heartbeat.
    pub(crate) fn poll_probe(&mut self, now: Time, inputs: &MtuInputs) -> Option<MtuProbe> {
        if self.limit == 0 {
            return None;
        }
        if !std::mem::replace(&mut self.running, true) {
            // The route may follow another path since it was last up.
            self.restart_probing(now);
        }
        if !std::mem::replace(&mut self.carries_data, inputs.carries_data) && inputs.carries_data {
            self.suspect_black_hole(now);
        }
        if let Some(probe) = self.probes.in_flight {
            if now < probe.deadline {
                return None;
            }
            self.probes.in_flight = None;
            if self.newest_answered > probe.sent_at {
                self.on_probes_lost(now, inputs, 1);
            }
        }
        if self.phase == SearchPhase::Complete {
            if self.size < self.limit && now >= self.raise_at {
                self.enter_phase(now, SearchPhase::Search { high: self.limit + 1 });
            } else if now >= self.probes.next_at {
                self.enter_phase(now, SearchPhase::Confirm);
            }
        }
        if self.phase == SearchPhase::Complete || now < self.probes.next_at {
            return None;
        }
        let size = self.probe_size();
        self.probes.sequence = self.probes.sequence.wrapping_add(1);
        self.probes.in_flight =
            Some(ProbeInFlight { size, sent_at: now, deadline: now + probe_timer(inputs) });
        Some(MtuProbe { size, sequence: self.probes.sequence })
    }

    /// The peer received the probe. A late answer proves as much as a timely one.
    pub(crate) fn on_probe_answered(&mut self, now: Time, inputs: &MtuInputs, due: MtuProbe) {
        let ours = self.probes.sequence.wrapping_sub(due.sequence)
            <= self.probes.sequence.wrapping_sub(self.probes.first_sequence);
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
            // The interface's size first: the black hole may have been random loss.
            SearchPhase::Base => self.search_below(now, inputs, self.limit + 1),
            SearchPhase::Search { high } => {
                self.size = due.size;
                self.search_below(now, inputs, high);
            }
        }
    }

    /// The kernel refused the probe as larger than the interface's MTU; repeating it is pointless.
    pub(crate) fn on_probe_refused(&mut self, now: Time, inputs: &MtuInputs, due: MtuProbe) {
        let flies = self.probes.in_flight.is_some_and(|probe| probe.size == due.size);
        if flies && due.sequence == self.probes.sequence {
            self.probes.in_flight = None;
            self.on_probes_lost(now, inputs, MAX_PROBES);
        }
    }

    /// Size of the next probe.
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

    /// The size to try between the one in use and `high`: the interface's own unless it was lost,
    /// else the median of the common sizes between.
    fn candidate_below(&self, high: usize) -> Option<usize> {
        if high > self.limit {
            return (self.limit > self.size).then_some(self.limit);
        }
        let sizes = COMMON_PACKET_SIZES.iter().map(|packet| packet - self.overhead.total);
        let between = sizes.filter(|size| *size > self.size && *size < high);
        let count = between.clone().count();
        between.clone().nth(count / 2)
    }

    fn on_probes_lost(&mut self, now: Time, inputs: &MtuInputs, probes: u8) {
        self.probes.lost = self.probes.lost.saturating_add(probes);
        if self.probes.lost < MAX_PROBES {
            return;
        }
        let size = self.probe_size();
        match self.phase {
            SearchPhase::Complete => {}
            // A black hole (RFC 8899 section 4.3): back to the base at once.
            SearchPhase::Confirm => {
                self.limit_only = false;
                self.size = self.base_size().min(self.size);
                self.proven = None;
                self.enter_phase(now, SearchPhase::Base);
            }
            // No probe is answered at all, and there is no smaller size to try.
            SearchPhase::Base => {
                self.probes.lost = 0;
                self.probes.next_at = now + confirmation_timer(inputs);
            }
            SearchPhase::Search { .. } if self.limit_only => self.finish_search(now, inputs),
            SearchPhase::Search { .. } => self.search_below(now, inputs, size),
        }
    }

    /// Continues the search below `high`.
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
        self.probes.next_at = now + confirmation_timer(inputs);
    }

    /// Confirms the size at once, and then tries a larger one.
    fn restart_probing(&mut self, now: Time) {
        self.raise_at = now;
        match self.phase {
            SearchPhase::Base => self.enter_phase(now, SearchPhase::Base),
            _ => self.enter_phase(now, SearchPhase::Confirm),
        }
    }

    /// Starts a phase: its first probe is due at once.
    fn enter_phase(&mut self, now: Time, phase: SearchPhase) {
        self.phase = phase;
        self.probes.in_flight = None;
        self.probes.lost = 0;
        self.probes.first_sequence = self.probes.sequence.wrapping_add(1);
        self.probes.next_at = now;
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
