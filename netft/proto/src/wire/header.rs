//! The 16-byte header of every netft frame. Pure, zero-copy.

use crate::wire::DropReason;

/// Bytes of the header.
pub const HEADER_LEN: usize = 16;
/// Bytes of the AEAD tag behind the payload.
pub const TAG_LEN: usize = 16;
/// What may follow the packets of a data frame, up to its end: no IP packet begins with it.
pub const PADDING: u8 = 0;
/// What a frame adds to its payload.
pub const OVERHEAD: usize = HEADER_LEN + TAG_LEN;
/// The wire version this build speaks.
pub const VERSION: u8 = 1;
/// Flag of a data frame: the L4 checksums of its packets are unfinished (`NEEDS_CSUM`); they hold
/// the pseudo-header sum only, and the tag protects the bytes instead.
pub const FLAG_PARTIAL_CHECKSUM: u8 = 0x01;
/// Where the lane stands in a frame.
pub const LANE: usize = 2;
/// The lane of a heartbeat request whose sender looks for the reply when it is awake anyway.
pub const LANE_PATIENT: u8 = 254;
/// The lane of the reply to one.
pub const LANE_LATE: u8 = 255;
/// Flag of a data frame: it carries one [slice](crate::session::fragment) of a packet that no frame holds.
pub const FLAG_SLICE: u8 = 0x02;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Whole inner IP packets, one after another; each one's own length field ends it, and
    /// [`PADDING`] may follow the last. With [`FLAG_SLICE`], a piece of one.
    Data = 1,
    /// A heartbeat request or reply.
    Heartbeat = 2,
    /// An acknowledgement of data.
    Ack = 3,
    /// A path MTU probe, or the answer to one.
    Probe = 4,
    /// A datagram of two nodes on its way through a third.
    Relay = 5,
    /// A challenge to where a heartbeat came from, or the answer to one.
    Challenge = 6,
}

impl Kind {
    /// The kind of a frame with this first byte; `None`: another version, or no kind of this one.
    #[inline]
    pub const fn of(first: u8) -> Option<Self> {
        match first {
            0x11 => Some(Self::Data),
            0x12 => Some(Self::Heartbeat),
            0x13 => Some(Self::Ack),
            0x14 => Some(Self::Probe),
            0x15 => Some(Self::Relay),
            0x16 => Some(Self::Challenge),
            _ => None,
        }
    }
}

/// A decoded header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame carries.
    pub kind: Kind,
    /// [`FLAG_PARTIAL_CHECKSUM`] and [`FLAG_SLICE`], of data; else 0.
    pub flags: u8,
    /// Which of the sender's packet workers sealed the frame; 0 if none did. A receiver with
    /// several gives all of one lane to one of its own, whatever the route, so that a flow keeps
    /// its order and one busy peer keeps them all busy. Of heartbeats also [`LANE_PATIENT`] and
    /// [`LANE_LATE`].
    pub lane: u8,
    /// The receiver's number for the session.
    pub session: u32,
    /// The session counter: unique per key, over all routes.
    pub counter: u64,
}

impl Header {
    /// Reads the header of a frame.
    ///
    /// # Errors
    /// [`DropReason::Malformed`] when `frame` is too short to be sealed,
    /// [`DropReason::Unsupported`] for an unknown version, kind or flag, or a reserved bit.
    #[inline]
    pub fn decode(frame: &[u8]) -> Result<Self, DropReason> {
        let Some((head, rest)) = frame.split_first_chunk::<HEADER_LEN>() else {
            return Err(DropReason::Malformed);
        };
        if rest.len() < TAG_LEN {
            return Err(DropReason::Malformed);
        }
        let kind = Kind::of(head[0]).ok_or(DropReason::Unsupported)?;
        let known = if kind == Kind::Data { FLAG_PARTIAL_CHECKSUM | FLAG_SLICE } else { 0 };
        if head[1] & !known != 0 || head[3] != 0 {
            return Err(DropReason::Unsupported);
        }
        let [_, _, _, _, s0, s1, s2, s3, c0, c1, c2, c3, c4, c5, c6, c7] = *head;
        Ok(Self {
            kind,
            flags: head[1],
            lane: head[LANE],
            session: u32::from_be_bytes([s0, s1, s2, s3]),
            counter: u64::from_be_bytes([c0, c1, c2, c3, c4, c5, c6, c7]),
        })
    }

