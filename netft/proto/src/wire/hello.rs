//! Hello: the first message each side sends on the control session. Pure.
//!
//! The body of the first message on the control stream, all numbers big-endian. The stream frames
//! the body, so it contains no length: the name is the remainder.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +---------------+---------+-+-+-+---------------+---------------+
//! |    version    | unknown |S|U|A| lowest version|highest version|  0
//! +---------------+---------+-+-+-+---------------+---------------+
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
//! | 0, then fields: type (8 bits), length (8 bits), value ...     |
//! +---------------------------------------------------------------+
//! ```
//!
//! A = the CPU has AES instructions, U = the adapter is up, S = the sender reassembles
//! [fragments](crate::session::fragment). Field 1: the sender's release, 1–32 bytes of
//! `[A-Za-z0-9.+_-]`. Unknown flags and fields are ignored, so that a later release can add some;
//! this layout stays for every wire version. The fields may be left out with the 0 before them.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::wire::{DropReason, reader::ByteReader, version::WireVersions};

/// Maximum length of a node name, bytes (C-14).
pub const MAX_NAME_LEN: usize = 64;
/// Bytes of a hello before its name.
pub const HELLO_FIXED_LEN: usize = 36;
/// Maximum length of a release, bytes.
pub const MAX_RELEASE_LEN: usize = 32;
/// Maximum length of a hello, bytes: more than one of this build has, for fields of later ones.
pub const MAX_HELLO_LEN: usize = 1024;

const FLAG_AES: u8 = 0x01;
const FLAG_ADAPTER_UP: u8 = 0x02;
const FLAG_FRAGMENTS: u8 = 0x04;
const FLAG_AEGIS: u8 = 0x08;
/// A flag and a field that no build knows, of a build for the test that they are ignored.
const FLAG_NEXT: u8 = if cfg!(netft_next_version) { 0x80 } else { 0 };
const NEXT_FIELD: &[u8] = if cfg!(netft_next_version) { &[200, 3, 1, 2, 3] } else { &[] };
/// Type of the field with the release.
const FIELD_RELEASE: u8 = 1;

/// The AEADs that a node's hello offers; ChaCha20-Poly1305 always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CipherSupport {
    /// AES-256-GCM: the CPU has AES instructions.
    pub aes: bool,
    /// AEGIS-256X4: the CPU has AES instructions for whole vectors, and the operator allows it.
    pub aegis: bool,
}

/// A decoded hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The wire versions that the sender speaks.
    pub versions: WireVersions,
    /// Its release, such as `0.1.0`; empty if it does not say.
    pub release: String,
    /// Random per start of the daemon: distinguishes a restart from a reconnect.
    pub boot_id: u64,
    /// Session id that the receiver must put into its frame headers. Never 0.
    pub session_id: u32,
    /// The sender's virtual IPv4 address.
    pub virtual_v4: Ipv4Addr,
    /// The sender's virtual IPv6 address.
    pub virtual_v6: Ipv6Addr,
    /// The AEADs that the sender offers: the fastest that both ends offer is used.
    pub ciphers: CipherSupport,
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

/// Returns whether `release` is the name of a release: at most [`MAX_RELEASE_LEN`] bytes of
/// `[A-Za-z0-9.+_-]`.
fn is_valid_release(release: &[u8]) -> bool {
    (1..=MAX_RELEASE_LEN).contains(&release.len())
        && release.iter().all(|byte| byte.is_ascii_alphanumeric() || b".+_-".contains(byte))
}

impl Hello {
    /// Appends the hello to `out`, at most [`MAX_HELLO_LEN`] bytes. The session must not be 0 and
    /// the name must satisfy [`is_valid_name`]; the peer refuses anything else.
    pub fn encode(&self, out: &mut Vec<u8>) {
        debug_assert!(self.session_id != 0 && is_valid_name(self.name.as_bytes()));
        out.push(self.versions.highest);
        out.push(
            (u8::from(self.ciphers.aes) * FLAG_AES)
                | (u8::from(self.ciphers.aegis) * FLAG_AEGIS)
                | (u8::from(self.adapter_up) * FLAG_ADAPTER_UP)
                | (u8::from(self.accepts_fragments) * FLAG_FRAGMENTS)
                | FLAG_NEXT,
        );
        out.extend_from_slice(&[self.versions.lowest, self.versions.highest]);
        out.extend_from_slice(&self.session_id.to_be_bytes());
        out.extend_from_slice(&self.boot_id.to_be_bytes());
        out.extend_from_slice(&self.virtual_v4.octets());
        out.extend_from_slice(&self.virtual_v6.octets());
        out.extend_from_slice(self.name.as_bytes());
        if is_valid_release(self.release.as_bytes()) {
            out.extend_from_slice(&[0, FIELD_RELEASE, self.release.len() as u8]);
            out.extend_from_slice(self.release.as_bytes());
            out.extend_from_slice(NEXT_FIELD);
        }
    }

