//! Heartbeats: request and reply, with the sender's report on every route. Pure.
//!
//! The payload of a frame of kind [`Heartbeat`](crate::wire::header::FrameKind::Heartbeat), all
//! numbers big-endian:
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +---------------+---------------+-------------------------------+
//! |    message    | report count  |         self-stall, ms        |  0
//! +---------------+---------------+-------------------------------+
//! |             route (the sender's id, never 0)                  |  4
//! +---------------------------------------------------------------+
//! |        your route (the receiver's id, 0 = unknown)            |  8
//! +---------------------------------------------------------------+
//! |                           sequence                            | 12
//! +---------------------------------------------------------------+
//! |                                                               | 16
//! +                          sent at, ns                          +
//! |                                                               |
//! +---------------------------------------------------------------+
//! |                   held, µs (0 in a request)                   | 24
//! +---------------------------------------------------------------+
//! |              serial (over all routes to the receiver)         | 28
//! +===============================================================+
//! |           report: your route (the receiver's id)              |  0, each
//! +-----+-+-+-+-+-+---------------+-------------------------------+
//! | 0 0 0 |C|D|A|L|H| reserved (0)|    loss, per mille (0–1000)   |  4
//! +---------+-+-+-+---------------+-------------------------------+
//! ```
//!
//! H = heard, L = local down, A = admin down, D = draining, C = carries data. The length is exact:
//! [`HEARTBEAT_FIXED_LEN`] + report count × [`REPORT_LEN`], at most [`MAX_HEARTBEAT_LEN`].

use crate::wire::{
    DropReason,
    reader::{ByteReader, check_reserved},
};

/// Bytes of a heartbeat before its reports.
pub const HEARTBEAT_FIXED_LEN: usize = 32;
/// Bytes of one report.
pub const REPORT_LEN: usize = 8;
/// Maximum number of reports in one heartbeat.
pub const MAX_REPORTS: usize = 64;
/// Maximum length of a heartbeat, bytes.
pub const MAX_HEARTBEAT_LEN: usize = HEARTBEAT_FIXED_LEN + MAX_REPORTS * REPORT_LEN;
/// Total loss, per mille.
pub const MAX_LOSS_PERMILLE: u16 = 1000;

const FLAG_HEARD: u8 = 0x01;
const FLAG_LOCAL_DOWN: u8 = 0x02;
const FLAG_ADMIN_DOWN: u8 = 0x04;
const FLAG_DRAINING: u8 = 0x08;
const FLAG_CARRIES_DATA: u8 = 0x10;

/// Request or reply (NetFT's heartbeat is "a Request-Reply type process").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum HeartbeatMessage {
    /// Sent on every enabled route once per heartbeat interval, by one end or by both.
    Request = 1,
    /// The answer to a request, on the route of the request.
    Reply = 2,
}

/// A decoded heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Request or reply.
    pub message: HeartbeatMessage,
    /// The sender's id of the route this heartbeat is sent on. Never 0.
    pub route: u32,
    /// The receiver's id of the same route; 0 while the sender does not know it.
    pub your_route: u32,
    /// Request: the sender's sequence number on this route. Reply: the request's, echoed.
    pub sequence: u32,
    /// Request: the sender's clock at sending, ns. Reply: the request's, echoed.
    pub sent_at: u64,
    /// Reply: delay between the request and the reply at the replier, µs (saturating). Request: 0.
    pub held_us: u32,
    /// Length of the sender's latest scheduling stall, ms (0: none recently): self-stall guard
    /// (F-20).
    pub stalled_ms: u16,
    /// Incremented with every heartbeat to the receiver, over all routes: reports of an older
    /// heartbeat are ignored (serial arithmetic, RFC 1982).
    pub serial: u32,
    /// The sender's report on each of its routes to the receiver, at most [`MAX_REPORTS`].
    pub reports: Vec<RouteReport>,
}

/// Report of a node on one of its routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteReport {
    /// The receiver's id of the route.
    pub your_route: u32,
    /// The sender receives the receiver's heartbeats on the route.
    pub heard: bool,
    /// A local fault of the sender (carrier, address): it will not send on the route.
    pub local_down: bool,
    /// The route is administratively down at the sender.
    pub admin_down: bool,
    /// The route is drained by the sender's operator: data should move to others, both ways.
    pub draining: bool,
    /// The sender sends its data on the route.
    pub carries_data: bool,
    /// Recent loss of the receiver's heartbeats, per mille (0–1000).
    pub loss_permille: u16,
}

