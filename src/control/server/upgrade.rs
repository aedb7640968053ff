//! `POST /v1/upgrade`: hands the adapter over to a successor process.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::StatusCode,
    response::Response,
    routing::post,
};

use super::{RequestError, ServerState, SharedState, json_response, log_text};
use crate::control::{
    backend::{ControlBackend, UpgradeOrder},
    schema::{UpgradeRequest, UpgradeStarted},
};

/// Longest time for a successor to be ready: below the listener's client timeout.
const MAX_READY_TIME: Duration = Duration::from_secs(4);

pub(super) fn upgrade_routes<N: ControlBackend>() -> Router<Arc<ServerState<N>>> {
    Router::new().route("/v1/upgrade", post(post_upgrade))
}

async fn post_upgrade<N: ControlBackend>(
    State(app): SharedState<N>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, RequestError> {
    let body = body.map_err(|error| RequestError::new(error.status(), error.body_text()))?;
    let request: UpgradeRequest =
        serde_json::from_slice(&body).map_err(RequestError::bad_request)?;
    tracing::info!("upgrade: {}", log_text(&request));
    let timeout = request.timeout_ms.map_or(MAX_READY_TIME, Duration::from_millis);
    if timeout > MAX_READY_TIME {
        return Err(RequestError::bad_request("timeout_ms is out of range: 0–4000 ms"));
    }
    let order = UpgradeOrder { binary: request.binary, timeout };
    let started = app.control.node.start_upgrade(order).await;
    let pid = started.map_err(|reason| RequestError::new(StatusCode::CONFLICT, reason))?;
    Ok(json_response(UpgradeStarted { pid }))
}