    /// Decodes the whole body of a message. Whether both ends know a common version is for the
    /// caller to decide: [`WireVersions::common`].
    ///
    /// # Errors
    /// [`DropReason::Malformed`] for a body that is too short or too long, versions that contradict
    /// each other, session id 0, or an invalid name, release or field.
    pub fn decode(body: &[u8]) -> Result<Self, DropReason> {
        if body.len() > MAX_HELLO_LEN {
            return Err(DropReason::Malformed);
        }
        let mut reader = ByteReader::new(body);
        let version = reader.read_u8()?;
        let flags = reader.read_u8()?;
        let versions = WireVersions::from_hello(version, reader.read_u8()?, reader.read_u8()?)?;
        let session = reader.read_u32()?;
        let boot_id = reader.read_u64()?;
        let virtual_v4 = Ipv4Addr::from(reader.read_array::<4>()?);
        let virtual_v6 = Ipv6Addr::from(reader.read_array::<16>()?);
        let rest = reader.into_remaining();
        let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
        let (name, fields) = rest.split_at(end);
        if session == 0 || !is_valid_name(name) {
            return Err(DropReason::Malformed);
        }
        let name = str::from_utf8(name).map_err(|_| DropReason::Malformed)?.to_owned();
        Ok(Self {
            versions,
            release: decode_release(fields.get(1..).unwrap_or_default())?,
            boot_id,
            session_id: session,
            virtual_v4,
            virtual_v6,
            ciphers: CipherSupport { aes: flags & FLAG_AES != 0, aegis: flags & FLAG_AEGIS != 0 },
            adapter_up: flags & FLAG_ADAPTER_UP != 0,
            accepts_fragments: flags & FLAG_FRAGMENTS != 0,
            name,
        })
    }
}

