//! Types of the replicated log, and the messages between nodes on [`Topic::Ownership`].
//!
//! [`Topic::Ownership`]: netft::wire::topic::Topic::Ownership

use std::{io::Cursor, time::Duration};

use netft::vip::ownership::{LeaseReply, LeaseReport, OwnershipCommand};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};

openraft::declare_raft_types!(
    /// The log of ownership: its entries, and true for each that had an effect.
    pub OwnershipLog:
        D = OwnershipCommand,
        R = bool,
        NodeId = u64,
        Node = openraft::BasicNode,
        Entry = openraft::Entry<OwnershipLog>,
        SnapshotData = Cursor<Vec<u8>>,
);

/// A request between nodes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum OwnershipMessage {
    Append(AppendEntriesRequest<OwnershipLog>),
    Vote(VoteRequest<u64>),
    Snapshot(InstallSnapshotRequest<OwnershipLog>),
    Report(LeaseReport),
    Move {
        vip: String,
        to: Option<String>,
    },
    /// The leader has something to say: report at once.
    Nudge,
    /// The same, by a leader that the node may not know yet.
    ReportTo {
        leader: String,
    },
    /// The second reply to a report that was told to wait.
    Grant(LeaseReply),
}

/// Its reply.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum OwnershipAnswer {
    Append(AppendEntriesResponse<u64>),
    Vote {
        response: VoteResponse<u64>,
        /// Time since the voter acknowledged a leader.
        age: Duration,
    },
    Snapshot(InstallSnapshotResponse<u64>),
    Lease(LeaseReply),
    NotLeader {
        leader: Option<String>,
    },
    Moved(Result<(), String>),
    Done,
    /// The node's engine does not work.
    Failed(String),
}
