//! Forwards events from the library to the log and the journal.

use std::sync::Arc;

use netft::{api::events::EventStream, route::EventKind};

use super::names::HostsFile;
use crate::{
    clock::WallClock,
    control::{
        backend::ControlBackend, convert, convert::PeerNames, journal::EventJournal,
        schema::EventDetail,
    },
    render::{
        event,
        event::{EventLevel, RouteEndpointMap},
    },
};

/// Destinations of events.
pub(super) struct EventPump<N> {
    pub(super) node: Arc<N>,
    pub(super) names: PeerNames,
    pub(super) file: HostsFile,
    pub(super) journal: Arc<EventJournal>,
    pub(super) clock: Arc<WallClock>,
}

impl<N: ControlBackend> EventPump<N> {
    /// Runs until the adapter is closed.
    pub(super) async fn forward_events(mut self, mut events: EventStream) {
        let mut ends = RouteEndpointMap::default();
        while let Some(next) = events.next().await {
            match next {
                Ok(event) => {
                    if event.kind == EventKind::Reconfigured
                        && let Some(snapshot) = self.node.take_snapshot().await
                    {
                        self.names.add_peers(&snapshot);
                        self.file.update_hosts(&snapshot);
                    }
                    let what = convert::to_event_detail(&event, &self.names);
                    self.publish_event(self.clock.to_rfc3339(event.at), what, &mut ends);
                }
                Err(skipped) => {
                    // Routes may have been added and removed in the skipped events.
                    let Some(snapshot) = self.node.take_snapshot().await else { continue };
                    for route in &snapshot.routes {
                        let spec = &route.spec;
                        ends.insert_route(route.id.0, spec.real_local, spec.real_remote);
                    }
                    let what = EventDetail::EventsLost { count: skipped.0 };
                    self.publish_event(self.clock.to_rfc3339(snapshot.now), what, &mut ends);
                }
            }
        }
    }

    fn publish_event(&self, at: String, what: EventDetail, ends: &mut RouteEndpointMap) {
        ends.learn_from(&what);
        for line in event::event_lines(&what, ends) {
            match event::event_level(&what) {
                EventLevel::Info => tracing::info!("{line}"),
                EventLevel::Warn => tracing::warn!("{line}"),
            }
        }
        ends.forget_removed(&what);
        self.journal.push(at, what);
    }
}
