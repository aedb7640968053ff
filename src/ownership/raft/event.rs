//! Events for the engine's task.

use std::future::Future;

use netft::vip::ownership::{LeaseReply, LeaseReport};
use tokio::sync::{mpsc, oneshot};

use super::{network::AckGuard, store::StoreProblem, types::OwnershipAnswer, voter::Voter};

/// Channel of the reply to a report: the reply, or the leader as far as known.
pub(super) type LeaseReplyTx = oneshot::Sender<Result<LeaseReply, Option<String>>>;

/// A report and its reply.
pub(super) struct WaitingReport {
    pub(super) report: LeaseReport,
    pub(super) reply_tx: LeaseReplyTx,
}

/// Does `work` in a task of its own, and tells the engine its outcome, also if it panics: what the
/// engine waits for always comes.
pub(super) fn spawn_for_event(
    inbox: &mpsc::Sender<EngineEvent>,
    work: impl Future<Output = EngineEvent> + Send + 'static,
    panicked: impl FnOnce(String) -> EngineEvent + Send + 'static,
) {
    let (inbox, work) = (inbox.clone(), tokio::spawn(work));
    tokio::spawn(async move {
        let event = work.await.unwrap_or_else(|error| panicked(error.to_string()));
        // The engine may have stopped.
        let _ = inbox.send(event).await;
    });
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
    /// The leader has something to say; its name, if it told that.
    Nudged(Option<String>),
    /// The leader's second reply to a report.
    Granted(LeaseReply),
    /// A majority confirmed the leadership in this term since the reports arrived, or did not.
    RoundDone { reports: Vec<WaitingReport>, term: Result<u64, String>, ack: Option<AckGuard> },
    /// The reply to this node's report, by another node or by itself.
    Answered { serial: u64, answer: Result<OwnershipAnswer, String>, by: Option<String> },
    /// A command reached the log, or did not.
    Proposed,
    /// Raft was started again, or was not.
    VoterStarted(Box<Result<Voter, StoreProblem>>),
}
