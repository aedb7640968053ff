//! What all peers of an engine share: configuration, the moments heartbeats leave, the way out.

use std::{collections::VecDeque, time::Duration};

use crate::{
    cadence::coalescing::Slots,
    engine::{EngineConfig, Output},
    failover::stall_histogram::Stalls,
    route::event::{Event, EventKind},
    time::Time,
};

/// How long a node says that it was stalled.
const STALL_TOLD: Duration = Duration::from_secs(1);

/// A deliberate mistake, to show that the simulator finds it.
#[cfg(feature = "sim")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Selection believes a route works when the peer does not hear us there.
    IgnorePeerVerdict,
    /// Data never leaves the first route.
    NeverFailOver,
    /// A route is down after half its detection time.
    EarlyDown,
    /// A suspicion never ends.
    SuspectForEver,
    /// What was sent again is delivered even if it was delivered before.
    DeliverTwice,
    /// What should be sent again is not.
    LoseInFlight,
}

/// Handed to every peer's methods.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) config: EngineConfig,
    pub(crate) slots: Slots,
    pub(crate) outputs: VecDeque<Output>,
    /// The last stall and when it ended.
    pub(crate) stalled: Option<(Duration, Time)>,
    /// How long data stood still at failovers.
    pub(crate) stalls: Stalls,
    #[cfg(feature = "sim")]
    bug: Option<Bug>,
}

impl Context {
    pub(crate) fn new(config: EngineConfig) -> Self {
        Self {
            config,
            slots: Slots::new(config.seed),
            outputs: VecDeque::new(),
            stalled: None,
            stalls: Stalls::default(),
            #[cfg(feature = "sim")]
            bug: None,
        }
    }

    pub(crate) fn event(&mut self, at: Time, kind: EventKind) {
        self.outputs.push_back(Output::Event(Event { at, kind }));
    }

    /// How long this node was not scheduled lately, for its heartbeats.
    pub(crate) fn stalled_ms(&self, now: Time) -> u16 {
        self.stalled
            .filter(|(_, ended)| now.since(*ended) < STALL_TOLD)
            .map_or(0, |(length, _)| u16::try_from(length.as_millis()).unwrap_or(u16::MAX))
    }
}

#[cfg(feature = "sim")]
impl Context {
    pub(crate) fn plant(&mut self, bug: Bug) {
        self.bug = Some(bug);
    }

    pub(crate) fn ignores_the_peer(&self) -> bool {
        self.bug == Some(Bug::IgnorePeerVerdict)
    }

    pub(crate) fn never_fails_over(&self) -> bool {
        self.bug == Some(Bug::NeverFailOver)
    }

    pub(crate) fn gives_up_early(&self) -> bool {
        self.bug == Some(Bug::EarlyDown)
    }

    pub(crate) fn suspects_for_ever(&self) -> bool {
        self.bug == Some(Bug::SuspectForEver)
    }
}

/// Without the simulator nobody plants a mistake.
#[cfg(not(feature = "sim"))]
#[expect(clippy::unused_self, reason = "the simulator's twins look into the context")]
impl Context {
    pub(crate) const fn ignores_the_peer(&self) -> bool {
        false
    }

    pub(crate) const fn never_fails_over(&self) -> bool {
        false
    }

    pub(crate) const fn gives_up_early(&self) -> bool {
        false
    }

    pub(crate) const fn suspects_for_ever(&self) -> bool {
        false
    }
}
