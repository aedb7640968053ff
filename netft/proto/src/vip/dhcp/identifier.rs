//! Client identifier of a floating address.

use ring::digest::{SHA256, digest};

/// Client identifier (option 61) in the form of RFC 4361 section 6.1: type, IAID, DUID.
pub type ClientIdentifier = [u8; 23];

/// RFC 4361 section 6.1: the identifier holds an IAID and a DUID.
const IDENTIFIER_TYPE: u8 = 255;
/// RFC 6355 section 4: DUID of the type UUID.
const DUID_UUID: u16 = 4;
const HASH_LABEL: &[u8] = b"netft floating address 1";

/// The identifier of the floating address `vip` of a cluster: the same on every node, and no
/// node's own.
pub fn client_identifier(cluster: &[u8], vip: &str) -> ClientIdentifier {
    let mut input = HASH_LABEL.to_vec();
    // The length ends the first part: no other pair gives the same input.
    input.extend_from_slice(&(cluster.len() as u64).to_be_bytes());
    input.extend_from_slice(cluster);
    input.extend_from_slice(vip.as_bytes());
    let hash = digest(&SHA256, &input);
    let mut identifier = [0; 23];
    identifier[0] = IDENTIFIER_TYPE;
    identifier[1..5].copy_from_slice(&hash.as_ref()[16..20]);
    identifier[5..7].copy_from_slice(&DUID_UUID.to_be_bytes());
    identifier[7..].copy_from_slice(&hash.as_ref()[..16]);
    // RFC 9562 section 5.8: version and variant of a UUID from a hash.
    identifier[13] = (identifier[13] & 0x0f) | 0x80;
    identifier[15] = (identifier[15] & 0x3f) | 0x80;
    identifier
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_belongs_to_the_name_and_the_cluster() {
        let web = client_identifier(b"one", "web");
        assert_eq!(web, client_identifier(b"one", "web"));
        for (cluster, vip) in [(&b"one"[..], "db"), (b"two", "web"), (b"onew", "eb")] {
            assert_ne!(web, client_identifier(cluster, vip), "{vip}");
        }
        assert_eq!((web[0], &web[5..7]), (255, &[0, 4][..]));
        assert_eq!((web[13] >> 4, web[15] >> 6), (8, 2));
    }
}
