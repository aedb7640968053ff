//! Answers validation queries of peers, for `netft validate` on another node, and passes on those
//! for parts of a report.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use netft::api::query::{PeerRequest, Topic};
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
};

use super::{node::RunningNode, report_responder::ReportResponder};
use crate::{
    clock::{WallClock, wall_clock_ms},
    control::{
        backend::ControlBackend,
        convert,
        journal::EventJournal,
        networks, overrides,
        peer_report::PeerPart,
        report::{VALIDATE_QUERY, ValidationReport},
        schema::{Finding, RouteView},
        validate,
    },
    validate::{DaemonFacts, NodeFacts, run_checks as check},
};

/// Age up to which results are reused for further queries. Queries of one peer are further apart,
/// so each of them sees current results.
const RESULT_LIFETIME: Duration = Duration::from_millis(800);
/// Concurrent answers; further queries wait.
const MAX_CONCURRENT_QUERIES: usize = 8;

/// Results of one run of the checks.
struct CheckResults {
    began: Instant,
    findings: Vec<Finding>,
    routes: Vec<RouteView>,
}

/// Answers with this node's findings on itself.
pub(super) struct ValidateResponder {
    node: Arc<RunningNode>,
    journal: Arc<EventJournal>,
    clock: Arc<WallClock>,
    /// Locked during a run, so that runs do not overlap.
    last_results: Mutex<Option<Arc<CheckResults>>>,
    reports: ReportResponder,
}

impl ValidateResponder {
    pub(super) fn new(
        node: Arc<RunningNode>,
        journal: Arc<EventJournal>,
        clock: Arc<WallClock>,
        reports: ReportResponder,
    ) -> Self {
        Self { node, journal, clock, last_results: Mutex::default(), reports }
    }

    /// Answers until the node closes or the task is aborted.
    pub(super) async fn serve_queries(self) {
        let Some(mut questions) = self.node.requests(Topic::Validate).await else { return };
        let (responder, permits) =
            (Arc::new(self), Arc::new(Semaphore::new(MAX_CONCURRENT_QUERIES)));
        while let Some(question) = questions.recv().await {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            // Dropping a query refuses it: unknown ones, and those whose asker has gone.
            if question.reply_tx.is_closed() {
                continue;
            }
            if question.payload == VALIDATE_QUERY {
                tracing::debug!(peer = %question.peer, "validation asked for by a peer");
                tokio::spawn(Arc::clone(&responder).answer_query(question, permit));
            } else if let Some(part) = PeerPart::from_question(&question.payload) {
                let reports = responder.reports.clone();
                tokio::spawn(async move {
                    reports.answer_part(part, question).await;
                    drop(permit);
                });
            }
        }
    }

    async fn answer_query(self: Arc<Self>, question: PeerRequest, _permit: OwnedSemaphorePermit) {
        let Some(found) = self.recent_results().await else { return };
        let Some(snapshot) = self.node.take_snapshot().await else { return };
        let asker = snapshot.peers.iter().find(|info| info.status.peer == question.peer);
        let Some(asker) = asker else { return };
        let clock = wall_clock_ms();
        let report =
            ValidationReport::new(found.findings.clone(), &found.routes, &asker.name, clock);
        if let Ok(bytes) = report.encode() {
            // The peer may have timed out.
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

    /// Runs the checks on a blocking thread, as they wait for the kernel and for `nft`.
    async fn run_checks(&self) -> Option<CheckResults> {
        let began = Instant::now();
        validate::probe_paths(&*self.node).await;
        let config = self.node.config().await?;
        let snapshot = self.node.take_snapshot().await?;
        let (pending, refused) = match self.node.reload_config(true).await {
            Ok(changes) => (changes.iter().map(ToString::to_string).collect(), None),
            Err(failure) => {
                tracing::debug!(reason = %failure, "a reload would be refused");
                (Vec::new(), failure.text.lines().next().map(str::to_owned))
            }
        };
        let routes = convert::to_route_list(&snapshot, &self.clock).routes;
        let events = self.journal.run_events().into_iter().map(|event| event.detail).collect();
        let daemon = DaemonFacts {
            routes: routes.clone(),
            events,
            sessions: convert::to_peer_list(&snapshot).peers,
            networks: networks::to_network_list(&snapshot).networks,
            pending_changes: pending,
            reload_refused: refused,
            socket_overflow: snapshot.counters.socket_overflow,
            overrides: overrides::to_override_views(&snapshot),
            overrides_unsaved: self.node.unsaved_overrides(Duration::ZERO).await,
            peers: Vec::new(),
        };
        let gathered =
            spawn_blocking(move || NodeFacts::gather_facts((*config).clone(), Some(daemon))).await;
        let findings = match gathered.ok()? {
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
