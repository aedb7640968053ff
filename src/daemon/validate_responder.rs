//! Answers peers that ask what is wrong with this node: `netft validate` on another one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use netft::api::query::PeerQuery;
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
};

use super::node::RunningNode;
use crate::{
    clock::{WallClock, wall_clock_ms},
    control::{
        backend::ControlBackend,
        convert,
        journal::EventJournal,
        report::{VALIDATE_QUERY, ValidationReport},
        schema::{Finding, Route},
        validate,
    },
    validate::{DaemonFacts, NodeFacts, run_checks as check},
};

/// What a run found that began no longer than this before a question answers it. One peer's
/// questions are further apart, so that each sees what was changed since the one before.
const RESULT_LIFETIME: Duration = Duration::from_millis(800);
/// Answers made at a time; other questions wait.
const MAX_CONCURRENT_QUERIES: usize = 8;

/// What a run of the checks found.
struct CheckResults {
    began: Instant,
    findings: Vec<Finding>,
    routes: Vec<Route>,
}

/// What this node finds on itself.
pub(super) struct ValidateResponder {
    node: Arc<RunningNode>,
    journal: Arc<EventJournal>,
    clock: Arc<WallClock>,
    /// Held over a run, so that there is one at a time.
    last_results: Mutex<Option<Arc<CheckResults>>>,
}

impl ValidateResponder {
    pub(super) fn new(
        node: Arc<RunningNode>,
        journal: Arc<EventJournal>,
        clock: Arc<WallClock>,
    ) -> Self {
        Self { node, journal, clock, last_results: Mutex::default() }
    }

    /// Answers until the node closes, or it is aborted.
    pub(super) async fn serve_queries(self) {
        let Some(mut questions) = self.node.peer_queries().await else { return };
        let (checkup, places) = (Arc::new(self), Arc::new(Semaphore::new(MAX_CONCURRENT_QUERIES)));
        while let Some(question) = questions.recv().await {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            // One that nobody waits for any more, or that means nothing here, is dropped: that
            // refuses it.
            if question.payload == VALIDATE_QUERY && !question.reply_tx.is_closed() {
                tracing::debug!(peer = %question.peer, "validation asked for by a peer");
                tokio::spawn(Arc::clone(&checkup).answer_query(question, place));
            }
        }
    }

    async fn answer_query(self: Arc<Self>, question: PeerQuery, _place: OwnedSemaphorePermit) {
        let Some(found) = self.recent_results().await else { return };
        let Some(snapshot) = self.node.take_snapshot().await else { return };
        let asker = snapshot.peers.iter().find(|info| info.status.peer == question.peer);
        let Some(asker) = asker else { return };
        let clock = wall_clock_ms();
        let report =
            ValidationReport::new(found.findings.clone(), &found.routes, &asker.name, clock);
        if let Ok(bytes) = report.encode() {
            // The peer may have stopped waiting.
            let _ = question.reply_tx.send(bytes);
        }
    }

    async fn recent_results(&self) -> Option<Arc<CheckResults>> {
        let asked = Instant::now();
        let mut last = self.last_results.lock().await;
        if let Some(found) = last.as_ref().filter(|found| asked < found.began + RESULT_LIFETIME) {
            return Some(Arc::clone(found));
        }
        let found = Arc::new(self.run_checks().await?);
        *last = Some(Arc::clone(&found));
        Some(found)
    }

    /// On a thread of its own, as it waits for the kernel and for `nft`.
    async fn run_checks(&self) -> Option<CheckResults> {
        let began = Instant::now();
        validate::probe_paths(&*self.node).await;
        let config = self.node.config().await?;
        let snapshot = self.node.take_snapshot().await?;
        let pending = match self.node.reload_config(true).await {
            Ok(changes) => changes.iter().map(ToString::to_string).collect(),
            Err(failure) => failure.text.lines().take(1).map(str::to_owned).collect(),
        };
        let routes = convert::to_route_list(&snapshot, &self.clock).routes;
        let events = self.journal.events_after(0).into_iter().map(|event| event.detail).collect();
        let daemon = DaemonFacts {
            routes: routes.clone(),
            events,
            pending_changes: pending,
            socket_overflow: snapshot.counters.socket_overflow,
            peers: Vec::new(),
        };
        let looked =
            spawn_blocking(move || NodeFacts::gather_facts((*config).clone(), Some(daemon))).await;
        let findings = match looked.ok()? {
            Ok(facts) => check(&facts),
            Err(error) => {
                tracing::warn!(%error, "validation for a peer failed");
                return None;
            }
        };
        tracing::debug!(findings = findings.len(), took = ?began.elapsed(), "checks done");
        Some(CheckResults { began, findings, routes })
    }
}
