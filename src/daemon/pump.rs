//! Forwards events from the library to the log and the journal, within the rate limit of their
//! cause.

use std::{sync::Arc, time::Duration};

use netft::{
    Time,
    api::events::EventStream,
    route::{Event, EventKind},
};

use super::{log_format::LogFormat, log_limit::EVENT_TARGET, names::HostsFile};
use crate::{
    clock::WallClock,
    control::{
        backend::ControlBackend,
        convert,
        convert::PeerNames,
        event_limiter::{EventLimiter, TimedEvent},
        journal::EventJournal,
        log_counts::LogCounts,
        schema::EventDetail,
    },
    render::{
        event,
        event::{EventLevel, RouteEndpointMap},
    },
};

/// Interval of the polls while events are held back.
const HELD_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Destinations of events.
pub(super) struct EventPump<N> {
    pub(super) node: Arc<N>,
    pub(super) names: PeerNames,
    pub(super) file: HostsFile,
    pub(super) journal: Arc<EventJournal>,
    pub(super) clock: Arc<WallClock>,
    pub(super) log_counts: Arc<LogCounts>,
    /// Form of the log lines.
    pub(super) log_format: LogFormat,
}

/// State between two events.
#[derive(Default)]
struct PumpState {
    ends: RouteEndpointMap,
    limiter: EventLimiter,
}

impl<N: ControlBackend> EventPump<N> {
    /// Runs until the adapter is closed.
    pub(super) async fn forward_events(mut self, mut events: EventStream) {
        let mut state = PumpState::default();
        // The library's clock at the last event; it goes on while events are held back.
        let mut now = Time::ZERO;
        loop {
            let next = if state.limiter.next_wake(now).is_some() {
                match tokio::time::timeout(HELD_POLL_INTERVAL, events.next()).await {
                    Ok(next) => next,
                    Err(_) => {
                        now = now + HELD_POLL_INTERVAL;
                        self.publish_held(now, &mut state);
                        continue;
                    }
                }
            } else {
                events.next().await
            };
            match next {
                Some(Ok(event)) => {
                    now = now.max(event.at);
                    self.publish_held(now, &mut state);
                    self.forward_event(&event, &mut state).await;
                }
                Some(Err(skipped)) => {
                    // Routes may have been added and removed in the skipped events.
                    let Some(snapshot) = self.node.take_snapshot().await else { continue };
                    for route in &snapshot.routes {
                        let spec = &route.spec;
                        state.ends.insert_route(route.id.0, spec.real_local, spec.real_remote);
                    }
                    let what = EventDetail::EventsLost { count: skipped.0 };
                    let at = self.clock.to_rfc3339(snapshot.now);
                    self.publish_event((at, what), &mut state.ends);
                }
                None => break,
            }
        }
        for event in state.limiter.drain_held(&self.clock.to_rfc3339(now)) {
            self.publish_event(event, &mut state.ends);
        }
    }

    async fn forward_event(&mut self, event: &Event, state: &mut PumpState) {
        if event.kind == EventKind::Reconfigured
            && let Some(snapshot) = self.node.take_snapshot().await
        {
            self.names.add_peers(&snapshot);
            self.file.update_hosts(&snapshot);
        }
        let what = convert::to_event_detail(event, &self.names);
        state.ends.learn_from(&what);
        let timed = (self.clock.to_rfc3339(event.at), what);
        if let Some(passed) = state.limiter.on_event(timed, event.at) {
            self.publish_event(passed, &mut state.ends);
        }
    }

    fn publish_held(&self, now: Time, state: &mut PumpState) {
        if state.limiter.next_wake(now).is_none() {
            return;
        }
        for event in state.limiter.poll(now, &self.clock.to_rfc3339(now)) {
            self.publish_event(event, &mut state.ends);
        }
    }

    fn publish_event(&self, (at, what): TimedEvent, ends: &mut RouteEndpointMap) {
        if let EventDetail::EventsLeftOut { count, .. } = &what {
            self.log_counts.add_limited(*count);
        }
        let component = what.component();
        let lines = event::event_lines(&what, ends);
        if self.log_format == LogFormat::Json {
            log_event_fields(&what, &lines.join("\n"));
        }
        for line in lines.iter().filter(|_| self.log_format == LogFormat::Text) {
            match event::event_level(&what) {
                EventLevel::Info => tracing::info!(target: EVENT_TARGET, "{component}: {line}"),
                EventLevel::Warn => tracing::warn!(target: EVENT_TARGET, "{component}: {line}"),
            }
        }
        ends.forget_removed(&what);
        self.journal.push(at, what);
    }
}

/// Logs an event with its fields apart: kind, component, peer and routes.
fn log_event_fields(what: &EventDetail, message: &str) {
    let (event, component) = (what.event_id(), what.component());
    let peer = what.peer().unwrap_or_default();
    let routes = what.routes().iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    match event::event_level(what) {
        EventLevel::Info => {
            tracing::info!(target: EVENT_TARGET, event, component, peer, routes, "{message}");
        }
        EventLevel::Warn => {
            tracing::warn!(target: EVENT_TARGET, event, component, peer, routes, "{message}");
        }
    }
}
