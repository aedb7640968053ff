//! The messages between the two processes: one packet of text each, over a socket that only they
//! hold.

/// Version of the messages and of what they carry. A process refuses any other.
pub const HANDOVER_VERSION: u16 = 3;
/// Largest message, bytes.
pub const MAX_MESSAGE_LEN: usize = 512;

/// A message of the successor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SuccessorMessage {
    /// It is ready to serve.
    Ready {
        /// The version it speaks.
        version: u16,
    },
    /// It serves.
    Serving,
    /// It cannot serve, and ends.
    Refused {
        /// The reason, one line.
        reason: String,
    },
}

/// A message of the predecessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PredecessorMessage {
    /// The adapter is the successor's: the descriptors of its lock, its state, its port, its queues
    /// and its sockets come along, in this order. Those that do not fit into one packet follow in
    /// packets without a message.
    Take {
        /// The version.
        version: u16,
        /// Number of the queues.
        queues: u16,
        /// Number of the sockets.
        sockets: u16,
    },
}

/// A packet that is no message of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an unknown message")]
pub struct UnknownMessage;

fn parse_text(bytes: &[u8]) -> Result<(&str, &str), UnknownMessage> {
    let text = bytes.get(..MAX_MESSAGE_LEN).unwrap_or(bytes);
    let text = std::str::from_utf8(text).map_err(|_| UnknownMessage)?;
    Ok(text.split_once(' ').unwrap_or((text, "")))
}

fn parse_number<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<u16, UnknownMessage> {
    words.next().and_then(|word| word.parse().ok()).ok_or(UnknownMessage)
}

impl SuccessorMessage {
    /// The packet.
    pub fn encode(&self) -> Vec<u8> {
        let mut text = match self {
            Self::Ready { version } => format!("ready {version}"),
            Self::Serving => "serving".to_owned(),
            Self::Refused { reason } => format!("refused {reason}"),
        };
        while text.len() > MAX_MESSAGE_LEN {
            text.pop();
        }
        text.into_bytes()
    }

    /// Reads a packet.
    ///
    /// # Errors
    /// It is no message.
    pub fn decode(bytes: &[u8]) -> Result<Self, UnknownMessage> {
        match parse_text(bytes)? {
            // Later versions may append words.
            ("ready", rest) => Ok(Self::Ready { version: parse_number(&mut rest.split(' '))? }),
            ("serving", "") => Ok(Self::Serving),
            ("refused", reason) => Ok(Self::Refused { reason: reason.to_owned() }),
            _ => Err(UnknownMessage),
        }
    }
}

impl PredecessorMessage {
    /// The packet.
    pub fn encode(self) -> Vec<u8> {
        let Self::Take { version, queues, sockets } = self;
        format!("take {version} {queues} {sockets}").into_bytes()
    }

    /// Reads a packet.
    ///
    /// # Errors
    /// It is no message.
    pub fn decode(bytes: &[u8]) -> Result<Self, UnknownMessage> {
        match parse_text(bytes)? {
            ("take", rest) => {
                let mut words = rest.split(' ');
                let version = parse_number(&mut words)?;
                // Another version may count otherwise: it is refused for its version.
                let mut count = || parse_number(&mut words).unwrap_or_default();
                Ok(Self::Take { version, queues: count(), sockets: count() })
            }
            _ => Err(UnknownMessage),
        }
    }
}
