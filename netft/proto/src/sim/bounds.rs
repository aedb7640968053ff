//! How late a node may be: the bounds behind the invariants, derived from a scenario.

use std::time::Duration;

use crate::sim::{
    scenario::{FaultAction, Scenario},
    simulation::HANDSHAKE_RETRY,
};

/// The longest the engine holds a failback.
const MAX_HOLD: Duration = Duration::from_secs(60);
/// The longest a brown-out is remembered once its loss has left the peer's count.
const BROWN_OUT_MEMORY: Duration = Duration::from_secs(40);
/// Heartbeats loss is counted over.
const LOSS_WINDOW: u32 = 64;

/// The bounds of one scenario.
#[derive(Clone, Debug)]
pub(crate) struct TimingBounds {
    /// What late timers and steps of one moment add.
    pub(crate) slack: Duration,
    /// The longest a packet is under way, on any network.
    pub(crate) max_travel: Duration,
    /// The longest delay between heartbeats.
    pub(crate) max_delay: Duration,
    /// The longest detection time.
    pub(crate) max_detection_time: Duration,
    /// Detection time per network.
    detection_times: Vec<Duration>,
    delays: Vec<Duration>,
}

impl TimingBounds {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let plans = &scenario.networks;
        let detection_times: Vec<_> = plans.iter().map(|p| p.timing.detection_time()).collect();
        let delays: Vec<_> = plans.iter().map(|p| p.timing.delay.as_duration()).collect();
        let slow = |(_, fault): &(_, FaultAction)| match fault {
            FaultAction::ExtraDelay { by, .. } => *by,
            _ => Duration::ZERO,
        };
        let slower = scenario.faults.iter().map(slow).max().unwrap_or_default();
        Self {
            slack: scenario.timer_slack * 2 + Duration::from_millis(1),
            max_travel: plans.iter().map(|p| p.model.max_travel()).max().unwrap_or_default()
                + slower,
            max_delay: delays.iter().copied().max().unwrap_or_default(),
            max_detection_time: detection_times.iter().copied().max().unwrap_or_default(),
            detection_times,
            delays,
        }
    }

    pub(crate) fn detection_time_of(&self, network: usize) -> Duration {
        self.detection_times[network]
    }

    pub(crate) fn delay_of(&self, network: usize) -> Duration {
        self.delays[network]
    }

    /// From a network being good both ways to its route being up at both ends: the last silence
    /// of before may still end in a down (a detection time), then two heartbeats each way prove
    /// it, and each end's word needs one more heartbeat to reach the other.
    pub(crate) fn max_proof_time(&self) -> Duration {
        self.max_detection_time + self.max_delay * 4 + self.max_travel * 4 + self.slack
    }

    /// From the moment a way is dead to the moment its sender has left it, while another network
    /// is good: the receiver's detection time, its triggered word at the latest a quarter of a
    /// delay later, the way of the last heartbeat and of that word.
    pub(crate) fn max_failover_time(&self, network: usize) -> Duration {
        self.detection_times[network] + self.max_delay / 4 + self.max_travel * 2 + self.slack
    }

    /// As [`TimingBounds::max_failover_time`], while no other network is known to be good: the
    /// receiver's word may be lost as long as the sender hears anything at all, which is one more
    /// detection time.
    pub(crate) fn max_dead_route_up_time(&self, network: usize) -> Duration {
        self.max_failover_time(network) + self.detection_times[network]
    }

    /// How long the two ends of a route may disagree whether it is up.
    pub(crate) fn max_disagreement(&self, network: usize) -> Duration {
        self.detection_times[network] * 2 + self.max_delay + self.max_travel * 2 + self.slack
    }

    fn max_brown_out_time(&self) -> Duration {
        self.max_delay * LOSS_WINDOW + BROWN_OUT_MEMORY
    }

    /// From the last repair to every pair on its best route: a network that was lossy must first
    /// be clean for a while.
    pub(crate) fn max_convergence_time(&self) -> Duration {
        HANDSHAKE_RETRY * 2
            + self.max_proof_time() * 2
            + MAX_HOLD
            + self.max_brown_out_time()
            + self.slack
    }
}
