//! Acknowledgements: ranges of received frame counters, as ACK frames in RFC 9000 section 19.3.
//! Pure.
//!
//! The payload of a frame of kind [`Ack`](crate::wire::header::FrameKind::Ack), all numbers
//! big-endian:
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +---------------+---------------+-------------------------------+
//! |  range count  |  route count  |         self-stall, ms        |  0
//! +---------------+---------------+-------------------------------+
//! | immediate ACK request (0: no) | immediate ACK reply (0: no)   |  4
//! +---------------------------------------------------------------+
//! |                                                               |  8
//! +                        highest counter                        +
//! |                                                               |
//! +===============================================================+
//! |            range: highest counter − its last counter          |  0, each
//! +---------------------------------------------------------------+
//! |                   highest counter − its first counter         |  4
//! +===============================================================+
//! |     route: 2^32 − 1 (the one that carries this message)       |  0, each
//! +---------------------------------------------------------------+
//! |                                                               |  4
//! +                 data frames received there                    +
//! |                                                               |
//! +---------------------------------------------------------------+
//! ```
//!
//! Ranges are ordered newest first and do not overlap, no counter is above the highest. Routes are
//! in ascending order; those but [`CARRYING_ROUTE`] are ignored. The length is exact, at most
//! [`MAX_ACK_LEN`] bytes: sealed it fits into the minimum IPv6 MTU (1280 bytes), so an
//! acknowledgement is never too big for a route.

use crate::wire::{DropReason, header::COUNTER_LIMIT, reader::ByteReader};

/// Bytes of an acknowledgement before its ranges.
pub const ACK_FIXED_LEN: usize = 16;
/// Bytes of one range.
pub const RANGE_LEN: usize = 8;
/// Bytes of one route.
pub const ROUTE_LEN: usize = 12;
/// Maximum number of ranges in one acknowledgement.
pub const MAX_RANGES: usize = 32;
/// Maximum number of routes in one acknowledgement.
pub const MAX_ACK_ROUTES: usize = 64;
/// Stands for the route that carries the acknowledgement.
pub const CARRYING_ROUTE: u32 = u32::MAX;
/// Maximum length of an acknowledgement, bytes.
pub const MAX_ACK_LEN: usize = ACK_FIXED_LEN + MAX_RANGES * RANGE_LEN + MAX_ACK_ROUTES * ROUTE_LEN;

/// A decoded acknowledgement: the frames that arrived at its sender.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ack {
    /// Highest frame counter received, over all routes. Below [`COUNTER_LIMIT`].
    pub highest: u64,
    /// Length of the sender's latest scheduling stall, ms (0: none recently).
    pub stalled_ms: u16,
    /// Request for an immediate acknowledgement, echoed in one that is built once the receiver has
    /// drained its sockets. 0: none.
    pub immediate_ack_request: u16,
    /// The request this acknowledgement answers; 0: none.
    pub immediate_ack_reply: u16,
    /// Ranges of received counters, newest first, without overlap, none above `highest`, at most
    /// [`MAX_RANGES`].
    pub ranges: Vec<AckRange>,
    /// Data frames received on routes, in ascending order of `your_route`, at most
    /// [`MAX_ACK_ROUTES`]. Only the one of [`CARRYING_ROUTE`] is sent and read.
    pub routes: Vec<RouteHeard>,
}

/// A range of received counters, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckRange {
    /// Lowest counter of the range.
    pub first: u64,
    /// Highest counter of the range.
    pub last: u64,
}

/// Reception on one route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteHeard {
    /// [`CARRYING_ROUTE`]. Never 0.
    pub your_route: u32,
    /// Data frames received on it under this session, copies too. At most [`Ack::highest`].
    pub frames: u64,
}

impl Ack {
    /// Data frames that arrived on the route that carries this acknowledgement.
    pub fn arrivals(&self) -> Option<u64> {
        let carrying = |route: &&RouteHeard| route.your_route == CARRYING_ROUTE;
        self.routes.iter().find(carrying).map(|route| route.frames)
    }

