//! Faults chosen by dice.

use netft_lab::Moment;

use super::NodePair;

/// A fault of one network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Nothing passes in either direction.
    BlackHole,
    /// Every frame this node sends is dropped.
    OneWay { from: usize },
    /// A node's interface loses its carrier.
    Carrier,
    /// A node's interface is deleted, and made again.
    NicDeleted,
}

impl FaultKind {
    /// Every kind, the silent black hole twice.
    pub const ALL: [Self; 6] = [
        Self::BlackHole,
        Self::OneWay { from: 0 },
        Self::Carrier,
        Self::BlackHole,
        Self::OneWay { from: 1 },
        Self::NicDeleted,
    ];

    /// The node whose data is hit, if the fault hits one only.
    pub fn sender(self) -> Option<usize> {
        match self {
            Self::OneWay { from } => Some(from),
            _ => None,
        }
    }

    /// Breaks `network`, or the place of `node` on it.
    pub fn inject_fault(self, pair: &NodePair, network: usize, node: usize) -> Moment {
        match self {
            Self::BlackHole => pair.lab.black_hole(network),
            Self::OneWay { from } => pair.lab.drop_one_way(network, from, 1 - from),
            Self::Carrier => pair.lab.cut_carrier(network, node),
            Self::NicDeleted => pair.lab.delete_nic(network, node),
        }
        .unwrap()
    }

    /// Undoes [`FaultKind::inject_fault`].
    pub fn heal_fault(self, pair: &NodePair, network: usize, node: usize) {
        match self {
            Self::NicDeleted => pair.lab.add_nic(network, node).unwrap(),
            _ => drop(pair.lab.heal_network(network).unwrap()),
        }
    }
}

/// Numbers that look random and repeat with their seed: SplitMix64.
#[derive(Clone, Copy, Debug)]
pub struct TestRng(pub u64);

impl TestRng {
    /// A number from `low` (included) to `high` (excluded).
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        low + (mixed ^ (mixed >> 31)) % (high - low)
    }
}
