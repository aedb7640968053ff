//! HTTP server of the control socket. Every answer but the metrics is JSON with a schema number; no
//! request waits longer than [`DRIVER_TIMEOUT`] for the driver.

mod cluster;
mod drill;
mod report;
#[cfg(test)]
mod tests;
mod upgrade;

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{
        ConnectInfo, DefaultBodyLimit, Path, Query, Request, State,
        rejection::{BytesRejection, QueryRejection},
    },
    http::{HeaderValue, Method, StatusCode, header},
    middleware,
    middleware::Next,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::stream;
use netft::{
    RouteId,
    api::{
        drain::DrainError,
        error::{PeerError, RouteError},
        snapshot::{PeerInfo, Snapshot},
    },
    route::{Delay, Priority, RouteChange, RouteStatus, Threshold, Timing},
};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Instrument;

use super::{
    backend::ControlBackend,
    convert,
    convert::PeerNames,
    drain,
    journal::EventJournal,
    listener::{ClientIdentity, ControlListener, MAX_BODY_BYTES, MAX_CLIENTS},
    log_counts::LogCounts,
    metrics,
    metrics::{PageFormat, ProcessFigures},
    overrides, policies,
    schema::{
        AdminState, DrainRequest, ErrorBody, EventList, PeerBody, PeerPatch, ReloadResult,
        RouteBody, RoutePatch, VersionedBody, VipOrder,
    },
    validate, vips, why,
    why::{EventSelector, RouteEndpoints},
};
use crate::{clock::WallClock, exit::ExitError, text::escape, vip::VipError};

/// Time limit for an answer of the driver.
pub(super) const DRIVER_TIMEOUT: Duration = Duration::from_millis(1500);
/// Time limit for the disk to take an operator's order, which is in force all the same.
const OVERRIDE_SAVE_TIMEOUT: Duration = Duration::from_millis(1000);
/// Concurrent event streams: the remaining places stay free for short requests.
const MAX_EVENT_STREAMS: usize = MAX_CLIENTS - 8;
/// Concurrent event streams of readers: the others are for those who may change the node.
const MAX_READER_STREAMS: usize = 8;

/// State that the answers are made from.
pub struct ControlContext<N> {
    /// The node.
    pub node: Arc<N>,
    /// Its recent events.
    pub journal: Arc<EventJournal>,
    /// Clock for the times in the answers.
    pub clock: Arc<WallClock>,
    /// Log lines that were lost or left out.
    pub log_counts: Arc<LogCounts>,
}

struct ServerState<N> {
    control: Arc<ControlContext<N>>,
    streams: Arc<Semaphore>,
    reader_streams: Arc<Semaphore>,
}

type SharedState<N> = State<Arc<ServerState<N>>>;

