//! Public keys, and their text form: 44 characters of base64.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};

/// A node's identity: its Ed25519 public key (32 bytes). Pinned by every peer's config.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeKey(pub [u8; 32]);

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.0[..4] {
            write!(f, "{byte:02x}")?;
        }
        f.write_str("…")
    }
}

/// Error of a public key's text form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeKeyError {
    /// The text is not base64.
    #[error("a public key is 44 characters of base64; this is not base64")]
    Base64,
    /// The text encodes too few or too many bytes.
    #[error("a public key is 32 bytes (44 characters of base64); this is {0} bytes")]
    Length(usize),
    /// A point of low order, such as zero: anyone could sign for it.
    #[error(
        "this public key is a low-order point, anyone could sign for it; use the 44 characters \
         `netft keygen` printed"
    )]
    Weak,
}

/// Encodings of the points of low order, sign bit cleared. Signatures under such a key can be
/// forged without a private key, so pinning one would admit anyone (C-12).
const LOW_ORDER: [[u8; 32]; 7] = [
    [0; 32],
    point_encoding(1, 0, 0),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
    point_encoding(0xec, 0xff, 0x7f),
    point_encoding(0xed, 0xff, 0x7f),
    point_encoding(0xee, 0xff, 0x7f),
];

const fn point_encoding(first: u8, between: u8, last: u8) -> [u8; 32] {
    let mut bytes = [between; 32];
    bytes[0] = first;
    bytes[31] = last;
    bytes
}

impl fmt::Display for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl FromStr for NodeKey {
    type Err = NodeKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = STANDARD.decode(text).map_err(|_| NodeKeyError::Base64)?;
        let length = bytes.len();
        let key: [u8; 32] = bytes.try_into().map_err(|_| NodeKeyError::Length(length))?;
        let mut unsigned = key;
        unsigned[31] &= 0x7f;
        if LOW_ORDER.contains(&unsigned) {
            return Err(NodeKeyError::Weak);
        }
        Ok(Self(key))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_weak_or_damaged_public_key_is_refused() {
        let parse = |bytes: &[u8]| STANDARD.encode(bytes).parse::<NodeKey>();
        assert_eq!("not base64!".parse::<NodeKey>(), Err(NodeKeyError::Base64));
        assert_eq!(parse(&[7; 31]), Err(NodeKeyError::Length(31)));
        for mut point in LOW_ORDER {
            assert_eq!(parse(&point), Err(NodeKeyError::Weak));
            point[31] |= 0x80;
            assert_eq!(parse(&point), Err(NodeKeyError::Weak));
        }
    }
}
