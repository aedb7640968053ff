//! Messages of the kernel's nf_tables interface (`linux/netfilter/nf_tables.h`), written and read.
//! Pure.

/// `NFNL_SUBSYS_NFTABLES`.
const NFNL_SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const HEADER_LEN: usize = 16;
/// Length of `nfgenmsg`, which follows the netlink header.
const FAMILY_HEADER_LEN: usize = 4;
const FLAG_NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

/// Types of messages.
pub(crate) mod message {
    pub(crate) const NEW_TABLE: u8 = 0;
    pub(crate) const DELETE_TABLE: u8 = 2;
    pub(crate) const NEW_CHAIN: u8 = 3;
    pub(crate) const NEW_RULE: u8 = 6;
    pub(crate) const NEW_SET: u8 = 9;
    pub(crate) const NEW_SET_ELEMENTS: u8 = 12;
    pub(crate) const DELETE_SET_ELEMENTS: u8 = 14;
    pub(crate) const NEW_OBJECT: u8 = 18;
    pub(crate) const GET_OBJECT: u8 = 19;
}

/// Flags of a request.
pub(crate) const FLAG_REQUEST: u16 = 1;
const FLAG_ACK: u16 = 4;
const FLAG_DUMP: u16 = 0x300;
/// `NLM_F_CREATE`.
pub(crate) const FLAG_CREATE: u16 = 0x400;
/// `NLM_F_APPEND`: a rule goes behind those that exist.
pub(crate) const FLAG_APPEND: u16 = 0x800;

/// Attributes of a message, written one after the other.
#[derive(Default)]
pub(crate) struct AttributeWriter(Vec<u8>);

impl AttributeWriter {
    #[cfg(test)]
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn put_bytes(&mut self, kind: u16, value: &[u8]) {
        let len = (4 + value.len()) as u16;
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// Numbers are in network byte order.
    pub(crate) fn put_number(&mut self, kind: u16, value: u32) {
        self.put_bytes(kind, &value.to_be_bytes());
    }

    pub(crate) fn put_text(&mut self, kind: u16, text: &str) {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.put_bytes(kind, &bytes);
    }

    pub(crate) fn put_nested(&mut self, kind: u16, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.put_bytes(kind | FLAG_NESTED, &inner.0);
    }
}

/// A transaction: the kernel applies all of its messages or none.
pub(crate) struct BatchWriter {
    bytes: Vec<u8>,
    /// Sequence number of the last message; that of the batch itself is 0.
    last: u32,
    last_start: usize,
}

impl BatchWriter {
    pub(crate) fn new() -> Self {
        let mut batch = Self { bytes: Vec::new(), last: 0, last_start: 0 };
        batch.write_message(BATCH_BEGIN, FLAG_REQUEST, 0, NFNL_SUBSYSTEM, &[]);
        batch
    }

    /// Appends a message of `family` (`libc::NFPROTO_*`).
    pub(crate) fn append_message(
        &mut self,
        kind: u8,
        flags: u16,
        family: i32,
        write: impl FnOnce(&mut AttributeWriter),
    ) {
        let mut body = AttributeWriter::default();
        write(&mut body);
        self.last += 1;
        self.last_start = self.bytes.len();
        let kind = NFNL_SUBSYSTEM << 8 | u16::from(kind);
        self.write_message(kind, FLAG_REQUEST | flags, family as u8, 0, &body.0);
    }

    /// The bytes to send, and the sequence number of the message that is acknowledged: the last.
    pub(crate) fn finish(mut self) -> (Vec<u8>, u32) {
        let flags = self.last_start + 6;
        self.bytes[flags] |= FLAG_ACK as u8;
        let acknowledged = self.last;
        self.last += 1;
        self.write_message(BATCH_END, FLAG_REQUEST, 0, NFNL_SUBSYSTEM, &[]);
        (self.bytes, acknowledged)
    }

    fn write_message(&mut self, kind: u16, flags: u16, family: u8, resource: u16, body: &[u8]) {
        let header = encode_header(kind, flags, self.last, body.len());
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        self.bytes.extend_from_slice(body);
    }
}

fn encode_header(kind: u16, flags: u16, sequence: u32, body: usize) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    let len = (HEADER_LEN + FAMILY_HEADER_LEN + body) as u32;
    header[0..4].copy_from_slice(&len.to_ne_bytes());
    header[4..6].copy_from_slice(&kind.to_ne_bytes());
    header[6..8].copy_from_slice(&flags.to_ne_bytes());
    header[8..12].copy_from_slice(&sequence.to_ne_bytes());
    header
}

