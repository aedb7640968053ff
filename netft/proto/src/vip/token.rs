//! Order of the decisions on one address's owner.

use std::fmt;

/// Place of a decision in the log that orders all of them. A later decision has a larger token, so
/// whoever sees two knows which is void.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct FencingToken {
    /// Term of the leader that decided.
    pub term: u64,
    /// Index in the log.
    pub index: u64,
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.index)
    }
}
