//! The bounded event stream: a slow reader loses the oldest events and learns how many.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use netft_proto::route::Event;
use tokio::sync::{broadcast, broadcast::error::RecvError};

/// Events kept for a slow reader before it starts to lose the oldest.
pub const EVENT_BACKLOG: usize = 1024;

/// Number of events lost to a reader that was too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} events were skipped: the reader was too slow")]
pub struct MissedEvents(pub u64);

/// Every event of routes, sessions and the adapter, as a [`Stream`].
///
/// Holds at most [`EVENT_BACKLOG`] unread events; the oldest are dropped first, and
/// [`MissedEvents`] says how many. The first stream taken from an
/// [`Adapter`](crate::adapter::Adapter) starts with the first event.
pub struct EventStream(BoxStream<'static, Result<Event, MissedEvents>>);

impl EventStream {
    pub(crate) fn new(receiver: broadcast::Receiver<Event>) -> Self {
        let events = stream::unfold(receiver, |mut receiver| async {
            let event = match receiver.recv().await {
                Ok(event) => Ok(event),
                Err(RecvError::Lagged(count)) => Err(MissedEvents(count)),
                Err(RecvError::Closed) => return None,
            };
            Some((event, receiver))
        });
        // Fused: a stream that was polled after its end stays at its end.
        Self(events.fuse().boxed())
    }

    /// The next event; `None` after the adapter closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Event, MissedEvents>> {
        self.0.next().await
    }
}

impl Stream for EventStream {
    type Item = Result<Event, MissedEvents>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use netft_proto::{
        PeerId, Time,
        route::{EventKind, SessionEndCause},
    };

    use super::*;

    #[tokio::test]
    async fn a_slow_reader_learns_how_many_events_it_lost() {
        let (sender, receiver) = broadcast::channel(2);
        let mut stream = EventStream::new(receiver);
        for number in 0..3 {
            let kind = EventKind::SessionEnded {
                peer: PeerId(number),
                cause: SessionEndCause::PeerStopped,
            };
            sender.send(Event { at: Time::ZERO, kind }).unwrap();
        }
        drop(sender);
        let mut numbers = Vec::new();
        assert_eq!(stream.next().await.unwrap().unwrap_err(), MissedEvents(1));
        while let Some(Ok(event)) = StreamExt::next(&mut stream).await {
            let EventKind::SessionEnded { peer, .. } = event.kind else { continue };
            numbers.push(peer.0);
        }
        assert_eq!(numbers, [1, 2]);
        assert!(stream.next().await.is_none());
    }
}
