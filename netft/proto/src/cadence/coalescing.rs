//! Coalescing of heartbeats of several routes into one wake-up. Pure.
//!
//! A wake-up costs more than a send, so a route whose next heartbeat may leave when this node sends
//! anyway takes that slot. The slots themselves are random, so that nodes do not synchronise (RFC
//! 5880 section 6.8.7), and within the window of
//! [`RequestAlternation`](crate::cadence::alternation::RequestAlternation).

use std::{collections::BTreeMap, ops::RangeInclusive};

use crate::{cadence::jitter::Jitter, time::Time};

/// The most heartbeats in one slot, so that a burst of a large mesh fills no queue.
const MAX_PER_SLOT: u16 = 32;

/// The planned send slots, each with its number of heartbeats.
#[derive(Clone, Debug)]
pub(crate) struct SendSlots {
    jitter: Jitter,
    planned: BTreeMap<Time, u16>,
}

impl SendSlots {
    pub(crate) fn new(seed: u64) -> Self {
        Self { jitter: Jitter::new(seed), planned: BTreeMap::new() }
    }

    /// Picks the slot of a heartbeat in `window`.
    pub(crate) fn pick_slot(&mut self, now: Time, window: &RangeInclusive<Time>) -> Time {
        let (first, last) = (*window.start(), *window.end());
        while self.planned.first_key_value().is_some_and(|(at, _)| *at <= now) {
            self.planned.pop_first();
        }
        let alone = self.jitter.time_between(first, last);
        let later = self.planned.range(alone..=last);
        let sooner = self.planned.range(first..alone).rev();
        let at = later
            .chain(sooner)
            .find(|(_, count)| **count < MAX_PER_SLOT)
            .map_or(alone, |(at, _)| *at);
        *self.planned.entry(at).or_default() += 1;
        at
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DELAY: Duration = Duration::from_millis(100);

    fn next_of(slots: &mut SendSlots, now: Time) -> Time {
        slots.pick_slot(now, &(now + DELAY * 3 / 4..=now + DELAY))
    }

    /// Runs `routes` for `beats` slots; returns the number of heartbeats in each.
    fn run(routes: usize, beats: usize) -> Vec<usize> {
        let mut slots = SendSlots::new(7);
        let start = |route: usize| Time::from_nanos(1_000_003 * route as u64);
        let mut next: Vec<Time> = (0..routes).map(start).collect();
        let mut left = Vec::new();
        for _ in 0..beats {
            let now = next.iter().copied().min().unwrap_or_default();
            let mut count = 0;
            for at in next.iter_mut().filter(|at| **at == now) {
                *at = next_of(&mut slots, now);
                let gap = at.since(now);
                assert!(gap >= DELAY * 3 / 4 && gap <= DELAY, "{gap:?}");
                count += 1;
            }
            left.push(count);
        }
        assert!(slots.planned.len() <= routes);
        left
    }

    #[test]
    fn few_routes_come_to_leave_together() {
        let left = run(3, 200);
        assert!(left[100..].iter().all(|count| *count == 3), "{left:?}");
    }

    #[test]
    fn many_routes_leave_in_bounded_groups() {
        let left = run(768, 4000);
        assert!(left.iter().all(|count| *count <= usize::from(MAX_PER_SLOT)));
        let coalesced = &left[2000..];
        let mean = coalesced.iter().sum::<usize>() / coalesced.len();
        assert!(mean >= 8, "{mean} at a time");
    }

    #[test]
    fn the_moments_are_random() {
        let mut slots = SendSlots::new(3);
        let mut now = Time::ZERO;
        let mut gaps = Vec::new();
        for _ in 0..200 {
            let at = next_of(&mut slots, now);
            gaps.push(at.since(now));
            now = at;
        }
        gaps.sort_unstable();
        gaps.dedup();
        assert!(gaps.len() > 150, "{} different intervals", gaps.len());
        let spread = gaps[gaps.len() - 1] - gaps[0];
        assert!(spread > DELAY / 5, "{spread:?}");
    }
}
