//! Start of the engine.

use std::sync::Arc;

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::{
    engine::{EngineOutputs, EngineTask},
    network::{LeaseEvidence, OwnershipTransport},
    settings::{EngineChannels, RaftSettings},
    status::EngineStatus,
    voter::start_voter,
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
        let evidence = LeaseEvidence::new(own.id);
        let (status_tx, status) = watch::channel(EngineStatus::default());
        let mut voter = None;
        if own.is_voter {
            match start_voter(&settings, own.id, &transport, &evidence).await {
                Ok(started) => voter = Some(started),
                Err(problem) => {
                    tracing::error!("ownership: {problem}");
                    status_tx.send_modify(|status| status.problem = Some(problem));
                }
            }
        }
        let (inbox_tx, inbox) = mpsc::channel(INBOX_LEN);
        let outputs = EngineOutputs { updates: channels.updates.clone(), status: status_tx };
        let me = own.id;
        let task = EngineTask::new(me, settings, transport, evidence, voter, (inbox_tx, outputs));
        let task = tokio::spawn(task.run(inbox, channels));
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