impl Heartbeat {
    /// Appends the heartbeat to `out`, at most [`MAX_HEARTBEAT_LEN`] bytes.
    ///
    /// Values that the format cannot carry are clamped: reports beyond [`MAX_REPORTS`] are left
    /// out, a loss above [`MAX_LOSS_PERMILLE`] becomes that, a request's `held_us` becomes 0.
    pub fn encode(&self, out: &mut Vec<u8>) {
        debug_assert_ne!(self.route, 0, "route 0 would be refused by the peer");
        let reports = &self.reports[..self.reports.len().min(MAX_REPORTS)];
        let held_us = match self.message {
            HeartbeatMessage::Request => 0,
            HeartbeatMessage::Reply => self.held_us,
        };
        out.reserve(HEARTBEAT_FIXED_LEN + reports.len() * REPORT_LEN);
        out.push(self.message as u8);
        out.push(reports.len() as u8);
        out.extend_from_slice(&self.stalled_ms.to_be_bytes());
        out.extend_from_slice(&self.route.to_be_bytes());
        out.extend_from_slice(&self.your_route.to_be_bytes());
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.sent_at.to_be_bytes());
        out.extend_from_slice(&held_us.to_be_bytes());
        out.extend_from_slice(&self.serial.to_be_bytes());
        for report in reports {
            out.extend_from_slice(&report.encode());
        }
    }

    /// Decodes the whole payload of an authentic frame.
    ///
    /// # Errors
    /// [`DropReason::Unsupported`] for an unknown message or a reserved bit;
    /// [`DropReason::Malformed`] for route 0, a request that was held, a loss above
    /// [`MAX_LOSS_PERMILLE`], more than [`MAX_REPORTS`], or a length that does not fit exactly.
    pub fn decode(payload: &[u8]) -> Result<Self, DropReason> {
        let mut reader = ByteReader::new(payload);
        let message = reader.read_u8()?;
        let count = usize::from(reader.read_u8()?);
        let stalled_ms = reader.read_u16()?;
        let route = reader.read_u32()?;
        let your_route = reader.read_u32()?;
        let sequence = reader.read_u32()?;
        let sent_at = reader.read_u64()?;
        let held_us = reader.read_u32()?;
        let serial = reader.read_u32()?;
        let message = match message {
            1 => HeartbeatMessage::Request,
            2 => HeartbeatMessage::Reply,
            _ => return Err(DropReason::Unsupported),
        };
        if route == 0 || (message == HeartbeatMessage::Request && held_us != 0) {
            return Err(DropReason::Malformed);
        }
        if count > MAX_REPORTS || reader.remaining_len() != count * REPORT_LEN {
            return Err(DropReason::Malformed);
        }
        let mut reports = Vec::with_capacity(count);
        for _ in 0..count {
            reports.push(RouteReport::decode(&mut reader)?);
        }
        Ok(Self {
            message,
            route,
            your_route,
            sequence,
            sent_at,
            held_us,
            stalled_ms,
            serial,
            reports,
        })
    }
}

impl RouteReport {
    fn encode(self) -> [u8; REPORT_LEN] {
        let [r0, r1, r2, r3] = self.your_route.to_be_bytes();
        let [l0, l1] = self.loss_permille.min(MAX_LOSS_PERMILLE).to_be_bytes();
        let mut flags = 0;
        for (set, flag) in [
            (self.heard, FLAG_HEARD),
            (self.local_down, FLAG_LOCAL_DOWN),
            (self.admin_down, FLAG_ADMIN_DOWN),
            (self.draining, FLAG_DRAINING),
            (self.carries_data, FLAG_CARRIES_DATA),
        ] {
            if set {
                flags |= flag;
            }
        }
        [r0, r1, r2, r3, flags, 0, l0, l1]
    }

