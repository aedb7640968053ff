//! Versions of the wire format. Pure.
//!
//! A hello names the lowest and the highest version that its sender speaks. The two ends speak the
//! highest one that both know; without one there is no session. So a new version reaches a cluster
//! node by node, as long as each node speaks that of the release before, too.

use std::fmt;

use crate::wire::{DropReason, header::WIRE_VERSION};

/// The version after this build's, as a build for the test of the two speaks it
/// (`scripts/versions`).
const NEXT_VERSION: u8 = WIRE_VERSION + 1;

/// The wire versions that a node speaks, without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct WireVersions {
    /// The lowest one.
    pub lowest: u8,
    /// The highest one.
    pub highest: u8,
}

impl WireVersions {
    /// Those of this build.
    pub const OWN_RANGE: Self = Self {
        lowest: WIRE_VERSION,
        highest: if cfg!(netft_next_version) { NEXT_VERSION } else { WIRE_VERSION },
    };

    /// One version alone.
    pub const fn single(version: u8) -> Self {
        Self { lowest: version, highest: version }
    }

    /// The versions of a hello; a sender that leaves out both bounds speaks `current` alone.
    ///
    /// # Errors
    /// [`DropReason::Malformed`] when they contradict each other.
    pub fn from_hello(current: u8, lowest: u8, highest: u8) -> Result<Self, DropReason> {
        let versions = match (lowest, highest) {
            (0, 0) => Self::single(current),
            _ => Self { lowest, highest },
        };
        match versions.lowest > 0 && (versions.lowest..=versions.highest).contains(&current) {
            true => Ok(versions),
            false => Err(DropReason::Malformed),
        }
    }

    /// The versions that both speak.
    pub fn shared_with(self, other: Self) -> Option<Self> {
        let (lowest, highest) = (self.lowest.max(other.lowest), self.highest.min(other.highest));
        (lowest <= highest).then_some(Self { lowest, highest })
    }

    /// The highest version that both speak.
    pub fn common(self, other: Self) -> Option<u8> {
        self.shared_with(other).map(|shared| shared.highest)
    }
}

impl fmt::Display for WireVersions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lowest, highest } = self;
        match lowest == highest {
            true => write!(f, "{lowest}"),
            false => write!(f, "{lowest}–{highest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_speak_the_highest_version_that_both_know() {
        let range = |lowest, highest| WireVersions { lowest, highest };
        for (one, other, common) in [
            (range(1, 1), range(1, 1), Some(1)),
            (range(1, 1), range(1, 2), Some(1)),
            (range(1, 3), range(2, 5), Some(3)),
            (range(1, 1), range(2, 3), None),
            (range(4, 6), range(1, 3), None),
        ] {
            assert_eq!((one.common(other), other.common(one)), (common, common));
        }
        assert_eq!(range(1, 3).shared_with(range(2, 5)), Some(range(2, 3)));
        assert_eq!((range(1, 3).to_string(), range(2, 2).to_string()), ("1–3".into(), "2".into()));
    }

    #[test]
    fn bounds_that_contradict_each_other_are_malformed() {
        assert_eq!(WireVersions::from_hello(7, 0, 0), Ok(WireVersions::single(7)));
        assert_eq!(WireVersions::from_hello(2, 1, 3), Ok(WireVersions { lowest: 1, highest: 3 }));
        for (current, lowest, highest) in [(0, 0, 0), (1, 0, 1), (1, 2, 3), (4, 2, 3), (3, 4, 2)] {
            let versions = WireVersions::from_hello(current, lowest, highest);
            assert_eq!(versions, Err(DropReason::Malformed), "{current} {lowest} {highest}");
        }
    }
}