    /// States how many data frames arrived on the route that will carry this acknowledgement.
    pub fn set_arrivals(&mut self, frames: u64) {
        let frames = frames.min(self.highest);
        self.routes = vec![RouteHeard { your_route: CARRYING_ROUTE, frames }];
    }

    /// Appends the acknowledgement to `out`, at most [`MAX_ACK_LEN`] bytes.
    ///
    /// Values that the format cannot carry are left out, which only acknowledges less: ranges
    /// beyond [`MAX_RANGES`] or reaching 2^32 below `highest` (the replay window is far smaller),
    /// routes beyond [`MAX_ACK_ROUTES`]. The peer refuses any other order than the documented one.
    pub fn encode(&self, out: &mut Vec<u8>) {
        debug_assert!(self.highest < COUNTER_LIMIT);
        debug_assert!(self.ranges.iter().all(|r| r.first <= r.last && r.last <= self.highest));
        debug_assert!(self.ranges.is_sorted_by(|newer, older| older.last < newer.first));
        debug_assert!(self.routes.is_sorted_by(|a, b| a.your_route < b.your_route));
        debug_assert!(self.routes.iter().all(|r| r.your_route != 0 && r.frames <= self.highest));
        let behind = |counter| u32::try_from(self.highest.saturating_sub(counter)).ok();
        let ranges = self
            .ranges
            .iter()
            .take(MAX_RANGES)
            .map_while(|range| Some((behind(range.last)?, behind(range.first)?)));
        let routes = &self.routes[..self.routes.len().min(MAX_ACK_ROUTES)];
        out.reserve(
            ACK_FIXED_LEN
                + self.ranges.len().min(MAX_RANGES) * RANGE_LEN
                + routes.len() * ROUTE_LEN,
        );
        out.push(ranges.clone().count() as u8);
        out.push(routes.len() as u8);
        out.extend_from_slice(&self.stalled_ms.to_be_bytes());
        out.extend_from_slice(&self.immediate_ack_request.to_be_bytes());
        out.extend_from_slice(&self.immediate_ack_reply.to_be_bytes());
        out.extend_from_slice(&self.highest.to_be_bytes());
        for (last, first) in ranges {
            out.extend_from_slice(&last.to_be_bytes());
            out.extend_from_slice(&first.to_be_bytes());
        }
        for route in routes {
            out.extend_from_slice(&route.your_route.to_be_bytes());
            out.extend_from_slice(&route.frames.to_be_bytes());
        }
    }

    /// Decodes the whole payload of an authentic frame.
    ///
    /// # Errors
    /// [`DropReason::Malformed`] for more ranges or routes than allowed, a length that does not fit
    /// exactly, a counter out of range, ranges that overlap or ascend, routes that repeat or
    /// descend, or route 0.
    pub fn decode(payload: &[u8]) -> Result<Self, DropReason> {
        let mut reader = ByteReader::new(payload);
        let range_count = usize::from(reader.read_u8()?);
        let route_count = usize::from(reader.read_u8()?);
        let stalled_ms = reader.read_u16()?;
        let immediate_ack_request = reader.read_u16()?;
        let immediate_ack_reply = reader.read_u16()?;
        let highest = reader.read_u64()?;
        if highest >= COUNTER_LIMIT
            || range_count > MAX_RANGES
            || route_count > MAX_ACK_ROUTES
            || reader.remaining_len() != range_count * RANGE_LEN + route_count * ROUTE_LEN
        {
            return Err(DropReason::Malformed);
        }
        let ranges = decode_ranges(&mut reader, range_count, highest)?;
        let routes = decode_routes(&mut reader, route_count, highest)?;
        Ok(Self { highest, stalled_ms, immediate_ack_request, immediate_ack_reply, ranges, routes })
    }
}