/// Serves `listener` until dropped.
pub async fn serve<N: ControlBackend>(listener: ControlListener, control: Arc<ControlContext<N>>) {
    let app = Arc::new(ServerState {
        control,
        streams: Arc::new(Semaphore::new(MAX_EVENT_STREAMS)),
        reader_streams: Arc::new(Semaphore::new(MAX_READER_STREAMS)),
    });
    let router = Router::new()
        .route("/v1/status", get(get_status))
        .route("/v1/peers", get(get_peers))
        .route("/v1/peers/{name}", get(get_peer).patch(patch_peer))
        .route("/v1/routes", get(get_routes))
        .route("/v1/networks", get(get_networks))
        .route("/v1/routes/{id}", get(get_route).patch(patch_route))
        .route("/v1/vips", get(get_vips))
        .route("/v1/vips/{name}", post(post_vip))
        .route("/v1/drain", post(post_drain))
        .route("/v1/events", get(get_events))
        .route("/v1/why", get(get_why))
        .route("/metrics", get(get_metrics))
        .route("/v1/reload", post(post_reload))
        .route("/v1/validate", post(post_validate))
        .merge(cluster::cluster_routes())
        .merge(drill::drill_routes())
        .merge(report::report_routes())
        .merge(upgrade::upgrade_routes())
        .fallback(|| async { RequestError::new(StatusCode::NOT_FOUND, "no such resource") })
        .method_not_allowed_fallback(|| async {
            RequestError::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn(serve_request))
        .with_state(app);
    // Returns only on a permanent accept error, which this listener never reports.
    let service = router.into_make_service_with_connect_info::<ClientIdentity>();
    let _ = axum::serve(listener, service).await;
}

/// Answers one request in a log span that names who asked and what. One request per client: the
/// next one gets a fresh deadline.
async fn serve_request(
    ConnectInfo(client): ConnectInfo<ClientIdentity>,
    request: Request,
    next: Next,
) -> Response {
    let (method, target) = (request.method().clone(), request.uri().clone());
    let span = tracing::info_span!("control", %client, %method, %target);
    let answer = async move {
        let mut response = if client.may_change || method == Method::GET {
            next.run(request).await
        } else {
            let text = "only root and the daemon's own user may change the node";
            RequestError::new(StatusCode::FORBIDDEN, text).into_response()
        };
        let code = response.status();
        if code.is_success() {
            tracing::debug!(code = code.as_u16(), "request answered");
        } else if method == Method::GET {
            tracing::debug!(code = code.as_u16(), "request refused");
        } else {
            tracing::info!(code = code.as_u16(), "request refused");
        }
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    };
    answer.instrument(span).await
}

/// A request body as the log shows it.
fn log_text(body: &impl Serialize) -> String {
    escape(&serde_json::to_string(body).unwrap_or_default())
}

/// A request that failed.
struct RequestError {
    code: StatusCode,
    text: String,
}

impl RequestError {
    fn new(code: StatusCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    fn bad_request(text: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text.to_string())
    }
}

impl From<RouteError> for RequestError {
    fn from(error: RouteError) -> Self {
        let code = match error {
            RouteError::Closed => StatusCode::SERVICE_UNAVAILABLE,
            RouteError::TooManyOverrides => StatusCode::CONFLICT,
            _ => StatusCode::NOT_FOUND,
        };
        Self::new(code, error.to_string())
    }
}

impl From<ExitError> for RequestError {
    fn from(failure: ExitError) -> Self {
        let code = match failure.code {
            2 => StatusCode::BAD_REQUEST,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(code, failure.text)
    }
}

impl From<PeerError> for RequestError {
    fn from(error: PeerError) -> Self {
        let code = match error {
            PeerError::Closed => StatusCode::SERVICE_UNAVAILABLE,
            PeerError::Unknown(_) => StatusCode::NOT_FOUND,
            PeerError::Classes(_) => StatusCode::BAD_REQUEST,
        };
        Self::new(code, error.to_string())
    }
}

impl From<VipError> for RequestError {
    fn from(error: VipError) -> Self {
        Self::new(vips::error_code(&error), error.to_string())
    }
}

impl From<DrainError> for RequestError {
    fn from(error: DrainError) -> Self {
        match error {
            DrainError::Route(error) => error.into(),
            error if drain::is_conflict(&error) => {
                Self::new(StatusCode::CONFLICT, error.to_string())
            }
            error => Self::new(StatusCode::NOT_FOUND, error.to_string()),
        }
    }
}

impl IntoResponse for RequestError {
    fn into_response(self) -> Response {
        let mut response = json_response(ErrorBody { error: self.text });
        *response.status_mut() = self.code;
        response
    }
}

fn json_response<T: Serialize>(body: T) -> Response {
    axum::Json(VersionedBody::new(body)).into_response()
}

impl<N: ControlBackend> ServerState<N> {
    async fn take_snapshot(&self) -> Result<Snapshot, RequestError> {
        match tokio::time::timeout(DRIVER_TIMEOUT, self.control.node.take_snapshot()).await {
            Ok(Some(snapshot)) => {
                self.control.clock.follow_wall_clock(snapshot.now);
                Ok(snapshot)
            }
            Ok(None) => Err(RouteError::Closed.into()),
            Err(_) => Err(driver_timeout()),
        }
    }

    /// Waits until the disk has the operator's overrides; the reason if it has not.
    async fn unsaved_overrides(&self) -> Option<String> {
        self.control.node.unsaved_overrides(OVERRIDE_SAVE_TIMEOUT).await
    }

    async fn peer_response(
        &self,
        name: &str,
        overrides_unsaved: Option<String>,
    ) -> Result<Response, RequestError> {
        let snapshot = self.take_snapshot().await?;
        let mut peer = convert::to_peer(find_peer(&snapshot, name)?, &snapshot);
        vips::add_to_peers(&*self.control.node, std::slice::from_mut(&mut peer)).await;
        Ok(json_response(PeerBody { peer, overrides_unsaved }))
    }

    async fn route_response(
        &self,
        id: RouteId,
        overrides_unsaved: Option<String>,
    ) -> Result<Response, RequestError> {
        let snapshot = &self.take_snapshot().await?;
        let status = find_route(snapshot, id)?;
        let names = PeerNames::from(snapshot);
        let route = convert::to_route(status, snapshot, &names, &self.control.clock);
        Ok(json_response(RouteBody { route, overrides_unsaved }))
    }
}

fn driver_timeout() -> RequestError {
    RequestError::new(StatusCode::SERVICE_UNAVAILABLE, "the driver does not answer")
}

fn find_route(snapshot: &Snapshot, id: RouteId) -> Result<&RouteStatus, RouteError> {
    snapshot.routes.iter().find(|route| route.id == id).ok_or(RouteError::Unknown(id))
}

fn route_id(text: &str) -> Result<RouteId, RequestError> {
    text.parse()
        .map(RouteId)
        .map_err(|_| RequestError::bad_request("a route is identified by its number"))
}

async fn get_status<N: ControlBackend>(
    State(app): SharedState<N>,
) -> Result<Response, RequestError> {
    let snapshot = app.take_snapshot().await?;
    let mut status = convert::to_daemon_status(&snapshot);
    status.overrides_unsaved = app.control.node.unsaved_overrides(Duration::ZERO).await;
    vips::add_to_status(&*app.control.node, &mut status).await;
    status.log = app.control.log_counts.read_counts();
    Ok(json_response(status))
}

async fn get_peers<N: ControlBackend>(
    State(app): SharedState<N>,
) -> Result<Response, RequestError> {
    let mut list = convert::to_peer_list(&app.take_snapshot().await?);
    vips::add_to_peers(&*app.control.node, &mut list.peers).await;
    Ok(json_response(list))
}

fn find_peer<'s>(snapshot: &'s Snapshot, name: &str) -> Result<&'s PeerInfo, RequestError> {
    let unknown = || {
        let text = format!("there is no peer {name:?}: `netft peers` lists them");
        RequestError::new(StatusCode::NOT_FOUND, text)
    };
    snapshot.peers.iter().find(|peer| peer.name == name).ok_or_else(unknown)
}

