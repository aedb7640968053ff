//! The bounded event stream: a slow reader loses the oldest events and is told how many.

use netft_proto::route::Event;
use tokio::sync::{broadcast, broadcast::error::RecvError};

/// Events kept for a slow reader before it starts to lose the oldest.
pub const EVENT_BACKLOG: usize = 1024;

/// This many events were lost to a reader that was too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} events were skipped: the reader was too slow")]
pub struct MissedEvents(pub u64);

/// A stream of everything that happens to routes, sessions and the adapter.
///
/// Holds at most [`EVENT_BACKLOG`] unread events; the oldest go first, and [`MissedEvents`] says
/// how many. The first stream taken from an [`AdapterState`](crate::adapter::Adapter) starts with
/// the first event.
pub struct EventStream(pub(crate) broadcast::Receiver<Event>);

impl EventStream {
    /// The next event; `None` after the adapter closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Event, MissedEvents>> {
        match self.0.recv().await {
            Ok(event) => Some(Ok(event)),
            Err(RecvError::Lagged(count)) => Some(Err(MissedEvents(count))),
            Err(RecvError::Closed) => None,
        }
    }
}