fn decode_ranges(
    reader: &mut ByteReader<'_>,
    count: usize,
    highest: u64,
) -> Result<Vec<AckRange>, DropReason> {
    let mut ranges: Vec<AckRange> = Vec::with_capacity(count);
    for _ in 0..count {
        let below = |behind: u32| highest.checked_sub(behind.into()).ok_or(DropReason::Malformed);
        let last = below(reader.read_u32()?)?;
        let first = below(reader.read_u32()?)?;
        if first > last || ranges.last().is_some_and(|newer| last >= newer.first) {
            return Err(DropReason::Malformed);
        }
        ranges.push(AckRange { first, last });
    }
    Ok(ranges)
}

fn decode_routes(
    reader: &mut ByteReader<'_>,
    count: usize,
    highest: u64,
) -> Result<Vec<RouteHeard>, DropReason> {
    let mut routes = Vec::with_capacity(count);
    let mut previous = 0;
    for _ in 0..count {
        let route = RouteHeard { your_route: reader.read_u32()?, frames: reader.read_u64()? };
        // Ascending from 0: refuses route 0 as well as a repetition.
        if route.your_route <= previous || route.frames > highest {
            return Err(DropReason::Malformed);
        }
        previous = route.your_route;
        routes.push(route);
    }
    Ok(routes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::wire::header::FRAME_OVERHEAD;

    fn encoded(ack: &Ack) -> Vec<u8> {
        let mut out = Vec::new();
        ack.encode(&mut out);
        out
    }

    fn sample() -> Ack {
        Ack {
            highest: 0x0102_0304_0506,
            stalled_ms: 0x0708,
            immediate_ack_request: 0x090a,
            immediate_ack_reply: 0x0b0c,
            ranges: vec![
                AckRange { first: 0x0102_0304_0500, last: 0x0102_0304_0506 },
                AckRange { first: 0x0102_0304_04f0, last: 0x0102_0304_04fe },
            ],
            routes: vec![
                RouteHeard { your_route: 1, frames: 0x0102_0304_0506 },
                RouteHeard { your_route: 0x090a_0b0c, frames: 3 },
            ],
        }
    }

    prop_compose! {
        /// Ranges built downwards from `highest` out of gaps and lengths.
        fn any_ack()(
            highest in (1u64 << 38)..COUNTER_LIMIT,
            stalled_ms: u16,
            (immediate_ack_request, immediate_ack_reply) in any::<(u16, u16)>(),
            runs in vec((1u64..100_000, 0u64..100_000), 0..=MAX_RANGES),
            routes in proptest::collection::btree_map(1u32.., 0u64..1 << 38, 0..=MAX_ACK_ROUTES),
        ) -> Ack {
            let mut edge = highest + 1;
            let mut ranges = Vec::new();
            for (gap, length) in runs {
                let last = edge - gap;
                edge = last - length;
                ranges.push(AckRange { first: edge, last });
            }
            let routes = routes
                .into_iter()
                .map(|(your_route, frames)| RouteHeard { your_route, frames })
                .collect();
            Ack { highest, stalled_ms, immediate_ack_request, immediate_ack_reply, ranges, routes }
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(ack in any_ack()) {
            let bytes = encoded(&ack);
            prop_assert!(bytes.len() <= MAX_ACK_LEN);
            prop_assert_eq!(Ack::decode(&bytes), Ok(ack));
        }

        #[test]
        fn what_decodes_has_one_encoding_and_keeps_its_order(
            counts in (0u8..4, 0u8..4),
            offsets in vec(0u32..64, 8),
            tail in vec(any::<u8>(), 0..48),
        ) {
            let mut bytes = vec![counts.0, counts.1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 48];
            for offset in offsets.iter().take(usize::from(counts.0) * 2) {
                bytes.extend(offset.to_be_bytes());
            }
            bytes.extend(tail);
            if let Ok(ack) = Ack::decode(&bytes) {
                for pair in ack.ranges.windows(2) {
                    prop_assert!(pair[1].last < pair[0].first);
                }
                prop_assert_eq!(encoded(&ack), bytes);
            }
        }
    }

    #[test]
    fn the_bytes_are_these() {
        let golden = [
            2, 2, 7, 8, 9, 10, 11, 12, 0, 0, 1, 2, 3, 4, 5, 6, // fixed
            0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 8, 0, 0, 0, 22, // ranges
            0, 0, 0, 1, 0, 0, 1, 2, 3, 4, 5, 6, // first route
            9, 10, 11, 12, 0, 0, 0, 0, 0, 0, 0, 3,
        ];
        assert_eq!(encoded(&sample()), golden);
    }

    /// W-01, W-03.
    #[test]
    fn every_truncation_and_every_extra_byte_is_malformed() {
        let mut bytes = encoded(&sample());
        for len in 0..bytes.len() {
            assert_eq!(Ack::decode(&bytes[..len]), Err(DropReason::Malformed), "{len}");
        }
        for _ in 0..2 * ROUTE_LEN {
            bytes.push(0);
            assert_eq!(Ack::decode(&bytes), Err(DropReason::Malformed));
        }
    }

    #[test]
    fn lies_about_counters_and_order_are_malformed() {
        let refused = |at: usize, bytes: &[u8]| {
            let mut ack = encoded(&sample());
            ack[at..at + bytes.len()].copy_from_slice(bytes);
            assert_eq!(Ack::decode(&ack), Err(DropReason::Malformed), "{at}: {bytes:?}");
        };
        refused(8, &COUNTER_LIMIT.to_be_bytes());
        refused(8, &u64::MAX.to_be_bytes());
        refused(16, &7u32.to_be_bytes()); // the last below the first
        refused(24, &6u32.to_be_bytes()); // overlaps the newer range
        refused(24, &[0; 8]); // newer than the newer range
        refused(32, &[0; 4]); // route 0
        refused(44, &1u32.to_be_bytes()); // a route twice
        refused(36, &0x0102_0304_0507u64.to_be_bytes()); // above the highest
    }

    #[test]
    fn a_range_below_counter_zero_is_malformed() {
        let ack = Ack { highest: 5, ranges: vec![AckRange { first: 0, last: 5 }], ..sample() };
        let ack = Ack { routes: vec![], ..ack };
        let mut bytes = encoded(&ack);
        assert_eq!(Ack::decode(&bytes), Ok(ack));
        bytes[23] = 6;
        assert_eq!(Ack::decode(&bytes), Err(DropReason::Malformed));
    }

    #[test]
    fn ranges_that_touch_are_two_ranges() {
        let ranges = vec![AckRange { first: 5, last: 9 }, AckRange { first: 0, last: 4 }];
        let ack = Ack { highest: 9, ranges, ..Ack::default() };
        assert_eq!(Ack::decode(&encoded(&ack)), Ok(ack));
    }

    #[test]
    fn more_than_the_wire_carries_is_left_out_by_us_and_refused_from_others() {
        let highest = 1 << 40;
        let ranges = (0..40).map(|n| AckRange { first: highest - 2 * n, last: highest - 2 * n });
        let routes = (1..80).map(|n| RouteHeard { your_route: n, frames: 1 });
        let (ranges, routes) = (ranges.collect(), routes.collect());
        let mut bytes = encoded(&Ack { highest, ranges, routes, ..Ack::default() });
        assert_eq!(bytes.len(), MAX_ACK_LEN);
        let ack = Ack::decode(&bytes).unwrap();
        assert_eq!((ack.ranges.len(), ack.routes.len()), (MAX_RANGES, MAX_ACK_ROUTES));

        bytes[0] = MAX_RANGES as u8 + 1;
        bytes.extend([0; RANGE_LEN]);
        assert_eq!(Ack::decode(&bytes), Err(DropReason::Malformed));

        let far = AckRange { first: 0, last: 1 };
        let ack = Ack { highest, ranges: vec![far], ..Ack::default() };
        assert_eq!(Ack::decode(&encoded(&ack)).unwrap().ranges, vec![]);
    }

    #[test]
    fn the_largest_acknowledgement_fits_into_the_smallest_ipv6_packet() {
        const { assert!(MAX_ACK_LEN + FRAME_OVERHEAD + 40 + 8 <= 1280) }
    }
}
