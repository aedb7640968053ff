//! `/v1/drill`: begins a drill, and tells how it goes.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    response::Response,
    routing::get,
};
use netft::api::drill::{DrillError, DrillStatus};

use super::{
    DRIVER_TIMEOUT, RequestError, ServerState, SharedState, driver_timeout, json_response, log_text,
};
use crate::control::{
    backend::ControlBackend,
    convert::PeerNames,
    drill,
    schema::{DrillBody, DrillRequest},
};

pub(super) fn drill_routes<N: ControlBackend>() -> Router<Arc<ServerState<N>>> {
    Router::new().route("/v1/drill", get(get_drill).post(post_drill))
}

impl From<DrillError> for RequestError {
    fn from(error: DrillError) -> Self {
        Self::new(drill::error_code(&error), error.to_string())
    }
}

async fn get_drill<N: ControlBackend>(
    State(app): SharedState<N>,
) -> Result<Response, RequestError> {
    let status = tokio::time::timeout(DRIVER_TIMEOUT, app.control.node.drill_status());
    let status = status.await.map_err(|_| driver_timeout())?;
    drill_response(&app, status).await
}

async fn post_drill<N: ControlBackend>(
    State(app): SharedState<N>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, RequestError> {
    let body = body.map_err(|error| RequestError::new(error.status(), error.body_text()))?;
    let request: DrillRequest = serde_json::from_slice(&body).map_err(RequestError::bad_request)?;
    let order = drill::to_drill_order(&request).map_err(RequestError::bad_request)?;
    tracing::info!("drill: {}", log_text(&request));
    let begun = tokio::time::timeout(DRIVER_TIMEOUT, app.control.node.start_drill(order));
    let status = begun.await.map_err(|_| driver_timeout())??;
    drill_response(&app, Some(status)).await
}

async fn drill_response<N: ControlBackend>(
    app: &ServerState<N>,
    status: Option<DrillStatus>,
) -> Result<Response, RequestError> {
    let names = PeerNames::from(&app.take_snapshot().await?);
    let drill = status.map(|status| drill::to_drill_view(&status, &names));
    Ok(json_response(DrillBody { drill }))
}
