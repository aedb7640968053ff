//! Start of the engine.

use std::sync::Arc;

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::{
    engine::{EngineOutputs, EngineTask},
    network::{LeaseEvidence, OwnershipTransport},
    publish::raft_problem,
    settings::{EngineChannels, RaftSettings},
    status::EngineStatus,
    store::forget_store,
    voter::{StoreOrigin, start_voter},
};

/// Events that wait for the engine.
const INBOX_LEN: usize = 256;

/// A running engine. Dropping it stops it.
pub struct RaftEngine {
    task: JoinHandle<()>,
    status: watch::Receiver<EngineStatus>,
}

impl RaftEngine {
    /// Starts the engine. A node whose store is not usable runs without a vote: it may own
    /// addresses, and its [`status`](Self::status) says what is wrong.
    ///
    /// # Errors
    /// The settings contradict each other.
    pub async fn start<T: OwnershipTransport>(
        settings: RaftSettings,
        transport: Arc<T>,
        channels: EngineChannels,
    ) -> Result<Self, String> {
        let own = settings.nodes.iter().find(|node| node.name == settings.node);
        let own = own.ok_or_else(|| format!("{} is not a node of the cluster", settings.node))?;
        let names = settings.nodes.iter().map(|node| (node.id, node.name.clone()));
        let evidence = LeaseEvidence::new(own.id, names.collect());
        let (status_tx, status) = watch::channel(EngineStatus::default());
        let mut voter = None;
        if own.is_voter {
            let origin = StoreOrigin::New;
            match start_voter(&settings, own.id, &transport, &evidence, origin).await {
                Ok(started) => voter = Some(started),
                Err(problem) => {
                    let problem = problem.to_string();
                    tracing::error!("ownership: {problem}");
                    status_tx.send_modify(|status| status.problem = Some(problem.clone()));
                    let update = raft_problem(Some(problem));
                    // The queue is empty.
                    let _ = channels.updates.try_send(update);
                }
            }
        } else {
            // The others removed it from their number: it may begin anew one day.
            forget_store(&settings.store);
        }
        let (inbox, inbox_rx) = mpsc::channel(INBOX_LEN);
        let outputs = EngineOutputs { inbox, updates: channels.updates.clone(), status: status_tx };
        let me = own.id;
        let task = EngineTask::new(me, settings, transport, evidence, voter, outputs);
        let task = tokio::spawn(task.run(inbox_rx, channels));
        Ok(Self { task, status })
    }

    /// State of the engine, here and from here on.
    pub fn status(&self) -> watch::Receiver<EngineStatus> {
        self.status.clone()
    }
}

impl Drop for RaftEngine {
    fn drop(&mut self) {
        self.task.abort();
    }
}