async fn get_peer<N: ControlBackend>(
    State(app): SharedState<N>,
    Path(name): Path<String>,
) -> Result<Response, RequestError> {
    app.peer_response(&name, None).await
}

async fn patch_peer<N: ControlBackend>(
    State(app): SharedState<N>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, RequestError> {
    let body = body.map_err(|error| RequestError::new(error.status(), error.body_text()))?;
    let patch: PeerPatch = serde_json::from_slice(&body).map_err(RequestError::bad_request)?;
    let change = policies::to_peer_change(&patch).map_err(RequestError::bad_request)?;
    let id = find_peer(&app.take_snapshot().await?, &name)?.status.peer;
    match tokio::time::timeout(DRIVER_TIMEOUT, app.control.node.change_peer(id, change)).await {
        Ok(done) => done?,
        Err(_) => return Err(driver_timeout()),
    }
    tracing::info!("peer {}: {}", escape(&name), log_text(&patch));
    app.peer_response(&name, app.unsaved_overrides().await).await
}

async fn get_routes<N: ControlBackend>(
    State(app): SharedState<N>,
) -> Result<Response, RequestError> {
    Ok(json_response(convert::to_route_list(&app.take_snapshot().await?, &app.control.clock)))
}

async fn get_networks<N: ControlBackend>(
    State(app): SharedState<N>,
) -> Result<Response, RequestError> {
    Ok(json_response(super::networks::to_network_list(&app.take_snapshot().await?)))
}

async fn get_route<N: ControlBackend>(
    State(app): SharedState<N>,
    Path(id): Path<String>,
) -> Result<Response, RequestError> {
    app.route_response(route_id(&id)?, None).await
}

async fn patch_route<N: ControlBackend>(
    State(app): SharedState<N>,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, RequestError> {
    let id = route_id(&id)?;
    let body = body.map_err(|error| RequestError::new(error.status(), error.body_text()))?;
    let patch: RoutePatch = serde_json::from_slice(&body).map_err(RequestError::bad_request)?;
    let snapshot = app.take_snapshot().await?;
    let change = to_route_change(&patch, find_route(&snapshot, id)?.spec.timing)?;
    match tokio::time::timeout(DRIVER_TIMEOUT, app.control.node.change_route(id, change)).await {
        Ok(done) => done?,
        Err(_) => return Err(driver_timeout()),
    }
    tracing::info!("route {id}: {}", log_text(&patch));
    app.route_response(id, app.unsaved_overrides().await).await
}

async fn post_drain<N: ControlBackend>(
    State(app): SharedState<N>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, RequestError> {
    let body = body.map_err(|error| RequestError::new(error.status(), error.body_text()))?;
    let request: DrainRequest = serde_json::from_slice(&body).map_err(RequestError::bad_request)?;
    let asked = log_text(&request);
    let (order, wait) = drain::to_drain_order(request).map_err(RequestError::bad_request)?;
    let done =
        tokio::time::timeout(wait + DRIVER_TIMEOUT, app.control.node.drain_routes(order, wait));
    let report = done.await.map_err(|_| driver_timeout())??;
    tracing::info!(routes = report.routes.len(), waiting = report.waits.len(), "drain: {asked}");
    let unsaved = app.unsaved_overrides().await;
    let snapshot = app.take_snapshot().await?;
    let clock = &app.control.clock;
    Ok(json_response(drain::to_drain_response(&report, &snapshot, clock, unsaved)))
}

async fn get_vips<N: ControlBackend>(State(app): SharedState<N>) -> Response {
    json_response(vips::to_vip_list(&*app.control.node).await)
}

async fn post_vip<N: ControlBackend>(
    State(app): SharedState<N>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, RequestError> {
    let body = body.map_err(|error| RequestError::new(error.status(), error.body_text()))?;
    let order: VipOrder = serde_json::from_slice(&body).map_err(RequestError::bad_request)?;
    tracing::info!("floating address {}: {}", escape(&name), log_text(&order));
    Ok(json_response(vips::carry_out_order(&*app.control.node, &name, order).await?))
}

fn to_route_change(patch: &RoutePatch, timing: Timing) -> Result<RouteChange, RequestError> {
    if *patch == RoutePatch::default() {
        return Err(RequestError::bad_request(
            "nothing to change: give delay_ms, threshold, priority or admin",
        ));
    }
    let delay =
        patch.delay_ms.map(Delay::from_millis).transpose().map_err(RequestError::bad_request)?;
    let threshold =
        patch.threshold.map(Threshold::new).transpose().map_err(RequestError::bad_request)?;
    let changed = Timing {
        delay: delay.unwrap_or(timing.delay),
        threshold: threshold.unwrap_or(timing.threshold),
    };
    Ok(RouteChange {
        timing: (delay.is_some() || threshold.is_some()).then_some(changed),
        priority: patch.priority.map(Priority),
        admin_down: patch.admin.map(|admin| admin == AdminState::Down),
        drain: None,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReloadQuery {
    #[serde(default)]
    dry_run: bool,
}

async fn post_reload<N: ControlBackend>(
    State(app): SharedState<N>,
    query: Result<Query<ReloadQuery>, QueryRejection>,
) -> Result<Response, RequestError> {
    let Query(ReloadQuery { dry_run }) =
        query.map_err(|error| RequestError::bad_request(error.body_text()))?;
    let node = Arc::clone(&app.control.node);
    // A task of its own: a client that disconnects must not leave a reload half done.
    let reload = async move { node.reload_config(dry_run).await };
    let done = tokio::spawn(reload.in_current_span()).await;
    let changes = done
        .map_err(|_| RequestError::new(StatusCode::INTERNAL_SERVER_ERROR, "the reload failed"))??;
    let changes: Vec<_> = changes.iter().map(ToString::to_string).collect();
    let overrides = match dry_run {
        true => overrides::to_override_views(&app.take_snapshot().await?),
        false => Vec::new(),
    };
    let applied = !dry_run && !changes.is_empty();
    let file = app.control.node.config_file();
    Ok(json_response(ReloadResult { applied, changes, overrides, file }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ValidateQuery {
    #[serde(default)]
    local: bool,
}

async fn post_validate<N: ControlBackend>(
    State(app): SharedState<N>,
    query: Result<Query<ValidateQuery>, QueryRejection>,
) -> Result<Response, RequestError> {
    let Query(ValidateQuery { local }) =
        query.map_err(|error| RequestError::bad_request(error.body_text()))?;
    let peers = app.take_snapshot().await?.peers;
    Ok(json_response(
        validate::query_peers(&app.control.node, if local { Vec::new() } else { peers }).await,
    ))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    follow: bool,
}

async fn get_events<N: ControlBackend>(
    State(app): SharedState<N>,
    ConnectInfo(client): ConnectInfo<ClientIdentity>,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Response, RequestError> {
    let Query(query) = query.map_err(|error| RequestError::bad_request(error.body_text()))?;
    if !query.follow {
        return Ok(json_response(EventList {
            events: app.control.journal.events_after(query.after),
        }));
    }
    let (streams, limit) = match client.may_change {
        true => (&app.streams, MAX_EVENT_STREAMS),
        false => (&app.reader_streams, MAX_READER_STREAMS),
    };
    let place = Arc::clone(streams).try_acquire_owned().map_err(|_| {
        let text = format!("{limit} event streams are open already");
        RequestError::new(StatusCode::SERVICE_UNAVAILABLE, text)
    })?;
    let body =
        Body::from_stream(event_stream(Arc::clone(&app.control.journal), query.after, place));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WhyQuery {
    event: Option<u64>,
    route: Option<u32>,
}

/// Explains one event: the last move, if none is named.
async fn get_why<N: ControlBackend>(
    State(app): SharedState<N>,
    query: Result<Query<WhyQuery>, QueryRejection>,
) -> Result<Response, RequestError> {
    let Query(query) = query.map_err(|error| RequestError::bad_request(error.body_text()))?;
    let subject = match (query.event, query.route) {
        (None, None) => EventSelector::Last,
        (Some(event), None) => EventSelector::Event(event),
        (None, Some(route)) => EventSelector::Route(route),
        (Some(_), Some(_)) => {
            return Err(RequestError::bad_request("give an event or a route, not both"));
        }
    };
    let snapshot = app.take_snapshot().await?;
    let events = app.control.journal.events_after(0);
    let at = app.control.clock.to_rfc3339(snapshot.now);
    let mut explanation = why::explain_event(&events, subject, &at)
        .map_err(|text| RequestError::new(StatusCode::NOT_FOUND, text))?;
    let explained = explanation.before.iter().chain([&explanation.event]).chain(&explanation.after);
    let named: BTreeSet<_> = explained.flat_map(|event| event.detail.routes()).collect();
    let is_named = |route: &&RouteStatus| named.contains(&route.id.0) && !explanation.earlier_run;
    let routes = snapshot.routes.iter().filter(is_named);
    explanation.routes = routes
        .map(|route| RouteEndpoints {
            route: route.id.0,
            real_local: route.spec.real_local,
            real_remote: route.spec.real_remote,
        })
        .collect();
    explanation.routes.sort_by_key(|ends| ends.route);
    Ok(json_response(explanation))
}

async fn get_metrics<N: ControlBackend>(
    State(app): SharedState<N>,
) -> Result<Response, RequestError> {
    let floating = vips::to_vip_list(&*app.control.node).await;
    let snapshot = app.take_snapshot().await?;
    let log = app.control.log_counts.read_counts();
    let (process, format) = (ProcessFigures::read_own(), PageFormat::Text);
    let text = metrics::render_page(&snapshot, log, process, &floating, format);
    Ok(([(header::CONTENT_TYPE, format.content_type())], text).into_response())
}

/// Lines of events from `after` on. The journal counts what a slow reader misses, so nothing is
/// queued for it.
fn event_stream(
    journal: Arc<EventJournal>,
    after: u64,
    place: OwnedSemaphorePermit,
) -> impl stream::Stream<Item = Result<String, Infallible>> {
    let latest = journal.subscribe();
    stream::unfold((journal, latest, after, place), async |state| {
        let (journal, mut latest, mut after, place) = state;
        loop {
            latest.borrow_and_update();
            let events = journal.events_after(after);
            if let Some(last) = events.last() {
                after = last.seq;
                let mut lines = String::new();
                for event in events {
                    let line = serde_json::to_string(&VersionedBody::new(event));
                    lines += &line.expect("an event has only text keys");
                    lines.push('\n');
                }
                return Some((Ok(lines), (journal, latest, after, place)));
            }
            latest.changed().await.ok()?;
        }
    })
}
