//! Path validation: a challenge to the source address of a heartbeat, which only the peer can
//! answer (as RFC 9000 section 8.2). Pure.
//!
//! The payload of a frame of kind [`Challenge`](crate::wire::header::FrameKind::Challenge), all
//! numbers big-endian:
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +---------------+-----------------------------------------------+
//! |    message    |                 reserved (0)                  |  0
//! +---------------+-----------------------------------------------+
//! |    route (id at the challenged node, never 0)                 |  4
//! +---------------------------------------------------------------+
//! |                                                               |  8
//! +                             token                             +
//! |                                                               |
//! +---------------------------------------------------------------+
//! ```
//!
//! The response echoes route and token. Both messages are shorter than the heartbeat that causes a
//! challenge, so they cannot be used for amplification (RFC 9000 section 8).

use crate::wire::{
    DropReason, heartbeat,
    reader::{ByteReader, check_reserved},
};

/// Bytes of a challenge, and of its response.
pub const CHALLENGE_LEN: usize = 16;

const _: () = assert!(CHALLENGE_LEN <= heartbeat::HEARTBEAT_FIXED_LEN, "a challenge amplifies");

/// Challenge or response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ChallengeMessage {
    /// To the source address of a heartbeat.
    Challenge = 1,
    /// From that address, on the route it names.
    Response = 2,
}

/// A decoded challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Challenge or response.
    pub message: ChallengeMessage,
    /// Id of the route at the challenged node, as its heartbeat named it. Never 0.
    pub route: u32,
    /// Random token of the challenging node.
    pub token: u64,
}

impl Challenge {
    /// Appends the [`CHALLENGE_LEN`] bytes of the challenge to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        debug_assert_ne!(self.route, 0, "route 0 would be refused by the peer");
        out.extend_from_slice(&[self.message as u8, 0, 0, 0]);
        out.extend_from_slice(&self.route.to_be_bytes());
        out.extend_from_slice(&self.token.to_be_bytes());
    }

    /// Decodes the whole payload of an authentic frame.
    ///
    /// # Errors
    /// [`DropReason::Unsupported`] for an unknown message or a reserved bit;
    /// [`DropReason::Malformed`] for route 0 or a length that does not fit exactly.
    pub fn decode(payload: &[u8]) -> Result<Self, DropReason> {
        let mut reader = ByteReader::new(payload);
        let message = match reader.read_u8()? {
            1 => ChallengeMessage::Challenge,
            2 => ChallengeMessage::Response,
            _ => return Err(DropReason::Unsupported),
        };
        check_reserved(reader.read_u8()?.into())?;
        check_reserved(reader.read_u16()?.into())?;
        let route = reader.read_u32()?;
        let token = reader.read_u64()?;
        if route == 0 || reader.remaining_len() != 0 {
            return Err(DropReason::Malformed);
        }
        Ok(Self { message, route, token })
    }

    /// The response to this challenge.
    pub const fn to_response(self) -> Self {
        Self { message: ChallengeMessage::Response, ..self }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(challenge: &Challenge) -> Vec<u8> {
        let mut out = Vec::new();
        challenge.encode(&mut out);
        out
    }

    #[test]
    fn the_bytes_are_these_and_what_is_odd_is_refused() {
        use DropReason::{Malformed, Unsupported};
        let challenge = Challenge {
            message: ChallengeMessage::Challenge,
            route: 0x0102_0304,
            token: 0x0506_0708_090a_0b0c,
        };
        let golden = [1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        assert_eq!(encoded(&challenge), golden);
        assert_eq!(encoded(&challenge.to_response())[0], 2);
        for (at, byte) in [(0, 0), (0, 3), (1, 1), (2, 1), (3, 0x80)] {
            let mut bad = golden;
            bad[at] = byte;
            assert_eq!(Challenge::decode(&bad), Err(Unsupported), "byte {at} = {byte}");
        }
        let mut nowhere = golden;
        nowhere[4..8].fill(0);
        assert_eq!(Challenge::decode(&nowhere), Err(Malformed));
        for len in 0..CHALLENGE_LEN {
            assert_eq!(Challenge::decode(&golden[..len]), Err(Malformed), "{len}");
        }
        assert_eq!(Challenge::decode(&[&golden[..], &[0]].concat()), Err(Malformed));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(is_challenge: bool, route in 1u32.., token: u64) {
            let message =
                if is_challenge { ChallengeMessage::Challenge } else { ChallengeMessage::Response };
            let challenge = Challenge { message, route, token };
            prop_assert_eq!(encoded(&challenge).len(), CHALLENGE_LEN);
            prop_assert_eq!(Challenge::decode(&encoded(&challenge)), Ok(challenge));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..24)) {
            if let Ok(challenge) = Challenge::decode(&bytes) {
                prop_assert_eq!(encoded(&challenge), bytes);
            }
        }
    }
}
