//! Warnings of peers about this node, as events.

use netft_proto::{
    route::EventKind,
    wire::topic::{Topic, WARNING_KEY_COPIED},
};
use tokio::sync::mpsc;

use crate::io::{messages::DriverMessage, quic::PeerRequest};

/// Topic of the requests that are served here.
pub(crate) const WARNING_TOPIC: Topic = Topic::Warning;

/// Serves warnings until the driver or the sessions are gone. A peer sends one a second at most;
/// events of one cause are limited where they are kept.
pub(crate) async fn serve_warnings(
    mut warnings: mpsc::Receiver<PeerRequest>,
    driver: mpsc::Sender<DriverMessage>,
) {
    while let Some(PeerRequest { peer, payload, reply_tx }) = warnings.recv().await {
        // A later version's warning is refused.
        if payload != [WARNING_KEY_COPIED] {
            continue;
        }
        let event = EventKind::KeyCopied { peer };
        if driver.send(DriverMessage::Event(event)).await.is_err() {
            return;
        }
        let _ = reply_tx.send(Vec::new());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use netft_proto::ids::PeerId;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_known_warning_is_an_event_and_another_is_refused() {
        let (requests, warnings) = mpsc::channel(4);
        let (driver, mut messages) = mpsc::channel(4);
        let mut replies = Vec::new();
        for payload in [vec![], vec![9], vec![WARNING_KEY_COPIED, 0], vec![WARNING_KEY_COPIED]] {
            let (reply_tx, reply) = oneshot::channel();
            requests.send(PeerRequest { peer: PeerId(3), payload, reply_tx }).await.unwrap();
            replies.push(reply);
        }
        drop(requests);
        serve_warnings(warnings, driver).await;
        let last = replies.pop().unwrap();
        assert_eq!(last.await, Ok(Vec::new()));
        for refused in replies {
            refused.await.unwrap_err();
        }
        let told = messages.recv().await;
        let is_told =
            matches!(told, Some(DriverMessage::Event(EventKind::KeyCopied { peer: PeerId(3) })));
        assert!(is_told && messages.recv().await.is_none());
    }
}
