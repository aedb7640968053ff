//! Requests and replies between two nodes of a cluster, all numbers big-endian.
//!
//! ```text
//! request  1 offer    cluster id (32)  serial (8)  digest (32)
//!          2 push     a signed roster
//!          3 prepare  the replying node stores a next key of its own
//! reply    1 same     both have this version
//!          2 newer    a signed roster: that of the replying node, whose serial is higher
//!          3 want     the request's serial is higher: push it
//!          4 conflict serial (8)  digest (32): that serial with other content
//!          5 refused  code (1)
//!          6 next key public key (32)
//! ```

use crate::{
    ids::NodeKey,
    roster::{cluster_id::ClusterId, document::MAX_ROSTER_LEN, signed::RosterVersion},
    wire::{DropReason, reader::ByteReader},
};

const TAG_OFFER: u8 = 1;
const TAG_PUSH: u8 = 2;
const TAG_PREPARE_KEY: u8 = 3;
const TAG_SAME: u8 = 1;
const TAG_NEWER: u8 = 2;
const TAG_WANT: u8 = 3;
const TAG_CONFLICT: u8 = 4;
const TAG_REFUSED: u8 = 5;
const TAG_NEXT_KEY: u8 = 6;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RosterRequest<'a> {
    /// The version that the asking node has.
    Offer(ClusterId, RosterVersion),
    /// A newer document, which the other node wanted.
    Push(&'a [u8]),
    /// The other node is to store the key that will replace its own, and to name it.
    PrepareKey,
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RosterReply<'a> {
    /// Both nodes have the same document.
    Same,
    /// The document of the replying node, whose serial is higher.
    Newer(&'a [u8]),
    /// The document of the asking node is wanted.
    Want,
    /// The same serial with other content.
    Conflict(RosterVersion),
    /// The request is refused.
    Refused(RefusalCode),
    /// The next key of the replying node, which it has on its disk.
    NextKey(NodeKey),
}

/// Reason of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalCode {
    /// The replying node is in no cluster.
    NoCluster,
    /// The replying node is in another cluster.
    OtherCluster,
    /// The document is not valid: its signature, its text or its length.
    Invalid,
    /// The request is not understood.
    Malformed,
    /// A reason of a newer release.
    Other(u8),
}

impl RefusalCode {
    const fn to_byte(self) -> u8 {
        match self {
            Self::NoCluster => 1,
            Self::OtherCluster => 2,
            Self::Invalid => 3,
            Self::Malformed => 4,
            Self::Other(code) => code,
        }
    }

    const fn from_byte(code: u8) -> Self {
        match code {
            1 => Self::NoCluster,
            2 => Self::OtherCluster,
            3 => Self::Invalid,
            4 => Self::Malformed,
            other => Self::Other(other),
        }
    }
}

impl<'a> RosterRequest<'a> {
    /// The bytes of the request.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Offer(id, version) => {
                let mut out = vec![TAG_OFFER];
                out.extend(id.0);
                encode_version(version, &mut out);
                out
            }
            Self::Push(text) => [&[TAG_PUSH], *text].concat(),
            Self::PrepareKey => vec![TAG_PREPARE_KEY],
        }
    }

    /// Reads a request.
    ///
    /// # Errors
    /// [`DropReason::Malformed`], or [`DropReason::Unsupported`] for a tag of a newer release.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DropReason> {
        let mut reader = ByteReader::new(bytes);
        match reader.read_u8()? {
            TAG_OFFER => {
                let id = ClusterId(reader.read_array()?);
                Ok(Self::Offer(id, decode_version(&mut reader)?))
            }
            TAG_PUSH => Ok(Self::Push(bounded(reader)?)),
            TAG_PREPARE_KEY => Ok(Self::PrepareKey),
            _ => Err(DropReason::Unsupported),
        }
    }
}

impl<'a> RosterReply<'a> {
    /// The bytes of the reply.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Same => vec![TAG_SAME],
            Self::Newer(text) => [&[TAG_NEWER], *text].concat(),
            Self::Want => vec![TAG_WANT],
            Self::Conflict(version) => {
                let mut out = vec![TAG_CONFLICT];
                encode_version(version, &mut out);
                out
            }
            Self::Refused(code) => vec![TAG_REFUSED, code.to_byte()],
            Self::NextKey(key) => [&[TAG_NEXT_KEY], &key.0[..]].concat(),
        }
    }

    /// Reads a reply.
    ///
    /// # Errors
    /// As [`RosterRequest::decode`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DropReason> {
        let mut reader = ByteReader::new(bytes);
        match reader.read_u8()? {
            TAG_SAME => Ok(Self::Same),
            TAG_NEWER => Ok(Self::Newer(bounded(reader)?)),
            TAG_WANT => Ok(Self::Want),
            TAG_CONFLICT => Ok(Self::Conflict(decode_version(&mut reader)?)),
            TAG_REFUSED => Ok(Self::Refused(RefusalCode::from_byte(reader.read_u8()?))),
            TAG_NEXT_KEY => Ok(Self::NextKey(NodeKey(reader.read_array()?))),
            _ => Err(DropReason::Unsupported),
        }
    }
}

fn encode_version(version: &RosterVersion, out: &mut Vec<u8>) {
    out.extend(version.serial.to_be_bytes());
    out.extend(version.digest);
}

/// A later release may append to what is fixed here.
fn decode_version(reader: &mut ByteReader<'_>) -> Result<RosterVersion, DropReason> {
    Ok(RosterVersion { serial: reader.read_u64()?, digest: reader.read_array()? })
}

fn bounded(reader: ByteReader<'_>) -> Result<&[u8], DropReason> {
    let text = reader.into_remaining();
    if text.len() > MAX_ROSTER_LEN { Err(DropReason::Malformed) } else { Ok(text) }
}
