//! Hello: the first message each side sends on the control session. Pure.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{DropReason, header::VERSION};

/// The most bytes of a node name (reliability C-14).
pub const MAX_NAME: usize = 64;

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The wire version of the sender.
    pub version: u8,
    /// Random per start of the daemon: tells a restart from a reconnect.
    pub boot_id: u64,
    /// The number the receiver must put into frames for this session.
    pub session: u32,
    /// The sender's virtual IPv4 address.
    pub virtual_v4: Ipv4Addr,
    /// The sender's virtual IPv6 address.
    pub virtual_v6: Ipv6Addr,
    /// Whether the sender's CPU has AES instructions: both true → AES-256-GCM.
    pub aes: bool,
    /// Whether the sender's adapter is up.
    pub adapter_up: bool,
    /// The sender's node name: 1–[`MAX_NAME`] bytes of `[A-Za-z0-9._-]`.
    pub name: String,
}

/// The most bytes of an encoded hello.
pub const MAX_LEN: usize = 36 + MAX_NAME;

impl Hello {
    /// Appends the hello to `out`, at most [`MAX_LEN`] bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend([self.version, u8::from(self.aes) | u8::from(self.adapter_up) << 1, 0, 0]);
        out.extend(self.session.to_be_bytes());
        out.extend(self.boot_id.to_be_bytes());
        out.extend(self.virtual_v4.octets());
        out.extend(self.virtual_v6.octets());
        out.extend(self.name.as_bytes());
    }

    /// Reads a hello.
    ///
    /// # Errors
    /// [`DropReason::Unsupported`] for another version, [`DropReason::Malformed`] otherwise.
    pub fn decode(body: &[u8]) -> Result<Self, DropReason> {
        let (fixed, name) = body.split_first_chunk::<36>().ok_or(DropReason::Malformed)?;
        if fixed[0] != VERSION {
            return Err(DropReason::Unsupported);
        }
        let known = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
        let name = str::from_utf8(name).map_err(|_| DropReason::Malformed)?;
        if name.is_empty() || name.len() > MAX_NAME || !name.as_bytes().iter().all(known) {
            return Err(DropReason::Malformed);
        }
        let mut number = [0; 4];
        let mut boot = [0; 8];
        let mut v4 = [0; 4];
        let mut v6 = [0; 16];
        number.copy_from_slice(&fixed[4..8]);
        boot.copy_from_slice(&fixed[8..16]);
        v4.copy_from_slice(&fixed[16..20]);
        v6.copy_from_slice(&fixed[20..36]);
        Ok(Self {
            version: fixed[0],
            boot_id: u64::from_be_bytes(boot),
            session: u32::from_be_bytes(number),
            virtual_v4: v4.into(),
            virtual_v6: v6.into(),
            aes: fixed[1] & 1 != 0,
            adapter_up: fixed[1] & 2 != 0,
            name: name.to_owned(),
        })
    }
}
