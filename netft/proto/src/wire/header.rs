//! The 16-byte header of every netft frame. Pure.

use crate::wire::DropReason;

/// Bytes of the header.
pub const HEADER_LEN: usize = 16;
/// Bytes of the AEAD tag behind the payload.
pub const TAG_LEN: usize = 16;
/// Padding that may follow the packets of a data frame: no IP packet begins with this byte.
pub const PADDING_BYTE: u8 = 0;
/// Bytes that a frame adds to its payload.
pub const FRAME_OVERHEAD: usize = HEADER_LEN + TAG_LEN;
/// Upper bound of a frame counter: 48 bits, so that its lap of the replay window fits into 31.
pub const COUNTER_LIMIT: u64 = 1 << 48;
/// Wire version of this build.
pub const WIRE_VERSION: u8 = 1;
/// Flag of a data frame: the L4 checksums of its packets are partial (`NEEDS_CSUM`). They hold the
/// pseudo-header sum only; the AEAD tag protects the bytes instead.
pub const FLAG_PARTIAL_CHECKSUM: u8 = 0x01;
/// Offset of the queue in a frame.
pub const QUEUE_OFFSET: usize = 2;
/// Flag of a data frame: it carries one [fragment](crate::session::fragment) of a packet larger
/// than a frame.
pub const FLAG_FRAGMENT: u8 = 0x02;

/// Type of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// Whole inner IP packets, one after another, delimited by their own length fields;
    /// [`PADDING_BYTE`] may follow the last. With [`FLAG_FRAGMENT`], one fragment of a packet.
    Data = 1,
    /// A heartbeat request or reply.
    Heartbeat = 2,
    /// An acknowledgement of data.
    Ack = 3,
    /// A path MTU probe, or the response to one.
    Probe = 4,
    /// A datagram of two nodes, relayed by a third.
    Relay = 5,
    /// A path challenge to the source address of a heartbeat, or its response.
    Challenge = 6,
}