    fn decode(reader: &mut ByteReader<'_>) -> Result<Self, DropReason> {
        let your_route = reader.read_u32()?;
        let flags = reader.read_u8()?;
        let unused = reader.read_u8()?;
        let loss_permille = reader.read_u16()?;
        check_reserved(u32::from(
            flags
                & !(FLAG_HEARD
                    | FLAG_LOCAL_DOWN
                    | FLAG_ADMIN_DOWN
                    | FLAG_DRAINING
                    | FLAG_CARRIES_DATA),
        ))?;
        check_reserved(u32::from(unused))?;
        if loss_permille > MAX_LOSS_PERMILLE {
            return Err(DropReason::Malformed);
        }
        Ok(Self {
            your_route,
            heard: flags & FLAG_HEARD != 0,
            local_down: flags & FLAG_LOCAL_DOWN != 0,
            admin_down: flags & FLAG_ADMIN_DOWN != 0,
            draining: flags & FLAG_DRAINING != 0,
            carries_data: flags & FLAG_CARRIES_DATA != 0,
            loss_permille,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn encoded(heartbeat: &Heartbeat) -> Vec<u8> {
        let mut out = Vec::new();
        heartbeat.encode(&mut out);
        out
    }

    fn sample() -> Heartbeat {
        Heartbeat {
            message: HeartbeatMessage::Reply,
            route: 0x0102_0304,
            your_route: 0x0506_0708,
            sequence: 0x090a_0b0c,
            sent_at: 0x0d0e_0f10_1112_1314,
            held_us: 0x1516_1718,
            stalled_ms: 0x191a,
            serial: 0x1f20_2122,
            reports: vec![RouteReport {
                your_route: 0x1b1c_1d1e,
                heard: true,
                local_down: false,
                admin_down: true,
                draining: true,
                carries_data: false,
                loss_permille: 1000,
            }],
        }
    }

    prop_compose! {
        fn any_verdict()(
            your_route: u32,
            heard: bool,
            local_down: bool,
            admin_down: bool,
            draining: bool,
            carries_data: bool,
            loss_permille in 0..=MAX_LOSS_PERMILLE,
        ) -> RouteReport {
            RouteReport {
                your_route,
                heard,
                local_down,
                admin_down,
                draining,
                carries_data,
                loss_permille,
            }
        }
    }

    prop_compose! {
        fn any_heartbeat()(
            reply: bool,
            route in 1..=u32::MAX,
            your_route: u32,
            sequence: u32,
            sent_at: u64,
            held: u32,
            stalled_ms: u16,
            serial: u32,
            reports in vec(any_verdict(), 0..=MAX_REPORTS),
        ) -> Heartbeat {
            let message = if reply { HeartbeatMessage::Reply } else { HeartbeatMessage::Request };
            let held_us = if reply { held } else { 0 };
            Heartbeat {
                message,
                route,
                your_route,
                sequence,
                sent_at,
                held_us,
                stalled_ms,
                serial,
                reports,
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(heartbeat in any_heartbeat()) {
            let bytes = encoded(&heartbeat);
            prop_assert!(bytes.len() <= MAX_HEARTBEAT_LEN);
            prop_assert_eq!(Heartbeat::decode(&bytes), Ok(heartbeat));
        }

        #[test]
        fn what_decodes_has_one_encoding(bytes in vec(any::<u8>(), 0..80)) {
            if let Ok(heartbeat) = Heartbeat::decode(&bytes) {
                prop_assert_eq!(encoded(&heartbeat), bytes);
            }
        }
    }

    #[test]
    fn the_bytes_are_these() {
        let golden = [
            2, 1, 0x19, 0x1a, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19,
            20, 21, 22, 23, 24, 31, 32, 33, 34, 27, 28, 29, 30, 13, 0, 0x03, 0xe8,
        ];
        assert_eq!(encoded(&sample()), golden);
    }

    /// W-01, W-03.
    #[test]
    fn every_truncation_and_every_extra_byte_is_malformed() {
        let mut bytes = encoded(&sample());
        for len in 0..bytes.len() {
            assert_eq!(Heartbeat::decode(&bytes[..len]), Err(DropReason::Malformed), "{len}");
        }
        for _ in 0..2 * REPORT_LEN {
            bytes.push(0);
            assert_eq!(Heartbeat::decode(&bytes), Err(DropReason::Malformed));
        }
    }

    /// W-04.
    #[test]
    fn unknown_messages_and_reserved_bits_are_unsupported() {
        let good = encoded(&sample());
        for message in (0..=255).filter(|m| ![1, 2].contains(m)) {
            let mut bytes = good.clone();
            bytes[0] = message;
            assert_eq!(Heartbeat::decode(&bytes), Err(DropReason::Unsupported), "{message}");
        }
        let flags = HEARTBEAT_FIXED_LEN + 4;
        let reserved = (flags * 8..flags * 8 + 3).chain((flags + 1) * 8..(flags + 2) * 8);
        for bit in reserved {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 0x80 >> (bit % 8);
            assert_eq!(Heartbeat::decode(&bytes), Err(DropReason::Unsupported), "bit {bit}");
        }
    }

    #[test]
    fn values_out_of_range_are_malformed() {
        let refused = |at: usize, bytes: &[u8]| {
            let mut heartbeat = encoded(&sample());
            heartbeat[at..at + bytes.len()].copy_from_slice(bytes);
            assert_eq!(Heartbeat::decode(&heartbeat), Err(DropReason::Malformed), "{at}");
        };
        refused(4, &[0; 4]);
        refused(0, &[HeartbeatMessage::Request as u8]);
        refused(HEARTBEAT_FIXED_LEN + 6, &1001u16.to_be_bytes());
        for count in (0..=255).filter(|count| *count != 1) {
            refused(1, &[count]);
        }
    }

    #[test]
    fn more_verdicts_than_the_wire_carries_are_refused_even_at_the_right_length() {
        let mut bytes = encoded(&Heartbeat { reports: vec![], ..sample() });
        bytes[1] = MAX_REPORTS as u8 + 1;
        bytes.resize(MAX_HEARTBEAT_LEN + REPORT_LEN, 0);
        assert_eq!(Heartbeat::decode(&bytes), Err(DropReason::Malformed));
        bytes[1] = MAX_REPORTS as u8;
        bytes.truncate(MAX_HEARTBEAT_LEN);
        assert_eq!(Heartbeat::decode(&bytes).unwrap().reports.len(), MAX_REPORTS);
    }

    #[test]
    fn what_the_wire_cannot_say_is_brought_into_range() {
        let report = RouteReport { loss_permille: 1001, ..sample().reports[0] };
        let heartbeat = Heartbeat {
            message: HeartbeatMessage::Request,
            reports: vec![report; MAX_REPORTS + 1],
            ..sample()
        };
        let decoded = Heartbeat::decode(&encoded(&heartbeat)).unwrap();
        assert_eq!(decoded.held_us, 0);
        assert_eq!(decoded.reports.len(), MAX_REPORTS);
        assert_eq!(decoded.reports[0].loss_permille, MAX_LOSS_PERMILLE);
    }
}
