//! Round-trip time and loss of one route, from its own requests and their replies. Pure.

use std::time::Duration;

use crate::time::Time;

/// The newest requests are not judged: their replies may be on the way.
const UNJUDGED: u32 = 2;
/// Fewer requests say nothing about loss.
const ENOUGH: u32 = 8;

/// Which of the last 64 requests were answered, and how fast.
#[derive(Clone, Debug, Default)]
pub(super) struct Quality {
    /// The newest request's sequence; 0 before the first.
    newest: u32,
    /// Bit n: request `newest - n` was answered.
    answered: u64,
    smoothed: Option<Duration>,
    variation: Duration,
}

impl Quality {
    /// Takes the next sequence number for a request.
    pub(super) fn request(&mut self) -> u32 {
        self.newest = self.newest.wrapping_add(1).max(1);
        self.answered <<= 1;
        self.newest
    }

    /// Notes the reply to a request that was sent at `sent` and held for `held`.
    pub(super) fn reply(&mut self, now: Time, sequence: u32, sent: Time, held: Duration) {
        let age = self.newest.wrapping_sub(sequence);
        if age >= 64 || sequence == 0 || self.answered & (1 << age) != 0 {
            return;
        }
        self.answered |= 1 << age;
        self.measure(now.since(sent).saturating_sub(held));
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

    pub(super) fn rtt(&self) -> Option<Duration> {
        self.smoothed
    }

    /// Share of the judged requests that went unanswered, per mille; 0 while there are too few.
    pub(super) fn loss_permille(&self) -> u16 {
        let judged = self.newest.saturating_sub(UNJUDGED).min(64 - UNJUDGED);
        if judged < ENOUGH {
            return 0;
        }
        let mask = if judged >= 64 { u64::MAX } else { (1 << judged) - 1 };
        let answered = ((self.answered >> UNJUDGED) & mask).count_ones();
        ((judged - answered.min(judged)) * 1000 / judged) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_reply_lost_is_half() {
        let mut quality = Quality::default();
        for n in 0..200u64 {
            let sequence = quality.request();
            if n % 2 == 0 {
                let sent = Time::from_millis(n * 10);
                quality.reply(sent + Duration::from_millis(3), sequence, sent, Duration::ZERO);
            }
        }
        assert_eq!(quality.loss_permille(), 500);
        assert_eq!(quality.rtt(), Some(Duration::from_millis(3)));
    }

    #[test]
    fn a_reply_counts_once_and_not_before_its_request() {
        let mut quality = Quality::default();
        let sequence = quality.request();
        for _ in 0..3 {
            quality.reply(Time::from_millis(5), sequence, Time::ZERO, Duration::ZERO);
        }
        quality.reply(Time::from_millis(9), sequence + 7, Time::ZERO, Duration::ZERO);
        assert_eq!(quality.rtt(), Some(Duration::from_millis(5)));
    }
}
