//! How late a node may be: the bounds behind the invariants, derived from a scenario.

use std::time::Duration;

use crate::sim::{
    scenario::{Fault, Scenario},
    world::HANDSHAKE_RETRY,
};

/// The longest the engine holds a failback.
const MAX_HOLD: Duration = Duration::from_secs(60);
/// The longest a brown-out is remembered once its loss has left the peer's count.
const BROWN_OUT: Duration = Duration::from_secs(40);
/// Heartbeats loss is counted over.
const LOSS_WINDOW: u32 = 64;

/// The bounds of one scenario.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    /// What late timers and steps of one moment add.
    pub(crate) slack: Duration,
    /// The longest a packet is under way, on any network.
    pub(crate) longest: Duration,
    /// The longest delay between heartbeats.
    pub(crate) delay: Duration,
    /// The longest detection time.
    pub(crate) detection: Duration,
    /// Detection time per network.
    detections: Vec<Duration>,
    delays: Vec<Duration>,
}

impl Bounds {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let plans = &scenario.networks;
        let detections: Vec<_> = plans.iter().map(|p| p.timing.detection_time()).collect();
        let delays: Vec<_> = plans.iter().map(|p| p.timing.delay.duration()).collect();
        let slow = |(_, fault): &(_, Fault)| match fault {
            Fault::Slow { by, .. } => *by,
            _ => Duration::ZERO,
        };
        let slower = scenario.faults.iter().map(slow).max().unwrap_or_default();
        Self {
            slack: scenario.timer_slack * 2 + Duration::from_millis(1),
            longest: plans.iter().map(|p| p.shape.longest()).max().unwrap_or_default() + slower,
            delay: delays.iter().copied().max().unwrap_or_default(),
            detection: detections.iter().copied().max().unwrap_or_default(),
            detections,
            delays,
        }
    }

    pub(crate) fn detection_of(&self, network: usize) -> Duration {
        self.detections[network]
    }

    pub(crate) fn delay_of(&self, network: usize) -> Duration {
        self.delays[network]
    }

    /// From a network being good both ways to its route being up at both ends: the last silence
    /// of before may still end in a down (a detection time), then two heartbeats each way prove
    /// it, and each end's word needs one more heartbeat to reach the other.
    pub(crate) fn prove(&self) -> Duration {
        self.detection + self.delay * 4 + self.longest * 4 + self.slack
    }

    /// From the moment a way is dead to the moment its sender has left it, while another network
    /// is good: the receiver's detection time, its triggered word at the latest a quarter of a
    /// delay later, the way of the last heartbeat and of that word.
    pub(crate) fn leave(&self, network: usize) -> Duration {
        self.detections[network] + self.delay / 4 + self.longest * 2 + self.slack
    }

    /// As [`Bounds::leave`], while no other network is known to be good: the receiver's word may
    /// be lost as long as the sender hears anything at all, which is one more detection time.
    pub(crate) fn notice(&self, network: usize) -> Duration {
        self.leave(network) + self.detections[network]
    }

    /// How long the two ends of a route may disagree whether it is up.
    pub(crate) fn agree(&self, network: usize) -> Duration {
        self.detections[network] * 2 + self.delay + self.longest * 2 + self.slack
    }

    fn lossy(&self) -> Duration {
        self.delay * LOSS_WINDOW + BROWN_OUT
    }

    /// From the last repair to every pair on its best route: a network that was lossy must first
    /// be clean for a while.
    pub(crate) fn converge(&self) -> Duration {
        HANDSHAKE_RETRY * 2 + self.prove() * 2 + MAX_HOLD + self.lossy() + self.slack
    }
}
