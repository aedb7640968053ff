//! `POST /v1/validate`: new probes of this node's paths, and the findings of its peers.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use netft::{
    Time,
    api::snapshot::{PeerInfo, Snapshot},
    route::RouteState,
};

use super::{
    backend::ControlBackend,
    report,
    report::ValidationReport,
    schema::{PeerValidation, PeerValidations},
};
use crate::clock::wall_clock_ms;

/// Time limit for new probes. A control answer must begin within 5 s, and a peer probes too
/// before it answers.
const PROBE_TIMEOUT: Duration = Duration::from_millis(2500);
/// Interval of the checks for their answers.
const PROBE_POLL_INTERVAL: Duration = Duration::from_millis(30);

/// Queries these peers concurrently while this node's own paths are probed.
pub(super) async fn query_peers<N: ControlBackend>(
    node: &Arc<N>,
    peers: Vec<PeerInfo>,
) -> PeerValidations {
    let answers = join_all(peers.iter().map(|peer| query_peer(&**node, peer)));
    let (peers, ()) = tokio::join!(answers, probe_paths(&**node));
    PeerValidations { peers }
}

async fn query_peer<N: ControlBackend>(node: &N, info: &PeerInfo) -> PeerValidation {
    let peer = info.name.clone();
    let unanswered = |error: String| PeerValidation {
        peer: info.name.clone(),
        error: Some(error),
        ..PeerValidation::default()
    };
    let bytes = match node.query_peer(info.status.peer, report::VALIDATE_QUERY.to_vec()).await {
        Ok(bytes) => bytes,
        Err(error) => {
            tracing::debug!(peer = %info.name, %error, "no validation answer");
            return unanswered(error.to_string());
        }
    };
    let ValidationReport { findings, left_off, clock_ms, paths } =
        match ValidationReport::decode(&bytes) {
            Ok(report) => report,
            Err(error) => {
                tracing::warn!(peer = %info.name, error, "malformed validation answer");
                return unanswered(format!("its answer is malformed: {error}"));
            }
        };
    let skew = i128::from(clock_ms) - i128::from(wall_clock_ms());
    let clock_skew_ms = Some(skew.clamp(i64::MIN.into(), i64::MAX.into()) as i64);
    PeerValidation { peer, error: None, clock_skew_ms, findings, left_off, paths }
}

/// Starts new probes of every path and waits until they are answered, at most 2.5 s.
pub async fn probe_paths<N: ControlBackend>(node: &N) {
    let done = async {
        let Some(since) = node.recheck_paths().await else { return };
        while node
            .take_snapshot()
            .await
            .is_some_and(|snapshot| has_pending_probes(&snapshot, since))
        {
            tokio::time::sleep(PROBE_POLL_INTERVAL).await;
        }
    };
    // Paths not proven by then are shown with the age of their proof.
    if tokio::time::timeout(PROBE_TIMEOUT, done).await.is_err() {
        tracing::debug!(timeout = ?PROBE_TIMEOUT, "path MTU probes still unanswered");
    }
}

fn has_pending_probes(snapshot: &Snapshot, since: Time) -> bool {
    snapshot.routes.iter().filter(|route| route.state == RouteState::Up).any(|route| {
        let status = &route.path_mtu;
        status.probing || status.proven.is_none_or(|at| at < since)
    })
}
