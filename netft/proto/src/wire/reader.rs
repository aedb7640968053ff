//! A cursor over received bytes: every read is checked, nothing is allocated. Pure.
//!
//! All codecs read through it, so a truncated message ends in
//! [`DropReason::Malformed`] and never in a panic.

use crate::wire::DropReason;

/// Cursor over the bytes left to read. All numbers are big-endian.
pub(crate) struct ByteReader<'a>(&'a [u8]);

impl<'a> ByteReader<'a> {
    /// A reader at the start of `bytes`.
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next `N` bytes.
    pub(crate) fn read_array<const N: usize>(&mut self) -> Result<[u8; N], DropReason> {
        let (head, rest) = self.0.split_first_chunk().ok_or(DropReason::Malformed)?;
        self.0 = rest;
        Ok(*head)
    }

    /// The next byte.
    pub(crate) fn read_u8(&mut self) -> Result<u8, DropReason> {
        self.read_array().map(u8::from_be_bytes)
    }

    /// The next two bytes.
    pub(crate) fn read_u16(&mut self) -> Result<u16, DropReason> {
        self.read_array().map(u16::from_be_bytes)
    }

    /// The next four bytes.
    pub(crate) fn read_u32(&mut self) -> Result<u32, DropReason> {
        self.read_array().map(u32::from_be_bytes)
    }

    /// The next eight bytes.
    pub(crate) fn read_u64(&mut self) -> Result<u64, DropReason> {
        self.read_array().map(u64::from_be_bytes)
    }

    /// The next `len` bytes.
    pub(crate) fn read_slice(&mut self, len: usize) -> Result<&'a [u8], DropReason> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(DropReason::Malformed)?;
        self.0 = rest;
        Ok(head)
    }

    /// Number of bytes left.
    pub(crate) const fn remaining_len(&self) -> usize {
        self.0.len()
    }

    /// Everything that is left.
    pub(crate) const fn into_remaining(self) -> &'a [u8] {
        self.0
    }
}

/// Checks that a reserved field is zero: a later version may define it, so anything else is
/// [`DropReason::Unsupported`].
pub(crate) fn check_reserved(bits: u32) -> Result<(), DropReason> {
    if bits == 0 { Ok(()) } else { Err(DropReason::Unsupported) }
}
