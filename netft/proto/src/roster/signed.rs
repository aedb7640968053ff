//! Signature of a roster, and the order of its versions.

use std::{cmp::Ordering, fmt, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{
    digest,
    signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey},
};

use crate::{
    config::PrivateKey,
    roster::{
        cluster_id::ClusterId,
        document::{MAX_ROSTER_LEN, Roster},
        parser::RosterError,
    },
};

/// Line before the signature; everything before it is signed.
const SIGNATURE_TABLE: &str = "\n[signature]\ned25519 = \"";
/// The text behind the signature.
const SIGNATURE_END: &str = "\"\n";
/// Domain of the signature: it counts for nothing but a roster.
const SIGNATURE_DOMAIN: &[u8] = b"netft roster 1\n";
/// Bytes of an Ed25519 signature.
const SIGNATURE_LEN: usize = 64;

/// Version of a roster: its serial, and the SHA-256 of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RosterVersion {
    /// The serial.
    pub serial: u64,
    /// The digest.
    pub digest: [u8; 32],
}

impl fmt::Debug for RosterVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.serial, self.short_digest())
    }
}

impl RosterVersion {
    /// The first bytes of the digest, in hexadecimal, for people.
    pub fn short_digest(&self) -> String {
        self.digest[..4].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Compares with another version of the same cluster; `None` in a conflict: one serial, two
    /// contents.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        match self.serial.cmp(&other.serial) {
            Ordering::Equal if self.digest != other.digest => None,
            order => Some(order),
        }
    }
}

/// Reason for refusing a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RosterRefusal {
    /// Too long to be looked at.
    #[error("the roster is larger than the {MAX_ROSTER_LEN} bytes allowed")]
    TooLong,
    /// No signature at its end.
    #[error("the roster has no signature at its end; import the file that `export` wrote, whole")]
    Unsigned,
    /// The signature is of another key, or the text was changed after it was signed.
    #[error(
        "the signature does not fit: the roster was changed after it was signed, or is of \
         another cluster"
    )]
    BadSignature,
    /// The text has a mistake.
    #[error("roster, {0}")]
    Text(#[from] RosterError),
    /// It names another cluster than the key that signed it.
    #[error("the roster names another cluster than the one that signed it")]
    OtherCluster,
}

/// A roster with its signature, as it is stored and sent.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedRoster {
    roster: Roster,
    text: Arc<str>,
    version: RosterVersion,
}

impl fmt::Debug for SignedRoster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignedRoster({} {:?})", self.roster.cluster, self.version)
    }
}

impl SignedRoster {
    /// Signs a roster with the cluster's key.
    ///
    /// # Errors
    /// The key is not that of the cluster, or the roster is not one that a reader accepts.
    pub fn sign(roster: &Roster, key: &PrivateKey) -> Result<Self, RosterRefusal> {
        let pair = Ed25519KeyPair::from_pkcs8(&key.0).map_err(|_| RosterRefusal::BadSignature)?;
        let text = roster.to_text().0;
        let signature = pair.sign(&signed_bytes(&text));
        let signature = STANDARD.encode(signature);
        let text = format!("{text}{SIGNATURE_TABLE}{signature}{SIGNATURE_END}");
        // Whatever is signed here is what every reader accepts.
        Self::verify(text.as_bytes(), &roster.id)
    }

    /// Checks a document of cluster `id`: its length, then its signature, then its text.
    ///
    /// # Errors
    /// [`RosterRefusal`]; nothing of the document is to be used.
    pub fn verify(bytes: &[u8], id: &ClusterId) -> Result<Self, RosterRefusal> {
        let (text, body, signature) = split_signature(bytes)?;
        UnparsedPublicKey::new(&ED25519, id.0)
            .verify(&signed_bytes(body), &signature)
            .map_err(|_| RosterRefusal::BadSignature)?;
        let roster = Roster::parse(body)?;
        if roster.id != *id {
            return Err(RosterRefusal::OtherCluster);
        }
        let mut version = RosterVersion { serial: roster.serial, digest: [0; 32] };
        version.digest.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
        Ok(Self { roster, text: text.into(), version })
    }

    /// Checks a document of a cluster that this node does not know yet: it must be signed by the
    /// cluster it names. Whoever handed it over decides whom to trust.
    ///
    /// # Errors
    /// [`RosterRefusal`].
    pub fn verify_first(bytes: &[u8]) -> Result<Self, RosterRefusal> {
        let (_, body, _) = split_signature(bytes)?;
        let id = Roster::parse(body)?.id;
        Self::verify(bytes, &id)
    }

    /// The document.
    pub const fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Its bytes.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its version.
    pub const fn version(&self) -> RosterVersion {
        self.version
    }
}

fn signed_bytes(body: &str) -> Vec<u8> {
    [SIGNATURE_DOMAIN, body.as_bytes()].concat()
}

/// The whole text, what is signed, and the signature.
fn split_signature(bytes: &[u8]) -> Result<(&str, &str, [u8; SIGNATURE_LEN]), RosterRefusal> {
    if bytes.len() > MAX_ROSTER_LEN {
        return Err(RosterRefusal::TooLong);
    }
    let text = str::from_utf8(bytes).map_err(|_| RosterRefusal::Unsigned)?;
    let end = text.strip_suffix(SIGNATURE_END).ok_or(RosterRefusal::Unsigned)?;
    let (body, encoded) = end.rsplit_once(SIGNATURE_TABLE).ok_or(RosterRefusal::Unsigned)?;
    let signature = STANDARD.decode(encoded).map_err(|_| RosterRefusal::Unsigned)?;
    let signature = signature.try_into().map_err(|_| RosterRefusal::Unsigned)?;
    Ok((text, body, signature))
}
