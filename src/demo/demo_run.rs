//! Record of a run: plain values for the screen, for JSON and for the chart.

use std::time::Duration;

use serde::Serialize;

/// One run. Times are relative to its start.
#[derive(Clone, Debug, Default)]
pub(super) struct DemoRun {
    /// Length.
    pub(super) length: Duration,
    /// The adapter's name.
    pub(super) adapter: String,
    /// One timeline per network, in order of preference.
    pub(super) timelines: Vec<RouteTimeline>,
    /// Network that carried the data of the first node, with the start of each change.
    pub(super) active: Vec<(Duration, Option<usize>)>,
    /// Injected faults, in order.
    pub(super) faults: Vec<FaultRecord>,
    /// Send times of lost probes, by direction.
    pub(super) losses: [Vec<Duration>; 2],
    /// Probes sent, both directions.
    pub(super) probes: u64,
    /// Reads of the TCP receiver: time and bytes.
    pub(super) reads: Vec<(Duration, usize)>,
    /// Bytes through the TCP flow.
    pub(super) bytes: u64,
    /// Ends of the TCP flow that saw an error.
    pub(super) resets: u32,
    /// Both ends of the TCP flow computed the same hash.
    pub(super) hash_equal: bool,
}

/// One route of the first node.
#[derive(Clone, Debug, Default)]
pub(super) struct RouteTimeline {
    /// Its two physical addresses.
    pub(super) label: String,
    /// States with the start of each.
    pub(super) states: Vec<(Duration, String)>,
}

/// Kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FaultKind {
    /// Every frame is dropped, the carrier stays up.
    BlackHole,
    /// The first node's interface loses its carrier.
    CarrierLoss,
    /// Frames from the first node to the second are dropped.
    OneWayLoss,
}

impl FaultKind {
    /// Every kind, in the order of a run.
    pub(super) const ALL: [Self; 3] = [Self::BlackHole, Self::CarrierLoss, Self::OneWayLoss];

    /// The name in JSON.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::BlackHole => "black-hole",
            Self::CarrierLoss => "carrier-loss",
            Self::OneWayLoss => "one-way-loss",
        }
    }

    /// Description.
    pub(super) const fn description(self) -> &'static str {
        match self {
            Self::BlackHole => "drops every frame, the carrier stays up",
            Self::CarrierLoss => "loses its carrier at a",
            Self::OneWayLoss => "drops the frames from a to b, passes those from b to a",
        }
    }
}

/// One fault and its effects.
#[derive(Clone, Debug)]
pub(super) struct FaultRecord {
    /// Kind.
    pub(super) kind: FaultKind,
    /// Network.
    pub(super) network: usize,
    /// Start.
    pub(super) start: Duration,
    /// From the fault to the first event about the route, at either node.
    pub(super) detected_after: Duration,
    /// From the fault to the last node's move to another route.
    pub(super) moved_after: Duration,
    /// Time of the repair.
    pub(super) healed_at: Duration,
    /// Time at which data was back on it; `None` if it did not return.
    pub(super) failed_back_at: Option<Duration>,
    /// Probes sent while it lasted, both directions.
    pub(super) probes_sent: u64,
    /// Probes lost of these.
    pub(super) probes_lost: u64,
    /// The longest time without a byte at the TCP receiver.
    pub(super) longest_stall: Duration,
}

impl DemoRun {
    /// Data returned to every repaired route.
    pub(super) fn has_failed_back(&self) -> bool {
        self.faults.iter().all(|fault| fault.failed_back_at.is_some())
    }

    /// Every check holds.
    pub(super) fn all_passed(&self) -> bool {
        let complete = self.faults.len() == FaultKind::ALL.len();
        complete && self.has_failed_back() && self.resets == 0 && self.hash_equal && self.bytes > 0
    }
}
