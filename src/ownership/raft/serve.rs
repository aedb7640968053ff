//! Requests of the other nodes.

use std::sync::Arc;

use openraft::Raft;
use tokio::sync::{mpsc, oneshot};

use super::{
    event::{EngineEvent, WaitingReport},
    network::LeaseEvidence,
    settings::PeerMessage,
    types::{OwnershipAnswer, OwnershipLog, OwnershipMessage},
};

/// Answers one request.
pub(super) async fn serve_message(
    raft: Option<Raft<OwnershipLog>>,
    evidence: Arc<LeaseEvidence>,
    inbox: mpsc::Sender<EngineEvent>,
    message: PeerMessage,
) {
    let Ok(request) = serde_json::from_slice(&message.payload) else {
        // Dropping it refuses a request that this version does not know.
        tracing::debug!("ownership: a malformed request was refused");
        return;
    };
    let answer = answer_request(raft, &evidence, inbox, request).await;
    if let Ok(bytes) = serde_json::to_vec(&answer) {
        // The other node may have timed out.
        let _ = message.reply_tx.send(bytes);
    }
}

async fn answer_request(
    raft: Option<Raft<OwnershipLog>>,
    evidence: &Arc<LeaseEvidence>,
    inbox: mpsc::Sender<EngineEvent>,
    request: OwnershipMessage,
) -> OwnershipAnswer {
    let failed = |error: String| OwnershipAnswer::Failed(error);
    match (request, raft) {
        (OwnershipMessage::Append(rpc), Some(raft)) => {
            let _ack = evidence.begin_ack();
            evidence.follow_leader(rpc.vote.leader_id.voted_for);
            raft.append_entries(rpc)
                .await
                .map_or_else(|error| failed(error.to_string()), OwnershipAnswer::Append)
        }
        (OwnershipMessage::Snapshot(rpc), Some(raft)) => {
            let _ack = evidence.begin_ack();
            raft.install_snapshot(rpc)
                .await
                .map_or_else(|error| failed(error.to_string()), OwnershipAnswer::Snapshot)
        }
        (OwnershipMessage::Vote(rpc), Some(_)) if evidence.is_led(rpc.vote.leader_id.voted_for) => {
            failed("this node hears its leader".to_owned())
        }
        (OwnershipMessage::Vote(rpc), Some(raft)) => match raft.vote(rpc).await {
            // The age after the vote: from here on no earlier leader is acknowledged.
            Ok(response) => OwnershipAnswer::Vote { response, age: evidence.ack_age() },
            Err(error) => failed(error.to_string()),
        },
        (
            OwnershipMessage::Append(_) | OwnershipMessage::Snapshot(_) | OwnershipMessage::Vote(_),
            None,
        ) => failed("this node does not vote".to_owned()),
        (OwnershipMessage::Report(report), _) => {
            let (reply_tx, reply) = oneshot::channel();
            let event = EngineEvent::Report(WaitingReport { report, reply_tx });
            match ask(&inbox, event, reply).await {
                Some(Ok(reply)) => OwnershipAnswer::Lease(reply),
                Some(Err(leader)) => OwnershipAnswer::NotLeader { leader },
                None => failed("this node is stopping".to_owned()),
            }
        }
        (OwnershipMessage::Move { vip, to }, _) => {
            let (reply_tx, reply) = oneshot::channel();
            let event = EngineEvent::Move { vip, to, may_forward: false, reply_tx };
            let refused = || Err("the leader is stopping; try again".to_owned());
            OwnershipAnswer::Moved(ask(&inbox, event, reply).await.unwrap_or_else(refused))
        }
        (OwnershipMessage::Grant(reply), _) => {
            // The node's next report asks for the lease anyway.
            let _ = inbox.try_send(EngineEvent::Granted(reply));
            OwnershipAnswer::Done
        }
        (OwnershipMessage::Nudge, _) => {
            // A full queue means that the engine is awake.
            let _ = inbox.try_send(EngineEvent::Nudged(None));
            OwnershipAnswer::Done
        }
        (OwnershipMessage::ReportTo { leader }, _) => {
            let _ = inbox.try_send(EngineEvent::Nudged(Some(leader)));
            OwnershipAnswer::Done
        }
    }
}

async fn ask<T>(
    inbox: &mpsc::Sender<EngineEvent>,
    event: EngineEvent,
    reply: oneshot::Receiver<T>,
) -> Option<T> {
    inbox.send(event).await.ok()?;
    reply.await.ok()
}
