//! Drills in JSON.

use netft::failover::stall_histogram::StallSource;
use serde::{Deserialize, Serialize};

use crate::control::words;

/// `POST /v1/drill`: one of `route`, `network` and `interface`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DrillRequest {
    /// One route, by its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<u32>,
    /// Every route that begins in this network, by its prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Every route over an interface of this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// `blackhole`, `one-way`, `loss`, `carrier` or `delay`.
    pub fault: String,
    /// Datagrams lost with `loss`, in a hundred: 1–100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// Milliseconds that `delay` adds in each direction: 1–1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// Milliseconds that the fault lasts: 1000–60,000.
    pub length_ms: u64,
}

/// `GET /v1/drill`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DrillBody {
    /// The drill that runs, or the last one; null before the first.
    pub drill: Option<DrillView>,
}

/// A drill: what was ordered, and what it showed so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DrillView {
    /// Target: `route 3`, `network 10.1.0.0/24` or `interface eth1`.
    pub target: String,
    /// `blackhole`, `one-way`, `loss 5 %`, `carrier` or `delay 20 ms`.
    pub fault: String,
    /// Milliseconds ordered.
    pub length_ms: u64,
    /// `running`, `settling` (the fault is undone, costs are not final), `completed` or `aborted`.
    pub outcome: String,
    /// Why it was aborted; else null.
    pub reason: Option<String>,
    /// Milliseconds that the fault was there.
    pub lasted_ms: u64,
    /// The routes it made fail.
    pub routes: Vec<DrilledRouteView>,
    /// Microseconds until the last of them was detected; null while one is not.
    pub detection_us: Option<u64>,
    /// Microseconds of the longest stall; null for none.
    pub stall_us: Option<u64>,
    /// Measurement of the stall; null without one.
    #[serde(with = "words::optional")]
    #[cfg_attr(test, schemars(with = "Option<words::WordSchema<StallSource>>"))]
    pub stall_by: Option<StallSource>,
    /// Frames retransmitted on another route.
    pub resent: u64,
    /// Frames sent on a second route while the first was suspect.
    pub duplicated: u64,
    /// Frames given up unacknowledged; they may have arrived.
    pub lost: u64,
    /// Datagrams that the fault dropped, heartbeats and copies included.
    pub dropped: u64,
    /// Every route that was up is up again.
    pub recovered: bool,
    /// The objective (`[slo]`).
    pub objective: ObjectiveView,
    /// How it compares.
    pub verdict: DrillVerdictView,
}

impl DrillView {
    /// Returns whether the report is final.
    pub fn is_final(&self) -> bool {
        ["completed", "aborted"].contains(&self.outcome.as_str())
    }
}

/// A route of a drill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DrilledRouteView {
    /// Its number.
    pub route: u32,
    /// The peer it leads to.
    pub peer: String,
    /// It was up when the drill began.
    pub was_up: bool,
    /// Microseconds until this node noticed; null while it has not.
    pub detection_us: Option<u64>,
    /// The first sign: `data unacknowledged`, `route down` or `data moved`; null for none.
    pub sign: Option<String>,
    /// Microseconds from the end of the fault until it was up and trusted; null until then.
    pub recovery_us: Option<u64>,
}

/// An objective; null where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ObjectiveView {
    /// Longest detection, milliseconds.
    pub detection_ms: Option<u64>,
    /// Longest stall, milliseconds.
    pub stall_ms: Option<u64>,
    /// Most frames given up.
    pub lost: Option<u64>,
}

/// The parts of an objective that were met; null where nothing is judged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DrillVerdictView {
    /// Detection.
    pub detection: Option<bool>,
    /// Stall.
    pub stall: Option<bool>,
    /// Frames given up.
    pub lost: Option<bool>,
    /// No part was missed.
    pub met: bool,
}
