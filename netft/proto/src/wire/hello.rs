//! Hello: the first message each side sends on the control session. Pure.
//!
//! The body of the first message on the control stream, all numbers big-endian. The stream frames
//! the body, so it contains no length: the name is the remainder.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +---------------+---------+-+-+-+-------------------------------+
//! |    version    |0 0 0 0 0|S|U|A|         reserved (0)          |  0
//! +---------------+---------+-+-+-+-------------------------------+
//! |           session id (the sender's, never 0)                  |  4
//! +---------------------------------------------------------------+
//! |                                                               |  8
//! +                           boot id                             +
//! |                                                               |
//! +---------------------------------------------------------------+
//! |                     virtual IPv4 address                      | 16
//! +---------------------------------------------------------------+
//! |                                                               | 20
//! +                     virtual IPv6 address                      +
//! |                              ...                              |
//! +---------------------------------------------------------------+
//! |              name, 1–64 bytes of [A-Za-z0-9._-] ...           | 36
//! +---------------------------------------------------------------+
//! ```
//!
//! A = the CPU has AES instructions, U = the adapter is up, S = the sender reassembles
//! [fragments](crate::session::fragment). The version stays the first byte of every future hello,
//! so that a mismatch can be reported with both versions.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::wire::{
    DropReason,
    header::WIRE_VERSION,
    reader::{ByteReader, check_reserved},
};

/// Maximum length of a node name, bytes (C-14).
pub const MAX_NAME_LEN: usize = 64;
/// Bytes of a hello before its name.
pub const HELLO_FIXED_LEN: usize = 36;
/// Maximum length of a hello, bytes.
pub const MAX_HELLO_LEN: usize = HELLO_FIXED_LEN + MAX_NAME_LEN;

const FLAG_AES: u8 = 0x01;
const FLAG_ADAPTER_UP: u8 = 0x02;
const FLAG_FRAGMENTS: u8 = 0x04;

/// A decoded hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The wire version of the sender.
    pub version: u8,
    /// Random per start of the daemon: distinguishes a restart from a reconnect.
    pub boot_id: u64,
    /// Session id that the receiver must put into its frame headers. Never 0.
    pub session_id: u32,
    /// The sender's virtual IPv4 address.
    pub virtual_v4: Ipv4Addr,
    /// The sender's virtual IPv6 address.
    pub virtual_v6: Ipv6Addr,
    /// True if the sender's CPU has AES instructions; if both have, the cipher is AES-256-GCM.
    pub has_aes: bool,
    /// True if the sender's adapter is up.
    pub adapter_up: bool,
    /// True if the sender reassembles [fragments](crate::session::fragment); otherwise none may be
    /// sent to it.
    pub accepts_fragments: bool,
    /// The sender's node name: 1–[`MAX_NAME_LEN`] bytes of `[A-Za-z0-9._-]`.
    pub name: String,
}

/// Returns whether `name` is a valid node name: 1–[`MAX_NAME_LEN`] bytes of `[A-Za-z0-9._-]`, safe
/// in log lines, terminals and file names.
pub fn is_valid_name(name: &[u8]) -> bool {
    (1..=MAX_NAME_LEN).contains(&name.len())
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
}

