//! What heartbeats tell of one route: round-trip time and jitter from this node's requests and
//! their replies, the loss of the peer's requests from the gaps in their numbers. Pure.

use std::time::Duration;

use crate::time::Time;

/// The newest requests are not judged: what is missing may be on the way.
const UNJUDGED: u32 = 2;
/// Fewer requests say nothing about loss.
const ENOUGH: u32 = 8;
/// Requests remembered.
const WINDOW: u32 = 64;

/// Which of the last 64 requests were answered, and how fast.
#[derive(Clone, Debug, Default)]
pub(crate) struct Quality {
    /// The newest request's sequence; 0 before the first.
    newest: u32,
    /// Bit n: request `newest - n` was answered.
    answered: u64,
    smoothed: Option<Duration>,
    variation: Duration,
}

impl Quality {
    /// Takes the next sequence number for a request.
    pub(crate) fn request(&mut self) -> u32 {
        self.newest = self.newest.wrapping_add(1).max(1);
        self.answered <<= 1;
        self.newest
    }

    /// Notes the reply to a request that was sent at `sent` and held for `held`. Returns the
    /// round-trip time, once per request.
    pub(crate) fn reply(
        &mut self,
        now: Time,
        sequence: u32,
        sent: Time,
        held: Duration,
    ) -> Option<Duration> {
        let age = self.newest.wrapping_sub(sequence);
        if age >= WINDOW || sequence == 0 || self.answered & (1 << age) != 0 {
            return None;
        }
        self.answered |= 1 << age;
        let rtt = now.since(sent).saturating_sub(held);
        self.measure(rtt);
        Some(rtt)
    }

    /// RFC 6298 section 2: gains of 1/8 and 1/4.
    fn measure(&mut self, rtt: Duration) {
        match self.smoothed {
            None => {
                self.smoothed = Some(rtt);
                self.variation = rtt / 2;
            }
            Some(smoothed) => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(rtt)) / 4;
                self.smoothed = Some((smoothed * 7 + rtt) / 8);
            }
        }
    }

    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.smoothed
    }

    /// How far round-trip times stray from their mean.
    pub(crate) fn jitter(&self) -> Option<Duration> {
        self.smoothed.map(|_| self.variation)
    }
}

/// Which of the peer's last 64 requests arrived.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Inbound {
    /// The newest request's sequence; `None` before the first.
    newest: Option<u32>,
    /// Bit n: request `newest - n` arrived.
    arrived: u64,
    /// Requests since the first, at most [`WINDOW`].
    count: u32,
}

impl Inbound {
    /// A request of the peer arrived. A gap as long as the window is no loss but an outage, and a
    /// number from the past a restart: both begin a new count.
    pub(crate) fn request(&mut self, sequence: u32) {
        let ahead = self.newest.map(|newest| sequence.wrapping_sub(newest));
        match ahead {
            Some(ahead @ 1..WINDOW) => {
                self.newest = Some(sequence);
                self.arrived = self.arrived << ahead | 1;
                self.count = (self.count + ahead).min(WINDOW);
            }
            Some(ahead) if ahead.wrapping_neg() < WINDOW => {
                // Late, or a copy.
                self.arrived |= 1 << ahead.wrapping_neg();
            }
            _ => *self = Self { newest: Some(sequence), arrived: 1, count: 1 },
        }
    }

    /// Share of the peer's requests that did not arrive, per mille; 0 while there are too few.
    pub(crate) fn loss_permille(&self) -> u16 {
        let judged = self.count.saturating_sub(UNJUDGED);
        if judged < ENOUGH {
            return 0;
        }
        let mask = (1u64 << judged) - 1;
        let arrived = ((self.arrived >> UNJUDGED) & mask).count_ones();
        ((judged - arrived) * 1000 / judged) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_request_lost_is_half() {
        let mut inbound = Inbound::default();
        (10..200).step_by(2).for_each(|sequence| inbound.request(sequence));
        assert_eq!(inbound.loss_permille(), 500);
        (137..200).step_by(2).for_each(|sequence| inbound.request(sequence));
        assert_eq!(inbound.loss_permille(), 0, "late is not lost");
    }

    #[test]
    fn few_requests_outages_and_restarts_are_no_loss() {
        let mut inbound = Inbound::default();
        [1, 3, 5, 7, 9].into_iter().for_each(|sequence| inbound.request(sequence));
        assert_eq!(inbound.loss_permille(), 0);
        (10..80).for_each(|sequence| inbound.request(sequence));
        inbound.request(80 + WINDOW);
        assert_eq!(inbound.loss_permille(), 0, "an outage");
        (145..245).for_each(|sequence| inbound.request(sequence));
        inbound.request(1);
        (2..100).for_each(|sequence| inbound.request(sequence));
        assert_eq!(inbound.loss_permille(), 0, "a restart");
        (101..200).for_each(|sequence| inbound.request(sequence));
        assert_eq!(inbound.loss_permille(), 0, "one, long ago");
    }

    #[test]
    fn numbers_wrap() {
        let mut inbound = Inbound::default();
        for offset in 0..100u32 {
            if offset % 10 != 0 {
                inbound.request((u32::MAX - 50).wrapping_add(offset));
            }
        }
        assert!((90..=110).contains(&inbound.loss_permille()), "{}", inbound.loss_permille());
    }

    #[test]
    fn a_reply_counts_once_and_not_before_its_request() {
        let mut quality = Quality::default();
        let sequence = quality.request();
        let at = Time::from_millis;
        assert!(quality.reply(at(5), sequence, Time::ZERO, Duration::from_millis(2)).is_some());
        assert!(quality.reply(at(5), sequence, Time::ZERO, Duration::ZERO).is_none());
        assert!(quality.reply(at(9), sequence + 7, Time::ZERO, Duration::ZERO).is_none());
        assert_eq!(quality.rtt(), Some(Duration::from_millis(3)));
        assert!(quality.jitter() > Some(Duration::ZERO));
    }
}
