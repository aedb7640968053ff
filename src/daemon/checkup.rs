//! Answers peers that ask what is wrong with this node: `netft validate` on another one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
};

use super::{
    clock::WallClock,
    node::{Node, Question, Running},
};
use crate::{
    control::{
        convert,
        journal::Journal,
        schema::{Finding, Route},
        validate,
    },
    validate::{
        Daemon, Facts,
        report::{QUESTION, Report},
        validate as check,
    },
};

/// What a run found that began no longer than this before a question answers it. One peer's
/// questions are further apart, so that each sees what was changed since the one before.
const LASTS: Duration = Duration::from_millis(800);
/// Answers made at a time; other questions wait.
const ANSWERS: usize = 8;

/// What a run of the checks found.
struct Found {
    began: Instant,
    findings: Vec<Finding>,
    routes: Vec<Route>,
}

/// What this node finds on itself.
pub(super) struct Checkup {
    node: Arc<Running>,
    journal: Arc<Journal>,
    clock: Arc<WallClock>,
    /// Held over a run, so that there is one at a time.
    last: Mutex<Option<Arc<Found>>>,
}

impl Checkup {
    pub(super) fn new(node: Arc<Running>, journal: Arc<Journal>, clock: Arc<WallClock>) -> Self {
        Self { node, journal, clock, last: Mutex::default() }
    }

    /// Answers until the node closes, or it is aborted.
    pub(super) async fn answer(self) {
        let Some(mut questions) = self.node.questions().await else { return };
        let (checkup, places) = (Arc::new(self), Arc::new(Semaphore::new(ANSWERS)));
        while let Some(question) = questions.recv().await {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            // One that nobody waits for any more, or that means nothing here, is dropped: that
            // refuses it.
            if question.question == QUESTION && !question.answer.is_closed() {
                tokio::spawn(Arc::clone(&checkup).answer_one(question, place));
            }
        }
    }

    async fn answer_one(self: Arc<Self>, question: Question, _place: OwnedSemaphorePermit) {
        let Some(found) = self.findings().await else { return };
        let Some(snapshot) = self.node.snapshot().await else { return };
        let asker = snapshot.peers.iter().find(|info| info.status.peer == question.peer);
        let Some(asker) = asker else { return };
        let clock = validate::wall_ms();
        let report = Report::new(found.findings.clone(), &found.routes, &asker.name, clock);
        if let Ok(bytes) = report.encode() {
            // The peer may have stopped waiting.
            let _ = question.answer.send(bytes);
        }
    }

    async fn findings(&self) -> Option<Arc<Found>> {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        if let Some(found) = last.as_ref().filter(|found| asked < found.began + LASTS) {
            return Some(Arc::clone(found));
        }
        let found = Arc::new(self.run().await?);
        *last = Some(Arc::clone(&found));
        Some(found)
    }

    /// On a thread of its own, as it waits for the kernel and for `nft`.
    async fn run(&self) -> Option<Found> {
        let began = Instant::now();
        validate::probe(&*self.node).await;
        let config = self.node.config().await?;
        let snapshot = self.node.snapshot().await?;
        let pending = match self.node.reload(true).await {
            Ok(changes) => changes.iter().map(ToString::to_string).collect(),
            Err(failure) => failure.text.lines().take(1).map(str::to_owned).collect(),
        };
        let routes = convert::routes(&snapshot, &self.clock).routes;
        let events = self.journal.after(0).into_iter().map(|event| event.what).collect();
        let daemon = Daemon {
            routes: routes.clone(),
            events,
            pending,
            overflow: snapshot.counters.socket_overflow,
            peers: Vec::new(),
        };
        let looked = spawn_blocking(move || Facts::gather((*config).clone(), Some(daemon))).await;
        let findings = match looked.ok()? {
            Ok(facts) => check(&facts),
            Err(error) => {
                tracing::warn!(%error, "a peer asks what is wrong here, and it cannot be seen");
                return None;
            }
        };
        Some(Found { began, findings, routes })
    }
}
