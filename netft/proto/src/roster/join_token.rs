//! Join tokens, as kubeadm's: where to ask, whom to trust, and a one-time secret.
//!
//! ```text
//! netft-join-1.BASE64URL of: cluster id (32)  inviter's key (32)  invite (8)  secret (16)
//!                            addresses: 4 or 6, address, port (2)  ...
//!                            checksum (4): the first bytes of the SHA-256 of what stands before
//! ```
//!
//! The secret never crosses the network. The joiner proves it with an HMAC over the exporter of its
//! TLS session (RFC 8446 section 7.5) and both keys, so a proof counts for one session alone: the
//! exporter covers the handshake up to the server's Finished, which is before the client's key.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{digest, hmac};
use zeroize::Zeroizing;

use crate::{ids::NodeKey, roster::cluster_id::ClusterId, wire::reader::ByteReader};

/// Start of the text form.
const TOKEN_PREFIX: &str = "netft-join-1.";
/// Addresses in one token, at most.
pub const MAX_TOKEN_ADDRESSES: usize = 8;
/// Longest text form without its start, bytes.
const MAX_TOKEN_LEN: usize = 512;
/// Domain of the proof.
const PROOF_DOMAIN: &[u8] = b"netft join 1";
/// Bytes of the checksum.
const CHECKSUM_LEN: usize = 4;
/// Bytes of the secret.
const SECRET_LEN: usize = 16;

/// Number of an invite; random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InviteId(pub [u8; 8]);

impl fmt::Display for InviteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// TLS session of a join, as both ends know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinSession {
    /// Key that the inviting node has proven.
    pub inviter: NodeKey,
    /// Key that the joining node has proven.
    pub joiner: NodeKey,
    /// Exported keying material.
    pub exporter: [u8; 32],
}

/// Secret of an invite; never printed, wiped when dropped, compared by its proofs alone.
#[derive(Clone)]
pub struct InviteSecret(Zeroizing<[u8; SECRET_LEN]>);

impl fmt::Debug for InviteSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InviteSecret(…)")
    }
}

impl InviteSecret {
    /// A secret of these random bytes.
    pub fn new(bytes: [u8; SECRET_LEN]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Proof of the secret for one TLS session.
    pub fn prove(&self, session: &JoinSession) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &*self.0);
        let tag = hmac::sign(&key, &proof_input(session));
        let mut proof = [0; 32];
        proof.copy_from_slice(tag.as_ref());
        proof
    }

    /// Checks a proof, in constant time.
    pub fn accepts_proof(&self, session: &JoinSession, proof: &[u8; 32]) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &*self.0);
        hmac::verify(&key, &proof_input(session), proof).is_ok()
    }
}

fn proof_input(session: &JoinSession) -> Vec<u8> {
    let JoinSession { inviter, joiner, exporter } = session;
    [PROOF_DOMAIN, exporter, &inviter.0, &joiner.0].concat()
}

/// A join token.
#[derive(Clone, Debug)]
pub struct JoinToken {
    /// The cluster: no roster of another one is taken.
    pub cluster: ClusterId,
    /// Key of the inviting node: nobody else is asked.
    pub inviter: NodeKey,
    /// The invite.
    pub invite: InviteId,
    /// Its secret.
    pub secret: InviteSecret,
    /// Addresses of the inviting node; at most [`MAX_TOKEN_ADDRESSES`].
    pub addresses: Vec<SocketAddr>,
}

/// Mistake in a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Another text.
    #[error(
        "this is no join token: it begins with `{TOKEN_PREFIX}`; `netft cluster invite` prints one"
    )]
    Prefix,
    /// Characters are missing or wrong.
    #[error("the join token is damaged: copy it whole")]
    Damaged,
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_TOKEN_LEN));
        bytes.extend(self.cluster.0);
        bytes.extend(self.inviter.0);
        bytes.extend(self.invite.0);
        bytes.extend(*self.secret.0);
        for address in self.addresses.iter().take(MAX_TOKEN_ADDRESSES) {
            match address.ip() {
                IpAddr::V4(v4) => {
                    bytes.push(4);
                    bytes.extend(v4.octets());
                }
                IpAddr::V6(v6) => {
                    bytes.push(6);
                    bytes.extend(v6.octets());
                }
            }
            bytes.extend(address.port().to_be_bytes());
        }
        let sum = digest::digest(&digest::SHA256, &bytes);
        bytes.extend(&sum.as_ref()[..CHECKSUM_LEN]);
        write!(f, "{TOKEN_PREFIX}{}", *Zeroizing::new(URL_SAFE_NO_PAD.encode(&*bytes)))
    }
}

