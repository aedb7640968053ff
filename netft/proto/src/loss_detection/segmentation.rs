//! Segmented sends (UDP_SEGMENT) that vanish while single datagrams arrive, as with known faults of
//! kernels, virtio hosts and NIC firmware. Pure.
//!
//! Two proofs are needed. The acknowledgements of data, per path: segmented sends that were lost
//! whole, none of that size delivered between them, and after each a datagram sent singly that was
//! delivered. Then the route: a padded path MTU probe, a single datagram as large as those frames,
//! is answered, so it is no black hole of large packets. The route falls back to plain sends, and
//! tries segmented ones again after [`RETRY_INTERVAL`].

use std::{collections::BTreeMap, time::Duration};

use crate::{ids::RouteId, time::Time};

/// Losses, each with a single delivery after it: a burst that a full queue dropped whole is no
/// pattern.
const MIN_LOSSES: u8 = 3;
/// Time for the path MTU probe to be answered.
const PROBE_WAIT: Duration = Duration::from_secs(5);
/// How long a route sends plainly before it tries segmented sends again.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(3600);

/// The evidence of one path.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SegmentLosses {
    /// Losses with a single delivery after each but perhaps the newest.
    losses: u8,
    /// Send number of the newest loss.
    newest: u64,
    /// Bytes of the smallest of them.
    smallest: usize,
    /// Send number of a datagram sent singly after the newest loss and delivered.
    single: Option<u64>,
}

impl SegmentLosses {
    /// A segmented send of so many bytes was lost whole.
    pub(crate) fn on_lost(&mut self, send_number: u64, bytes: usize) {
        // Losses without a single delivery between them are one.
        if self.losses == 0 {
            self.smallest = bytes;
        } else if self.single.is_none_or(|single| send_number < single) {
            return;
        }
        self.losses = self.losses.saturating_add(1);
        self.smallest = self.smallest.min(bytes);
        (self.newest, self.single) = (send_number, None);
    }

    /// A send of `frames` frames was delivered, at least in part.
    #[inline]
    pub(crate) fn on_delivered(&mut self, send_number: u64, frames: u32, bytes: usize) {
        if self.losses == 0 {
            return;
        }
        if frames > 1 {
            if bytes >= self.smallest {
                *self = Self::default();
            }
        } else if self.single.is_none() && send_number > self.newest {
            self.single = Some(send_number);
        }
    }

    /// Returns whether segmented sends vanish and single datagrams arrive.
    pub(crate) fn is_proven(&self) -> bool {
        self.losses >= MIN_LOSSES && self.single.is_some()
    }
}

/// The routes of a node that send plainly, or are about to.
#[derive(Debug, Default)]
pub struct SegmentationFallback {
    routes: BTreeMap<RouteId, FallbackState>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FallbackState {
    /// Data has proven it; the path MTU probe is awaited.
    Checking { since: Time },
    /// Frames leave one by one.
    Plain { until: Time },
}

impl SegmentationFallback {
    /// The acknowledgements of data prove that segmented sends vanish on a route. Returns whether
    /// its path MTU is to be confirmed.
    pub fn on_vanishing(&mut self, now: Time, route: RouteId) -> bool {
        let known = self.routes.contains_key(&route);
        self.routes.entry(route).or_insert(FallbackState::Checking { since: now });
        !known
    }

    /// Returns whether frames leave one by one on a route.
    pub fn is_plain(&self, route: RouteId) -> bool {
        matches!(self.routes.get(&route), Some(FallbackState::Plain { .. }))
    }

    /// The routes on which frames leave one by one.
    pub fn plain_routes(&self) -> impl Iterator<Item = RouteId> + '_ {
        self.routes.keys().copied().filter(|route| self.is_plain(*route))
    }

    /// When [`poll`](Self::poll) has something to do without an answered probe.
    pub fn next_wake(&self) -> Option<Time> {
        let due = |state: &FallbackState| match *state {
            FallbackState::Checking { since } => since + PROBE_WAIT,
            FallbackState::Plain { until } => until,
        };
        self.routes.values().map(due).min()
    }

