//! The 16-byte header of every netft frame. Pure, zero-copy.

use super::DropReason;

/// Bytes of the header.
pub const HEADER_LEN: usize = 16;
/// Bytes of the AEAD tag behind the payload.
pub const TAG_LEN: usize = 16;
/// What a frame adds to its payload.
pub const OVERHEAD: usize = HEADER_LEN + TAG_LEN;
/// The wire version this build speaks.
pub const VERSION: u8 = 1;
/// Flag of a data frame: the L4 checksums of its packets are unfinished (`NEEDS_CSUM`); they hold
/// the pseudo-header sum only, and the tag protects the bytes instead.
pub const FLAG_PARTIAL_CHECKSUM: u8 = 0x01;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Whole inner IP packets, one after another; each one's own length field ends it.
    Data = 1,
    /// A heartbeat request or reply.
    Heartbeat = 2,
    /// An acknowledgement of data.
    Ack = 3,
}

/// A decoded header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame carries.
    pub kind: Kind,
    /// [`FLAG_PARTIAL_CHECKSUM`] or 0.
    pub flags: u8,
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
        let kind = match head[0] {
            0x11 => Kind::Data,
            0x12 => Kind::Heartbeat,
            0x13 => Kind::Ack,
            _ => return Err(DropReason::Unsupported),
        };
        let known = if kind == Kind::Data { FLAG_PARTIAL_CHECKSUM } else { 0 };
        if head[1] & !known != 0 || head[2] != 0 || head[3] != 0 {
            return Err(DropReason::Unsupported);
        }
        let [_, _, _, _, s0, s1, s2, s3, c0, c1, c2, c3, c4, c5, c6, c7] = *head;
        Ok(Self {
            kind,
            flags: head[1],
            session: u32::from_be_bytes([s0, s1, s2, s3]),
            counter: u64::from_be_bytes([c0, c1, c2, c3, c4, c5, c6, c7]),
        })
    }

    /// The header's bytes.
    #[inline]
    pub const fn encode(&self) -> [u8; HEADER_LEN] {
        let s = self.session.to_be_bytes();
        let c = self.counter.to_be_bytes();
        [
            VERSION << 4 | self.kind as u8,
            self.flags,
            0,
            0,
            s[0],
            s[1],
            s[2],
            s[3],
            c[0],
            c[1],
            c[2],
            c[3],
            c[4],
            c[5],
            c[6],
            c[7],
        ]
    }
}

/// Whether a datagram with this first byte belongs to QUIC (fixed bit, RFC 9443 section 3).
#[inline]
pub const fn is_quic(first: u8) -> bool {
    first & 0x40 != 0
}