impl std::str::FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let encoded = text.trim().strip_prefix(TOKEN_PREFIX).ok_or(TokenError::Prefix)?;
        if encoded.len() > MAX_TOKEN_LEN {
            return Err(TokenError::Damaged);
        }
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| TokenError::Damaged)?;
        let bytes = Zeroizing::new(bytes);
        let (body, sum) = bytes.split_last_chunk::<CHECKSUM_LEN>().ok_or(TokenError::Damaged)?;
        if digest::digest(&digest::SHA256, body).as_ref()[..CHECKSUM_LEN] != *sum {
            return Err(TokenError::Damaged);
        }
        Self::decode_body(body).ok_or(TokenError::Damaged)
    }
}

impl JoinToken {
    fn decode_body(body: &[u8]) -> Option<Self> {
        let mut reader = ByteReader::new(body);
        let cluster = ClusterId(reader.read_array().ok()?);
        let inviter = NodeKey(reader.read_array().ok()?);
        let invite = InviteId(reader.read_array().ok()?);
        let secret = InviteSecret::new(reader.read_array().ok()?);
        let mut addresses = Vec::new();
        while reader.remaining_len() > 0 && addresses.len() < MAX_TOKEN_ADDRESSES {
            let ip = match reader.read_u8().ok()? {
                4 => IpAddr::from(reader.read_array::<4>().ok()?),
                6 => IpAddr::from(reader.read_array::<16>().ok()?),
                _ => return None,
            };
            addresses.push(SocketAddr::new(ip, reader.read_u16().ok()?));
        }
        (reader.remaining_len() == 0).then_some(Self {
            cluster,
            inviter,
            invite,
            secret,
            addresses,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn token() -> JoinToken {
        JoinToken {
            cluster: ClusterId([6; 32]),
            inviter: NodeKey([7; 32]),
            invite: InviteId([1, 2, 3, 4, 5, 6, 7, 8]),
            secret: InviteSecret::new([9; 16]),
            addresses: vec!["10.1.0.1:3343".parse().unwrap(), "[fd00:1::1]:9".parse().unwrap()],
        }
    }

    fn session() -> JoinSession {
        JoinSession { inviter: NodeKey([7; 32]), joiner: NodeKey([3; 32]), exporter: [5; 32] }
    }

    #[test]
    fn a_token_reads_back_and_every_wrong_character_is_found() {
        let text = token().to_string();
        let back: JoinToken = format!(" {text}\n").parse().unwrap();
        assert_eq!(back.to_string(), text);
        assert_eq!((back.cluster, back.inviter), (ClusterId([6; 32]), NodeKey([7; 32])));
        assert_eq!((back.invite, &back.addresses), (token().invite, &token().addresses));
        for at in TOKEN_PREFIX.len()..text.len() {
            let other = if text.as_bytes()[at] == b'A' { "B" } else { "A" };
            let wrong = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            assert_eq!(wrong.parse::<JoinToken>().err(), Some(TokenError::Damaged), "{at}");
            let cut = text[..at].parse::<JoinToken>();
            assert_eq!(cut.err(), Some(TokenError::Damaged), "{at}");
        }
        assert_eq!("abc".parse::<JoinToken>().err(), Some(TokenError::Prefix));
        assert!(!format!("{:?}", token()).contains("9, 9"), "the secret is not printed");
    }

    #[test]
    fn a_proof_counts_for_its_session_its_keys_and_its_secret() {
        let secret = token().secret;
        let proof = secret.prove(&session());
        assert!(secret.accepts_proof(&session(), &proof));
        for other in [
            JoinSession { exporter: [6; 32], ..session() },
            JoinSession { joiner: NodeKey([4; 32]), ..session() },
            JoinSession { inviter: NodeKey([4; 32]), ..session() },
        ] {
            assert!(!secret.accepts_proof(&other, &proof), "{other:?}");
        }
        assert!(!InviteSecret::new([8; 16]).accepts_proof(&session(), &proof), "another secret");
    }
}
