//! Events for the engine's task.

use netft::vip::ownership::{LeaseReply, LeaseReport};
use tokio::sync::oneshot;

use super::{network::AckGuard, store::StoreProblem, types::OwnershipAnswer, voter::Voter};

/// Channel of the reply to a report: the reply, or the leader as far as known.
pub(super) type LeaseReplyTx = oneshot::Sender<Result<LeaseReply, Option<String>>>;

/// A report and its reply.
pub(super) struct WaitingReport {
    pub(super) report: LeaseReport,
    pub(super) reply_tx: LeaseReplyTx,
}

/// Event for the engine's task.
pub(super) enum EngineEvent {
    /// A node reports.
    Report(WaitingReport),
    /// The operator moves an address.
    Move {
        vip: String,
        to: Option<String>,
        may_forward: bool,
        reply_tx: oneshot::Sender<Result<(), String>>,
    },
    /// The leader has something to say.
    Nudged,
    /// A majority confirmed the leadership in this term since the reports arrived, or did not.
    RoundDone { reports: Vec<WaitingReport>, term: Result<u64, String>, ack: AckGuard },
    /// The reply to this node's report, by another node or by itself.
    Answered { serial: u64, answer: Result<OwnershipAnswer, String>, by: Option<String> },
    /// A command reached the log, or did not.
    Proposed,
    /// Raft was started again, or was not.
    VoterStarted(Box<Result<Voter, StoreProblem>>),
}
