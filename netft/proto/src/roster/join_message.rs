//! The two messages of a join, all numbers big-endian. Each is the whole of its stream.
//!
//! ```text
//! request  version (1)  flags (1)  invite (8)  proof (32)  name: length (2), text
//!          addresses: length (2), text  ...
//!          flag 1: the operator chose the name; without it the invite's name is taken instead
//! reply    0  a signed roster          the node is in it
//!          1  the reason, text         refused
//! ```

use crate::{
    roster::{
        document::{MAX_NODE_ADDRESSES, MAX_ROSTER_LEN, NodeAddress},
        join_token::InviteId,
    },
    wire::{
        DropReason,
        hello::is_valid_name,
        reader::{ByteReader, check_reserved},
    },
};

/// Version of the messages.
const JOIN_VERSION: u8 = 1;
const FLAG_NAME_CHOSEN: u8 = 1;
const TAG_JOINED: u8 = 0;
const TAG_REFUSED: u8 = 1;
/// Largest request, bytes: every address with the longest name.
pub const MAX_JOIN_REQUEST_LEN: usize = 9 * 1024;
/// Largest reply, bytes.
pub const MAX_JOIN_REPLY_LEN: usize = MAX_ROSTER_LEN + 1;
/// Longest reason, bytes.
const MAX_REASON_LEN: usize = 512;

/// A joiner's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    /// The invite.
    pub invite: InviteId,
    /// Proof of its secret.
    pub proof: [u8; 32],
    /// Name that the node wants.
    pub name: String,
    /// The operator chose it: it does not give way to the invite's.
    pub name_chosen: bool,
    /// Its physical addresses; at most [`MAX_NODE_ADDRESSES`].
    pub addresses: Vec<NodeAddress>,
}

/// The answer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinReply {
    /// The signed roster, which names the joiner.
    Joined(Vec<u8>),
    /// The reason for a refusal.
    Refused(String),
}

impl JoinRequest {
    /// The bytes of the request.
    pub fn encode(&self) -> Vec<u8> {
        let flags = if self.name_chosen { FLAG_NAME_CHOSEN } else { 0 };
        let mut out = vec![JOIN_VERSION, flags];
        out.extend(self.invite.0);
        out.extend(self.proof);
        let mut append = |text: &str| {
            // Names and addresses are far shorter.
            out.extend((text.len() as u16).to_be_bytes());
            out.extend(text.as_bytes());
        };
        append(&self.name);
        self.addresses.iter().for_each(|address| append(&address.to_string()));
        out
    }

    /// Reads a request.
    ///
    /// # Errors
    /// [`DropReason::Unsupported`] for another version, else [`DropReason::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DropReason> {
        let mut reader = ByteReader::new(bytes);
        if reader.read_u8()? != JOIN_VERSION || bytes.len() > MAX_JOIN_REQUEST_LEN {
            return Err(DropReason::Unsupported);
        }
        let flags = reader.read_u8()?;
        check_reserved(u32::from(flags & !FLAG_NAME_CHOSEN))?;
        let invite = InviteId(reader.read_array()?);
        let proof = reader.read_array()?;
        let mut rest = reader.into_remaining();
        let name = split_text(&mut rest)?;
        if !is_valid_name(name.as_bytes()) {
            return Err(DropReason::Malformed);
        }
        let mut addresses = Vec::new();
        while !rest.is_empty() {
            if addresses.len() == MAX_NODE_ADDRESSES {
                return Err(DropReason::Malformed);
            }
            let address = split_text(&mut rest)?.parse().map_err(|_| DropReason::Malformed)?;
            addresses.push(address);
        }
        let name_chosen = flags & FLAG_NAME_CHOSEN != 0;
        Ok(Self { invite, proof, name: name.to_owned(), name_chosen, addresses })
    }
}

fn split_text<'a>(rest: &mut &'a [u8]) -> Result<&'a str, DropReason> {
    let (length, after) = rest.split_first_chunk().ok_or(DropReason::Malformed)?;
    let length = usize::from(u16::from_be_bytes(*length));
    let (text, after) = after.split_at_checked(length).ok_or(DropReason::Malformed)?;
    *rest = after;
    str::from_utf8(text).map_err(|_| DropReason::Malformed)
}

impl JoinReply {
    /// The bytes of the reply.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Joined(roster) => [&[TAG_JOINED], roster.as_slice()].concat(),
            Self::Refused(reason) => {
                let end = reason.floor_char_boundary(MAX_REASON_LEN);
                [&[TAG_REFUSED], &reason.as_bytes()[..end]].concat()
            }
        }
    }

    /// Reads a reply.
    ///
    /// # Errors
    /// [`DropReason::Malformed`], or [`DropReason::Unsupported`] for a tag of a newer release.
    pub fn decode(bytes: &[u8]) -> Result<Self, DropReason> {
        match bytes.split_first() {
            Some((&TAG_JOINED, roster)) if roster.len() <= MAX_ROSTER_LEN => {
                Ok(Self::Joined(roster.to_vec()))
            }
            Some((&TAG_REFUSED, reason)) if reason.len() <= MAX_REASON_LEN => {
                let reason = str::from_utf8(reason).map_err(|_| DropReason::Malformed)?;
                Ok(Self::Refused(reason.to_owned()))
            }
            Some((&(TAG_JOINED | TAG_REFUSED), _)) | None => Err(DropReason::Malformed),
            Some(_) => Err(DropReason::Unsupported),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_longest_request_fits_its_bound() {
        let labels = format!("{0}.{0}.{0}", "a".repeat(63));
        let address = |number: usize| format!("{number:0>61}.{labels}:65535");
        let request = JoinRequest {
            invite: InviteId([1; 8]),
            proof: [2; 32],
            name: "n".repeat(64),
            name_chosen: true,
            addresses: (0..MAX_NODE_ADDRESSES).map(|it| address(it).parse().unwrap()).collect(),
        };
        let bytes = request.encode();
        assert!(bytes.len() <= MAX_JOIN_REQUEST_LEN, "{}", bytes.len());
        assert_eq!(JoinRequest::decode(&bytes), Ok(request));
        assert_eq!(JoinRequest::decode(&bytes[..60]), Err(DropReason::Malformed));
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reply = JoinReply::Refused("é".repeat(400));
        let JoinReply::Refused(reason) = JoinReply::decode(&reply.encode()).unwrap() else {
            panic!("{reply:?}")
        };
        assert_eq!(reason, "é".repeat(256));
    }
}