impl Hello {
    /// Appends the hello to `out`, at most [`MAX_HELLO_LEN`] bytes. The session must not be 0 and
    /// the name must satisfy [`is_valid_name`]; the peer refuses anything else.
    pub fn encode(&self, out: &mut Vec<u8>) {
        debug_assert!(self.session_id != 0 && is_valid_name(self.name.as_bytes()));
        out.reserve(HELLO_FIXED_LEN + self.name.len());
        out.push(self.version);
        out.push(
            (u8::from(self.has_aes) * FLAG_AES)
                | (u8::from(self.adapter_up) * FLAG_ADAPTER_UP)
                | (u8::from(self.accepts_fragments) * FLAG_FRAGMENTS),
        );
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.session_id.to_be_bytes());
        out.extend_from_slice(&self.boot_id.to_be_bytes());
        out.extend_from_slice(&self.virtual_v4.octets());
        out.extend_from_slice(&self.virtual_v6.octets());
        out.extend_from_slice(self.name.as_bytes());
    }

    /// Decodes the whole body of a message.
    ///
    /// # Errors
    /// [`DropReason::Unsupported`] for a version other than [`WIRE_VERSION`] (its number is
    /// `body[0]`), an unknown flag or a reserved bit; [`DropReason::Malformed`] for a body that is
    /// too short or too long, session id 0, or an invalid name.
    pub fn decode(body: &[u8]) -> Result<Self, DropReason> {
        let mut reader = ByteReader::new(body);
        // Before any length check: another version may have another layout.
        let version = reader.read_u8()?;
        if version != WIRE_VERSION {
            return Err(DropReason::Unsupported);
        }
        let flags = reader.read_u8()?;
        let unused = reader.read_u16()?;
        let session = reader.read_u32()?;
        let boot_id = reader.read_u64()?;
        let virtual_v4 = Ipv4Addr::from(reader.read_array::<4>()?);
        let virtual_v6 = Ipv6Addr::from(reader.read_array::<16>()?);
        let name = reader.into_remaining();
        check_reserved(
            u32::from(flags & !(FLAG_AES | FLAG_ADAPTER_UP | FLAG_FRAGMENTS)) | u32::from(unused),
        )?;
        if session == 0 || !is_valid_name(name) {
            return Err(DropReason::Malformed);
        }
        let name = str::from_utf8(name).map_err(|_| DropReason::Malformed)?.to_owned();
        Ok(Self {
            version,
            boot_id,
            session_id: session,
            virtual_v4,
            virtual_v6,
            has_aes: flags & FLAG_AES != 0,
            adapter_up: flags & FLAG_ADAPTER_UP != 0,
            accepts_fragments: flags & FLAG_FRAGMENTS != 0,
            name,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn encoded(hello: &Hello) -> Vec<u8> {
        let mut out = Vec::new();
        hello.encode(&mut out);
        out
    }

    fn sample() -> Hello {
        Hello {
            version: WIRE_VERSION,
            boot_id: 0x0102_0304_0506_0708,
            session_id: 0x090a_0b0c,
            virtual_v4: Ipv4Addr::new(169, 254, 7, 9),
            virtual_v6: Ipv6Addr::new(0xfe80, 0, 0, 0, 1, 2, 3, 4),
            has_aes: true,
            adapter_up: true,
            accepts_fragments: true,
            name: "a.B-c_9".to_owned(),
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            boot_id: u64,
            session_id in 1..=u32::MAX,
            v4: u32,
            v6: u128,
            has_aes: bool,
            adapter_up: bool,
            accepts_fragments: bool,
            name in "[A-Za-z0-9._-]{1,64}",
        ) {
            let (virtual_v4, virtual_v6) = (v4.into(), v6.into());
            let hello = Hello {
                version: WIRE_VERSION,
                boot_id,
                session_id,
                virtual_v4,
                virtual_v6,
                has_aes,
                adapter_up,
                accepts_fragments,
                name,
            };
            let bytes = encoded(&hello);
            prop_assert!(bytes.len() <= MAX_HELLO_LEN);
            prop_assert_eq!(Hello::decode(&bytes), Ok(hello));
        }

        #[test]
        fn what_decodes_has_one_encoding(bytes in vec(any::<u8>(), 0..=MAX_HELLO_LEN + 1)) {
            if let Ok(hello) = Hello::decode(&bytes) {
                prop_assert_eq!(encoded(&hello), bytes);
            }
        }
    }

    #[test]
    fn the_bytes_are_these() {
        let mut golden = vec![1, 7, 0, 0, 9, 10, 11, 12, 1, 2, 3, 4, 5, 6, 7, 8, 169, 254, 7, 9];
        golden.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 0, 3, 0, 4]);
        golden.extend(b"a.B-c_9");
        assert_eq!(encoded(&sample()), golden);
    }

    /// W-01: a hello truncated inside its name is a hello with a shorter name, which only the
    /// stream's framing detects; truncated anywhere else it is malformed.
    #[test]
    fn every_truncation_is_malformed_or_a_shorter_name() {
        let bytes = encoded(&sample());
        for len in 0..=HELLO_FIXED_LEN {
            assert_eq!(Hello::decode(&bytes[..len]), Err(DropReason::Malformed), "{len}");
        }
        for len in HELLO_FIXED_LEN + 1..bytes.len() {
            let name = sample().name[..len - HELLO_FIXED_LEN].to_owned();
            assert_eq!(Hello::decode(&bytes[..len]), Ok(Hello { name, ..sample() }));
        }
    }

    /// W-04.
    #[test]
    fn unknown_versions_flags_and_reserved_bits_are_unsupported() {
        for version in (0..=255).filter(|version| *version != WIRE_VERSION) {
            let mut bytes = encoded(&sample());
            bytes[0] = version;
            assert_eq!(Hello::decode(&bytes), Err(DropReason::Unsupported), "{version}");
            assert_eq!(Hello::decode(&bytes[..1]), Err(DropReason::Unsupported), "{version}");
        }
        for bit in (8..13).chain(16..32) {
            let mut bytes = encoded(&sample());
            bytes[bit / 8] ^= 0x80 >> (bit % 8);
            assert_eq!(Hello::decode(&bytes), Err(DropReason::Unsupported), "bit {bit}");
        }
    }

    #[test]
    fn session_zero_and_bad_names_are_malformed() {
        let mut bytes = encoded(&sample());
        bytes[4..8].fill(0);
        assert_eq!(Hello::decode(&bytes), Err(DropReason::Malformed));

        let with_name = |name: &[u8]| {
            let mut bytes = encoded(&sample());
            bytes.truncate(HELLO_FIXED_LEN);
            bytes.extend_from_slice(name);
            Hello::decode(&bytes).map(|hello| hello.name)
        };
        for byte in 0..=255u8 {
            let known = byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
            assert_eq!(with_name(&[b'x', byte]).is_ok(), known, "{byte:#x}");
        }
        assert_eq!(with_name(&[b'x'; MAX_NAME_LEN]), Ok("x".repeat(MAX_NAME_LEN)));
        assert_eq!(with_name(&[b'x'; MAX_NAME_LEN + 1]), Err(DropReason::Malformed));
        assert_eq!(with_name(b""), Err(DropReason::Malformed));
        assert_eq!(with_name(&[0xff, 0xfe]), Err(DropReason::Malformed));
    }
}