    /// Decides. `proven`: when a probe of a route's path MTU was answered last; the outer `None`:
    /// the route is gone. Returns the routes that changed, and whether they send plainly.
    pub fn poll(
        &mut self,
        now: Time,
        proven: impl Fn(RouteId) -> Option<Option<Time>>,
    ) -> Vec<(RouteId, bool)> {
        let mut changed = Vec::new();
        self.routes.retain(|route, state| {
            let Some(proven) = proven(*route) else { return false };
            match *state {
                FallbackState::Checking { since } if proven.is_some_and(|at| at > since) => {
                    *state = FallbackState::Plain { until: now + RETRY_INTERVAL };
                    changed.push((*route, true));
                    true
                }
                FallbackState::Checking { since } => now < since + PROBE_WAIT,
                FallbackState::Plain { until } if now < until => true,
                FallbackState::Plain { .. } => {
                    changed.push((*route, false));
                    false
                }
            }
        });
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: RouteId = RouteId(3);

    #[test]
    fn lost_segments_beside_single_deliveries_are_a_proof() {
        let mut path = SegmentLosses::default();
        path.on_delivered(1, 1, 1400);
        for send_number in [2, 4, 6] {
            path.on_lost(send_number, 2800);
            assert!(!path.is_proven());
            path.on_delivered(send_number + 1, 1, 100);
        }
        assert!(path.is_proven());
    }

    #[test]
    fn a_dead_path_and_a_full_queue_prove_nothing() {
        let mut path = SegmentLosses::default();
        (2..20).for_each(|send_number| path.on_lost(send_number, 2800));
        path.on_delivered(1, 1, 1400);
        path.on_delivered(30, 1, 1400);
        // Sent before that delivery: the same burst.
        (20..29).for_each(|send_number| path.on_lost(send_number, 2800));
        path.on_delivered(31, 1, 1400);
        assert!(!path.is_proven(), "one burst");
        for send_number in [40, 50] {
            path.on_lost(send_number, 2800);
            path.on_delivered(send_number + 1, 1, 1400);
            path.on_delivered(send_number + 2, 2, 300);
        }
        assert!(path.is_proven(), "smaller ones prove nothing about these");
        // A send as large arrived in part: segmentation works.
        path.on_delivered(60, 2, 2800);
        assert!(!path.is_proven());
    }

    #[test]
    fn a_route_falls_back_once_its_path_mtu_is_proven_and_tries_again_later() {
        let at = Time::from_millis;
        let mut fallback = SegmentationFallback::default();
        assert!(fallback.on_vanishing(at(100), ROUTE) && !fallback.on_vanishing(at(101), ROUTE));
        assert!(fallback.poll(at(110), |_| Some(Some(at(100)))).is_empty(), "an older answer");
        assert!(!fallback.is_plain(ROUTE));
        assert_eq!(fallback.poll(at(120), |_| Some(Some(at(115)))), [(ROUTE, true)]);
        assert_eq!(fallback.plain_routes().collect::<Vec<_>>(), [ROUTE]);
        let end = at(120) + RETRY_INTERVAL;
        assert_eq!(fallback.next_wake(), Some(end));
        assert!(!fallback.on_vanishing(at(130), ROUTE), "sent before the table changed");
        assert_eq!(fallback.poll(end, |_| Some(None)), [(ROUTE, false)]);
        assert!(!fallback.is_plain(ROUTE) && fallback.next_wake().is_none());
        assert!(fallback.on_vanishing(end, ROUTE), "it is still so");
    }

    #[test]
    fn a_black_hole_of_large_packets_is_left_to_path_mtu_discovery() {
        let at = Time::from_millis;
        let mut fallback = SegmentationFallback::default();
        fallback.on_vanishing(at(100), ROUTE);
        assert_eq!(fallback.next_wake(), Some(at(5100)));
        assert!(fallback.poll(at(5099), |_| Some(None)).is_empty());
        assert!(fallback.poll(at(5100), |_| Some(None)).is_empty());
        assert!(fallback.next_wake().is_none());
        fallback.on_vanishing(at(6000), ROUTE);
        assert!(fallback.poll(at(6001), |_| None).is_empty(), "the route is gone");
        assert!(fallback.next_wake().is_none());
    }
}
