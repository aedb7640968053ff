//! The questions the control socket answers. Every answer is JSON with a schema number; nothing
//! here waits for the packet path longer than [`PATIENCE`].

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Path, Query, State, rejection::BytesRejection},
    http::{HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::stream;
use netft::{
    RouteId,
    route::{Delay, Priority, RouteChange, RouteStatus, Threshold, Timing},
};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    convert::{self, Names},
    drain,
    journal::Journal,
    listener::{BODY, CLIENTS, Listener},
    schema::{Admin, DrainRequest, Events, Failure, OneRoute, RoutePatch, Versioned},
};
use crate::daemon::{
    clock::WallClock,
    node::{DrainError, Node, RouteError, Snapshot},
};

/// How long the driver may take to answer.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Event streams at a time: the rest of the places stays for short questions.
const STREAMS: usize = CLIENTS - 8;

/// What the answers are made from.
pub struct Control<N> {
    /// The node.
    pub node: Arc<N>,
    /// Its last events.
    pub journal: Arc<Journal>,
    /// For the times in the answers.
    pub clock: Arc<WallClock>,
}

struct App<N> {
    control: Control<N>,
    streams: Arc<Semaphore>,
}

type Shared<N> = State<Arc<App<N>>>;

/// Answers on `listener` until dropped.
pub async fn serve<N: Node>(listener: Listener, control: Control<N>) {
    let app = Arc::new(App { control, streams: Arc::new(Semaphore::new(STREAMS)) });
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/peers", get(peers))
        .route("/v1/routes", get(routes))
        .route("/v1/routes/{id}", get(route).patch(change))
        .route("/v1/drain", post(drain_routes))
        .route("/v1/events", get(events))
        .fallback(|| async { Error::new(StatusCode::NOT_FOUND, "there is nothing here") })
        .method_not_allowed_fallback(|| async {
            Error::new(StatusCode::METHOD_NOT_ALLOWED, "this cannot be done here")
        })
        .layer(DefaultBodyLimit::max(BODY))
        .layer(middleware::map_response(one_request))
        .with_state(app);
    // It only returns when accepting fails for good, which this listener never reports.
    let _ = axum::serve(listener, router).await;
}

