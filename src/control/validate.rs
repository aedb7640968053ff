//! `POST /v1/validate`: fresh probes of this node's paths, and what the peers say of themselves.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::future::join_all;
use netft::{Time, route::RouteState};

use super::schema::{PeerAnswer, PeerAnswers};
use crate::{
    daemon::node::{Node, PeerInfo, Snapshot},
    validate::{report, report::Report},
};

/// How long fresh probes are waited for. Answers to a control socket must begin within 5 s, and
/// a peer probes, too, before it answers.
const PROBING: Duration = Duration::from_millis(2500);
/// How often to look whether they are answered.
const LOOK: Duration = Duration::from_millis(30);

/// Asks these peers, all at once, while this node's own paths are probed.
pub(super) async fn ask<N: Node>(node: &Arc<N>, peers: Vec<PeerInfo>) -> PeerAnswers {
    let answers = join_all(peers.iter().map(|peer| ask_one(&**node, peer)));
    let (peers, ()) = tokio::join!(answers, probe(&**node));
    PeerAnswers { peers }
}

async fn ask_one<N: Node>(node: &N, info: &PeerInfo) -> PeerAnswer {
    let peer = info.name.clone();
    let unanswered = |error: String| PeerAnswer {
        peer: info.name.clone(),
        error: Some(error),
        ..PeerAnswer::default()
    };
    let bytes = match node.ask(info.status.peer, report::QUESTION.to_vec()).await {
        Ok(bytes) => bytes,
        Err(error) => return unanswered(error.to_string()),
    };
    let Report { findings, left_off, clock_ms, paths } = match Report::decode(&bytes) {
        Ok(report) => report,
        Err(error) => return unanswered(format!("its answer makes no sense: {error}")),
    };
    let skew = i128::from(clock_ms) - i128::from(wall_ms());
    let clock_skew_ms = Some(skew.clamp(i64::MIN.into(), i64::MAX.into()) as i64);
    PeerAnswer { peer, error: None, clock_skew_ms, findings, left_off, paths }
}

/// The wall clock, milliseconds since 1970.
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Has every path probed anew, and waits until that is done, or long enough.
pub async fn probe<N: Node>(node: &N) {
    let done = async {
        let Some(since) = node.recheck_paths().await else { return };
        while node.snapshot().await.is_some_and(|snapshot| waits(&snapshot, since)) {
            tokio::time::sleep(LOOK).await;
        }
    };
    // What is not proven by then is shown with its age.
    let _ = tokio::time::timeout(PROBING, done).await;
}

fn waits(snapshot: &Snapshot, since: Time) -> bool {
    snapshot.routes.iter().filter(|route| route.state == RouteState::Up).any(|route| {
        let status = &route.path_mtu_status;
        status.probing || status.proven.is_none_or(|at| at < since)
    })
}
