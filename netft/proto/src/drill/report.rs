//! The report of a drill: its figures, and the objective that they meet or miss.

use std::time::Duration;

use crate::{
    drill::order::DrillOrder,
    failover::cost::FailoverCost,
    ids::{PeerId, RouteId},
};

/// The findings of a drill so far, as this node saw them.
#[derive(Clone, Debug, PartialEq)]
pub struct DrillReport {
    /// The order.
    pub order: DrillOrder,
    /// How far it is.
    pub outcome: DrillOutcome,
    /// How long the fault was there.
    pub lasted: Duration,
    /// The routes it made fail.
    pub routes: Vec<DrilledRoute>,
    /// The cost of leaving them: the sums, and the longest stall.
    pub cost: FailoverCost,
    /// Datagrams that the fault dropped.
    pub dropped: u64,
}

impl DrillReport {
    /// The longest time until a route that was up was detected; `None` if one was not.
    pub fn detection(&self) -> Option<Duration> {
        let failed = self.routes.iter().filter(|route| route.was_up);
        let times: Option<Vec<_>> = failed.map(|route| route.detection).collect();
        times?.into_iter().max()
    }

    /// Returns whether every route that was up is up again.
    pub fn is_recovered(&self) -> bool {
        self.routes.iter().all(|route| !route.was_up || route.recovery.is_some())
    }
}

/// How a drill went, or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrillOutcome {
    /// The fault is there.
    Running,
    /// The fault is lifted; routes return, and costs are not final.
    Settling,
    /// It lasted as long as ordered.
    Completed,
    /// It was ended early.
    Aborted(AbortCause),
}

impl DrillOutcome {
    /// The word in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Settling => "settling",
            Self::Completed => "completed",
            Self::Aborted(_) => "aborted",
        }
    }

    /// Returns whether the report is final.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Aborted(_))
    }
}

/// Why a drill was ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortCause {
    /// The other routes of a peer failed meanwhile.
    PeerAtRisk(PeerId),
    /// The sockets of a route were opened anew: its address or interface changed.
    SocketsReplaced,
    /// Another process takes the node over.
    HandOver,
}

impl AbortCause {
    /// The text in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PeerAtRisk(_) => "the other routes of a peer failed",
            Self::SocketsReplaced => "an address or interface of the routes changed",
            Self::HandOver => "another netftd takes over",
        }
    }
}

/// One route of a drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrilledRoute {
    /// Its number.
    pub route: RouteId,
    /// The peer it leads to.
    pub peer: PeerId,
    /// It was up when the drill began.
    pub was_up: bool,
    /// From the start of the fault to the first sign that this node noticed it.
    pub detection: Option<Duration>,
    /// That sign.
    pub sign: Option<DetectionSign>,
    /// From the end of the fault until the route was up and trusted.
    pub recovery: Option<Duration>,
}

/// The first sign that a node noticed a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DetectionSign {
    /// Data stayed unacknowledged, and was sent on another route.
    DataUnacknowledged,
    /// The route left state up.
    RouteDown,
    /// Data moved to another route.
    DataMoved,
}

impl DetectionSign {
    /// The text in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DataUnacknowledged => "data unacknowledged",
            Self::RouteDown => "route down",
            Self::DataMoved => "data moved",
        }
    }
}

/// The objective that a drill is measured by (`[slo]`); what is `None` is not judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct DrillObjective {
    /// Longest time until a route that fails is detected.
    pub detection: Option<Duration>,
    /// Longest stall of data.
    pub stall: Option<Duration>,
    /// Most frames given up unacknowledged.
    pub lost: Option<u64>,
}

/// Comparison of a drill with the objective; `None`: there is no objective, or nothing to judge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrillVerdict {
    /// Detection.
    pub detection: Option<bool>,
    /// Stall of data.
    pub stall: Option<bool>,
    /// Frames given up.
    pub lost: Option<bool>,
}

impl DrillVerdict {
    /// Returns whether no part was missed.
    pub fn is_met(&self) -> bool {
        [self.detection, self.stall, self.lost].into_iter().flatten().all(|met| met)
    }
}

impl DrillObjective {
    /// Judges a report. Loss and delay need not be noticed: a route may bear them.
    pub fn judge(&self, report: &DrillReport) -> DrillVerdict {
        let detected = report.detection();
        let is_judged = report.order.fault.is_total() || detected.is_some();
        let detection = self.detection.filter(|_| is_judged);
        let stall = report.cost.stall.map_or(Duration::ZERO, |stall| stall.length);
        DrillVerdict {
            detection: detection.map(|most| detected.is_some_and(|time| time <= most)),
            stall: self.stall.map(|most| stall <= most),
            lost: self.lost.map(|most| report.cost.lost <= most),
        }
    }
}
