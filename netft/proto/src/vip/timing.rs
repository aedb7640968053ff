//! When an address is probed for and announced.

use std::{net::IpAddr, time::Duration};

use crate::time::Time;

/// RFC 5227 section 1.1: longest random delay before the first probe.
const PROBE_WAIT: Duration = Duration::from_secs(1);
/// RFC 5227 section 1.1: probes of an IPv4 address.
const PROBE_NUM: u8 = 3;
/// RFC 5227 section 1.1: least time between two probes.
const PROBE_MIN: Duration = Duration::from_secs(1);
/// RFC 5227 section 1.1: the random part of the time between two probes (PROBE_MAX − PROBE_MIN).
const PROBE_SPREAD: Duration = Duration::from_secs(1);
/// RFC 5227 section 1.1: from the last probe to the first announcement.
const ANNOUNCE_WAIT: Duration = Duration::from_secs(2);
/// RFC 4862 section 5.1: solicitations of duplicate address detection (DupAddrDetectTransmits).
const DAD_TRANSMITS: u8 = 1;
/// RFC 4861 section 10: wait for an answer to a solicitation (RETRANS_TIMER).
const RETRANS_TIMER: Duration = Duration::from_secs(1);

/// RFC 5227 section 1.1: least time between two defensive announcements.
pub const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
/// RFC 5227 section 1.1: conflicts after which probes are limited.
pub(super) const MAX_CONFLICTS: u32 = 10;
/// RFC 5227 section 1.1: time between two attempts after [`MAX_CONFLICTS`].
pub(super) const RATE_LIMIT_INTERVAL: Duration = Duration::from_secs(60);
/// Time between two attempts before that.
pub(super) const CONFLICT_RETRY: Duration = Duration::from_secs(10);

/// Announcements after an address was taken. More than one covers loss, and a receiver ignores one
/// that comes within 1 s of another update of its entry (arp(7), `locktime`).
const ANNOUNCE_OFFSETS: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(1100),
    Duration::from_millis(2200),
    Duration::from_millis(4400),
    Duration::from_millis(8800),
];
/// Time between two later announcements: a switch or router that lost all of the first ones keeps
/// the former owner's MAC for as long as its entry lives.
const ANNOUNCE_PERIOD: Duration = Duration::from_secs(30);
/// End of the announcements.
const ANNOUNCE_END: Duration = Duration::from_secs(300);

/// Announcements of one address that was taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnnounceSchedule {
    start: Time,
    sent: usize,
}

impl AnnounceSchedule {
    pub(super) const fn new(start: Time) -> Self {
        Self { start, sent: 0 }
    }

    /// When the next announcement is due; `None` after the last.
    pub(super) fn next_due(&self) -> Option<Time> {
        let offset = match ANNOUNCE_OFFSETS.get(self.sent) {
            Some(offset) => *offset,
            None => ANNOUNCE_PERIOD * (self.sent - ANNOUNCE_OFFSETS.len() + 1) as u32,
        };
        (offset <= ANNOUNCE_END).then(|| self.start + offset)
    }

    /// True if an announcement is due. Those that a late caller missed are not caught up.
    pub(super) fn take_due(&mut self, now: Time) -> bool {
        let mut is_due = false;
        while self.next_due().is_some_and(|due| due <= now) {
            self.sent += 1;
            is_due = true;
        }
        is_due
    }
}

/// Progress of the probes for one address.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProbeSchedule {
    pub(super) addr: IpAddr,
    /// Probes left to send.
    left: u8,
    /// `None` once the last answer was waited for.
    next: Option<Time>,
    random: SmallRandom,
}

/// Step of a [`ProbeSchedule`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeStep {
    Wait,
    Send,
    /// Nobody objected.
    Done,
}

