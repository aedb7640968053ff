//! Where an address should be.

use std::time::Duration;

/// When an address returns to a node that it prefers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failback {
    /// Not by itself.
    #[default]
    Never,
    /// Once the node has been able to carry it for this time; zero: at once.
    After(Duration),
}

/// Rules of one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipPolicy {
    /// Its name.
    pub name: String,
    /// How long its owner may answer without a renewal.
    pub lease: Duration,
    /// Nodes that should own it, the best first.
    pub preferred: Vec<String>,
    /// When it returns to a better one.
    pub failback: Failback,
    /// Addresses that it follows to their owner.
    pub together_with: Vec<String>,
    /// Addresses that it avoids.
    pub apart_from: Vec<String>,
    /// It goes to the node whose check passes; of several, to the one where it began last. The
    /// wishes above have no effect then.
    pub follow: bool,
}

impl VipPolicy {
    /// An address without wishes.
    pub fn new(name: &str, lease: Duration) -> Self {
        Self {
            name: name.to_owned(),
            lease,
            preferred: Vec::new(),
            failback: Failback::default(),
            together_with: Vec::new(),
            apart_from: Vec::new(),
            follow: false,
        }
    }

    /// Place of `node` among the preferred; the others come after them.
    pub fn rank_of(&self, node: &str) -> usize {
        self.preferred.iter().position(|one| one == node).unwrap_or(usize::MAX)
    }
}
