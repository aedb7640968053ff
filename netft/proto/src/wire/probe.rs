//! Path MTU probes (RFC 8899): a frame padded to the probed size, and a short response. Pure.
//!
//! The payload of a frame of kind [`Probe`](crate::wire::header::FrameKind::Probe), all numbers
//! big-endian:
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +---------------+---------------+-------------------------------+
//! |    message    | reserved (0)  |   size of the request, bytes  |  0
//! +---------------+---------------+-------------------------------+
//! |             route (the sender's id, never 0)                  |  4
//! +---------------------------------------------------------------+
//! |        your route (the receiver's id, 0 = unknown)            |  8
//! +---------------------------------------------------------------+
//! |                           sequence                            | 12
//! +---------------------------------------------------------------+
//! |  padding (0), in a request only: the frame is `size` bytes    | 16
//! +---------------------------------------------------------------+
//! ```
//!
//! The size is that of the whole frame, the UDP payload, as for data frames. A response is always
//! [`PROBE_FIXED_LEN`] bytes: its delivery must not depend on the probed size (RFC 8899 section
//! 4.1).

use crate::wire::{
    DropReason,
    header::FRAME_OVERHEAD,
    reader::{ByteReader, check_reserved},
};

/// Bytes of a probe before its padding.
pub const PROBE_FIXED_LEN: usize = 16;
/// Smallest probed size, bytes: a request without padding.
pub const MIN_PROBE_SIZE: usize = FRAME_OVERHEAD + PROBE_FIXED_LEN;

/// Request or response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ProbeMessage {
    /// Padded to its size.
    Request = 1,
    /// The request of this size and sequence arrived.
    Answer = 2,
}

/// A decoded probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Request or response.
    pub message: ProbeMessage,
    /// Bytes of the request's frame: [`MIN_PROBE_SIZE`]–65,535.
    pub size: u16,
    /// The sender's id of the route this probe is sent on. Never 0.
    pub route: u32,
    /// The receiver's id of the same route; 0 while the sender does not know it.
    pub your_route: u32,
    /// Request: the sender's sequence number on this route. Response: the request's, echoed.
    pub sequence: u32,
}

impl Probe {
    /// Appends the probe to `out`, padded if it is a request.
    pub fn encode(&self, out: &mut Vec<u8>) {
        debug_assert_ne!(self.route, 0, "route 0 would be refused by the peer");
        let start = out.len();
        out.push(self.message as u8);
        out.push(0);
        out.extend_from_slice(&self.size.to_be_bytes());
        out.extend_from_slice(&self.route.to_be_bytes());
        out.extend_from_slice(&self.your_route.to_be_bytes());
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.resize(start + self.payload_len(), 0);
    }

    /// Decodes the whole payload of an authentic frame.
    ///
    /// # Errors
    /// [`DropReason::Unsupported`] for an unknown message, a reserved bit or padding that is not
    /// zero; [`DropReason::Malformed`] for route 0, a size below [`MIN_PROBE_SIZE`], or a length
    /// that does not fit exactly.
    pub fn decode(payload: &[u8]) -> Result<Self, DropReason> {
        let mut reader = ByteReader::new(payload);
        let message = match reader.read_u8()? {
            1 => ProbeMessage::Request,
            2 => ProbeMessage::Answer,
            _ => return Err(DropReason::Unsupported),
        };
        check_reserved(reader.read_u8()?.into())?;
        let size = reader.read_u16()?;
        let route = reader.read_u32()?;
        let your_route = reader.read_u32()?;
        let sequence = reader.read_u32()?;
        let probe = Self { message, size, route, your_route, sequence };
        let fits = usize::from(size) >= MIN_PROBE_SIZE && payload.len() == probe.payload_len();
        if route == 0 || !fits {
            return Err(DropReason::Malformed);
        }
        if reader.into_remaining().iter().any(|byte| *byte != 0) {
            return Err(DropReason::Unsupported);
        }
        Ok(probe)
    }

    /// Bytes of the encoded probe.
    fn payload_len(&self) -> usize {
        match self.message {
            ProbeMessage::Request => {
                usize::from(self.size).saturating_sub(FRAME_OVERHEAD).max(PROBE_FIXED_LEN)
            }
            ProbeMessage::Answer => PROBE_FIXED_LEN,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(probe: &Probe) -> Vec<u8> {
        let mut out = Vec::new();
        probe.encode(&mut out);
        out
    }

    fn sample(message: ProbeMessage) -> Probe {
        Probe { message, size: 56, route: 0x0102_0304, your_route: 5, sequence: 0x0607_0809 }
    }

    #[test]
    fn the_bytes_are_these() {
        let mut golden = vec![1, 0, 0, 56, 1, 2, 3, 4, 0, 0, 0, 5, 6, 7, 8, 9];
        golden.resize(24, 0);
        assert_eq!(encoded(&sample(ProbeMessage::Request)), golden);
        golden[0] = 2;
        assert_eq!(encoded(&sample(ProbeMessage::Answer)), golden[..PROBE_FIXED_LEN]);
    }

    #[test]
    fn what_is_odd_is_refused() {
        use DropReason::{Malformed, Unsupported};
        let good = encoded(&sample(ProbeMessage::Request));
        for (at, byte, reason) in [
            (0, 0, Unsupported),
            (0, 3, Unsupported),
            (0, 2, Malformed),
            (1, 1, Unsupported),
            (3, 55, Malformed),
            (3, 57, Malformed),
            (3, 47, Malformed),
            (16, 1, Unsupported),
            (23, 1, Unsupported),
        ] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(Probe::decode(&bad), Err(reason), "byte {at} = {byte}");
        }
        let mut nowhere = good.clone();
        nowhere[4..8].fill(0);
        assert_eq!(Probe::decode(&nowhere), Err(Malformed));
        for len in 0..good.len() {
            assert_eq!(Probe::decode(&good[..len]), Err(Malformed), "{len}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_and_has_its_size(
            request: bool,
            size in MIN_PROBE_SIZE as u16..,
            route in 1u32..,
            your_route: u32,
            sequence: u32,
        ) {
            let message = if request { ProbeMessage::Request } else { ProbeMessage::Answer };
            let probe = Probe { message, size, route, your_route, sequence };
            let bytes = encoded(&probe);
            let expected = if request { usize::from(size) } else { MIN_PROBE_SIZE };
            prop_assert_eq!(bytes.len() + FRAME_OVERHEAD, expected);
            prop_assert_eq!(Probe::decode(&bytes), Ok(probe));
        }
    }
}
