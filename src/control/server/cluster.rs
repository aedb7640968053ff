//! Requests about the cluster.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{
        DefaultBodyLimit, State,
        rejection::{BytesRejection, StringRejection},
    },
    http::StatusCode,
    response::Response,
    routing::{get, post},
};
use netft::roster::MAX_ROSTER_LEN;

use super::{RequestError, ServerState, SharedState, json_response};
use crate::control::{backend::ControlBackend, cluster::add_versions, schema::NextKeyOrder};

/// The resources below `/v1/cluster`.
pub(super) fn cluster_routes<N: ControlBackend>() -> Router<Arc<ServerState<N>>> {
    Router::new()
        .route("/v1/cluster", get(get_cluster))
        .route("/v1/cluster/invite", post(post_invite))
        .route("/v1/cluster/key", post(post_next_key))
        .route("/v1/cluster/roster", post(post_roster).layer(DefaultBodyLimit::max(MAX_ROSTER_LEN)))
}

async fn get_cluster<N: ControlBackend>(
    State(app): SharedState<N>,
) -> Result<Response, RequestError> {
    let cluster = app.control.node.cluster().ok_or_else(no_cluster_service)?;
    let mut status = cluster.status().await.ok_or_else(no_cluster_service)?;
    if status.cluster.is_some() {
        let peers = app.take_snapshot().await?.peers;
        let find = |name: &str| peers.iter().find(|peer| peer.name == name);
        add_versions(&mut status, |name| find(name)?.version.clone());
    }
    Ok(json_response(status))
}

/// Goes over to a signed roster. A change that has begun is finished without its client.
async fn post_roster<N: ControlBackend>(
    State(app): SharedState<N>,
    body: Result<String, StringRejection>,
) -> Result<Response, RequestError> {
    let body = body.map_err(|error| RequestError::new(error.status(), error.body_text()))?;
    let cluster = app.control.node.cluster().ok_or_else(no_cluster_service)?;
    Ok(json_response(cluster.import_roster(body).await?))
}

/// Has a node store its next key.
async fn post_next_key<N: ControlBackend>(
    State(app): SharedState<N>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, RequestError> {
    let body = body.map_err(|error| RequestError::new(error.status(), error.body_text()))?;
    let order: NextKeyOrder = serde_json::from_slice(&body).map_err(RequestError::bad_request)?;
    let cluster = app.control.node.cluster().ok_or_else(no_cluster_service)?;
    Ok(json_response(cluster.prepare_next_key(order.node).await?))
}

/// Opens an invite; the answer holds its token.
async fn post_invite<N: ControlBackend>(
    State(app): SharedState<N>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, RequestError> {
    let body = body.map_err(|error| RequestError::new(error.status(), error.body_text()))?;
    let order = serde_json::from_slice(&body).map_err(RequestError::bad_request)?;
    let cluster = app.control.node.cluster().ok_or_else(no_cluster_service)?;
    Ok(json_response(cluster.open_invite(order).await?))
}

fn no_cluster_service() -> RequestError {
    RequestError::new(StatusCode::SERVICE_UNAVAILABLE, "this daemon keeps no roster")
}