/// A request for everything of one kind.
pub(crate) fn encode_dump(
    kind: u8,
    family: i32,
    sequence: u32,
    write: impl FnOnce(&mut AttributeWriter),
) -> Vec<u8> {
    let mut body = AttributeWriter::default();
    write(&mut body);
    let kind = NFNL_SUBSYSTEM << 8 | u16::from(kind);
    let header = encode_header(kind, FLAG_REQUEST | FLAG_DUMP, sequence, body.0.len());
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(&[family as u8, 0, 0, 0]);
    bytes.extend_from_slice(&body.0);
    bytes
}

/// A message of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KernelMessage<'a> {
    pub(crate) sequence: u32,
    /// Port of the socket whose request it answers or reports.
    pub(crate) port: u32,
    pub(crate) content: MessageContent<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageContent<'a> {
    /// Acknowledgement, with the error number or 0.
    Acknowledged(i32),
    /// End of a dump.
    Done,
    /// An object of nf_tables: the type of the message, and its attributes.
    Object(u8, &'a [u8]),
    Other,
}

/// The messages of a datagram. Ends at the first that is malformed.
pub(crate) fn split_messages(mut bytes: &[u8]) -> impl Iterator<Item = KernelMessage<'_>> {
    std::iter::from_fn(move || {
        let len = u32::from_ne_bytes(bytes.get(0..4)?.try_into().ok()?) as usize;
        let whole = bytes.get(..len).filter(|_| len >= HEADER_LEN)?;
        let number = |at: usize| Some(u32::from_ne_bytes(whole.get(at..at + 4)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(whole[4..6].try_into().ok()?);
        let content = match kind {
            2 => MessageContent::Acknowledged(-(number(HEADER_LEN)? as i32)),
            3 => MessageContent::Done,
            kind if kind >> 8 == NFNL_SUBSYSTEM => {
                let attributes = whole.get(HEADER_LEN + FAMILY_HEADER_LEN..)?;
                MessageContent::Object((kind & 0xff) as u8, attributes)
            }
            _ => MessageContent::Other,
        };
        let message = KernelMessage { sequence: number(8)?, port: number(12)?, content };
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The value of the first attribute of this kind.
pub(crate) fn find_attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let len = usize::from(u16::from_ne_bytes(bytes.get(0..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & TYPE_MASK;
        let value = bytes.get(4..len)?;
        if kind == wanted {
            return Some(value);
        }
        bytes = bytes.get(len.next_multiple_of(4)..)?;
    }
}

/// The text of an attribute, without its final NUL.
pub(crate) fn attribute_text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn attributes_are_found_again() {
        let mut writer = AttributeWriter::default();
        writer.put_text(1, "netft_netft0");
        writer.put_nested(4, |inner| inner.put_number(2, 77));
        let name = find_attribute(&writer.0, 1).and_then(attribute_text);
        assert_eq!(name, Some("netft_netft0"));
        let nested = find_attribute(&writer.0, 4).unwrap();
        assert_eq!(find_attribute(nested, 2), Some(&77u32.to_be_bytes()[..]));
        assert_eq!(find_attribute(&writer.0, 9), None);
    }

    #[test]
    fn a_batch_is_acknowledged_once_by_its_last_message() {
        let mut batch = BatchWriter::new();
        for _ in 0..3 {
            let write = |body: &mut AttributeWriter| body.put_text(1, "x");
            batch.append_message(message::NEW_TABLE, 0, 1, write);
        }
        let (bytes, last) = batch.finish();
        assert_eq!(last, 3);
        let sequences: Vec<_> = split_messages(&bytes).map(|message| message.sequence).collect();
        assert_eq!(sequences, [0, 1, 2, 3, 4]);
        let acknowledged = |at: usize| bytes[at + 6] & FLAG_ACK as u8 != 0;
        let lens = [20, 28, 28, 28, 20];
        let starts: Vec<usize> = (0..5).map(|n| lens[..n].iter().sum()).collect();
        let flags: Vec<_> = starts.into_iter().map(acknowledged).collect();
        assert_eq!(flags, [false, false, false, true, false]);
    }

    #[test]
    fn malformed_messages_and_attributes_end_the_reading() {
        for bytes in [&[][..], &[1; 15], &[200, 0, 0, 0, 1, 1, 1, 1], &[0; 40]] {
            assert_eq!(split_messages(bytes).count(), 0, "{bytes:?}");
        }
        for bytes in [&[][..], &[3, 0, 1, 0], &[200, 0, 1, 0, 5], &[0, 0, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(find_attribute(bytes, 1), None, "{bytes:?}");
        }
    }
}