/// The release among the fields; empty if there is none.
fn decode_release(fields: &[u8]) -> Result<String, DropReason> {
    let mut reader = ByteReader::new(fields);
    let mut release = String::new();
    while reader.remaining_len() > 0 {
        let kind = reader.read_u8()?;
        let length = reader.read_u8()?;
        let value = reader.read_slice(length.into())?;
        if kind == FIELD_RELEASE {
            if !is_valid_release(value) {
                return Err(DropReason::Malformed);
            }
            release = str::from_utf8(value).map_err(|_| DropReason::Malformed)?.to_owned();
        }
    }
    Ok(release)
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
            versions: WireVersions { lowest: 1, highest: 2 },
            release: "1.2.3-rc+4".to_owned(),
            boot_id: 0x0102_0304_0506_0708,
            session_id: 0x090a_0b0c,
            virtual_v4: Ipv4Addr::new(169, 254, 7, 9),
            virtual_v6: Ipv6Addr::new(0xfe80, 0, 0, 0, 1, 2, 3, 4),
            ciphers: CipherSupport { aes: true, aegis: true },
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
            aes: bool,
            aegis: bool,
            adapter_up: bool,
            accepts_fragments: bool,
            name in "[A-Za-z0-9._-]{1,64}",
            (lowest, highest) in (1..=255_u8).prop_flat_map(|low| (Just(low), low..=255)),
            release in "[A-Za-z0-9.+_-]{0,32}",
        ) {
            let (virtual_v4, virtual_v6) = (v4.into(), v6.into());
            let hello = Hello {
                versions: WireVersions { lowest, highest },
                release,
                boot_id,
                session_id,
                virtual_v4,
                virtual_v6,
                ciphers: CipherSupport { aes, aegis },
                adapter_up,
                accepts_fragments,
                name,
            };
            let bytes = encoded(&hello);
            prop_assert!(bytes.len() <= MAX_HELLO_LEN);
            prop_assert_eq!(Hello::decode(&bytes), Ok(hello));
        }

        /// Random bytes behind a good head, so that many decode.
        #[test]
        fn what_decodes_means_the_same_when_encoded_again(tail in vec(any::<u8>(), 0..=300)) {
            let mut bytes = encoded(&sample());
            bytes.truncate(HELLO_FIXED_LEN + 3);
            bytes.push(0);
            bytes.extend(tail);
            if let Ok(hello) = Hello::decode(&bytes) {
                prop_assert_eq!(Hello::decode(&encoded(&hello)), Ok(hello));
            }
        }
    }

    #[test]
    fn the_bytes_are_these() {
        let mut golden = vec![2, 15, 1, 2, 9, 10, 11, 12, 1, 2, 3, 4, 5, 6, 7, 8, 169, 254, 7, 9];
        golden.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 0, 3, 0, 4]);
        golden.extend(b"a.B-c_9\0\x01\x0a1.2.3-rc+4");
        assert_eq!(encoded(&sample()), golden);
    }

    /// W-01: a hello truncated inside its name is a hello with a shorter name, which only the
    /// stream's framing detects; truncated anywhere else it is malformed, or one without fields.
    #[test]
    fn every_truncation_is_malformed_or_a_shorter_name() {
        let bytes = encoded(&sample());
        let name_end = HELLO_FIXED_LEN + sample().name.len();
        for len in 0..=HELLO_FIXED_LEN {
            assert_eq!(Hello::decode(&bytes[..len]), Err(DropReason::Malformed), "{len}");
        }
        for len in HELLO_FIXED_LEN + 1..=name_end + 1 {
            let name = sample().name[..(len - HELLO_FIXED_LEN).min(sample().name.len())].to_owned();
            let expected = Hello { name, release: String::new(), ..sample() };
            assert_eq!(Hello::decode(&bytes[..len]), Ok(expected));
        }
        for len in name_end + 2..bytes.len() {
            assert_eq!(Hello::decode(&bytes[..len]), Err(DropReason::Malformed), "{len}");
        }
    }

    /// W-04: a later release may set flags and add fields that this one does not know.
    #[test]
    fn unknown_flags_and_fields_are_ignored() {
        for bit in 4..8 {
            let mut bytes = encoded(&sample());
            bytes[1] |= 1 << bit;
            assert_eq!(Hello::decode(&bytes), Ok(sample()), "bit {bit}");
        }
        let mut bytes = encoded(&sample());
        bytes.extend([7, 0, 200, 2, 0, 0xff]);
        assert_eq!(Hello::decode(&bytes), Ok(sample()));
        bytes.extend([9, 200]);
        assert_eq!(Hello::decode(&bytes), Err(DropReason::Malformed), "a field that is cut");
        let mut bytes = encoded(&sample());
        bytes.extend([1, 2, b'x', b' ']);
        assert_eq!(Hello::decode(&bytes), Err(DropReason::Malformed), "no name of a release");
        let without = Hello { release: String::new(), ..sample() };
        assert_eq!(Hello::decode(&encoded(&without)), Ok(without));
    }

    #[test]
    fn any_versions_are_read_and_compared_by_the_caller() {
        let mut bytes = encoded(&sample());
        bytes[..4].copy_from_slice(&[9, 15, 8, 9]);
        let later = WireVersions { lowest: 8, highest: 9 };
        assert_eq!(Hello::decode(&bytes), Ok(Hello { versions: later, ..sample() }));
        assert_eq!(later.common(WireVersions::single(1)), None);
        // The sender leaves the bounds out: it speaks one version.
        bytes[..4].copy_from_slice(&[1, 15, 0, 0]);
        let single = Hello { versions: WireVersions::single(1), ..sample() };
        assert_eq!(Hello::decode(&bytes), Ok(single));
        bytes[..4].copy_from_slice(&[1, 15, 2, 3]);
        assert_eq!(Hello::decode(&bytes), Err(DropReason::Malformed));
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
            // 0 ends the name.
            let known = byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | 0);
            assert_eq!(with_name(&[b'x', byte]).is_ok(), known, "{byte:#x}");
        }
        assert_eq!(with_name(&[b'x'; MAX_NAME_LEN]), Ok("x".repeat(MAX_NAME_LEN)));
        assert_eq!(with_name(&[b'x'; MAX_NAME_LEN + 1]), Err(DropReason::Malformed));
        assert_eq!(with_name(&[b'x'; MAX_HELLO_LEN]), Err(DropReason::Malformed));
        assert_eq!(with_name(b""), Err(DropReason::Malformed));
        assert_eq!(with_name(&[0xff, 0xfe]), Err(DropReason::Malformed));
    }
}
