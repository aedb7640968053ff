//! Events, from the library to the log and to the journal readers ask.

use std::sync::Arc;

use netft::route::EventKind;

use super::{
    clock::WallClock,
    names::NamesFile,
    node::{EventStream, Node},
};
use crate::{
    control::{convert, convert::Names, journal::Journal, schema::What},
    render::{
        event,
        event::{Ends, Level},
    },
};

/// Where events go.
pub(super) struct Pump<N> {
    pub(super) node: Arc<N>,
    pub(super) names: Names,
    pub(super) file: NamesFile,
    pub(super) journal: Arc<Journal>,
    pub(super) clock: Arc<WallClock>,
}

impl<N: Node> Pump<N> {
    /// Runs until the adapter is closed.
    pub(super) async fn run(mut self, mut events: EventStream) {
        let mut ends = Ends::default();
        while let Some(next) = events.next().await {
            match next {
                Ok(event) => {
                    if event.kind == EventKind::Reconfigured
                        && let Some(snapshot) = self.node.snapshot().await
                    {
                        self.names.learn(&snapshot);
                        self.file.sync(&snapshot);
                    }
                    let what = convert::event(&event, &self.names);
                    self.publish(self.clock.rfc3339(event.at), what, &mut ends);
                }
                Err(skipped) => {
                    // Routes may have come and gone unseen.
                    let Some(snapshot) = self.node.snapshot().await else { continue };
                    for route in &snapshot.routes {
                        let spec = &route.spec;
                        ends.insert(route.id.0, spec.real_local, spec.real_remote);
                    }
                    let what = What::EventsLost { count: skipped.0 };
                    self.publish(self.clock.rfc3339(snapshot.now), what, &mut ends);
                }
            }
        }
    }

    fn publish(&self, at: String, what: What, ends: &mut Ends) {
        ends.learn(&what);
        for line in event::lines(&what, ends) {
            match event::level(&what) {
                Level::Info => tracing::info!("{line}"),
                Level::Warn => tracing::warn!("{line}"),
            }
        }
        ends.forget(&what);
        self.journal.push(at, what);
    }
}
