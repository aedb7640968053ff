//! Floating addresses in JSON.

use serde::{Deserialize, Serialize};

pub use crate::vip::{VipHistoryLine, VipView};

/// `GET /v1/vips`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VipList {
    /// Every floating address, by name.
    pub vips: Vec<VipView>,
}

/// `POST /v1/vips/{name}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VipOrder {
    /// `online`, `offline`, `move`, `announce`, `add` or `remove`.
    pub action: String,
    /// Node that shall have it (`move`).
    #[serde(default)]
    pub to: Option<String>,
    /// Its addresses (`add`).
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Its interface (`add`); null: by network.
    #[serde(default)]
    pub interface: Option<String>,
}

/// Answer to a [`VipOrder`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipOrderDone {
    /// Description of what was done.
    pub done: String,
    /// The address afterwards; null if it was removed.
    pub vip: Option<VipView>,
}

/// Number of floating addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipCounts {
    /// All that this node knows.
    pub total: usize,
    /// Those that this node answers for.
    pub online: usize,
    /// Those that this node should have and cannot.
    pub failed: usize,
}

impl VipCounts {
    /// Counts these.
    pub fn of(vips: &[VipView]) -> Self {
        let count = |state: &str| vips.iter().filter(|vip| vip.state == state).count();
        Self { total: vips.len(), online: count("online"), failed: count("failed") }
    }
}
