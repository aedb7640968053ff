//! Timing bounds of the invariants, derived from a scenario.

use std::time::Duration;

use crate::sim::scenario::Scenario;

/// Longest wait between two attempts of a handshake.
pub(crate) const HANDSHAKE_RETRY: Duration = Duration::from_millis(50);
/// Longest hold-down before a failback.
const MAX_HOLD: Duration = Duration::from_secs(60);
/// Longest memory of a brown-out once its loss has left the peer's window.
const BROWN_OUT_MEMORY: Duration = Duration::from_secs(40);
/// Window of the loss rate, heartbeats.
const LOSS_WINDOW: u32 = 64;

/// Longest interval of packets that counts as bulk data.
const BULK_INTERVAL: Duration = Duration::from_millis(1);
/// Evidence and two comparisons of bulk data at that interval.
const MAX_DATA_LOSS_TIME: Duration = Duration::from_secs(4);
/// A return to a network that lost data: a retry, a comparison, and both once more.
const DATA_LOSS_MEMORY: Duration = Duration::from_secs(150);

fn is_bulk(scenario: &Scenario) -> bool {
    !scenario.data_every.is_zero() && scenario.data_every <= BULK_INTERVAL
}

/// The bounds of one scenario.
#[derive(Clone, Debug)]
pub(crate) struct TimingBounds {
    /// Allowance for late timers and the order of simultaneous steps.
    pub(crate) slack: Duration,
    /// Longest one-way travel of a packet, on any network.
    pub(crate) max_travel: Duration,
    /// Longest heartbeat delay.
    pub(crate) max_delay: Duration,
    /// Longest detection time.
    pub(crate) max_detection_time: Duration,
    /// Longest time bulk data stays on a network that loses it; `None` without bulk data.
    pub(crate) max_data_loss_time: Option<Duration>,
    /// How long a route that lost data is remembered; zero without data.
    data_loss_memory: Duration,
    /// Detection time per network.
    detection_times: Vec<Duration>,
    /// Heartbeat delay per network.
    delays: Vec<Duration>,
}

impl TimingBounds {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let plans = &scenario.networks;
        let detection_times: Vec<_> = plans.iter().map(|p| p.timing.detection_time()).collect();
        let delays: Vec<_> = plans.iter().map(|p| p.timing.delay.as_duration()).collect();
        let extra = scenario.faults.iter().map(|(_, fault)| fault.extra_delay());
        let travel = plans.iter().map(|plan| plan.model.max_travel());
        Self {
            slack: scenario.timer_slack * 2 + Duration::from_millis(1),
            max_travel: travel.max().unwrap_or_default() + extra.max().unwrap_or_default(),
            max_delay: delays.iter().copied().max().unwrap_or_default(),
            max_detection_time: detection_times.iter().copied().max().unwrap_or_default(),
            data_loss_memory: if scenario.data_every.is_zero() {
                Duration::ZERO
            } else {
                DATA_LOSS_MEMORY
            },
            max_data_loss_time: is_bulk(scenario).then_some(MAX_DATA_LOSS_TIME),
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

    /// From a network good in both directions to its route up at both ends: the silence before may
    /// still take the route down (one detection time), then two heartbeats in each direction prove
    /// it, and each end's report takes one more heartbeat to the other.
    pub(crate) fn max_proof_time(&self) -> Duration {
        self.max_detection_time + self.max_delay * 4 + self.max_travel * 4 + self.slack
    }

    /// From the death of a direction to its sender leaving it, while another network is good: the
    /// receiver's detection time, its triggered report at most a quarter of a delay later, and the
    /// travel of the last heartbeat and of that report.
    pub(crate) fn max_failover_time(&self, network: usize) -> Duration {
        self.detection_times[network] + self.max_delay / 4 + self.max_travel * 2 + self.slack
    }

    /// As [`TimingBounds::max_failover_time`], while no other network is known to be good: the
    /// receiver's report may be lost until the sender receives nothing either, which takes one more
    /// detection time.
    pub(crate) fn max_dead_route_up_time(&self, network: usize) -> Duration {
        self.max_failover_time(network) + self.detection_times[network]
    }

    /// Longest time the two ends of a route may differ about its being up.
    pub(crate) fn max_disagreement(&self, network: usize) -> Duration {
        self.detection_times[network] * 2 + self.max_delay + self.max_travel * 2 + self.slack
    }

    fn max_brown_out_time(&self) -> Duration {
        self.max_delay * LOSS_WINDOW + BROWN_OUT_MEMORY
    }

    /// From the last repair to every pair on its best route. A network that was lossy must be clean
    /// for the memory of a brown-out first.
    pub(crate) fn max_convergence_time(&self) -> Duration {
        HANDSHAKE_RETRY * 2
            + self.max_proof_time() * 2
            + MAX_HOLD
            + self.max_brown_out_time()
            + self.data_loss_memory
            + self.slack
    }
}