/// One request per client: the next one gets a fresh deadline.
async fn one_request(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// A request that failed.
struct Error {
    code: StatusCode,
    text: String,
}

impl Error {
    fn new(code: StatusCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    fn bad(text: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text.to_string())
    }
}

impl From<RouteError> for Error {
    fn from(error: RouteError) -> Self {
        let code = match error {
            RouteError::Closed => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::NOT_FOUND,
        };
        Self::new(code, error.to_string())
    }
}

impl From<DrainError> for Error {
    fn from(error: DrainError) -> Self {
        match error {
            DrainError::Route(error) => error.into(),
            error if drain::conflicts(&error) => Self::new(StatusCode::CONFLICT, error.to_string()),
            error => Self::new(StatusCode::NOT_FOUND, error.to_string()),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = answer(Failure { error: self.text });
        *response.status_mut() = self.code;
        response
    }
}

fn answer<T: Serialize>(body: T) -> Response {
    axum::Json(Versioned::new(body)).into_response()
}

impl<N: Node> App<N> {
    async fn snapshot(&self) -> Result<Snapshot, Error> {
        match tokio::time::timeout(PATIENCE, self.control.node.snapshot()).await {
            Ok(Some(snapshot)) => {
                self.control.clock.sync(snapshot.now);
                Ok(snapshot)
            }
            Ok(None) => Err(RouteError::Closed.into()),
            Err(_) => Err(late()),
        }
    }

    fn answer_route(&self, snapshot: &Snapshot, id: RouteId) -> Result<Response, Error> {
        let status = find(snapshot, id)?;
        let names = Names::from(snapshot);
        let route = convert::route(status, &names, &self.control.clock);
        Ok(answer(OneRoute { route }))
    }
}

fn late() -> Error {
    Error::new(StatusCode::SERVICE_UNAVAILABLE, "the driver does not answer")
}

fn find(snapshot: &Snapshot, id: RouteId) -> Result<&RouteStatus, RouteError> {
    snapshot.routes.iter().find(|route| route.id == id).ok_or(RouteError::Unknown(id))
}

fn route_id(text: &str) -> Result<RouteId, Error> {
    text.parse().map(RouteId).map_err(|_| Error::bad("a route is named by its number"))
}

async fn status<N: Node>(State(app): Shared<N>) -> Result<Response, Error> {
    Ok(answer(convert::status(&app.snapshot().await?)))
}

async fn peers<N: Node>(State(app): Shared<N>) -> Result<Response, Error> {
    Ok(answer(convert::peers(&app.snapshot().await?)))
}

async fn routes<N: Node>(State(app): Shared<N>) -> Result<Response, Error> {
    Ok(answer(convert::routes(&app.snapshot().await?, &app.control.clock)))
}

async fn route<N: Node>(State(app): Shared<N>, Path(id): Path<String>) -> Result<Response, Error> {
    let id = route_id(&id)?;
    app.answer_route(&app.snapshot().await?, id)
}

async fn change<N: Node>(
    State(app): Shared<N>,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Error> {
    let id = route_id(&id)?;
    let body = body.map_err(|error| Error::new(error.status(), error.body_text()))?;
    let patch: RoutePatch = serde_json::from_slice(&body).map_err(Error::bad)?;
    let snapshot = app.snapshot().await?;
    let change = change_of(&patch, find(&snapshot, id)?.spec.timing)?;
    match tokio::time::timeout(PATIENCE, app.control.node.change_route(id, change)).await {
        Ok(done) => done?,
        Err(_) => return Err(late()),
    }
    app.answer_route(&app.snapshot().await?, id)
}

async fn drain_routes<N: Node>(
    State(app): Shared<N>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Error> {
    let body = body.map_err(|error| Error::new(error.status(), error.body_text()))?;
    let request: DrainRequest = serde_json::from_slice(&body).map_err(Error::bad)?;
    let (order, wait) = drain::order(request).map_err(Error::bad)?;
    let done = tokio::time::timeout(wait + PATIENCE, app.control.node.drain(order, wait));
    let report = done.await.map_err(|_| late())??;
    let snapshot = app.snapshot().await?;
    Ok(answer(drain::answer(&report, &snapshot, &app.control.clock)))
}

fn change_of(patch: &RoutePatch, timing: Timing) -> Result<RouteChange, Error> {
    if *patch == RoutePatch::default() {
        return Err(Error::bad("nothing to change: give delay_ms, threshold, priority or admin"));
    }
    let delay = patch.delay_ms.map(Delay::from_millis).transpose().map_err(Error::bad)?;
    let threshold = patch.threshold.map(Threshold::new).transpose().map_err(Error::bad)?;
    let changed = Timing {
        delay: delay.unwrap_or(timing.delay),
        threshold: threshold.unwrap_or(timing.threshold),
    };
    Ok(RouteChange {
        timing: (delay.is_some() || threshold.is_some()).then_some(changed),
        priority: patch.priority.map(Priority),
        admin_down: patch.admin.map(|admin| admin == Admin::Down),
        drain: None,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    follow: bool,
}

async fn events<N: Node>(
    State(app): Shared<N>,
    query: Result<Query<EventsQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Error> {
    let Query(query) = query.map_err(|error| Error::bad(error.body_text()))?;
    if !query.follow {
        return Ok(answer(Events { events: app.control.journal.after(query.after) }));
    }
    let place = Arc::clone(&app.streams).try_acquire_owned().map_err(|_| {
        let text = format!("{STREAMS} event streams are open already");
        Error::new(StatusCode::SERVICE_UNAVAILABLE, text)
    })?;
    let body = Body::from_stream(follow(Arc::clone(&app.control.journal), query.after, place));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// Lines of events from `after` on. What a slow reader misses is counted by the journal, so
/// nothing is queued for it.
fn follow(
    journal: Arc<Journal>,
    after: u64,
    place: OwnedSemaphorePermit,
) -> impl stream::Stream<Item = Result<String, Infallible>> {
    let latest = journal.subscribe();
    stream::unfold((journal, latest, after, place), async |state| {
        let (journal, mut latest, mut after, place) = state;
        loop {
            latest.borrow_and_update();
            let events = journal.after(after);
            if let Some(last) = events.last() {
                after = last.seq;
                let mut lines = String::new();
                for event in events {
                    let line = serde_json::to_string(&Versioned::new(event));
                    lines += &line.expect("an event has only text keys");
                    lines.push('\n');
                }
                return Some((Ok(lines), (journal, latest, after, place)));
            }
            latest.changed().await.ok()?;
        }
    })
}
