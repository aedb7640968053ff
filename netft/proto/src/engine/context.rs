//! State that all peers of an engine share: configuration, send slots, the output queue.

use std::{collections::VecDeque, time::Duration};

use crate::{
    cadence::coalescing::SendSlots,
    engine::types::{EngineConfig, EngineOutput},
    failover::stall_histogram::StallHistogram,
    ids::{PeerId, RouteId},
    route::{
        early_warning::WarningLimiter,
        event::{Event, EventKind},
        params::Timing,
    },
    time::Time,
};

/// How long heartbeats report a stall of this node.
const STALL_REPORT_PERIOD: Duration = Duration::from_secs(1);

/// A bug to inject, to show that the simulator finds it.
#[cfg(feature = "sim")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InjectedBug {
    /// A route counts as proven although the peer does not hear this node there.
    IgnorePeerReport,
    /// Data never leaves the first route.
    NeverFailOver,
    /// A route is down after half its detection time.
    EarlyDown,
    /// A suspicion never ends.
    NeverClearSuspicion,
    /// Retransmitted frames are delivered even if they were delivered before.
    DeliverTwice,
    /// Frames to be retransmitted are not.
    LoseInFlight,
    /// Loss of data counts for nothing: heartbeats alone decide.
    HeartbeatsDecide,
    /// A route that lost data is never acquitted.
    NeverReturn,
    /// A route that lost data is acquitted at once, and data alternates.
    ForgetDataLoss,
}

/// Shared state, passed to every method of a peer.
#[derive(Debug)]
pub(crate) struct EngineContext {
    pub(crate) config: EngineConfig,
    pub(crate) send_slots: SendSlots,
    pub(crate) outputs: VecDeque<EngineOutput>,
    /// The last stall and when it ended.
    pub(crate) last_stall: Option<(Duration, Time)>,
    /// Stalls of data at failovers.
    pub(crate) stall_histogram: StallHistogram,
    warnings: WarningLimiter,
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
            warnings: WarningLimiter::default(),
            #[cfg(feature = "sim")]
            injected_bug: None,
        }
    }

    pub(crate) fn push_event(&mut self, at: Time, kind: EventKind) {
        self.outputs.push_back(EngineOutput::Event(Event { at, kind }));
    }

    /// Emits the early warning of a route, unless this node has warned of too many.
    pub(crate) fn push_early_warning(
        &mut self,
        now: Time,
        (peer, route): (PeerId, RouteId),
        timing: Timing,
    ) {
        let Some(withheld) = self.warnings.admit(now) else { return };
        let (missed, threshold) = (timing.early_warning_misses(), timing.threshold.get());
        self.push_event(now, EventKind::EarlyWarning { route, peer, missed, threshold, withheld });
    }

    /// Length of a recent scheduling stall of this node, for its heartbeats.
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

    pub(crate) fn has_bug(&self, bug: InjectedBug) -> bool {
        self.injected_bug == Some(bug)
    }
}

/// Without the simulator no bug is injected.
#[cfg(not(feature = "sim"))]
#[expect(clippy::unused_self, reason = "with the simulator these read the context")]
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
