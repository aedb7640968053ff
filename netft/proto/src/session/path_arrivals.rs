//! Data frames that arrived on each route of a session, here and at the peer.
//!
//! Both ends count: the receiver every authentic data frame by the route it came on, whichever copy
//! it is, and its acknowledgements carry the count of the route they travel on. The sender compares
//! it with what it sent there, and with what of that is acknowledged.

use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

use crate::ids::RouteId;

/// Routes counted; data on any other counts nowhere, and a comparison of such a route ends
/// undecided.
const MAX_COUNTED_ROUTES: usize = 16;

/// The counts of a session, shared by every worker.
#[derive(Default)]
pub(super) struct PathArrivals {
    slots: [PathSlot; MAX_COUNTED_ROUTES],
}

/// The counts of one route.
#[derive(Default)]
struct PathSlot {
    /// Its number; 0: the slot is free.
    route: AtomicU32,
    received: AtomicU64,
    /// The peer's count of what this node sent there.
    reported: AtomicU64,
    /// Frames this node sent there that are acknowledged, whichever copy arrived.
    acked: AtomicU64,
}

impl PathArrivals {
    #[inline]
    pub(super) fn record_received(&self, route: RouteId, frames: u64) {
        if let Some(slot) = self.slot_of(route) {
            slot.received.fetch_add(frames, Relaxed);
        }
    }

    pub(super) fn received(&self, route: RouteId) -> u64 {
        self.known_slot(route).map_or(0, |slot| slot.received.load(Relaxed))
    }

    /// Acknowledgements may overtake each other: the count only grows.
    pub(super) fn record_reported(&self, route: RouteId, frames: u64) {
        if let Some(slot) = self.slot_of(route) {
            slot.reported.fetch_max(frames, Relaxed);
        }
    }

    pub(super) fn reported(&self, route: RouteId) -> u64 {
        self.known_slot(route).map_or(0, |slot| slot.reported.load(Relaxed))
    }

    pub(super) fn record_acked(&self, route: RouteId, frames: u64) {
        if let Some(slot) = self.slot_of(route) {
            slot.acked.fetch_add(frames, Relaxed);
        }
    }

    pub(super) fn acked(&self, route: RouteId) -> u64 {
        self.known_slot(route).map_or(0, |slot| slot.acked.load(Relaxed))
    }

    /// Frees the slots of routes that are gone, so that the bound is one of present routes.
    pub(super) fn retain_routes(&self, exists: impl Fn(RouteId) -> bool) {
        for slot in &self.slots {
            let route = slot.route.load(Acquire);
            if route != 0 && !exists(RouteId(route)) {
                slot.received.store(0, Relaxed);
                slot.reported.store(0, Relaxed);
                slot.acked.store(0, Relaxed);
                slot.route.store(0, Release);
            }
        }
    }

    /// The counts, by route: received here, reported by the peer, and acknowledged.
    pub(super) fn to_counts(&self) -> Vec<(u32, u64, u64, u64)> {
        let count = |slot: &PathSlot| {
            let (received, reported) = (slot.received.load(Relaxed), slot.reported.load(Relaxed));
            (slot.route.load(Acquire), received, reported, slot.acked.load(Relaxed))
        };
        self.slots.iter().map(count).filter(|(route, ..)| *route != 0).collect()
    }

    /// The slot of a route, taken when it is seen first.
    #[inline]
    fn slot_of(&self, route: RouteId) -> Option<&PathSlot> {
        self.known_slot(route).or_else(|| self.take_slot(route))
    }

    #[inline]
    fn known_slot(&self, route: RouteId) -> Option<&PathSlot> {
        self.slots.iter().find(|slot| slot.route.load(Acquire) == route.0)
    }

    #[cold]
    fn take_slot(&self, route: RouteId) -> Option<&PathSlot> {
        self.slots.iter().find(|slot| match slot.route.load(Acquire) {
            0 => match slot.route.compare_exchange(0, route.0, AcqRel, Acquire) {
                Ok(_) => true,
                Err(taken) => taken == route.0,
            },
            taken => taken == route.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_has_its_counts_and_the_slots_are_bounded() {
        let arrivals = PathArrivals::default();
        for route in 1..40 {
            arrivals.record_received(RouteId(route), u64::from(route));
            arrivals.record_received(RouteId(route), 1);
            arrivals.record_reported(RouteId(route), 7);
            arrivals.record_reported(RouteId(route), 5);
            arrivals.record_acked(RouteId(route), 3);
        }
        let counted = |route| {
            let route = RouteId(route);
            (arrivals.received(route), arrivals.reported(route), arrivals.acked(route))
        };
        assert_eq!((counted(1), counted(16), counted(17)), ((2, 7, 3), (17, 7, 3), (0, 0, 0)));
    }

    #[test]
    fn routes_that_are_gone_leave_room_for_others() {
        let arrivals = PathArrivals::default();
        for route in 1..100 {
            arrivals.retain_routes(|known| known.0 + 3 > route);
            arrivals.record_received(RouteId(route), 5);
            arrivals.record_reported(RouteId(route), 4);
            assert_eq!(arrivals.received(RouteId(route)), 5, "route {route}");
        }
        // A free slot before a route's own does not split its count.
        arrivals.retain_routes(|known| known.0 == 99);
        arrivals.record_received(RouteId(99), 1);
        assert_eq!((arrivals.received(RouteId(99)), arrivals.reported(RouteId(99))), (6, 4));
        assert_eq!(arrivals.received(RouteId(98)), 0);
    }
}
