//! Orders of a cluster manager's agent, and what an address keeps of them.

use netft::{
    Time,
    vip::ownership::{ExternalAnswer, ExternalLease},
};

/// Target of the log lines that say who may answer when.
pub(super) const OWNERSHIP_LOG: &str = "netftd::ownership::external";

/// An order of a cluster manager's agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentOrder {
    /// A moment before the agent asked the manager.
    pub asked: Time,
    /// It starts the address here, else it renews a lease that runs.
    pub is_start: bool,
}

/// A step of an order, as the address service carries it out.
#[derive(Clone, Debug)]
pub enum ExternalStep {
    /// A start begins: the other nodes are asked next.
    Begin,
    /// The other nodes were asked.
    End(AgentOrder, Vec<ExternalAnswer>),
    /// Another node asks.
    Query,
}

/// The part of an address that a cluster manager decides on.
#[derive(Debug, Default)]
pub(super) struct ExternalEntry {
    pub(super) lease: ExternalLease,
    /// The history tells that a start waits.
    pub(super) is_wait_told: bool,
}
