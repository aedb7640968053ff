//! The questions the control socket answers. Every answer but the metrics is JSON with a schema
//! number; nothing here waits for the packet path longer than [`PATIENCE`].

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{
        DefaultBodyLimit, Path, Query, State,
        rejection::{BytesRejection, QueryRejection},
    },
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
    convert,
    convert::Names,
    drain,
    journal::Journal,
    listener::{BODY, CLIENTS, Listener},
    metrics, policies,
    schema::{
        Admin, DrainRequest, Events, Failure, OnePeer, OneRoute, PeerPatch, Reload, RoutePatch,
        Versioned,
    },
    validate, why,
    why::{Ends, Subject},
};
use crate::daemon::{
    clock::WallClock,
    node::{DrainError, Node, PeerError, PeerInfo, RouteError, Snapshot},
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
        .route("/v1/peers/{name}", get(peer).patch(change_peer))
        .route("/v1/routes", get(routes))
        .route("/v1/networks", get(networks))
        .route("/v1/routes/{id}", get(route).patch(change))
        .route("/v1/drain", post(drain_routes))
        .route("/v1/events", get(events))
        .route("/v1/why", get(tell))
        .route("/metrics", get(figures))
        .route("/v1/reload", post(reload))
        .route("/v1/validate", post(ask_peers))
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

impl From<crate::cli::failure::Failure> for Error {
    fn from(failure: crate::cli::failure::Failure) -> Self {
        let code = match failure.code {
            2 => StatusCode::BAD_REQUEST,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(code, failure.text)
    }
}

impl From<PeerError> for Error {
    fn from(error: PeerError) -> Self {
        let code = match error {
            PeerError::Closed => StatusCode::SERVICE_UNAVAILABLE,
            PeerError::Unknown(_) => StatusCode::NOT_FOUND,
            PeerError::Classes(_) => StatusCode::BAD_REQUEST,
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
        let route = convert::route(status, snapshot, &names, &self.control.clock);
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

fn find_peer<'s>(snapshot: &'s Snapshot, name: &str) -> Result<&'s PeerInfo, Error> {
    let unknown = || {
        let text = format!("there is no peer {name:?}: `netft peers` lists them");
        Error::new(StatusCode::NOT_FOUND, text)
    };
    snapshot.peers.iter().find(|peer| peer.name == name).ok_or_else(unknown)
}

async fn peer<N: Node>(State(app): Shared<N>, Path(name): Path<String>) -> Result<Response, Error> {
    let snapshot = app.snapshot().await?;
    let peer = convert::peer(find_peer(&snapshot, &name)?, &snapshot);
    Ok(answer(OnePeer { peer }))
}

async fn change_peer<N: Node>(
    State(app): Shared<N>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Error> {
    let body = body.map_err(|error| Error::new(error.status(), error.body_text()))?;
    let patch: PeerPatch = serde_json::from_slice(&body).map_err(Error::bad)?;
    let change = policies::change(&patch).map_err(Error::bad)?;
    let id = find_peer(&app.snapshot().await?, &name)?.status.peer;
    match tokio::time::timeout(PATIENCE, app.control.node.change_peer(id, change)).await {
        Ok(done) => done?,
        Err(_) => return Err(late()),
    }
    peer(State(app), Path(name)).await
}

async fn routes<N: Node>(State(app): Shared<N>) -> Result<Response, Error> {
    Ok(answer(convert::routes(&app.snapshot().await?, &app.control.clock)))
}

async fn networks<N: Node>(State(app): Shared<N>) -> Result<Response, Error> {
    Ok(answer(super::networks::networks(&app.snapshot().await?)))
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
struct ReloadQuery {
    #[serde(default)]
    dry_run: bool,
}

async fn reload<N: Node>(
    State(app): Shared<N>,
    query: Result<Query<ReloadQuery>, QueryRejection>,
) -> Result<Response, Error> {
    let Query(ReloadQuery { dry_run }) = query.map_err(|error| Error::bad(error.body_text()))?;
    let node = Arc::clone(&app.control.node);
    // A task of its own: a client that goes away must not leave it half done.
    let done = tokio::spawn(async move { node.reload(dry_run).await }).await;
    let changes = done.map_err(|_| Error::new(StatusCode::INTERNAL_SERVER_ERROR, "it broke"))??;
    let changes: Vec<_> = changes.iter().map(ToString::to_string).collect();
    Ok(answer(Reload { applied: !dry_run && !changes.is_empty(), changes }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ValidateQuery {
    #[serde(default)]
    local: bool,
}

async fn ask_peers<N: Node>(
    State(app): Shared<N>,
    query: Result<Query<ValidateQuery>, QueryRejection>,
) -> Result<Response, Error> {
    let Query(ValidateQuery { local }) = query.map_err(|error| Error::bad(error.body_text()))?;
    let peers = app.snapshot().await?.peers;
    Ok(answer(validate::ask(&app.control.node, if local { Vec::new() } else { peers }).await))
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
    query: Result<Query<EventsQuery>, QueryRejection>,
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WhyQuery {
    event: Option<u64>,
    route: Option<u32>,
}

/// The story of one event: of the last move, if none is named.
async fn tell<N: Node>(
    State(app): Shared<N>,
    query: Result<Query<WhyQuery>, QueryRejection>,
) -> Result<Response, Error> {
    let Query(query) = query.map_err(|error| Error::bad(error.body_text()))?;
    let subject = match (query.event, query.route) {
        (None, None) => Subject::Last,
        (Some(event), None) => Subject::Event(event),
        (None, Some(route)) => Subject::Route(route),
        (Some(_), Some(_)) => return Err(Error::bad("give an event or a route, not both")),
    };
    let snapshot = app.snapshot().await?;
    let events = app.control.journal.after(0);
    let at = app.control.clock.rfc3339(snapshot.now);
    let mut story = why::story(&events, subject, &at)
        .map_err(|text| Error::new(StatusCode::NOT_FOUND, text))?;
    let told = story.before.iter().chain([&story.event]).chain(&story.after);
    let named: BTreeSet<_> = told.flat_map(|event| why::routes_of(&event.what)).collect();
    let routes = snapshot.routes.iter().filter(|route| named.contains(&route.id.0));
    story.routes = routes
        .map(|route| Ends {
            route: route.id.0,
            real_local: route.spec.real_local,
            real_remote: route.spec.real_remote,
        })
        .collect();
    story.routes.sort_by_key(|ends| ends.route);
    Ok(answer(story))
}

async fn figures<N: Node>(State(app): Shared<N>) -> Result<Response, Error> {
    let text = metrics::render(&app.snapshot().await?);
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use futures_util::StreamExt;

    use super::*;
    use crate::control::schema::{Event, What};

    /// The next event is pushed at the very moment a follower has read the one before and is about
    /// to wait: whoever looks before it listens sleeps through it, and nothing else comes.
    #[test]
    fn a_follower_sleeps_through_no_event() {
        const EVENTS: u64 = 5000;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
        let runtime = runtime.unwrap();
        let journal = Arc::new(Journal::default());
        let read = Arc::new(AtomicU64::new(0));
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let (following, seen) = (follow(Arc::clone(&journal), 0, place), Arc::clone(&read));
        let follower = runtime.spawn(async move {
            let mut following = Box::pin(following);
            while seen.load(SeqCst) < EVENTS {
                let lines = following.next().await.unwrap().unwrap();
                for line in lines.lines() {
                    let event: Versioned<Event> = serde_json::from_str(line).unwrap();
                    assert_eq!(event.body.seq, seen.fetch_add(1, SeqCst) + 1);
                }
            }
        });
        let patience = std::time::Instant::now() + Duration::from_secs(60);
        for number in 0..EVENTS {
            while read.load(SeqCst) < number {
                let late = follower.is_finished() || std::time::Instant::now() > patience;
                assert!(!late, "event {} was not told", read.load(SeqCst) + 1);
                std::thread::yield_now();
            }
            journal.push(String::new(), What::Stalled { length_ms: number });
        }
        runtime.block_on(follower).unwrap();
    }
}
