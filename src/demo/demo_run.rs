//! What happened in a run: plain values, for the screen, for JSON and for the picture.

use std::time::Duration;

use serde::Serialize;

/// One run. Times are counted from its start.
#[derive(Clone, Debug, Default)]
pub(super) struct DemoRun {
    /// How long it took.
    pub(super) length: Duration,
    /// The adapter's name.
    pub(super) adapter: String,
    /// One lane per network, in order of preference.
    pub(super) timelines: Vec<RouteTimeline>,
    /// Since when which lane carried the data of the first node.
    pub(super) active: Vec<(Duration, Option<usize>)>,
    /// What was broken, in order.
    pub(super) faults: Vec<FaultRecord>,
    /// When the probes that never arrived were sent, by direction.
    pub(super) losses: [Vec<Duration>; 2],
    /// Probes sent, both directions.
    pub(super) probes: u64,
    /// When the TCP receiver read how many bytes.
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
    /// Since when it was in which state.
    pub(super) states: Vec<(Duration, String)>,
}

/// How a route is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FaultKind {
    /// Nothing passes, nobody is told.
    BlackHole,
    /// The first node's interface loses its carrier.
    CarrierLoss,
    /// Nothing passes from the first node to the second.
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

    /// What happens, in words.
    pub(super) const fn description(self) -> &'static str {
        match self {
            Self::BlackHole => "goes silent: every frame vanishes, every carrier stays",
            Self::CarrierLoss => "loses its cable at a",
            Self::OneWayLoss => "carries nothing from a to b any more, but all from b to a",
        }
    }
}

/// One fault and what came of it.
#[derive(Clone, Debug)]
pub(super) struct FaultRecord {
    /// How the lane was broken.
    pub(super) kind: FaultKind,
    /// Which.
    pub(super) network: usize,
    /// When.
    pub(super) start: Duration,
    /// From the fault to the first event that blames the route, at either node.
    pub(super) detected_after: Duration,
    /// From the fault to the last node's move to another route.
    pub(super) moved_after: Duration,
    /// When it was repaired.
    pub(super) healed_at: Duration,
    /// When data was back on it; `None`: it never was.
    pub(super) failed_back_at: Option<Duration>,
    /// Probes sent while it lasted, both directions.
    pub(super) probes_sent: u64,
    /// Of these, those that never arrived.
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