impl FrameKind {
    /// Type of a frame with this first byte; `None` for another version or an unknown type.
    #[inline]
    pub const fn from_first_byte(first: u8) -> Option<Self> {
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
pub struct FrameHeader {
    /// Type of the frame.
    pub kind: FrameKind,
    /// [`FLAG_PARTIAL_CHECKSUM`] and [`FLAG_FRAGMENT`] of a data frame; 0 for other types.
    pub flags: u8,
    /// Index of the sender's packet worker that sealed the frame; 0 for the driver. A receiver with
    /// several workers steers all frames of one queue to one worker, whatever the route, so that a
    /// flow keeps its order and one busy peer uses all workers.
    pub queue: u8,
    /// The receiver's id of the session.
    pub session_id: u32,
    /// Frame counter of the session: unique per key, over all routes.
    pub counter: u64,
}

impl FrameHeader {
    /// Decodes the header of a frame.
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
        let kind = FrameKind::from_first_byte(head[0]).ok_or(DropReason::Unsupported)?;
        let known = if kind == FrameKind::Data { FLAG_PARTIAL_CHECKSUM | FLAG_FRAGMENT } else { 0 };
        if head[1] & !known != 0 || head[3] != 0 {
            return Err(DropReason::Unsupported);
        }
        let [_, _, _, _, s0, s1, s2, s3, c0, c1, c2, c3, c4, c5, c6, c7] = *head;
        Ok(Self {
            kind,
            flags: head[1],
            queue: head[QUEUE_OFFSET],
            session_id: u32::from_be_bytes([s0, s1, s2, s3]),
            counter: u64::from_be_bytes([c0, c1, c2, c3, c4, c5, c6, c7]),
        })
    }

    /// Encodes the header.
    #[inline]
    pub const fn encode(&self) -> [u8; HEADER_LEN] {
        // One 128-bit value: two stores instead of sixteen.
        let kind = (WIRE_VERSION << 4 | self.kind as u8) as u128;
        let (flags, queue) = (self.flags as u128, self.queue as u128);
        let (session, counter) = (self.session_id as u128, self.counter as u128);
        (kind << 120 | flags << 112 | queue << 104 | session << 64 | counter).to_be_bytes()
    }
}

/// QUIC's fixed bit in the first byte of a datagram (RFC 9443 section 3).
pub const QUIC_FIXED_BIT: u8 = 0x40;

/// Returns whether a datagram with this first byte belongs to QUIC.
#[inline]
pub const fn is_quic(first: u8) -> bool {
    first & QUIC_FIXED_BIT != 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KINDS: [FrameKind; 6] = [
        FrameKind::Data,
        FrameKind::Heartbeat,
        FrameKind::Ack,
        FrameKind::Probe,
        FrameKind::Relay,
        FrameKind::Challenge,
    ];

    /// A frame with an empty payload.
    fn frame(header: &FrameHeader) -> [u8; FRAME_OVERHEAD] {
        let mut frame = [0; FRAME_OVERHEAD];
        frame[..HEADER_LEN].copy_from_slice(&header.encode());
        frame
    }

    fn sample() -> FrameHeader {
        FrameHeader {
            kind: FrameKind::Data,
            flags: FLAG_PARTIAL_CHECKSUM,
            queue: 3,
            session_id: 0x0102_0304,
            counter: 0x0506_0708_090a_0b0c,
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            kind in 0..KINDS.len(),
            flags in 0..4u8,
            queue: u8,
            session_id: u32,
            counter: u64,
        ) {
            let kind = KINDS[kind];
            let flags = if kind == FrameKind::Data { flags } else { 0 };
            let header = FrameHeader { kind, flags, queue, session_id, counter };
            prop_assert_eq!(FrameHeader::decode(&frame(&header)), Ok(header));
        }
    }

    #[test]
    fn the_bytes_are_these() {
        let golden = [0x11, 1, 3, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        assert_eq!(sample().encode(), golden);
        let firsts = KINDS.map(|kind| FrameHeader { kind, ..sample() }.encode()[0]);
        assert_eq!(firsts, [0x11, 0x12, 0x13, 0x14, 0x15, 0x16]);
    }

    /// W-01.
    #[test]
    fn every_truncation_is_malformed() {
        let frame = frame(&sample());
        for len in 0..frame.len() {
            assert_eq!(FrameHeader::decode(&frame[..len]), Err(DropReason::Malformed), "{len}");
        }
        assert_eq!(FrameHeader::decode(&frame), Ok(sample()));
    }

    /// W-04: all 2^8 first bytes, all 2^8 flags, all 8 reserved bits.
    #[test]
    fn unknown_versions_kinds_flags_and_reserved_bits_are_unsupported() {
        for first in 0..=255u8 {
            let mut frame = frame(&FrameHeader { flags: 0, ..sample() });
            frame[0] = first;
            let known = (0x11..=0x16).contains(&first);
            assert_eq!(
                FrameHeader::decode(&frame).err(),
                (!known).then_some(DropReason::Unsupported)
            );
        }
        for kind in KINDS {
            for flags in 0..=255u8 {
                let frame = frame(&FrameHeader { kind, flags, ..sample() });
                let known = flags == 0 || (kind == FrameKind::Data && flags < 4);
                let expected = (!known).then_some(DropReason::Unsupported);
                assert_eq!(FrameHeader::decode(&frame).err(), expected, "{kind:?} {flags:#x}");
            }
        }
        for bit in 24..32 {
            let mut frame = frame(&sample());
            frame[bit / 8] ^= 0x80 >> (bit % 8);
            assert_eq!(FrameHeader::decode(&frame), Err(DropReason::Unsupported), "bit {bit}");
        }
    }

    /// RFC 9443: one port carries both, so no first byte may belong to both.
    #[test]
    fn no_frame_looks_like_quic() {
        for first in 0..=255u8 {
            let mut frame = frame(&FrameHeader { flags: 0, ..sample() });
            frame[0] = first;
            assert!(!(is_quic(first) && FrameHeader::decode(&frame).is_ok()), "{first:#x}");
        }
        assert!(is_quic(0x40) && is_quic(0xc3));
    }
}
