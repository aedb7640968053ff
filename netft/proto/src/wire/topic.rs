//! Topics of the requests between two nodes that have a session.

use std::time::Duration;

/// Subject of a request, which names its receiver and its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Findings of the peer on itself, for `netft validate`.
    Validate,
    /// Who owns which floating address.
    Ownership,
    /// The cluster's roster.
    Roster,
    /// Warnings about the receiver, by one byte; the reply is empty.
    Warning,
    /// A floating address that an operator hands over.
    HandOver,
}

/// The only warning: another machine uses the receiver's key.
pub const WARNING_KEY_COPIED: u8 = 1;

/// Bounds of the requests of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicLimits {
    /// Maximum length of a request, bytes.
    pub max_request: usize,
    /// Maximum length of a reply, bytes.
    pub max_reply: usize,
    /// Requests of one peer under way at once; further ones wait.
    pub max_concurrent: usize,
    /// Time for which a request occupies its place at least: it bounds the rate.
    pub min_interval: Duration,
    /// Timeout of a request, its waiting included.
    pub timeout: Duration,
}

impl Topic {
    /// All topics, in the order of [`index`](Self::index).
    pub const ALL: [Self; 5] =
        [Self::Validate, Self::Ownership, Self::Roster, Self::Warning, Self::HandOver];

    /// Its bounds.
    pub const fn limits(self) -> TopicLimits {
        match self {
            Self::Validate => TopicLimits {
                max_request: 256,
                max_reply: 64 * 1024,
                max_concurrent: 1,
                min_interval: Duration::from_secs(1),
                timeout: Duration::from_secs(4),
            },
            // Consensus sends its next heartbeat while the last one waits for a disk.
            Self::Ownership => TopicLimits {
                max_request: 64 * 1024,
                max_reply: 64 * 1024,
                max_concurrent: 8,
                min_interval: Duration::ZERO,
                timeout: Duration::from_secs(2),
            },
            Self::Roster => TopicLimits {
                max_request: 256 * 1024,
                max_reply: 256 * 1024,
                max_concurrent: 2,
                min_interval: Duration::from_millis(200),
                timeout: Duration::from_secs(10),
            },
            Self::Warning => TopicLimits {
                max_request: 16,
                max_reply: 16,
                max_concurrent: 1,
                min_interval: Duration::from_secs(1),
                timeout: Duration::from_secs(4),
            },
            // A reply may name every floating address.
            Self::HandOver => TopicLimits {
                max_request: 256,
                max_reply: 32 * 1024,
                max_concurrent: 4,
                min_interval: Duration::ZERO,
                timeout: Duration::from_secs(2),
            },
        }
    }

    /// Its byte on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Self::Validate => 1,
            Self::Ownership => 2,
            Self::Roster => 3,
            Self::Warning => 4,
            Self::HandOver => 5,
        }
    }

    /// The topic with this byte; a later version's has none.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.code() == code)
    }

    /// Its place in [`ALL`](Self::ALL).
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Requests of one peer under way at once, of all topics.
    pub fn max_concurrent_total() -> usize {
        Self::ALL.into_iter().map(|topic| topic.limits().max_concurrent).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_has_its_own_byte_and_place() {
        for (place, topic) in Topic::ALL.into_iter().enumerate() {
            assert_eq!(topic.index(), place);
            assert_eq!(Topic::from_code(topic.code()), Some(topic));
        }
        assert_eq!(Topic::from_code(0), None);
        assert_eq!(Topic::from_code(0xff), None);
    }
}
