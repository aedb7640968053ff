//! Measurements of one route by its heartbeats: round-trip time and jitter from this node's
//! requests and their replies, loss of the peer's requests from the gaps in their sequence numbers.
//! Pure.

use std::time::Duration;

use crate::time::Time;

/// The newest requests do not count as lost: they may be in flight.
const UNJUDGED_REQUESTS: u32 = 2;
/// Requests below which no loss is reported.
const MIN_JUDGED_REQUESTS: u32 = 8;
/// Requests in the window.
const REQUEST_WINDOW: u32 = 64;

/// Measurements of one route by its heartbeats.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct RouteStats {
    pub(crate) requests: RequestStats,
    pub(crate) inbound_loss: InboundLoss,
    /// When a request was last answered: both directions worked.
    pub(crate) last_answered: Option<Time>,
}

/// Which of the last 64 requests were answered, and the round-trip time.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct RequestStats {
    /// The newest request's sequence; 0 before the first.
    newest: u32,
    /// Bit n: request `newest - n` was answered.
    answered: u64,
    smoothed_rtt: Option<Duration>,
    rtt_variation: Duration,
}

impl RequestStats {
    /// Takes the next sequence number for a request.
    pub(crate) fn next_sequence(&mut self) -> u32 {
        self.newest = self.newest.wrapping_add(1).max(1);
        self.answered <<= 1;
        self.newest
    }

    /// Counts the reply to a request that was sent at `sent` and held for `held` by the peer.
    /// Returns the round-trip time, once per request.
    pub(crate) fn on_reply(
        &mut self,
        now: Time,
        sequence: u32,
        sent: Time,
        held: Duration,
    ) -> Option<Duration> {
        let age = self.newest.wrapping_sub(sequence);
        if age >= REQUEST_WINDOW || sequence == 0 || self.answered & (1 << age) != 0 {
            return None;
        }
        self.answered |= 1 << age;
        let rtt = now.since(sent).saturating_sub(held);
        self.update_rtt(rtt);
        Some(rtt)
    }

    /// RFC 6298 section 2: gains of 1/8 and 1/4.
    fn update_rtt(&mut self, rtt: Duration) {
        match self.smoothed_rtt {
            None => {
                self.smoothed_rtt = Some(rtt);
                self.rtt_variation = rtt / 2;
            }
            Some(smoothed) => {
                self.rtt_variation = (self.rtt_variation * 3 + smoothed.abs_diff(rtt)) / 4;
                self.smoothed_rtt = Some((smoothed * 7 + rtt) / 8);
            }
        }
    }

    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.smoothed_rtt
    }

    /// Mean deviation of the round-trip time.
    pub(crate) fn jitter(&self) -> Option<Duration> {
        self.smoothed_rtt.map(|_| self.rtt_variation)
    }
}

/// Which of the peer's last 64 requests arrived.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct InboundLoss {
    /// The newest request's sequence; `None` before the first.
    newest: Option<u32>,
    /// Bit n: request `newest - n` arrived.
    arrived: u64,
    /// Requests since the first, at most [`REQUEST_WINDOW`].
    count: u32,
}

impl InboundLoss {
    /// Counts a request of the peer. A gap as long as the window is an outage, not loss, and a
    /// sequence from the past is a restart: both begin a new count.
    pub(crate) fn on_request(&mut self, sequence: u32) {
        let ahead = self.newest.map(|newest| sequence.wrapping_sub(newest));
        match ahead {
            Some(ahead @ 1..REQUEST_WINDOW) => {
                self.newest = Some(sequence);
                self.arrived = self.arrived << ahead | 1;
                self.count = (self.count + ahead).min(REQUEST_WINDOW);
            }
            Some(ahead) if ahead.wrapping_neg() < REQUEST_WINDOW => {
                // Late, or a copy.
                self.arrived |= 1 << ahead.wrapping_neg();
            }
            _ => *self = Self { newest: Some(sequence), arrived: 1, count: 1 },
        }
    }

    /// Share of the peer's requests that did not arrive, per mille; 0 while there are too few.
    pub(crate) fn loss_permille(&self) -> u16 {
        let judged = self.count.saturating_sub(UNJUDGED_REQUESTS);
        if judged < MIN_JUDGED_REQUESTS {
            return 0;
        }
        let mask = (1u64 << judged) - 1;
        let arrived = ((self.arrived >> UNJUDGED_REQUESTS) & mask).count_ones();
        ((judged - arrived) * 1000 / judged) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_request_lost_is_half() {
        let mut inbound = InboundLoss::default();
        (10..200).step_by(2).for_each(|sequence| inbound.on_request(sequence));
        assert_eq!(inbound.loss_permille(), 500);
        (137..200).step_by(2).for_each(|sequence| inbound.on_request(sequence));
        assert_eq!(inbound.loss_permille(), 0, "late is not lost");
    }

    #[test]
    fn few_requests_outages_and_restarts_are_no_loss() {
        let mut inbound = InboundLoss::default();
        [1, 3, 5, 7, 9].into_iter().for_each(|sequence| inbound.on_request(sequence));
        assert_eq!(inbound.loss_permille(), 0);
        (10..80).for_each(|sequence| inbound.on_request(sequence));
        inbound.on_request(80 + REQUEST_WINDOW);
        assert_eq!(inbound.loss_permille(), 0, "an outage");
        (145..245).for_each(|sequence| inbound.on_request(sequence));
        inbound.on_request(1);
        (2..100).for_each(|sequence| inbound.on_request(sequence));
        assert_eq!(inbound.loss_permille(), 0, "a restart");
        (101..200).for_each(|sequence| inbound.on_request(sequence));
        assert_eq!(inbound.loss_permille(), 0, "one, long ago");
    }

    #[test]
    fn numbers_wrap() {
        let mut inbound = InboundLoss::default();
        for offset in 0..100u32 {
            if offset % 10 != 0 {
                inbound.on_request((u32::MAX - 50).wrapping_add(offset));
            }
        }
        assert!((90..=110).contains(&inbound.loss_permille()), "{}", inbound.loss_permille());
    }

    #[test]
    fn a_reply_counts_once_and_not_before_its_request() {
        let mut quality = RequestStats::default();
        let sequence = quality.next_sequence();
        let at = Time::from_millis;
        assert!(quality.on_reply(at(5), sequence, Time::ZERO, Duration::from_millis(2)).is_some());
        assert!(quality.on_reply(at(5), sequence, Time::ZERO, Duration::ZERO).is_none());
        assert!(quality.on_reply(at(9), sequence + 7, Time::ZERO, Duration::ZERO).is_none());
        assert_eq!(quality.rtt(), Some(Duration::from_millis(3)));
        assert!(quality.jitter() > Some(Duration::ZERO));
    }
}
