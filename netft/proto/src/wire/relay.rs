//! Relayed datagrams: the header in front of a datagram that a third node forwards. Pure.
//!
//! The payload of a frame of type [`Relay`](crate::wire::header::FrameKind::Relay):
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +---------------+-----------------------------------------------+
//! |      hop      |                   0 (reserved)                |
//! +---------------+-----------------------------------------------+
//! |        the other end: the first 12 bytes of its key           |
//! +---------------------------------------------------------------+
//! | the datagram, as it would be sent directly ...                |
//! +---------------------------------------------------------------+
//! ```
//!
//! On the first hop the other end is the destination, on the last hop the source. The datagram is
//! a frame or a QUIC packet of the two ends; the relay has no key for it.

use crate::{
    ids::NodeKey,
    wire::{
        DropReason,
        header::FRAME_OVERHEAD,
        reader::{ByteReader, check_reserved},
    },
};

/// Bytes before the datagram.
pub const RELAY_HEADER_LEN: usize = 16;
/// Bytes that a relay adds to a datagram: the header and a frame around it.
pub const RELAY_OVERHEAD: usize = FRAME_OVERHEAD + RELAY_HEADER_LEN;

/// Address of a node in a relay header: a prefix of its key, unique in practice. It proves nothing;
/// the two ends authenticate each other in the relayed datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeTag([u8; 12]);

impl NodeTag {
    /// The tag of the node with this key.
    pub fn from_key(key: &NodeKey) -> Self {
        let mut tag = [0; 12];
        tag.copy_from_slice(&key.0[..12]);
        Self(tag)
    }
}

/// Hop of a relayed datagram. There is no third: a datagram is relayed once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RelayHop {
    /// From its sender to the relay.
    First = 1,
    /// From the relay to its receiver.
    Last = 2,
}

/// Header in front of a relayed datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayHeader {
    /// The hop.
    pub hop: RelayHop,
    /// The other end.
    pub node: NodeTag,
}

impl RelayHeader {
    /// Encodes the header.
    pub fn encode(&self) -> [u8; RELAY_HEADER_LEN] {
        let mut out = [0; RELAY_HEADER_LEN];
        out[0] = self.hop as u8;
        out[4..].copy_from_slice(&self.node.0);
        out
    }

    /// Decodes the header from `payload`, that of an authentic frame.
    ///
    /// # Errors
    /// [`DropReason::Malformed`] when no datagram follows, [`DropReason::Unsupported`] for an
    /// unknown hop or a reserved bit.
    pub fn decode(payload: &[u8]) -> Result<Self, DropReason> {
        let mut reader = ByteReader::new(payload);
        let hop_and_reserved = reader.read_u32()?;
        let node = NodeTag(reader.read_array::<12>()?);
        check_reserved(hop_and_reserved & 0x00ff_ffff)?;
        let hop = match hop_and_reserved >> 24 {
            1 => RelayHop::First,
            2 => RelayHop::Last,
            _ => return Err(DropReason::Unsupported),
        };
        if reader.remaining_len() == 0 {
            return Err(DropReason::Malformed);
        }
        Ok(Self { hop, node })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> RelayHeader {
        RelayHeader { hop: RelayHop::Last, node: NodeTag::from_key(&NodeKey([7; 32])) }
    }

    #[test]
    fn the_bytes_are_these() {
        let mut golden = [7; RELAY_HEADER_LEN];
        golden[..4].copy_from_slice(&[2, 0, 0, 0]);
        assert_eq!(sample().encode(), golden);
    }

    #[test]
    fn every_truncation_is_malformed_and_reserved_bits_are_unsupported() {
        let mut whole = sample().encode().to_vec();
        for len in 0..=whole.len() {
            assert_eq!(RelayHeader::decode(&whole[..len]), Err(DropReason::Malformed), "{len}");
        }
        whole.push(0);
        assert_eq!(RelayHeader::decode(&whole), Ok(sample()));
        for (at, byte) in [(0, 0), (0, 3), (0, 255), (1, 1), (2, 0x80), (3, 1)] {
            let mut bad = whole.clone();
            bad[at] = byte;
            assert_eq!(RelayHeader::decode(&bad), Err(DropReason::Unsupported), "{at} {byte}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(last: bool, key: [u8; 32], datagram in 1..100usize) {
            let hop = if last { RelayHop::Last } else { RelayHop::First };
            let relay = RelayHeader { hop, node: NodeTag::from_key(&NodeKey(key)) };
            let mut bytes = relay.encode().to_vec();
            bytes.resize(RELAY_HEADER_LEN + datagram, 1);
            prop_assert_eq!(RelayHeader::decode(&bytes), Ok(relay));
        }

        #[test]
        fn no_payload_panics(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = RelayHeader::decode(&bytes);
        }
    }
}
