//! What happened in a run: plain values, for the screen, for JSON and for the picture.

use std::time::Duration;

/// One run. Times are counted from its start.
#[derive(Clone, Debug, Default)]
pub(super) struct Story {
    /// How long it took.
    pub(super) length: Duration,
    /// The adapter's name.
    pub(super) adapter: String,
    /// One lane per network, in order of preference.
    pub(super) lanes: Vec<Lane>,
    /// Since when which lane carried the data of the first node.
    pub(super) active: Vec<(Duration, Option<usize>)>,
    /// What was broken, in order.
    pub(super) faults: Vec<Fault>,
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
pub(super) struct Lane {
    /// Its two physical addresses.
    pub(super) label: String,
    /// Since when it was in which state.
    pub(super) states: Vec<(Duration, String)>,
}

/// How a route is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing passes, nobody is told.
    BlackHole,
    /// The first node's interface loses its carrier.
    CarrierLoss,
    /// Nothing passes from the first node to the second.
    OneWayLoss,
}

impl Kind {
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
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::BlackHole => "goes silent: every frame vanishes, every carrier stays",
            Self::CarrierLoss => "loses its cable at a",
            Self::OneWayLoss => "carries nothing from a to b any more, but all from b to a",
        }
    }
}

/// One fault and what came of it.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    /// How the lane was broken.
    pub(super) kind: Kind,
    /// Which.
    pub(super) lane: usize,
    /// When.
    pub(super) start: Duration,
    /// From the fault to the first event that blames the route, at either node.
    pub(super) detected: Duration,
    /// From the fault to the last node's move to another route.
    pub(super) moved: Duration,
    /// When it was repaired.
    pub(super) healed: Duration,
    /// When data was back on it; `None`: it never was.
    pub(super) back: Option<Duration>,
    /// Probes sent while it lasted, both directions.
    pub(super) probes_sent: u64,
    /// Of these, those that never arrived.
    pub(super) probes_lost: u64,
    /// The longest time without a byte at the TCP receiver.
    pub(super) stall: Duration,
}

impl Story {
    /// Data returned to every repaired route.
    pub(super) fn failback_ok(&self) -> bool {
        self.faults.iter().all(|fault| fault.back.is_some())
    }

    /// Every check holds.
    pub(super) fn passed(&self) -> bool {
        let complete = self.faults.len() == Kind::ALL.len();
        complete && self.failback_ok() && self.resets == 0 && self.hash_equal && self.bytes > 0
    }
}
