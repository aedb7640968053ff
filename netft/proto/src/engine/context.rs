//! What all peers of an engine share: configuration, the moments heartbeats leave, the way out.

use std::{collections::VecDeque, time::Duration};

use crate::{
    cadence::coalescing::SendSlots,
    engine::{EngineConfig, EngineOutput},
    failover::stall_histogram::StallHistogram,
    route::event::{Event, EventKind},
    time::Time,
};

/// How long a node says that it was stalled.
const STALL_REPORT_PERIOD: Duration = Duration::from_secs(1);

/// A deliberate mistake, to show that the simulator finds it.
#[cfg(feature = "sim")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InjectedBug {
    /// Selection believes a route works when the peer does not hear us there.
    IgnorePeerReport,
    /// Data never leaves the first route.
    NeverFailOver,
    /// A route is down after half its detection time.
    EarlyDown,
    /// A suspicion never ends.
    NeverClearSuspicion,
    /// What was sent again is delivered even if it was delivered before.
    DeliverTwice,
    /// What should be sent again is not.
    LoseInFlight,
}

/// Handed to every peer's methods.
#[derive(Debug)]
pub(crate) struct EngineContext {
    pub(crate) config: EngineConfig,
    pub(crate) send_slots: SendSlots,
    pub(crate) outputs: VecDeque<EngineOutput>,
    /// The last stall and when it ended.
    pub(crate) last_stall: Option<(Duration, Time)>,
    /// How long data stood still at failovers.
    pub(crate) stall_histogram: StallHistogram,
    #[cfg(feature = "sim")]
    injected_bug: Option<InjectedBug>,
}

impl EngineContext {
    pub(crate) fn new(config: EngineConfig) -> Self {
        Self {
            config,
            send_slots: SendSlots::new(config.seed),
            outputs: VecDeque::new(),
            last_stall: None,
            stall_histogram: StallHistogram::default(),
            #[cfg(feature = "sim")]
            injected_bug: None,
        }
    }

    pub(crate) fn push_event(&mut self, at: Time, kind: EventKind) {
        self.outputs.push_back(EngineOutput::Event(Event { at, kind }));
    }

    /// How long this node was not scheduled lately, for its heartbeats.
    pub(crate) fn stalled_ms(&self, now: Time) -> u16 {
        self.last_stall
            .filter(|(_, ended)| now.since(*ended) < STALL_REPORT_PERIOD)
            .map_or(0, |(length, _)| u16::try_from(length.as_millis()).unwrap_or(u16::MAX))
    }
}

#[cfg(feature = "sim")]
impl EngineContext {
    pub(crate) fn inject_bug(&mut self, bug: InjectedBug) {
        self.injected_bug = Some(bug);
    }

    pub(crate) fn ignores_peer_reports(&self) -> bool {
        self.injected_bug == Some(InjectedBug::IgnorePeerReport)
    }

    pub(crate) fn never_fails_over(&self) -> bool {
        self.injected_bug == Some(InjectedBug::NeverFailOver)
    }

    pub(crate) fn gives_up_early(&self) -> bool {
        self.injected_bug == Some(InjectedBug::EarlyDown)
    }

    pub(crate) fn never_clears_suspicion(&self) -> bool {
        self.injected_bug == Some(InjectedBug::NeverClearSuspicion)
    }
}

/// Without the simulator nobody plants a mistake.
#[cfg(not(feature = "sim"))]
#[expect(clippy::unused_self, reason = "the simulator's twins look into the context")]
impl EngineContext {
    pub(crate) const fn ignores_peer_reports(&self) -> bool {
        false
    }

    pub(crate) const fn never_fails_over(&self) -> bool {
        false
    }

    pub(crate) const fn gives_up_early(&self) -> bool {
        false
    }

    pub(crate) const fn never_clears_suspicion(&self) -> bool {
        false
    }
}