    /// The header's bytes.
    #[inline]
    pub const fn encode(&self) -> [u8; HEADER_LEN] {
        // One number: two stores instead of sixteen.
        let kind = (VERSION << 4 | self.kind as u8) as u128;
        let (flags, lane) = (self.flags as u128, self.lane as u128);
        let (session, counter) = (self.session as u128, self.counter as u128);
        (kind << 120 | flags << 112 | lane << 104 | session << 64 | counter).to_be_bytes()
    }
}

/// The bit of a datagram's first byte that makes it QUIC's (fixed bit, RFC 9443 section 3).
pub const QUIC_BIT: u8 = 0x40;

/// Whether a datagram with this first byte belongs to QUIC.
#[inline]
pub const fn is_quic(first: u8) -> bool {
    first & QUIC_BIT != 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KINDS: [Kind; 6] =
        [Kind::Data, Kind::Heartbeat, Kind::Ack, Kind::Probe, Kind::Relay, Kind::Challenge];

    /// A frame with an empty payload: what `decode` needs to see.
    fn frame(header: &Header) -> [u8; OVERHEAD] {
        let mut frame = [0; OVERHEAD];
        frame[..HEADER_LEN].copy_from_slice(&header.encode());
        frame
    }

    fn sample() -> Header {
        Header {
            kind: Kind::Data,
            flags: FLAG_PARTIAL_CHECKSUM,
            lane: 3,
            session: 0x0102_0304,
            counter: 0x0506_0708_090a_0b0c,
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            kind in 0..KINDS.len(),
            flags in 0..4u8,
            lane: u8,
            session: u32,
            counter: u64,
        ) {
            let kind = KINDS[kind];
            let flags = if kind == Kind::Data { flags } else { 0 };
            let header = Header { kind, flags, lane, session, counter };
            prop_assert_eq!(Header::decode(&frame(&header)), Ok(header));
        }
    }

    #[test]
    fn the_bytes_are_these() {
        let golden = [0x11, 1, 3, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        assert_eq!(sample().encode(), golden);
        let firsts = KINDS.map(|kind| Header { kind, ..sample() }.encode()[0]);
        assert_eq!(firsts, [0x11, 0x12, 0x13, 0x14, 0x15, 0x16]);
    }

    /// W-01.
    #[test]
    fn every_truncation_is_malformed() {
        let frame = frame(&sample());
        for len in 0..frame.len() {
            assert_eq!(Header::decode(&frame[..len]), Err(DropReason::Malformed), "{len}");
        }
        assert_eq!(Header::decode(&frame), Ok(sample()));
    }

    /// W-04: all 2^8 first bytes, all 2^8 flags, all 8 reserved bits.
    #[test]
    fn unknown_versions_kinds_flags_and_reserved_bits_are_unsupported() {
        for first in 0..=255u8 {
            let mut frame = frame(&Header { flags: 0, ..sample() });
            frame[0] = first;
            let known = (0x11..=0x16).contains(&first);
            assert_eq!(Header::decode(&frame).err(), (!known).then_some(DropReason::Unsupported));
        }
        for kind in KINDS {
            for flags in 0..=255u8 {
                let frame = frame(&Header { kind, flags, ..sample() });
                let known = flags == 0 || (kind == Kind::Data && flags < 4);
                let expected = (!known).then_some(DropReason::Unsupported);
                assert_eq!(Header::decode(&frame).err(), expected, "{kind:?} {flags:#x}");
            }
        }
        for bit in 24..32 {
            let mut frame = frame(&sample());
            frame[bit / 8] ^= 0x80 >> (bit % 8);
            assert_eq!(Header::decode(&frame), Err(DropReason::Unsupported), "bit {bit}");
        }
    }

    /// RFC 9443: one port carries both, so no first byte may belong to both.
    #[test]
    fn no_frame_looks_like_quic() {
        for first in 0..=255u8 {
            let mut frame = frame(&Header { flags: 0, ..sample() });
            frame[0] = first;
            assert!(!(is_quic(first) && Header::decode(&frame).is_ok()), "{first:#x}");
        }
        assert!(is_quic(0x40) && is_quic(0xc3));
    }
}