impl ProbeSchedule {
    /// `is_urgent`: the address is in use already, so that the first probe leaves at once.
    pub(super) fn new(now: Time, addr: IpAddr, is_urgent: bool, seed: u64) -> Self {
        let mut random = SmallRandom(seed);
        let wait = if is_urgent { Duration::ZERO } else { random.duration_below(PROBE_WAIT) };
        let left = if addr.is_ipv4() { PROBE_NUM } else { DAD_TRANSMITS };
        Self { addr, left, next: Some(now + wait), random }
    }

    pub(super) const fn next_due(&self) -> Option<Time> {
        self.next
    }

    pub(super) fn take_step(&mut self, now: Time) -> ProbeStep {
        let Some(due) = self.next else { return ProbeStep::Done };
        if now < due {
            return ProbeStep::Wait;
        }
        let Some(left) = self.left.checked_sub(1) else {
            self.next = None;
            return ProbeStep::Done;
        };
        self.left = left;
        let wait = match (left, self.addr) {
            (0, IpAddr::V4(_)) => ANNOUNCE_WAIT,
            (0, IpAddr::V6(_)) => RETRANS_TIMER,
            _ => PROBE_MIN + self.random.duration_below(PROBE_SPREAD),
        };
        self.next = Some(now + wait);
        ProbeStep::Send
    }
}

/// Random delays: splitmix64 on a seed from outside.
#[derive(Clone, Copy, Debug)]
pub(super) struct SmallRandom(pub(super) u64);

impl SmallRandom {
    pub(super) fn next_number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn duration_below(&mut self, limit: Duration) -> Duration {
        Duration::from_nanos(self.next_number() % (limit.as_nanos() as u64).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe_times(addr: &str, is_urgent: bool, seed: u64) -> (Vec<u64>, u64) {
        let addr = addr.parse().expect("an address");
        let mut schedule = ProbeSchedule::new(Time::ZERO, addr, is_urgent, seed);
        let mut sent = Vec::new();
        loop {
            let now = schedule.next_due().expect("not done");
            match schedule.take_step(now) {
                ProbeStep::Send => sent.push(now.as_millis()),
                ProbeStep::Done => return (sent, now.as_millis()),
                ProbeStep::Wait => panic!("not due when due"),
            }
        }
    }

    #[test]
    fn probes_keep_the_constants_of_rfc_5227() {
        for seed in 0..200 {
            let (sent, done) = probe_times("10.1.0.9", false, seed);
            assert_eq!(sent.len(), 3);
            assert!(sent[0] < 1000, "{sent:?}");
            assert!(sent.windows(2).all(|two| (1000..2000).contains(&(two[1] - two[0]))));
            assert_eq!(done - sent[2], 2000);
            assert_eq!(probe_times("10.1.0.9", true, seed).0[0], 0);
            let (sent, done) = probe_times("fd01::9", false, seed);
            assert!(sent.len() == 1 && sent[0] < 1000 && done - sent[0] == 1000, "{sent:?}");
        }
    }

    #[test]
    fn announcements_are_several_soon_then_rare_then_none() {
        let mut schedule = AnnounceSchedule::new(Time::from_millis(5000));
        let mut at = Vec::new();
        while let Some(due) = schedule.next_due() {
            assert!(!schedule.take_due(Time::from_nanos(due.as_nanos() - 1)));
            assert!(schedule.take_due(due));
            at.push(due.as_millis() - 5000);
        }
        let first = [0, 100, 1100, 2200, 4400, 8800];
        let later = (1..=10).map(|count| count * 30_000);
        assert_eq!(at, first.into_iter().chain(later).collect::<Vec<_>>());
    }

    #[test]
    fn a_late_caller_announces_once() {
        let mut schedule = AnnounceSchedule::new(Time::ZERO);
        assert!(schedule.take_due(Time::from_millis(10_000)));
        assert!(!schedule.take_due(Time::from_millis(10_001)));
        assert_eq!(schedule.next_due(), Some(Time::from_millis(30_000)));
    }
}
