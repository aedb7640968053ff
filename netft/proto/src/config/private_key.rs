//! A node's private key in memory.

use std::fmt;

use ring::signature::{Ed25519KeyPair, KeyPair};

use crate::ids::NodeKey;

/// A PKCS#8 private key; never printed, wiped when dropped.
#[derive(Clone)]
pub struct PrivateKey(pub zeroize::Zeroizing<Vec<u8>>);

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

/// Length of an Ed25519 key pair in PKCS#8 version 2 form (RFC 8410 section 10.3), bytes.
const PKCS8_LEN: usize = 83;
/// Place of the 32 secret bytes in it.
const SEED_RANGE: std::ops::Range<usize> = 16..48;

impl PrivateKey {
    /// The public key.
    ///
    /// # Errors
    /// The reason when this is no Ed25519 key pair; without key material.
    pub fn public_key(&self) -> Result<NodeKey, &'static str> {
        if self.0.len() != PKCS8_LEN {
            return Err("its length is wrong");
        }
        if self.0[SEED_RANGE].iter().all(|byte| *byte == 0) {
            return Err("it is all zero");
        }
        let pair = Ed25519KeyPair::from_pkcs8(&self.0).map_err(|_| "it is no Ed25519 key pair")?;
        let mut public = [0; 32];
        public.copy_from_slice(pair.public_key().as_ref());
        Ok(NodeKey(public))
    }
}
