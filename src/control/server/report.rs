//! `POST /v1/report`: one part of the report of every peer, for `netft report`.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Query, State, rejection::QueryRejection},
    response::Response,
    routing::post,
};
use futures_util::future::join_all;
use netft::api::snapshot::PeerInfo;
use serde::Deserialize;

use super::{RequestError, ServerState, SharedState, json_response};
use crate::{
    control::{
        backend::ControlBackend,
        peer_report::PeerPart,
        schema::{PeerReport, PeerReports},
    },
    text::escape_lines,
};

pub(super) fn report_routes<N: ControlBackend>() -> Router<Arc<ServerState<N>>> {
    Router::new().route("/v1/report", post(post_report))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReportQuery {
    part: String,
}

async fn post_report<N: ControlBackend>(
    State(app): SharedState<N>,
    query: Result<Query<ReportQuery>, QueryRejection>,
) -> Result<Response, RequestError> {
    let Query(ReportQuery { part }) =
        query.map_err(|error| RequestError::bad_request(error.body_text()))?;
    let part = PeerPart::from_name(&part).ok_or_else(|| {
        let names = PeerPart::ALL.map(PeerPart::as_str).join(", ");
        RequestError::bad_request(format!("a part is one of {names}"))
    })?;
    let peers = app.take_snapshot().await?.peers;
    let answers = join_all(peers.iter().map(|peer| ask_peer(&*app.control.node, peer, part)));
    Ok(json_response(PeerReports { peers: answers.await }))
}

async fn ask_peer<N: ControlBackend>(node: &N, info: &PeerInfo, part: PeerPart) -> PeerReport {
    let peer = info.name.clone();
    match node.query_peer(info.status.peer, part.to_question()).await {
        Ok(bytes) => {
            // A peer may send anything: what reads the report is often a terminal.
            let text = escape_lines(&String::from_utf8_lossy(&bytes));
            PeerReport { peer, error: None, text: Some(text) }
        }
        Err(error) => PeerReport { peer, error: Some(error.to_string()), text: None },
    }
}
