//! Drills: the order, its refusal, and the report.

pub use netft_proto::drill::{
    AbortCause, DetectionSign, DrillFault, DrillObjective, DrillOrder, DrillOutcome, DrillRefusal,
    DrillReport, DrillTarget, DrillVerdict, DrilledRoute, MAX_DRILL_LENGTH, MAX_INJECTED_DELAY,
    MIN_DRILL_LENGTH, RECOVERY_TIMEOUT,
};

use crate::api::error::RouteError;

/// A drill that runs, or the last one.
#[derive(Clone, Debug, PartialEq)]
pub struct DrillStatus {
    /// Its findings so far.
    pub report: DrillReport,
    /// The objective it is measured by.
    pub objective: DrillObjective,
}

/// Why a drill is refused. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrillError {
    /// The adapter is not there.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// A peer would be cut off.
    #[error("{peer} would be cut off: it has no other route that is up; see `netft routes`")]
    CutsOff {
        /// The peer's name.
        peer: String,
    },
    /// The order is refused for another reason.
    #[error(transparent)]
    Refused(DrillRefusal),
    /// The fault could not be injected.
    #[error("cannot put a fault at the sockets of the routes: {0}")]
    Sockets(String),
}
